package plan_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/state"
)

// sized creates a file of a size, which takes no room.
func sized(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// divided shows the tasks of an input: files with their sizes, and how many tasks in a row are alike.
func divided(t *testing.T, in state.Input) string {
	t.Helper()
	var all []string
	last, n := "", 0
	add := func(text string) {
		if text != last && n > 0 {
			all = append(all, fmt.Sprintf("%dx%s", n, last))
			n = 0
		}
		last = text
		n++
	}
	for _, s := range splits(t, in) {
		switch {
		case s.Files != nil:
			add(fmt.Sprintf("[%d files of %d]", len(s.Files), s.Length))
		default:
			add(fmt.Sprint(s.Length))
		}
	}
	add("")
	return strings.Join(all, " ")
}

func divisible() plan.Options {
	opt := options()
	for i := range opt.Builtins {
		opt.Builtins[i].Divisible = opt.Builtins[i].Name == "grep"
	}
	return opt
}

// TestDivided: splits and packs of a job to which it does not matter are as small as its slots need, unless the user says otherwise, or counts, names or paces tasks.
func TestDivided(t *testing.T) {
	const mib = 1 << 20
	dir := t.TempDir()
	for _, name := range []string{"large", "medium", "one", "few", "many", "mixed", "fixed"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text := func(path string, size int64) { // files of zeros are not text
		sized(t, path, size)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(strings.Repeat("text\n", 20_000)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	text(dir+"/large/a", 1000*mib)
	text(dir+"/medium/a", 40*mib)
	text(dir+"/one/a", mib+1)
	for i := range 20 {
		sized(t, fmt.Sprintf("%s/few/%02d", dir, i), 10)
	}
	for i := range 1000 {
		sized(t, fmt.Sprintf("%s/many/%03d", dir, i), 10)
	}
	for i, size := range []int64{10, 20, 5 * mib, 30, 40, 600_000, 600_000, 50} {
		text(fmt.Sprintf("%s/mixed/%d", dir, i), size)
	}
	sized(t, dir+"/fixed/a", 7*1_000_000)
	grep, cat := api.Program{Builtin: "grep"}, api.Program{Command: []string{"cat"}}
	zero := 0
	for _, test := range []struct {
		folder string
		slots  uint64
		req    api.JobRequest
		want   string
	}{
		{"large", 2, api.JobRequest{Program: grep}, "16x65536000"},
		{"large", 3, api.JobRequest{Program: grep}, "17x58254223 1x58254209"},
		{"large", 2, api.JobRequest{Program: grep, Split: "64MiB"}, "15x67108864 1x41943040"},
		{"large", 2, api.JobRequest{Program: grep, Records: "fixed:1024"}, "16x65536000"},
		{"large", 3, api.JobRequest{Program: grep, Records: "fixed:1024"}, "17x58254336 1x58252288"},
		{"large", 10, api.JobRequest{Program: grep}, "40x26214400"},
		{"large", 10, api.JobRequest{Program: grep, MaxRunning: 5}, "20x52428800"},
		{"large", 10, api.JobRequest{Program: grep, SlotsPerTask: 2}, "20x52428800"},
		{"medium", 2, api.JobRequest{Program: grep}, "8x5242880"},
		{"medium", 2, api.JobRequest{Program: grep, Records: "csv"}, "1x41943040"},
		{"medium", 2, api.JobRequest{Program: grep, Split: "8MiB"}, "5x8388608"},
		{"medium", 2, api.JobRequest{Program: grep, Split: "none"}, "1x41943040"},
		{"medium", 2, api.JobRequest{Program: grep, NameParts: "{/.}", Output: dir + "/out"}, "1x41943040"},
		{"medium", 2, api.JobRequest{Program: cat}, "1x41943040"},
		{"medium", 2, api.JobRequest{Program: api.Program{Command: []string{"cat"}, Reduce: "cat"}}, "8x5242880"},
		{"medium", 2, api.JobRequest{Program: api.Program{Builtin: "wordcount"}}, "1x41943040"},
		{"medium", 0, api.JobRequest{Program: grep}, "40x1048576"},
		{"medium", 1000, api.JobRequest{Program: grep}, "40x1048576"},
		{"one", 100, api.JobRequest{Program: grep}, "1x1048576 1x1"},
		{"fixed", 2, api.JobRequest{Program: grep, Records: "fixed:1000000"}, "7x1000000"},
		{"few", 2, api.JobRequest{Program: grep}, "10x[2 files of 20]"},
		{"few", 10, api.JobRequest{Program: grep}, "20x10"},
		{"many", 2, api.JobRequest{Program: grep}, "8x[125 files of 1250]"},
		{"many", 1, api.JobRequest{Program: grep, Records: "csv", Header: &zero}, "4x[250 files of 2500]"},
		{"many", 0, api.JobRequest{Program: grep}, "333x[3 files of 30] 1x10"},
		{"many", 2, api.JobRequest{Program: grep, Split: "25"}, "500x[2 files of 20]"},
		{"many", 2, api.JobRequest{Program: grep, Split: "none"}, "1000x10"},
		{"many", 2, api.JobRequest{Program: grep, Pack: "none"}, "1000x10"},
		{"many", 2, api.JobRequest{Program: grep, Pack: "70"}, "142x[7 files of 70] 1x[6 files of 60]"},
		{"many", 2, api.JobRequest{Program: grep, Pack: "1GiB"}, "3x[256 files of 2560] 1x[232 files of 2320]"},
		{"many", 2, api.JobRequest{Program: grep, Pack: "70", Split: "none"}, "142x[7 files of 70] 1x[6 files of 60]"},
		{"many", 2, api.JobRequest{Program: api.Program{Builtin: "wordcount"}, Pack: "1GiB"}, "3x[256 files of 2560] 1x[232 files of 2320]"},
		{"many", 2, api.JobRequest{Program: api.Program{Builtin: "wordcount"}}, "1000x10"},
		{"many", 2, api.JobRequest{Program: cat}, "1000x10"},
		{"many", 2, api.JobRequest{Program: grep, MaxFails: "1"}, "1000x10"},
		{"many", 2, api.JobRequest{Program: grep, FirstSuccess: true}, "1000x10"},
		{"many", 2, api.JobRequest{Program: grep, Delay: "1s"}, "1000x10"},
		{"mixed", 1, api.JobRequest{Program: grep, Pack: "1MiB"}, "1x[2 files of 200000] 3x1735720 1x35720 1x[3 files of 800000] 1x[2 files of 700000]"},
	} {
		opt := divisible()
		opt.Slots = test.slots
		test.req.Inputs = []string{dir + "/" + test.folder}
		res, err := plan.Plan(t.Context(), &test.req, opt)
		if err != nil {
			t.Errorf("%s, %d slots, %+v: %v", test.folder, test.slots, test.req, err)
			continue
		}
		if got := divided(t, res.Input); got != test.want {
			t.Errorf("%s, %d slots, %+v: %s, want %s", test.folder, test.slots, test.req, got, test.want)
		}
		opt.OneByOne = true
		if res, err := plan.Plan(t.Context(), &test.req, opt); test.req.Pack == "" && (err != nil || res.Pack != nil || res.SplitMax != 0) {
			t.Errorf("%s: with older leaders, Plan = %+v, %d, %v", test.folder, res.Pack, res.SplitMax, err)
		}
	}
}

// TestPackRefused: what cannot share a task says what can.
func TestPackRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "b")
	grep := api.Program{Builtin: "grep"}
	for want, req := range map[string]*api.JobRequest{
		`pack: a command reads one file: to give it several, pass their names as lines (--lines) with --batch N, and {} stands for N of them`: {
			Program: api.Program{Command: []string{"cat"}}, Inputs: []string{dir}, Pack: "1MiB",
		},
		`pack: small files share a task, and there are none: give an input; items of a list share one with batch`: {Program: api.Program{Builtin: "AlwaysOk"}, Pack: "1MiB"},
		`pack: files that share a task share its part, which has one name: leave out pack or name_parts`: {
			Program: grep, Inputs: []string{dir}, Pack: "1MiB", NameParts: "{/}", Output: dir + "/out",
		},
		`pack: invalid size "x"`:             {Program: grep, Inputs: []string{dir}, Pack: "x"},
		`pack: size "0" is less than a byte`: {Program: grep, Inputs: []string{dir}, Pack: "0"},
	} {
		if _, err := plan.Plan(t.Context(), req, divisible()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%+v) = %v, want %s", req, err, want)
		}
	}
}

// TestDividedWarnings: a file that is not cut is named if it is larger than a split of files of any size.
func TestDividedWarnings(t *testing.T) {
	dir := t.TempDir()
	sized(t, dir+"/small.bin", 3<<20)
	sized(t, dir+"/zero.bin", 65<<20)
	opt := divisible()
	opt.Slots = 100
	res, err := plan.Plan(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "grep"}, Inputs: []string{dir}}, opt)
	want := `input "` + dir + `/zero.bin" is not text (binary): one task`
	if err != nil || len(res.Warnings) != 1 || !strings.HasPrefix(res.Warnings[0], want) || res.Input.Tasks != 2 {
		t.Errorf("Plan = %d tasks, warnings %q, %v, want 2 and %q", res.Input.Tasks, res.Warnings, err, want)
	}
}

