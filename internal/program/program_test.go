package program

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestEnvNames(t *testing.T) {
	for key, want := range map[string]string{"a": "A", "min-size": "MIN_SIZE", "x.y 9": "X_Y_9", "é": "_"} {
		if got := envName(key); got != want {
			t.Errorf("envName(%q) = %q, want %q", key, got, want)
		}
	}
}

func TestJobEnv(t *testing.T) {
	own := []string{"PATH=/bin", "B4_JOB=1", "B4_X=2", "AWS_SECRET_ACCESS_KEY=x", "TZ=UTC", "A=own"}
	job := &wire.Job{Id: 5, Spool: true, Output: "/spool", Env: map[string]string{"A": "1", "TZ": ""}, Secrets: []*wire.Secret{{Name: "PATH", Value: "/sbin"}}}
	l := Loader{Worker: func() uint64 { return 7 }}
	given := []string{"A=1", "PATH=/sbin", "TZ=", "B4_JOB=5", "B4_OUTPUT=", "B4_WORKER=7"}
	if env := l.jobEnv(own, job, nil); !slices.Equal(env, given) {
		t.Errorf("jobEnv() = %q, want %q", env, given)
	}
	user := &User{Name: "ann", Home: "/home/ann"}
	if env, want := l.jobEnv(append(own, "HOME=/root", "USER=root"), job, user), append([]string{"A=1", "HOME=/home/ann", "PATH=/sbin", "TZ=", "USER=ann"}, given[3:]...); !slices.Equal(env, want) {
		t.Errorf("for a user, jobEnv() = %q, want %q", env, want)
	}
	l.EnvAll = true
	if env, want := l.jobEnv(own, job, nil), append([]string{"AWS_SECRET_ACCESS_KEY=x"}, given...); !slices.Equal(env, want) {
		t.Errorf("with EnvAll, jobEnv() = %q, want %q", env, want)
	}
}

// TestSecretWithoutValue: an attempt does not run without a variable that its job needs.
func TestSecretWithoutValue(t *testing.T) {
	l := Loader{Worker: func() uint64 { return 7 }}
	job := &wire.Job{
		Program: &wire.Program{Kind: &wire.Program_Command{Command: &wire.Command{Argv: [][]byte{[]byte("true")}}}},
		Secrets: []*wire.Secret{{Name: "A", Value: "x"}, {Name: "B", Error: "no key"}},
	}
	if _, f := l.Load(job, nil); f == nil || f.Kind != wire.FailureKind_BAD_PROGRAM || f.Message != `secret "B": no key` {
		t.Errorf("Load() = %+v, want a failure", f)
	}
}

func TestSizeText(t *testing.T) {
	for size, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 64 << 20: "64.0 MiB", 3 << 50: "3.0 PiB", 1 << 63: "8192.0 PiB"} {
		if got := sizeText(size); got != want {
			t.Errorf("sizeText(%d) = %q, want %q", size, got, want)
		}
	}
}

func TestCheckSettings(t *testing.T) {
	d := Description{Name: "grep", Description: bridgefour.Description{Settings: []bridgefour.Setting{
		{Key: "pattern", Usage: "regular expression", Required: true}, {Key: "count", Type: "bool"}, {Key: "after", Type: "duration"}, {Key: "factor", Type: "number"},
	}}}
	bare := Description{Name: "bare", Description: bridgefour.Description{NoInput: true, Settings: []bridgefour.Setting{{Key: "n", Type: "integer", Required: true}}}}
	none := Description{Name: "none", Description: bridgefour.Description{NoInput: true}}
	const all = "it has pattern, count, after, factor, record_max, result_max, zstd_window_max"
	for _, test := range []struct {
		job  *Description
		set  map[string]string
		want []string
	}{
		{&d, map[string]string{"pattern": "", "count": "true", "record_max": "1MiB", "after": "2s", "factor": "0.5"}, nil},
		{&d, map[string]string{"pattern": "x", "colour": "red", "cuont": "1"}, []string{`grep has no setting "colour": ` + all, `grep has no setting "cuont": did you mean count? ` + all}},
		{&d, nil, []string{`grep needs a setting "pattern", regular expression: ` + all}},
		{&d, map[string]string{"pattern": "x", "count": "2", "after": "2", "factor": "x", "record_max": "big"}, []string{
			`invalid setting count="2": want true or false`, `invalid setting after="2": want a duration such as 90s or 1h30m`,
			`invalid setting factor="x": want a number such as 0.5`, `invalid setting record_max="big": want a size such as 64MiB`,
		}},
		{&bare, nil, []string{`bare needs a setting "n": it has n`}},
		{&bare, map[string]string{"n": "18446744073709551615"}, nil},
		{&bare, map[string]string{"n": "many", "m": "1"}, []string{`bare has no setting "m": did you mean n? it has n`, `invalid setting n="many": want an integer such as 30`}},
		{&none, nil, nil},
		{&none, map[string]string{"record_max": "1"}, []string{`none has no setting "record_max": it has none`}},
	} {
		if got := test.job.CheckSettings(test.set); !slices.Equal(got, test.want) {
			t.Errorf("CheckSettings(%v) of %s = %q, want %q", test.set, test.job.Name, got, test.want)
		}
	}
}

// picky is a job that checks its settings itself.
type picky struct{ bridgefour.Mapper }

func (picky) Name() string { return "picky" }

func (picky) Describe() bridgefour.Description {
	return bridgefour.Description{Settings: []bridgefour.Setting{{Key: "n", Required: true}}}
}

func (picky) CheckSettings(s bridgefour.Settings) error {
	return errors.New("n is " + s["n"] + "\nand bad")
}

func TestSettingsChecker(t *testing.T) {
	d := Describe(picky{})
	if got, want := d.CheckSettings(map[string]string{"n": "1"}), []string{"n is 1", "and bad"}; !slices.Equal(got, want) {
		t.Errorf("CheckSettings = %q, want those of the job, %q", got, want)
	}
	if got := d.CheckSettings(nil); len(got) != 1 || !strings.Contains(got[0], "needs a setting") {
		t.Errorf("CheckSettings without a required one = %q, want that alone", got)
	}
}

type bare struct{}

func (bare) Name() string                                { return "bare" }
func (bare) Map(context.Context, *bridgefour.Task) error { return nil }

type full struct{ bare }

func (full) Collect(context.Context, *bridgefour.Collection) error { return nil }
func (full) Describe() bridgefour.Description                      { return bridgefour.Description{NoInput: true} }

func TestDescribe(t *testing.T) {
	if d := Describe(bare{}); d.Name != "bare" || d.NoInput || d.Collects {
		t.Errorf("Describe(bare) = %+v, want a job that needs an input and does not collect", d)
	}
	if d := Describe(full{}); !d.NoInput || !d.Collects {
		t.Errorf("Describe(full) = %+v, want a job that needs no input and collects", d)
	}
}
