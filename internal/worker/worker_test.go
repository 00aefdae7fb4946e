package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func nothing(context.Context, *runner.Attempt) runner.Outcome { return runner.Outcome{} }

func jobMessage(id uint64) *wire.Job {
	return &wire.Job{Id: id, Uid: "u", Output: "/out", Stages: []string{"map"}}
}

func finishedLeases(reports []*wire.Report) []uint64 {
	var leases []uint64
	for _, r := range reports {
		for _, f := range r.GetFinished() {
			leases = append(leases, f.GetLease()...)
		}
	}
	return leases
}

// oneLease is Work that describes a job and grants n leases from first on. Those beyond the free slots are returned after 100 ms.
func oneLease(job *wire.Job, first uint64, n int) *wire.Work {
	index := make([]uint64, n)
	for i := range index {
		index[i] = uint64(i)
	}
	return &wire.Work{Jobs: []*wire.Job{job}, Leases: []*wire.Leases{{Job: job.GetId(), FirstLease: first, Index: index}}}
}

// oneTask is Work that describes a job and grants a lease of one of its tasks.
func oneTask(job *wire.Job, lease, index uint64) *wire.Work {
	return &wire.Work{Jobs: []*wire.Job{job}, Leases: []*wire.Leases{{Job: job.GetId(), FirstLease: lease, Index: []uint64{index}}}}
}

// blocker is a runner whose attempts wait for the test.
type blocker struct {
	began chan uint64 // leases
	end   chan runner.Outcome
}

func newBlocker() *blocker { return &blocker{make(chan uint64, 16), make(chan runner.Outcome)} }

func (b *blocker) run(ctx context.Context, a *runner.Attempt) runner.Outcome {
	b.began <- a.Lease
	select {
	case out := <-b.end:
		return out
	case <-ctx.Done():
		return runner.Outcome{Canceled: true}
	}
}

func TestWorkerRunsAndDrains(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	w := startWorker(t, Config{
		Leaders: []string{l.addr}, Slots: 2, Memory: 99, Address: "here:1", Version: "v1", Labels: map[string]string{"gpu": "no"},
	}, nothing)
	s := l.welcomed()
	h := s.hello
	if h.GetSlots() != 2 || h.GetMemory() != 99 || h.GetAddress() != "here:1" || h.GetVersion() != "v1" ||
		h.GetLabels()["gpu"] != "no" || h.GetIdentity() == "" || h.GetIncarnation() == "" || len(h.GetHeld()) != 0 {
		t.Errorf("hello = %v", h)
	}
	const n = 10_000
	work := oneLease(jobMessage(1), 1000, n)
	granted := work.GetLeases()[0].GetIndex() // of lease 1000 and the following
	s.work(work)
	var leases, indexes []uint64
	for len(indexes) < n {
		r := s.report()
		for _, f := range r.GetFinished() {
			leases, indexes = append(leases, f.GetLease()...), append(indexes, f.GetIndex()...)
		}
		if returned := r.GetReturned(); len(returned) > 0 { // on a slow machine: they have waited for a slot for 100 ms
			again := &wire.Leases{Job: 1, FirstLease: 1000 + uint64(len(granted))}
			for _, lease := range returned {
				again.Index = append(again.Index, granted[lease-1000])
			}
			granted = append(granted, again.GetIndex()...)
			s.work(&wire.Work{Leases: []*wire.Leases{again}})
		}
	}
	slices.Sort(indexes)
	s.work(&wire.Work{Committed: leases})
	for i, index := range indexes {
		if index != uint64(i) {
			t.Fatalf("report %d in order is of task %d", i, index)
		}
	}
	w.cancel(errors.New("signal"))
	for m := s.next(); m.GetGoodbye() == nil; m = s.next() {
		if m == nil {
			t.Fatal("exited without reporting the drain")
		}
	}
	if err := w.end(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestWorkerSurvivesItsLeader(t *testing.T) {
	first, second := newFakeLeader(t, "127.0.0.1:0"), newFakeLeader(t, "127.0.0.1:0")
	b := newBlocker()
	w := startWorker(t, Config{Leaders: []string{first.addr, second.addr}, Slots: 2}, b.run)
	s := first.welcomed()
	s.work(oneLease(jobMessage(1), 50, 2))
	<-b.began
	<-b.began
	first.server.Stop()

	s2 := second.welcomed()
	if s2.hello.GetIdentity() != s.hello.GetIdentity() || s2.hello.GetIncarnation() != s.hello.GetIncarnation() {
		t.Error("its identity has changed")
	}
	held := s2.hello.GetHeld()
	if len(held) != 2 || held[0].GetLease() != 50 || !held[0].GetStarted() || !held[1].GetStarted() || held[1].GetIndex() != 1 {
		t.Fatalf("held = %v, want 50 and 51, started", held)
	}
	b.end <- runner.Outcome{Records: 3}
	b.end <- runner.Outcome{}
	var leases []uint64
	for len(leases) < 2 {
		leases = append(leases, finishedLeases([]*wire.Report{s2.report()})...)
	}
	slices.Sort(leases)
	if !slices.Equal(leases, []uint64{50, 51}) {
		t.Errorf("finished = %v, want 50 and 51 once each", leases)
	}
	if !w.State().Connected || w.State().Worker != 7 {
		t.Errorf("State() = %+v", w.State())
	}
	// The verdict is lost: the next session starts with the same report.
	s2.hangUp()
	s3 := second.welcomed()
	if got := finishedLeases([]*wire.Report{s3.report()}); !slices.Equal(got, []uint64{50, 51}) {
		t.Errorf("finished, again = %v, want 50 and 51", got)
	}
}

func TestWorkerContinuesWithoutALeader(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	l.refuse = errNotLeader
	w := startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, nothing)
	l.session()
	l.session()
	l.mu.Lock()
	l.refuse = nil
	l.mu.Unlock()
	for {
		s := l.session()
		select {
		case s.out <- &wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: &wire.Welcome{Worker: 1}}}:
			w.cancel(nil)
			if err := w.end(); err != nil {
				t.Errorf("Run() = %v", err)
			}
			return
		case <-s.ended: // refused before the change
		}
	}
}

