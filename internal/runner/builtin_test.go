package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/jobs"
)

// testJob is a job with replaceable methods.
type testJob struct {
	mapTask func(ctx context.Context, t *bridgefour.Task) error
	collect func(ctx context.Context, c *bridgefour.Collection) error
}

func (testJob) Name() string { return "test" }

func (j testJob) Map(ctx context.Context, t *bridgefour.Task) error { return j.mapTask(ctx, t) }

func (j testJob) Collect(ctx context.Context, c *bridgefour.Collection) error {
	return j.collect(ctx, c)
}

func newBuiltin(t *testing.T, job *wire.Job, mapTask func(context.Context, *bridgefour.Task) error) *fixture {
	t.Helper()
	job.Program = builtin("test")
	return newFixture(t, job, testJob{mapTask: mapTask})
}

func copyTask(_ context.Context, t *bridgefour.Task) error {
	_, err := io.Copy(t.Out(), t)
	return err
}

func TestBuiltin(t *testing.T) {
	big := strings.Repeat("a line of text\n", 20_000) + "end"
	for _, text := range []string{"", "one\n", "no end", big} {
		for _, spool := range []bool{true, false} {
			f := newBuiltin(t, &wire.Job{Spool: spool}, copyTask)
			path := writeFile(t, t.TempDir(), "input", text)
			out := f.run(t.Context(), wholeFile(path))
			f.want(out, text)
			if out.InputBytes != uint64(len(text)) {
				t.Errorf("Run().InputBytes = %d, want %d", out.InputBytes, len(text))
			}
			if text == "" && spool && len(f.files()) > 0 {
				t.Errorf("an empty output in the spool left %q", f.files())
			}
		}
	}
}

// TestBuiltinOutputIsNew runs an attempt whose file exists already.
func TestBuiltinOutputIsNew(t *testing.T) {
	f := newBuiltin(t, &wire.Job{}, copyTask)
	f.want(f.run(t.Context(), itemSplit("text")), "text\n")
	f.lease--
	out := f.run(t.Context(), itemSplit("other"))
	if out.Failure.GetKind() != wire.FailureKind_OUTPUT_ERROR || !strings.Contains(out.Failure.GetMessage(), "file exists") {
		t.Errorf("Run() = %+v, want an output error", out)
	}
}

func TestBuiltinTask(t *testing.T) {
	f := newBuiltin(t, &wire.Job{Range: true, RangeFrom: -5, Settings: map[string]string{"key": "value"}}, func(_ context.Context, t *bridgefour.Task) error {
		_, err := fmt.Fprintf(t.Out(), "%d %d %d %s %s %s\n", t.JobID(), t.Index(), t.Attempt(), t.Settings().String("key", ""), t.Item(), t.Input())
		for records := t.Records(); records.Scan(); {
			_, _ = t.Out().Write(records.Bytes())
		}
		return err
	})
	f.want(f.run(t.Context(), nil), "12 3 2 value -2 \n-2")
	f.want(f.run(t.Context(), itemSplit("item\xff")), "12 3 2 value item\xff \nitem\xff")
}

func TestBuiltinFailures(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name string
		kind wire.FailureKind
		text string
		run  func(context.Context, *bridgefour.Task) error
	}{
		{"error", wire.FailureKind_PROGRAM_ERROR, "broken", func(context.Context, *bridgefour.Task) error { return broken }},
		{"bad input", wire.FailureKind_BAD_INPUT, "broken", func(context.Context, *bridgefour.Task) error { return bridgefour.BadInput(broken) }},
		{"panic", wire.FailureKind_PROGRAM_ERROR, "panic: broken", func(context.Context, *bridgefour.Task) error { panic(broken) }},
		{"not UTF-8", wire.FailureKind_PROGRAM_ERROR, "\uFFFD", func(context.Context, *bridgefour.Task) error { return errors.New("\xff") }},
		{"setting", wire.FailureKind_BAD_INPUT, `invalid setting n="x"`, func(_ context.Context, t *bridgefour.Task) error {
			_, err := t.Settings().Int("n", 0)
			return err
		}},
	} {
		f := newBuiltin(t, &wire.Job{Settings: map[string]string{"n": "x"}}, func(ctx context.Context, task *bridgefour.Task) error {
			_, err := task.Out().Write(make([]byte, 1<<20)) // beyond the buffer: there is a file to remove
			return errors.Join(err, test.run(ctx, task))
		})
		f.wantFailure(f.run(t.Context(), itemSplit("x")), test.kind, test.text)
		if test.name == "panic" && !strings.Contains(f.log.String(), "builtin_test.go:") {
			t.Errorf("panic: log = %q, want the stack", f.log)
		}
	}
}

