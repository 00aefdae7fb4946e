package plan_test

import (
	"bytes"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/state"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"1": 1, "1B": 1, "65536": 65536, "1k": 1 << 10, "1K": 1 << 10, "1kb": 1 << 10, "1KiB": 1 << 10, "64MiB": 64 << 20, "64 MiB": 64 << 20,
		" 2g ": 2 << 30, "1.5GiB": 3 << 29, "0.5k": 512, "1T": 1 << 40, "0001k": 1 << 10, "0.001k": 1, "1.0": 1,
		"4194303.999999999999T": 4194303<<40 + 1<<40 - 2,
	} {
		if got, err := plan.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "0", "0k", "0.0001k", "-1", "+1", "x", "k", "MiB", "1x", "1kk", "1bk", "1ki", "1ib", "1.", ".5", "1.k", "1..2", "1.2.3", "1e3",
		"1,5G", "0x10", "1_000", "99999999999999999999", "9223372036854775807T", "8388608T", "1 2", "١", "none", "1\n2",
	} {
		if got, err := plan.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"64MiB", "1.5g", "9223372036854775807", "0.999999999999T", "-1", "8388607.9T"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := plan.ParseSize(text)
		if err != nil {
			return
		}
		if size == 0 || size > 1<<63-1 {
			t.Errorf("ParseSize(%q) = %d", text, size)
		}
		if again, err := plan.ParseSize(strings.ToUpper(text)); err != nil || again != size {
			t.Errorf("ParseSize of %q in upper case = %d, %v, want %d", text, again, err, size)
		}
	})
}

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
			// Some names are folders already, or would need a file to be one.
			if os.MkdirAll(path.Dir(name), 0o755) == nil && os.WriteFile(name, nil, 0o600) == nil && !slices.Contains(files, name) {
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
