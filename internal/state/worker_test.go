package state

import "testing"

func TestHasLabel(t *testing.T) {
	for _, c := range []struct {
		name            string
		labels          map[string]string
		key, value, own string
		want            bool
	}{
		{"another label", map[string]string{"gpu": "yes"}, "gpu", "yes", "", true},
		{"another value", map[string]string{"gpu": "yes,no"}, "gpu", "no", "no", false},
		{"another program", nil, LabelJobs, "boom", "boom", false},
		{"the same program", map[string]string{LabelJobs: "boom,total"}, LabelJobs, "boom,total", "boom", true},
		{"the leader has more jobs", map[string]string{LabelJobs: "boom"}, LabelJobs, "boom,total", "boom", true},
		{"the worker has more jobs", map[string]string{LabelJobs: "boom,files,total"}, LabelJobs, "files", "files", true},
		{"the worker lacks the job", map[string]string{LabelJobs: "boom"}, LabelJobs, "boom,total", "total", false},
		{"a part of a name", map[string]string{LabelJobs: "booms,aboom"}, LabelJobs, "boom", "boom", false},
		{"the same long list", map[string]string{LabelJobs: "a,b-12"}, LabelJobs, "a,b-12", "z", true},
		{"another long list", map[string]string{LabelJobs: "a,b-12", LabelJob + "z": ""}, LabelJobs, "z", "z", true},
		{"another long list without the job", map[string]string{LabelJobs: "a,b-12", LabelJob + "z": ""}, LabelJobs, "y", "y", false},
		{"a command that names the jobs", map[string]string{LabelJobs: "boom,total"}, LabelJobs, "boom", "", false},
	} {
		if got := HasLabel(c.labels, c.key, c.value, c.own); got != c.want {
			t.Errorf("%s: HasLabel(%v, %q, %q, %q) = %v, want %v", c.name, c.labels, c.key, c.value, c.own, got, c.want)
		}
	}
}

func TestOwnJob(t *testing.T) {
	labels := map[string]string{LabelJobs: "boom"}
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{Spec{Builtin: "boom", Labels: labels}, "boom"},
		{Spec{Builtin: "sort"}, ""},
		{Spec{Argv: [][]byte{[]byte("true")}, Labels: labels}, ""},
	} {
		if got := c.spec.OwnJob(); got != c.want {
			t.Errorf("OwnJob() of %+v = %q, want %q", c.spec, got, c.want)
		}
	}
}