// TestBuiltinSteers: a job's error says what becomes of its task, and of the job.
func TestBuiltinSteers(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		err    error
		wait   uint64
		cancel bool
	}{{broken, 0, false}, {fmt.Errorf("down: %w", bridgefour.RetryAfter(90*time.Second, broken)), 90_000, false}, {bridgefour.Cancel(broken), 0, true}, {bridgefour.RetryAfter(-1, broken), 0, false}} {
		f := newBuiltin(t, &wire.Job{}, func(context.Context, *bridgefour.Task) error { return test.err })
		out := f.run(t.Context(), nil)
		f.wantFailure(out, wire.FailureKind_PROGRAM_ERROR, "broken")
		if got := out.Failure; got.GetWaitMs() != test.wait || got.GetCancel() != test.cancel {
			t.Errorf("%v: wait %d ms, cancel %v, want %d ms, %v", test.err, got.GetWaitMs(), got.GetCancel(), test.wait, test.cancel)
		}
	}
}

func TestBuiltinIgnoresErrors(t *testing.T) {
	f := newBuiltin(t, &wire.Job{}, func(_ context.Context, t *bridgefour.Task) error {
		_, _ = io.ReadAll(t)
		return nil
	})
	f.wantFailure(f.run(t.Context(), wholeFile("/no/such/file")), wire.FailureKind_BAD_INPUT, "/no/such/file", "on here")

	f = newBuiltin(t, &wire.Job{}, func(_ context.Context, t *bridgefour.Task) error {
		_, _ = t.Out().WriteString("text")
		return nil
	})
	if err := os.RemoveAll(f.output); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Dir(f.output), filepath.Base(f.output), "a file where the folder should be")
	out := f.run(t.Context(), nil)
	if out.Failure.GetKind() != wire.FailureKind_OUTPUT_ERROR || !strings.Contains(out.Failure.GetMessage(), f.output) {
		t.Errorf("Run() = %v, want an output error that names %s", out.Failure, f.output)
	}
}

func TestBuiltinLongMessage(t *testing.T) {
	f := newBuiltin(t, &wire.Job{}, func(context.Context, *bridgefour.Task) error {
		return errors.New(strings.Repeat("é", wire.FailureMessageMax))
	})
	out := f.run(t.Context(), nil)
	if message := out.Failure.GetMessage(); len(message) > wire.FailureMessageMax || !strings.HasSuffix(message, "é…") {
		t.Errorf("Run() has a message of %d bytes, ending in %q", len(message), message[len(message)-8:])
	}
}

func TestBuiltinTimeout(t *testing.T) {
	wait := func(ctx context.Context, t *bridgefour.Task) error {
		_, _ = t.Out().WriteString("cut short")
		<-ctx.Done()
		return nil // does not admit it
	}
	f := newBuiltin(t, &wire.Job{TimeoutMs: 10}, wait)
	f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_TIMEOUT, "timed out after 10ms")

	f = newBuiltin(t, &wire.Job{}, wait)
	ctx, cancel := context.WithCancel(t.Context())
	stop := context.AfterFunc(ctx, func() {})
	defer stop()
	go cancel()
	if out := f.run(ctx, nil); !out.Canceled || out.Failure != nil || out.File != "" {
		t.Errorf("Run() = %+v, want it canceled", out)
	}
	f.wantNoFiles()
	if out := f.run(ctx, nil); !out.Canceled {
		t.Errorf("Run() = %+v with a context that has ended, want it canceled", out)
	}
}

func TestBadPrograms(t *testing.T) {
	f := newFixture(t, &wire.Job{Program: builtin("nojob")}, jobs.AlwaysOk{}, jobs.Grep{})
	f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_BAD_PROGRAM, `unknown built-in job "nojob"`, "AlwaysOk, grep")
	f = newFixture(t, &wire.Job{})
	f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_BAD_PROGRAM, "older than the leader")
	f = newFixture(t, &wire.Job{Program: commandProgram()})
	f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_BAD_PROGRAM, "empty command")
}