func TestWorkerPanic(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, func(_ context.Context, a *runner.Attempt) runner.Outcome {
		if a.Index == 1 {
			panic("poison \xff" + strings.Repeat("é", wire.FailureMessageMax)) // neither valid UTF-8, nor short enough
		}
		return runner.Outcome{}
	})
	s := l.welcomed()
	var leases []uint64
	var failures []*wire.Failure
	for index := range uint64(3) {
		s.work(oneTask(jobMessage(1), 10+index, index))
		r := s.report()
		leases = append(leases, finishedLeases([]*wire.Report{r})...)
		failures = append(failures, r.GetFailed()...)
	}
	if !slices.Equal(leases, []uint64{10, 12}) || len(failures) != 1 {
		t.Fatalf("finished = %v, failed = %v; want 10 and 12 finished, and one failure", leases, failures)
	}
	f := failures[0]
	if f.GetLease() != 11 || f.GetKind() != wire.FailureKind_PROGRAM_ERROR || !strings.HasPrefix(f.GetMessage(), "panic: poison \uFFFD") ||
		len(f.GetMessage()) > wire.FailureMessageMax {
		t.Errorf("failure = %v", f)
	}
}

// TestWorkerGoexit: a program that ends the goroutine of its task fails the attempt; the others of the chunk, and the next chunks, run.
func TestWorkerGoexit(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, func(_ context.Context, a *runner.Attempt) runner.Outcome {
		if a.Index == 1 {
			runtime.Goexit()
		}
		return runner.Outcome{}
	})
	s := l.welcomed()
	var leases []uint64
	var failures []*wire.Failure
	for chunk := range uint64(2) {
		s.work(oneLease(jobMessage(1), 10+10*chunk, 3))
		for len(leases)+len(failures) < int(3*chunk)+3 {
			r := s.report()
			leases = append(leases, finishedLeases([]*wire.Report{r})...)
			failures = append(failures, r.GetFailed()...)
		}
	}
	if !slices.Equal(leases, []uint64{10, 12, 20, 22}) || len(failures) != 2 {
		t.Fatalf("finished = %v, failed = %v; want 10, 12, 20 and 22 finished, and two failures", leases, failures)
	}
	for i, f := range failures {
		if f.GetLease() != uint64(11+10*i) || f.GetKind() != wire.FailureKind_PROGRAM_ERROR || !strings.Contains(f.GetMessage(), "runtime.Goexit") {
			t.Errorf("failure = %v", f)
		}
	}
}

