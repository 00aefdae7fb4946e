package plan_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// TestDataBehindLinks: a job also locks what it reads through links below its inputs. It lists its input when jobs that write there have ended.
func TestDataBehindLinks(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"in/own", "far/folder/deep/f", "far/empty/_temporary/f", "far/file", "far/_file", "spool/f"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(dir+"/"+name), 0o700), os.WriteFile(dir+"/"+name, []byte("x\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"in/d1": "../far/folder", "in/d2": "../far/empty", "in/d3": "../later/../gone", "in/f1": dir + "/far/file", "in/own2": "own", "in/_f": "../far/_file",
		"in/s": "../spool", "chain": "in/d3",
	} {
		if err := os.Symlink(target, dir+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		input string
		want  []string // beside the base
	}{
		{"in", []string{"/far/empty", "/far/file", "/far/folder", "/gone"}},
		{"in/**", []string{"/far/empty", "/far/file", "/far/folder", "/gone"}},
		{"in/*1", []string{"/far/file"}},
		{"in/d*/deep/*", []string{"/far/empty", "/far/folder", "/gone"}},
		{"in/own", nil},
		{"chain", nil},
	} {
		base := map[string]string{"in/own": "/in/own", "chain": "/gone"}[test.input]
		want := append([]string{cmp.Or(base, "/in")}, test.want...)
		slices.Sort(want)
		for _, written := range append([]string{"/elsewhere"}, want...) {
			opt := options()
			opt.Spool = blob.Location(dir + "/spool")
			opt.Writes = func(locations []state.LockName, _ []state.Dependency) (bool, error) {
				return slices.Contains(locations, state.LockName{Name: dir + written, Shared: true}), nil
			}
			req := wordcount(dir, test.input)
			res, err := plan.Plan(t.Context(), req, opt)
			if _, refused := errors.AsType[plan.Errors](err); refused && written == "/elsewhere" && test.input == "chain" {
				continue // it leads nowhere
			}
			var got []string
			for _, name := range res.Data {
				got = append(got, strings.TrimPrefix(name.Name, dir))
			}
			if err != nil || !slices.Equal(got, want) || (res.Deferred != nil) != (written != "/elsewhere") {
				t.Errorf("input %s, of which a job writes %s: Data = %q, Deferred = %v, %v, want %q", test.input, written, got, res.Deferred, err, want)
			}
		}
	}
	req := wordcount(dir, "in")
	req.Output, req.Overwrite = dir+"/far/folder", true
	if _, err := plan.Plan(t.Context(), req, options()); err == nil || !strings.Contains(err.Error(), "is inside input") {
		t.Errorf("Plan() = %v for an output that is read through a link", err)
	}
}