// TestCollectLosesAnInput: an output that is missing, or not what its task wrote, is neither the collect's failure nor its result.
func TestCollectLosesAnInput(t *testing.T) {
	job := testJob{collect: func(_ context.Context, c *bridgefour.Collection) error {
		for part, err := range c.Parts() {
			if err == nil {
				_, err = io.Copy(c.Out(), part)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}}
	f := newFixture(t, &wire.Job{Program: builtin("test"), Stages: []string{"map", "collect"}}, job)
	dir := t.TempDir()
	for what, text := range map[string]string{"changed": "ohe", "cut": "on", "longer": "ones", "removed": ""} {
		parts := []Outcome{{Size: 3, Checksum: xxhash.Sum64String("one"), File: blob.Location(filepath.Join(dir, what))}}
		if text != "" {
			writeFile(t, dir, what, text)
		}
		f.lease++
		out := f.slot.Run(t.Context(), &Attempt{
			Job: f.job, Stage: 1, StageName: "map", Role: wire.StageRole_STAGE_COLLECT, Index: 3, Lease: f.lease, Number: 1, Parts: partsOf(parts), Log: new(logged),
		})
		if len(out.Lost) != 1 || out.Lost[0].Path != parts[0].File || !out.Canceled || out.Failure != nil {
			t.Errorf("%s: %+v, want that the output of task 0 is lost", what, out)
		}
		f.wantNoFiles()
	}
	here := writeFile(t, dir, "here", "one")
	f.lease++
	f.wantFailure(f.slot.Run(t.Context(), &Attempt{
		Job: f.job, Stage: 1, StageName: "map", Role: wire.StageRole_STAGE_COLLECT, Index: 3, Lease: f.lease, Number: 1, Log: new(logged),
		Parts: func(yield func(Part, error) bool) {
			part := Part{Path: blob.Location(here), Size: 3, Checksum: xxhash.Sum64String("one"), Maker: layout.MadeHere}
			_ = yield(part, nil) && yield(Part{Index: 1, Path: blob.Location(filepath.Join(dir, "elsewhere")), Size: 3, Maker: layout.MadeElsewhere}, nil)
		},
	}), wire.FailureKind_OUTPUT_ERROR, filepath.Join(dir, "elsewhere"), "does this worker see the folder")
}

func TestCollect(t *testing.T) {
	var read []string
	job := testJob{collect: func(_ context.Context, c *bridgefour.Collection) error {
		for part, err := range c.Parts() {
			if err != nil {
				return err
			}
			text, err := io.ReadAll(part)
			if err != nil {
				return err
			}
			read = append(read, string(text))
		}
		_, err := c.Out().WriteString(strings.Join(read, "|"))
		return err
	}}
	f := newFixture(t, &wire.Job{Program: builtin("test"), Spool: true, Stages: []string{"map", "collect"}}, job)
	dir := t.TempDir()
	var parts []Outcome
	for i, text := range []string{"one", "", "three"} {
		out := Outcome{Size: uint64(len(text)), Checksum: xxhash.Sum64String(text)}
		if text != "" {
			out.File = blob.Location(writeFile(t, dir, fmt.Sprint(i), text))
		}
		parts = append(parts, out)
	}
	attempt := func() *Attempt {
		f.lease++
		f.log = new(logged)
		return &Attempt{Job: f.job, Stage: 1, StageName: "map", Role: wire.StageRole_STAGE_COLLECT, Index: 3, Lease: f.lease, Number: 1, Parts: partsOf(parts), Log: f.log}
	}
	out := f.slot.Run(t.Context(), attempt())
	f.want(out, "one||three")
	if out.InputBytes != 8 {
		t.Errorf("Run().InputBytes = %d, want 8", out.InputBytes)
	}
	if err := os.Remove(string(out.File)); err != nil {
		t.Fatal(err)
	}
	f.job.Settings = map[string]string{bridgefour.SettingResultMax: "3"}
	if out := f.slot.Run(t.Context(), attempt()); out.Failure != nil || out.File != "" || out.Size != 0 {
		t.Errorf("Run() = %+v, want a result that is too large to make no file", out)
	}
	if !strings.Contains(f.log.String(), "over its size limit") {
		t.Errorf("log = %q, want it to say why there is no result", f.log)
	}
	f.wantNoFiles()
}

func TestCollectFailures(t *testing.T) {
	for name, test := range map[string]struct {
		kind wire.FailureKind
		text string
		job  bridgefour.Job
	}{
		"panic": {wire.FailureKind_PROGRAM_ERROR, "panic: oh", testJob{collect: func(context.Context, *bridgefour.Collection) error { panic("oh") }}},
		"error": {wire.FailureKind_PROGRAM_ERROR, "broken", testJob{collect: func(context.Context, *bridgefour.Collection) error { return errors.New("broken") }}},
	} {
		f := newFixture(t, &wire.Job{Program: builtin("test"), Stages: []string{"map", "collect"}}, test.job)
		f.lease = 1
		a := &Attempt{Job: f.job, Stage: 1, StageName: "collect", Role: wire.StageRole_STAGE_COLLECT, Index: 3, Lease: 1, Parts: partsOf(nil)}
		f.wantFailure(f.slot.Run(t.Context(), a), test.kind, test.text)
		t.Log(name)
	}
	f := newFixture(t, &wire.Job{Program: builtin("AlwaysOk"), Stages: []string{"map", "collect"}}, jobs.AlwaysOk{})
	f.lease = 1
	a := &Attempt{Job: f.job, Stage: 1, StageName: "collect", Role: wire.StageRole_STAGE_COLLECT, Index: 3, Lease: 1, Parts: partsOf(nil)}
	f.wantFailure(f.slot.Run(t.Context(), a), wire.FailureKind_BAD_PROGRAM, "has no collect stage")
}

func TestAttemptThatDoesNothingDoesNotAllocate(t *testing.T) {
	f := newFixture(t, &wire.Job{Program: builtin("AlwaysOk"), Spool: true}, jobs.AlwaysOk{})
	a := &Attempt{Job: f.job, StageName: "map", Number: 1}
	ctx := t.Context()
	allocs := testing.AllocsPerRun(100, func() {
		a.Index++
		if out := f.slot.Run(ctx, a); out.Failure != nil {
			t.Fatal(out.Failure)
		}
	})
	if allocs > 0 {
		t.Errorf("an attempt allocates %v times, want none", allocs)
	}
}

// TestSlotAlternatesBetweenJobs alternates between more jobs than a slot caches.
func TestSlotAlternatesBetweenJobs(t *testing.T) {
	f := newFixture(t, &wire.Job{Program: builtin("AlwaysOk")}, jobs.AlwaysOk{})
	var all []*wire.Job
	for i := range 2 * jobsCached {
		program := commandProgram("echo", fmt.Sprint(i))
		all = append(all, &wire.Job{Id: uint64(i), Uid: fmt.Sprint(i), Output: f.output, Program: program, Spool: i%2 == 0})
	}
	for range 2 {
		for i, j := range all {
			f.lease++
			out := f.slot.Run(t.Context(), &Attempt{Job: j, StageName: "map", Lease: f.lease, Split: itemSplit("x")})
			if out.Failure != nil || out.Size != uint64(len(fmt.Sprintf("%d x\n", i))) {
				t.Fatalf("Run() = %+v", out)
			}
		}
	}
}

// TestStdoutOfFailures: the end of what a command has written is in the outcome of its failed attempt. What another program has written is not: that is the
// beginning of a part, and not a message.
func TestStdoutOfFailures(t *testing.T) {
	text := strings.Repeat("a line of text\n", 10_000)
	path := writeFile(t, t.TempDir(), "text", text)
	command := newFixture(t, &wire.Job{Program: commandProgram("sh", "-c", "cat "+path+"; exit 1")})
	program := newBuiltin(t, &wire.Job{}, func(ctx context.Context, task *bridgefour.Task) error {
		return errors.Join(copyTask(ctx, task), errors.New("broken"))
	})
	silent := newFixture(t, &wire.Job{Program: commandProgram("false")})
	for name, out := range map[string]Outcome{
		"command": command.run(t.Context(), nil), "built-in": program.run(t.Context(), wholeFile(path)), "silent": silent.run(t.Context(), nil),
	} {
		want := text[len(text)-wire.TailMax:]
		if name != "command" {
			want = ""
		}
		if out.Failure == nil || string(out.Stdout) != want || want != "" && out.StdoutBytes != uint64(len(text)) {
			t.Errorf("%s: Run() = %v with %d of %d bytes of standard output, want the last %d of %d", name, out.Failure, len(out.Stdout), out.StdoutBytes,
				len(want), len(text))
		}
	}
	for _, f := range []*fixture{command, program, silent} {
		f.wantNoFiles()
	}
}