func TestWorkerRemovesFiles(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	out := t.TempDir()
	job := &wire.Job{Id: 1, Uid: "abc", Output: out, Stages: []string{"map"}}
	wait := newBlocker()
	w := startWorker(t, Config{Leaders: []string{l.addr}, Slots: 3}, func(ctx context.Context, a *runner.Attempt) runner.Outcome {
		if a.Index == 2 {
			return wait.run(ctx, a)
		}
		file := filepath.Join(out, "_temporary", "abc", layout.Attempt("map", a.Index, a.Lease))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("x"), 0o644)); err != nil {
			t.Error(err)
		}
		return runner.Outcome{File: blob.Location(file), Size: 1}
	})
	s := l.welcomed()
	s.work(oneLease(job, 10, 3))
	var leases []uint64
	for len(leases) < 2 {
		leases = append(leases, finishedLeases([]*wire.Report{s.report()})...)
	}
	<-wait.began
	s.work(&wire.Work{Committed: []uint64{10}, Stale: []uint64{11, 12}})
	if r := s.report(); !slices.Equal(r.GetReturned(), []uint64{12}) {
		t.Errorf("report = %v, want 12 returned", r)
	}
	s.send(&wire.ToWorker{Message: &wire.ToWorker_Drain{Drain: &wire.Drain{}}})
	if err := w.end(); err != nil { // after the files are removed
		t.Errorf("Run() = %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(out, "_temporary", "abc"))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "map-0-10" {
		t.Errorf("%v is left, want the winner's file alone", entries)
	}
}

