package plan_test

import (
	"bytes"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/state"
)

func FuzzLines(f *testing.F) {
	for _, text := range []string{"", "\n", "a", "a\n", "a\n\nb", "\xff\r\n\x00"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		req := command("x")
		req.Lines = &api.Lines{Raw: text}
		res, err := plan.Plan(t.Context(), req, plan.Options{})
		if err != nil {
			if len(text) > 0 {
				t.Errorf("Plan of %q = %v", text, err)
			}
			return
		}
		var got []byte
		for _, s := range splits(t, res.Input) {
			got = append(append(got, s.Item...), '\n')
		}
		if want := append(bytes.TrimSuffix(text, []byte("\n")), '\n'); !bytes.Equal(got, want) {
			t.Errorf("lines %q, want %q", got, want)
		}
	})
}

// TestOrderAndUniqueness compares the plan of a folder and of patterns with a naive listing.
func TestOrderAndUniqueness(t *testing.T) {
	root := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := root + "/" + string(rune('a'+n%26)) + strings.Repeat("x", n/26)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}()
		part := rapid.SampledFrom([]string{"a", "b", "a.b", "a!", "A", ".h", "_s", "a b", "\xff", "é", "[", "*", "part-00000"})
		var files []string
		for _, parts := range rapid.SliceOfN(rapid.SliceOfN(part, 1, 4), 1, 20).Draw(t, "files") {
			name := dir + "/" + path.Join(parts...)
			// Some names are folders already, or are below a file. Plan does not wait for the next tick after a change that is old.
			if os.MkdirAll(path.Dir(name), 0o755) == nil && os.WriteFile(name, nil, 0o600) == nil && !slices.Contains(files, name) &&
				os.Chtimes(name, time.Time{}, time.Unix(1e9, 0)) == nil {
				files = append(files, name)
			}
		}
		slices.Sort(files)
		want := slices.DeleteFunc(slices.Clone(files), func(name string) bool {
			rest := name[len(dir):]
			return strings.Contains(rest, "/.") || strings.Contains(rest, "/_")
		})
		forms := []string{dir, dir + "/**", dir + "/**/*", dir + "/**/**/?*", dir + "/", "file://" + dir}
		count := rapid.IntRange(1, 3).Draw(t, "inputs")
		req := &api.JobRequest{Program: api.Program{Builtin: "grep"}}
		for range count {
			req.Inputs = append(req.Inputs, rapid.SampledFrom(forms).Draw(t, "input"))
		}
		res, err := plan.Plan(t.Context(), req, options())
		if err != nil {
			if len(want) > 0 {
				t.Fatalf("Plan(%q) of %q: %v", req.Inputs, files, err)
			}
			return
		}
		var got []string
		reader := state.NewInputReader(&res.Input)
		for i := range res.Input.Tasks {
			s, err := reader.Split(i)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(s.Path))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("Plan(%q) = %q, want %q", req.Inputs, got, want)
		}
		if (count > 1) != (len(res.Warnings) > 0) {
			t.Fatalf("%d inputs, warnings %q", count, res.Warnings)
		}
	})
}
