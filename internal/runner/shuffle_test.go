package runner

import (
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// reduced is a slot that runs a job of two map tasks and two reduce tasks.
type reduced struct {
	*fixture
	parts []Part // outputs of the map stage
}

func newReduced(t *testing.T, command *wire.Program, reduce string) *reduced {
	t.Helper()
	job := &wire.Job{Program: command, Reduce: reduce, Plan: []*wire.Stage{
		{Name: "map", Role: wire.StageRole_STAGE_MAP, Tasks: 2},
		{Name: "reduce", Role: wire.StageRole_STAGE_REDUCE, From: []uint32{0}, Tasks: 2},
	}}
	return &reduced{fixture: newFixture(t, job)}
}

// mapped runs map task i on an item.
func (r *reduced) mapped(i uint64, item string) Outcome {
	r.lease++
	r.log = new(logged)
	out := r.slot.Run(r.t.Context(), &Attempt{Job: r.job, StageName: "map", Role: wire.StageRole_STAGE_MAP, Index: i, Lease: r.lease, Number: 1, Split: itemSplit(item), Log: r.log})
	if out.File != "" {
		r.parts = append(r.parts, Part{Index: i, Lease: r.lease, Path: out.File, Size: out.Size, Records: out.Records, Checksum: out.Checksum})
	}
	return out
}

// reduce runs reduce task i.
func (r *reduced) reduce(i uint64) (Outcome, string) {
	r.t.Helper()
	r.lease++
	r.log = new(logged)
	out := r.slot.Run(r.t.Context(), &Attempt{
		Job: r.job, Stage: 1, StageName: "reduce", Role: wire.StageRole_STAGE_REDUCE, Index: i, Lease: r.lease, Number: 1, Log: r.log,
		Parts: iter.Seq2[Part, error](func(yield func(Part, error) bool) {
			for _, p := range r.parts {
				if !yield(p, nil) {
					return
				}
			}
		}),
	})
	text, err := os.ReadFile(string(out.File))
	if err != nil && out.File != "" {
		r.t.Fatal(err)
	}
	return out, string(text)
}

// TestReduce: lines with and without a tab, empty ones, and a last one without an end come back by key, each key in one partition.
func TestReduce(t *testing.T) {
	r := newReduced(t, commandProgram("printf", "b\\t%s\\nplain\\n\\na\\t1\\t2\\n\\nlast", "{}"), "cat")
	for i, item := range []string{"x", "y"} {
		if out := r.mapped(uint64(i), item); out.Failure != nil || out.Records != 6 || !out.Segment {
			t.Fatalf("map task %d: %+v", i, out)
		}
	}
	var all []string
	for i := range uint64(2) {
		out, text := r.reduce(i)
		lines := strings.SplitAfter(text, "\n")
		lines = lines[:len(lines)-1]
		if out.Failure != nil || out.Segment || out.Records != uint64(len(lines)) || out.InputBytes != uint64(len(text)) {
			t.Errorf("reduce task %d: %+v of %q", i, out, text)
		}
		keys := make([]string, len(lines))
		for k, line := range lines {
			keys[k], _, _ = strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		}
		if !slices.IsSorted(keys) {
			t.Errorf("partition %d is not in order: %q", i, lines)
		}
		all = append(all, lines...)
	}
	if at := slices.Index(all, "b\tx\n"); at < 0 || all[at+1] != "b\ty\n" {
		t.Errorf("%q: the values of b are not in the order of the tasks", all)
	}
	slices.Sort(all)
	want := []string{"\n", "\n", "\n", "\n", "a\t1\t2\n", "a\t1\t2\n", "b\tx\n", "b\ty\n", "last\n", "last\n", "plain\n", "plain\n"}
	if !slices.Equal(all, want) {
		t.Errorf("all lines: %q, want %q", all, want)
	}
}

// TestReduceLosesAnInput: the attempt names the task whose output is gone, and has not failed.
func TestReduceLosesAnInput(t *testing.T) {
	r := newReduced(t, commandProgram("echo", "{}"), "echo >> begun; cat")
	r.job.Dir = t.TempDir()
	r.mapped(0, "x")
	r.mapped(1, "y")
	lost := r.parts[1]
	for _, damage := range []struct {
		what string
		do   func() error
	}{
		{"cut", func() error { return os.Truncate(string(lost.Path), 5) }},
		{"removed", func() error { return os.Remove(string(lost.Path)) }},
		{"replaced by a folder", func() error { return os.Mkdir(string(lost.Path), 0o755) }},
		{"replaced by a pipe", func() error {
			return errors.Join(os.Remove(string(lost.Path)), syscall.Mkfifo(string(lost.Path), 0o600))
		}},
	} {
		if err := damage.do(); err != nil {
			t.Fatal(err)
		}
		out, _ := r.reduce(0)
		if len(out.Lost) != 1 || out.Lost[0].Part != lost || !out.Canceled || out.Failure != nil {
			t.Errorf("%s: %+v, want that the output of task 1 is lost", damage.what, out)
		}
	}
	// The output folder is there: it is the folder of the attempts that is lost.
	if err := os.RemoveAll(filepath.Dir(r.folder())); err != nil {
		t.Fatal(err)
	}
	if out, _ := r.reduce(0); len(out.Lost) != 2 || !out.Canceled {
		t.Errorf("without the folder of the attempts: %+v, want that both outputs are lost", out)
	}
	if _, err := os.Stat(filepath.Join(r.job.GetDir(), "begun")); err == nil {
		t.Error("the command was started")
	}
}

// TestReduceDoesNotSeeTheFolder: a worker that does not share the output folder with those that made its inputs cannot say that they are lost.
func TestReduceDoesNotSeeTheFolder(t *testing.T) {
	r := newReduced(t, commandProgram("echo", "{}"), "cat")
	r.mapped(0, "x")
	r.mapped(1, "y")
	unseen := func(why string) {
		t.Helper()
		out, _ := r.reduce(0)
		if out.Lost != nil || !strings.Contains(out.Failure.GetMessage(), "does this worker see the folder that the others write to?") {
			t.Errorf("%s: %+v", why, out)
		}
	}
	r.parts[0].Maker, r.parts[1].Maker = layout.MadeHere, layout.MadeElsewhere
	if err := os.Remove(string(r.parts[1].Path)); err != nil {
		t.Fatal(err)
	}
	unseen("it sees its own output alone")
	if err := os.RemoveAll(r.output); err != nil {
		t.Fatal(err)
	}
	r.parts[0].Maker = layout.MadeElsewhere
	unseen("it has no output folder")
	r.parts[0].Maker = layout.MadeHere
	if out, _ := r.reduce(0); len(out.Lost) != 2 {
		t.Errorf("its own output is gone: %+v, want that both are lost", out)
	}
}

// TestReduceThatDoesNotRead: a reduce command may end before its input does, fail, or not exist.
func TestReduceThatDoesNotRead(t *testing.T) {
	r := newReduced(t, commandProgram("sh", "-c", "seq 100000"), "head -n 1")
	r.mapped(0, "x")
	if out, text := r.reduce(0); out.Failure != nil || strings.Count(text, "\n") != 1 {
		t.Errorf("head: %+v, %q", out, text)
	}
	r.job = &wire.Job{Id: 13, Uid: "uid", Output: r.output, Program: r.job.GetProgram(), Plan: r.job.GetPlan(), Reduce: "echo oops >&2; exit 3"}
	if out, _ := r.reduce(0); out.Failure.GetKind() != wire.FailureKind_PROGRAM_ERROR || !strings.Contains(out.Failure.GetMessage(), "exit status 3\noops") {
		t.Errorf("exit 3: %+v", out)
	}
}

// TestCombine: what a map task has written goes through the combine, sorted by key, and what that writes is sorted again, whatever its keys are.
func TestCombine(t *testing.T) {
	r := newReduced(t, commandProgram("printf", "b\\t1\\na\\t%s\\nb\\t2\\nlast", "{}"), "cat")
	r.job.Combine = `tee -a seen | tr ab zy | sort -r`
	r.job.Dir = t.TempDir()
	for i, item := range []string{"x", "y"} {
		if out := r.mapped(uint64(i), item); out.Failure != nil || out.Records != 4 || !out.Segment {
			t.Fatalf("map task %d: %+v", i, out)
		}
	}
	seen, err := os.ReadFile(filepath.Join(r.job.GetDir(), "seen"))
	if want := "a\tx\nb\t1\nb\t2\nlast\na\ty\nb\t1\nb\t2\nlast\n"; err != nil || string(seen) != want {
		t.Errorf("the combine read %q, %v; want %q", seen, err, want)
	}
	var all []string
	for i := range uint64(2) {
		_, text := r.reduce(i)
		lines := strings.SplitAfter(text, "\n")
		if lines = lines[:len(lines)-1]; !slices.IsSortedFunc(lines, func(a, b string) int { return strings.Compare(a[:1], b[:1]) }) {
			t.Errorf("partition %d is not in order: %q", i, lines)
		}
		all = append(all, lines...)
	}
	slices.Sort(all)
	if want := []string{"lzst\n", "lzst\n", "y\t1\n", "y\t1\n", "y\t2\n", "y\t2\n", "z\tx\n", "z\ty\n"}; !slices.Equal(all, want) {
		t.Errorf("all lines: %q, want %q", all, want)
	}
	for line, want := range map[string]string{"echo oops >&2; exit 3": "combine: exit status 3\noops", "true": "", "head -n 1": ""} {
		r.job = &wire.Job{Id: 13, Uid: "uid", Output: r.output, Program: r.job.GetProgram(), Plan: r.job.GetPlan(), Reduce: "cat", Combine: line}
		r.parts = nil
		if out := r.mapped(0, "x"); out.Failure.GetMessage() != want {
			t.Errorf("%s: %+v, want failure %q", line, out, want)
		}
	}
	// A combine is not that of an attempt of the reduce stage, nor of the next job.
	r.job = &wire.Job{Id: 14, Uid: "uid", Output: r.output, Program: r.job.GetProgram(), Plan: r.job.GetPlan(), Reduce: "cat"}
	r.parts = nil
	if out := r.mapped(0, "x"); out.Failure != nil || out.Records != 4 {
		t.Errorf("without a combine: %+v", out)
	}
}

// TestFailedMapLeavesNoSegment: what a failed attempt has written is neither kept nor in the next attempt's segment.
func TestFailedMapLeavesNoSegment(t *testing.T) {
	r := newReduced(t, commandProgram("sh", "-c", `echo "$1"; test "$1" = good`, "sh", "{}"), "cat")
	if out := r.mapped(0, "bad"); out.Failure.GetKind() != wire.FailureKind_PROGRAM_ERROR || out.File != "" {
		t.Errorf("bad: %+v", out)
	}
	r.wantNoFiles()
	r.mapped(0, "good")
	var all string
	for i := range uint64(2) {
		_, text := r.reduce(i)
		all += text
	}
	if all != "good\n" {
		t.Errorf("the reduce tasks read %q", all)
	}
}
