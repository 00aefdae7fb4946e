package plan_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/state"
)

// TestData: a job locks where its inputs and its output really are, a pattern by its fixed part, and nothing in the spool.
func TestData(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"/in/a", "/in/b", "/spool/x", "/in/[c]"} {
		if err := os.MkdirAll(dir+name, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+name+"/f.txt", []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir+"/in", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	opt := options()
	opt.Spool = blob.Location(dir + "/spool")
	for _, test := range []struct {
		inputs []string
		want   []string
	}{
		{[]string{"in/a", "in/a/f.txt", "in/a/"}, []string{"/in/a"}},
		{[]string{"link/b"}, []string{"/in/b"}},
		{[]string{"link/*/f.txt"}, []string{"/in"}},
		{[]string{"in/[c]"}, []string{"/in/[c]"}},
		{[]string{"spool/x", "in/a", "in/b"}, []string{"/in/a", "/in/b"}},
	} {
		req := wordcount(dir, test.inputs...)
		req.Output = dir + "/link/../out"
		res, err := plan.Plan(t.Context(), req, opt)
		want := make([]state.LockName, 0, len(test.want)+1)
		for _, name := range test.want {
			want = append(want, state.LockName{Name: dir + name, Shared: true})
		}
		want = append(want, state.LockName{Name: dir + "/out"})
		if err != nil || !slices.Equal(res.Data, want) {
			t.Errorf("inputs %q: Data = %v, %v, want %v", test.inputs, res.Data, err, want)
		}
	}
}

// TestManyInputs: so many locations are replaced by their folders that the rest can be locked.
func TestManyInputs(t *testing.T) {
	dir := t.TempDir()
	var inputs []string
	for i := range state.LockDataMax + 100 {
		name := fmt.Sprintf("/in/%d/%d", i%7, i)
		if err := os.MkdirAll(dir+fmt.Sprintf("/in/%d", i%7), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+name, []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, name[1:])
	}
	res, err := plan.Plan(t.Context(), wordcount(dir, inputs...), options())
	if err != nil || len(res.Data) != 7 || res.Data[0] != (state.LockName{Name: dir + "/in/0", Shared: true}) {
		t.Errorf("Data = %v, %v, want the seven folders", res.Data, err)
	}
}

// TestNamedLocks: names are cleaned, and what is wrong with them is said.
func TestNamedLocks(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/in", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	req := wordcount(dir, "in")
	req.Locks, req.OnConflict = []string{"licence//b/", "a:shared", "c:exclusive", "host:80:exclusive"}, "fail"
	res, err := plan.Plan(t.Context(), req, options())
	if want := []state.LockName{{Name: "a", Shared: true}, {Name: "c"}, {Name: "host:80"}, {Name: "licence/b"}}; err != nil || !slices.Equal(res.Locks, want) || !res.FailOnConflict {
		t.Errorf("Locks = %v, %v, %v, want %v", res.Locks, res.FailOnConflict, err, want)
	}
	for _, wrong := range [][]string{{"/"}, {"a", "a:shared"}, {""}, {":"}, {":shared"}, {"a:"}, {"a:share"}, {"host:80"}} {
		req.Locks = wrong
		if _, err := plan.Plan(t.Context(), req, options()); err == nil {
			t.Errorf("locks %q were accepted", wrong)
		}
	}
}