func TestWorkerDrainAtOnce(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	b := newBlocker()
	w := startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, b.run)
	s := l.welcomed()
	s.work(oneLease(jobMessage(1), 10, 3))
	<-b.began
	if st := w.Slots()[0]; !st.Running || st.Job != 1 || st.Stage != "map" || st.Lease != 10 || st.Attempt != 1 {
		t.Errorf("Slots()[0] = %+v", st)
	}
	w.cancel(ErrStopNow)
	var returned []uint64
	var kinds []wire.FailureKind
	for {
		m := s.next()
		if m == nil {
			t.Fatal("exited without reporting the drain")
		}
		if m.GetGoodbye() != nil {
			break
		}
		if len(m.GetReport().GetFailed()) > 0 && !m.GetReport().GetDraining() { // returned leases may have been before the drain
			t.Errorf("report = %v, want draining set", m)
		}
		returned = append(returned, m.GetReport().GetReturned()...)
		for _, f := range m.GetReport().GetFailed() {
			kinds = append(kinds, f.GetKind())
		}
	}
	if !slices.Equal(returned, []uint64{11, 12}) || !slices.Equal(kinds, []wire.FailureKind{wire.FailureKind_PREEMPTED}) {
		t.Errorf("returned %v, failed %v; want 11 and 12, and one PREEMPTED", returned, kinds)
	}
	if err := w.end(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestWorkerDataDir(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), Leaders: []string{"127.0.0.1:1"}, Slots: 1}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "in use by another worker process") ||
		!strings.Contains(err.Error(), cfg.DataDir) {
		t.Errorf("New() of a second worker = %v, want it refused", err)
	}
	identity, temp := w.dir.identity, w.dir.temp
	if err := os.MkdirAll(filepath.Join(temp, "1"), 0o700); err != nil { // of a slot whose keeper was killed too
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w, err = New(cfg)
	if err != nil {
		t.Fatalf("New() after Close: %v", err)
	}
	if _, err := os.Stat(temp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary files of before: %v, want them removed", err)
	}
	if w.dir.identity != identity {
		t.Errorf("identity = %s after a restart, want %s", w.dir.identity, identity)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(cfg.DataDir, "identity")
	if err := os.WriteFile(file, []byte("gar\x00bage"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("New() with a damaged identity = %v, want an error that names %s", err, file)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, cfg := range []Config{
		{Leaders: []string{"a:1"}},
		{DataDir: t.TempDir(), Leaders: []string{"a"}},
		{DataDir: t.TempDir(), Leaders: []string{"a:1"}, Slots: -1},
	} {
		if w, err := New(cfg); err == nil {
			t.Errorf("New(%+v) gave no error", cfg)
			_ = w.Close()
		}
	}
}

func TestWorkerSendsLogs(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	goOn := make(chan struct{})
	startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, func(_ context.Context, a *runner.Attempt) runner.Outcome {
		if a.Index == 2 {
			<-goOn
		}
		a.Log.Append(fmt.Appendf(nil, "task %d\nand no end", a.Index))
		return runner.Outcome{}
	})
	s := l.welcomed()
	for index := range uint64(2) {
		s.work(oneTask(jobMessage(1), 10+index, index))
		s.report()
	}
	read := func(want int) string { // so many records, in however many messages
		var text strings.Builder
		for got := 0; got < want; {
			select {
			case m := <-l.logs:
				for _, r := range m.GetRecords() {
					fmt.Fprintf(&text, "%d/%d#%d:%s|", r.GetIndex(), r.GetLease(), r.GetAttempt(), r.GetText())
				}
				got += len(m.GetRecords())
			case <-time.After(testTimeout): //nolint:forbidigo // only when the test fails
				t.Fatal("no records")
			}
		}
		return text.String()
	}
	s.send(&wire.ToWorker{Message: &wire.ToWorker_Log{Log: &wire.LogRequest{Request: 5, Job: 1}}})
	if got, want := read(4), "0/10#1:task 0\n|0/10#1:and no end|1/11#1:task 1\n|1/11#1:and no end|"; got != want {
		t.Errorf("log = %q, want %q", got, want)
	}
	s.send(&wire.ToWorker{Message: &wire.ToWorker_Log{Log: &wire.LogRequest{Request: 6, Job: 1, OneTask: true, Index: 2, Follow: true}}})
	first := <-l.logs
	if first.GetRequest() != 6 || first.GetWorker() != 7 {
		t.Errorf("first message = %v, want request 6 of worker 7", first)
	}
	s.work(oneTask(jobMessage(1), 20, 2))
	close(goOn)
	s.report()
	if got, want := read(2), "2/20#1:task 2\n|2/20#1:and no end|"; got != want {
		t.Errorf("followed log = %q, want %q", got, want)
	}
	close(l.stopLogs) // goleak checks that the call ends
}

// TestWorkerWritesLogsBeforeReports: the log of a reported attempt survives the process.
func TestWorkerWritesLogsBeforeReports(t *testing.T) {
	l := newFakeLeader(t, "127.0.0.1:0")
	dir := t.TempDir()
	startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1, DataDir: dir}, func(_ context.Context, a *runner.Attempt) runner.Outcome {
		a.Log.Append([]byte("text\n"))
		return runner.Outcome{}
	})
	s := l.welcomed()
	for i := range uint64(20) {
		s.work(oneLease(jobMessage(i+1), 10+i, 1))
		s.report()
		file := filepath.Join(dir, logsDir, fmt.Sprintf("%d.log", i+1))
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "text\n") {
			t.Fatalf("log at the time of the report = %q, %v; want the text", text, err)
		}
	}
}