// TestDividedLater: a deferred input is divided for the slots of the time when it is planned.
func TestDividedLater(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		sized(t, fmt.Sprintf("%s/%02d", dir, i), 10)
	}
	for _, test := range []struct {
		pack *state.Packing
		want string
	}{
		{&state.Packing{Fitted: true}, "12x[8 files of 80] 1x[4 files of 40]"}, {&state.Packing{Size: 20}, "50x[2 files of 20]"}, {&state.Packing{}, "100x10"}, {nil, "100x10"},
	} {
		opt := divisible()
		opt.Slots = 3
		spec := &state.Spec{
			Builtin: "grep", InputNames: []string{dir}, Deferred: &state.Deferred{Split: 64 << 20}, SplitMax: 64 << 20, Pack: test.pack, Spool: true, Output: "/spool/1",
			Stages: state.DefaultPlan(1, false, false),
		}
		in, _, err := plan.Deferred(t.Context(), spec, opt)
		if err != nil || divided(t, in) != test.want || in.SplitSize != 1<<20 {
			t.Errorf("Deferred with %+v: %s, split %d, %v, want %s", test.pack, divided(t, in), in.SplitSize, err, test.want)
		}
	}
}

// TestAgainOfPacked: of files that share a task, a retry names the one that has changed.
func TestAgainOfPacked(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "b", "c")
	res, err := plan.Plan(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "grep"}, Inputs: []string{dir}, Pack: "2"}, divisible())
	if err != nil || divided(t, res.Input) != "1x[2 files of 2] 1x1" {
		t.Fatalf("Plan = %s, %v", divided(t, res.Input), err)
	}
	for _, name := range []string{"b", "c"} {
		if err := os.WriteFile(dir+"/"+name, []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	changed, err := plan.Again(t.Context(), &res.Input, nil)
	if err != nil || len(changed) != 2 || changed[0].Task != 0 || changed[0].File != 1 || changed[1].Task != 1 || changed[1].File != 0 || changed[0].Version.Size != 5 {
		t.Errorf("Again() = %+v, %v, want files 0/1 and 1/0", changed, err)
	}
}