func TestWorkerCommits(t *testing.T) {
	out := t.TempDir()
	job := &wire.Job{
		Id: 4, Uid: "abc", Output: out, Stages: []string{"map", "collect", "commit"}, StartedUnixMs: 5000,
		Program: &wire.Program{Kind: &wire.Program_Command{Command: &wire.Command{Argv: [][]byte{[]byte("grep"), []byte("x")}}}},
	}
	private := filepath.Join(out, "_temporary", "abc")
	if err := os.MkdirAll(private, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"map-0-101": "zero", "map-2-300": "two2", "collect-0-400": "all", "map-0-100": "lost"} {
		if err := os.WriteFile(filepath.Join(private, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := newFakeLeader(t, "127.0.0.1:0")
	zero := &wire.PartsPage{Index: []uint64{0}, Lease: []uint64{101}, Size: []uint64{4}, Tasks: 3}
	two := &wire.PartsPage{Index: []uint64{2}, Lease: []uint64{300}, Size: []uint64{4}, Dead: []uint64{1}, Tasks: 3}
	l.parts[0] = []*wire.PartsPage{zero, nil} // the leader is lost between two pages
	l.parts[1] = []*wire.PartsPage{{Index: []uint64{0}, Lease: []uint64{400}, Size: []uint64{3}, Tasks: 1}}
	startWorker(t, Config{Leaders: []string{l.addr}, Slots: 1}, nothing)
	s := l.welcomed()
	s.work(&wire.Work{Jobs: []*wire.Job{job}, Leases: []*wire.Leases{{
		Job: 4, Stage: 2, FirstLease: 500, Index: []uint64{0}, Action: wire.CommitAction_COMMIT_PARTIAL,
	}}})
	l.mu.Lock()
	l.parts[0] = []*wire.PartsPage{zero, two}
	l.mu.Unlock()
	s.hangUp()
	s = l.welcomed()
	r := s.report()
	if got := finishedLeases([]*wire.Report{r}); !slices.Equal(got, []uint64{500}) {
		t.Fatalf("report = %v, want the commit finished", r)
	}
	for name, want := range map[string]string{"part-00000": "zero", "part-00002": "two2", "_RESULT": "all"} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v; want %q", name, got, err, want)
		}
	}
	text, err := os.ReadFile(filepath.Join(out, "_PARTIAL"))
	var m api.Manifest
	if err := errors.Join(err, json.Unmarshal(text, &m)); err != nil {
		t.Fatal(err)
	}
	if m.Job != 4 || !slices.Equal(m.Missing, []uint64{1}) || len(m.Parts) != 2 || !slices.Equal(m.Program.Command, []string{"grep", "x"}) ||
		!m.Started.Equal(time.UnixMilli(5000)) {
		t.Errorf("manifest = %+v", m)
	}
	if _, err := os.Stat(filepath.Join(out, "_temporary")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("_temporary is left: %v", err)
	}

	// Another job with the same output is refused.
	other := &wire.Job{Id: 5, Uid: "def", Output: out, Stages: []string{"map", "commit"}}
	l.mu.Lock()
	l.parts[0] = []*wire.PartsPage{{Tasks: 0}}
	l.mu.Unlock()
	s.work(&wire.Work{Jobs: []*wire.Job{other}, Leases: []*wire.Leases{{
		Job: 5, Stage: 1, FirstLease: 600, Index: []uint64{0}, Action: wire.CommitAction_COMMIT,
	}}})
	f := s.report().GetFailed()
	if len(f) != 1 || f[0].GetKind() != wire.FailureKind_BAD_INPUT || !strings.Contains(f[0].GetMessage(), out) {
		t.Errorf("failed = %v, want a BAD_INPUT that names the folder", f)
	}
}

// TestSortMemory: what a slot sorts in fits the machine, and what is offered of it.
func TestSortMemory(t *testing.T) {
	const mib = 1 << 20
	for _, test := range []struct {
		slots            int
		offered, machine uint64
		want             int64
	}{
		{2, 0, 0, 0},
		{2, 0, 24 << 30, 128 * mib},
		{64, 0, 16 << 30, 64 * mib},
		{2, 0, 256 * mib, 32 * mib},
		{2, 512 * mib, 24 << 30, 64 * mib},
		{2, 512 * mib, 0, 64 * mib},
		{2, 24 << 30, 256 * mib, 32 * mib},
		{64, 0, 512 * mib, 8 * mib},
	} {
		c := Config{Slots: test.slots, Memory: test.offered}
		if got := c.sortMemory(test.machine); got != test.want {
			t.Errorf("%d slots, %d MiB of %d MiB: %d MiB, want %d MiB", test.slots, test.offered/mib, test.machine/mib, got/mib, test.want/mib)
		}
	}
}
