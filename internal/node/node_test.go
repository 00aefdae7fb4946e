package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/httpapi/leadertest"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is a job of n commands.
func request(n int64) *api.JobRequest {
	return &api.JobRequest{Program: api.Program{Command: []string{"true", "{}"}}, Range: &api.Range{From: 1, To: n}}
}

// problemOf checks that err is a problem with that status and text.
func problemOf(t *testing.T, err error, status int, text string) {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != status || !strings.Contains(err.Error(), text) {
		t.Errorf("error = %v, want a %d that says %q", err, status, text)
	}
}

func submit(t *testing.T, l *Node, req *api.JobRequest, key string) api.Job {
	t.Helper()
	id, _, err := l.Submit(access.WithPrincipal(t.Context(), access.Principal{Permissions: access.Manage}), req, key)
	job, ok := l.Job(id)
	if err != nil || !ok {
		t.Fatalf("Submit() = %d, %v; visible: %v", id, err, ok)
	}
	return job
}

// finished waits for the end of a job.
func finished(t *testing.T, l *Node, id uint64) api.Job {
	t.Helper()
	if err := l.WaitJob(t.Context(), id); err != nil {
		t.Fatalf("WaitJob(%d) = %v", id, err)
	}
	job, _ := l.Job(id)
	return job
}

// until waits for a change of the views.
func (r *rig) until(what string, done func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeoutCause(r.t.Context(), time.Minute, fmt.Errorf("no sign of: %s", what))
	defer cancel()
	if err := r.node.views.Changed().Wait(ctx, func() (bool, error) { return done(), nil }); err != nil {
		r.t.Fatal(err)
	}
}

func TestJobRunsToItsResult(t *testing.T) {
	r := newRig(t)
	job := submit(t, r.node, request(3), "")
	if job.ID != 1 || job.Status != api.JobHalted || job.Name != "true" || !job.Spool {
		t.Errorf("submitted: %+v, want job 1, halted while there is no worker, named after its command", job)
	}
	r.worker("alice", finishAll)
	job = finished(t, r.node, 1)
	if job.Status != api.JobDone || job.Stages[0].Done != 3 || job.OutputBytes != 18 {
		t.Errorf("finished: %+v, want all three tasks done", job)
	}
	var b bytes.Buffer
	if err := r.node.Result(t.Context(), 1, &b); err != nil || b.String() != "map 0\nmap 1\nmap 2\n" {
		t.Errorf("Result() = %q, %v", b.String(), err)
	}
	tasks, err := r.node.Tasks(t.Context(), 1, api.TaskQuery{Limit: 2})
	if err != nil || len(tasks.Tasks) != 2 || tasks.Tasks[1].Name != "1/map/1" || tasks.Tasks[1].Status != api.TaskDone || tasks.Tasks[1].Input != "2" {
		t.Errorf("Tasks() = %+v, %v", tasks, err)
	}
	tasks, err = r.node.Tasks(t.Context(), 1, api.TaskQuery{Stage: "map", Limit: 2, Cursor: tasks.Next})
	if err != nil || len(tasks.Tasks) != 1 || tasks.Tasks[0].Name != "1/map/2" || tasks.Next != "" {
		t.Errorf("Tasks(), second page = %+v, %v", tasks, err)
	}
	e, err := r.node.Explain(t.Context(), 1, "", 0)
	if err != nil || e.Status != api.JobDone || !strings.Contains(strings.Join(e.Reasons, "\n"), "all 3 tasks are done") {
		t.Errorf("Explain() = %+v, %v", e, err)
	}
	e, err = r.node.Explain(t.Context(), 1, "map", 2)
	if err != nil || e.Status != api.TaskDone {
		t.Errorf("Explain(map/2) = %+v, %v", e, err)
	}
}

func TestJobFailsAndIsRetried(t *testing.T) {
	r := newRig(t)
	submit(t, r.node, request(2), "")
	bad := r.worker("alice", failAll)
	job := finished(t, r.node, 1)
	if job.Status != api.JobFailed || job.Stages[0].Dead != 2 || !strings.Contains(job.Error, "no such line") {
		t.Errorf("finished: %+v, want it failed with the word of the worker", job)
	}
	problemOf(t, r.node.Result(t.Context(), 1, io.Discard), http.StatusConflict, "no such line")
	tasks, err := r.node.Tasks(t.Context(), 1, api.TaskQuery{Status: api.TaskDead, Limit: 10})
	if err != nil || len(tasks.Tasks) != 2 || len(tasks.Tasks[0].Failures) != 1 || tasks.Tasks[0].Failures[0].Kind != "bad_input" {
		t.Errorf("Tasks(dead) = %+v, %v", tasks, err)
	}
	e, err := r.node.Explain(t.Context(), 1, "", 0)
	if err != nil || !strings.Contains(strings.Join(e.Reasons, "\n"), "stage map: 2 of 2 tasks dead") || len(e.Advice) == 0 {
		t.Errorf("Explain() = %+v, %v", e, err)
	}
	<-bad.welcomed
	if err := r.node.RemoveWorker(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := <-bad.ended; status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the removed worker's session ended with %v, want FailedPrecondition", err)
	}
	r.worker("bob", finishAll)
	err = r.node.Retry(t.Context(), 1)
	if job, _ = r.node.Job(1); err != nil || job.Status == api.JobFailed {
		t.Errorf("Retry() = %v, then %+v", err, job)
	}
	if job = finished(t, r.node, 1); job.Status != api.JobDone || job.Error != "" || job.Stages[0].Retried != 2 {
		t.Errorf("finished: %+v, want it done", job)
	}
}

func TestStop(t *testing.T) {
	r := newRig(t)
	r.worker("alice", nil)
	submit(t, r.node, request(5), "")
	r.until("two leases", func() bool { job, _ := r.node.Job(1); return job.Stages[0].Running == 2 })
	running, err := r.node.Tasks(t.Context(), 1, api.TaskQuery{Status: api.TaskRunning, Limit: 10})
	if err != nil || len(running.Tasks) != 2 || running.Tasks[0].Worker != 1 {
		t.Errorf("Tasks(running) = %+v, %v", running, err)
	}
	e, err := r.node.Explain(t.Context(), 1, "map", 4)
	if err != nil || e.Status != api.TaskOpen {
		t.Errorf("Explain(map/4) = %+v, %v", e, err)
	}
	dir := filepath.Join(r.spool, "left")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	before, _ := r.node.Job(1)
	attempts := filepath.Join(before.Output, "_temporary", filepath.Base(before.Output))
	old, later := filepath.Join(attempts, fmt.Sprintf("map-0-%d", state.NewLease(1, 1))), filepath.Join(attempts, fmt.Sprintf("map-0-%d", state.NewLease(2, 1)))
	if err := os.MkdirAll(attempts, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{old, later} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err = r.node.Stop(t.Context(), 1)
	if job, _ := r.node.Job(1); err != nil || job.Status != api.JobStopped {
		t.Errorf("Stop() = %v, then %+v", err, job)
	}
	problemOf(t, r.node.Result(t.Context(), 1, io.Discard), http.StatusConflict, "it was stopped")
	if err = r.node.Stop(t.Context(), 1); err != nil {
		t.Errorf("Stop() of a stopped job = %v, want it to be fine", err)
	}
	r.end() // which waits for what is being removed
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the job is stopped; what it has written: %v, want it gone", err)
	}
	if _, err := os.Stat(later); err != nil {
		t.Errorf("what a later run of the job, under the next leader, may have written: %v, want it untouched", err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the rest of the spool is gone too: %v", err)
	}
}

func TestErrors(t *testing.T) {
	r := newRig(t)
	l := r.node
	_, _, err := l.Submit(t.Context(), &api.JobRequest{}, "")
	problemOf(t, err, http.StatusUnprocessableEntity, "")
	req := request(1)
	req.Output = filepath.Join(r.spool, "out")
	submit(t, l, req, "k")
	req.OnConflict = "fail"
	_, _, err = l.Submit(t.Context(), req, "another")
	problemOf(t, err, http.StatusConflict, "job 1 holds")
	err = l.Stop(t.Context(), 9)
	problemOf(t, err, http.StatusNotFound, "there is no job 9")
	err = l.Retry(t.Context(), 1)
	problemOf(t, err, http.StatusConflict, "only a failed or stopped job")
	_, err = l.Tasks(t.Context(), 9, api.TaskQuery{Limit: 1})
	problemOf(t, err, http.StatusNotFound, "9")
	_, err = l.Tasks(t.Context(), 1, api.TaskQuery{Limit: 1, Cursor: "x"})
	problemOf(t, err, http.StatusUnprocessableEntity, "cursor")
	_, err = l.Jobs(api.JobQuery{Limit: 1, Cursor: "x"})
	problemOf(t, err, http.StatusUnprocessableEntity, "cursor")
	_, err = l.Task(t.Context(), 1, "map", 7)
	problemOf(t, err, http.StatusNotFound, "map/7")
	_, err = l.Explain(t.Context(), 9, "", 0)
	problemOf(t, err, http.StatusNotFound, "9")
	_, err = l.DrainWorker(t.Context(), 9)
	problemOf(t, err, http.StatusNotFound, "worker 9")
	problemOf(t, l.Result(t.Context(), 1, io.Discard), http.StatusConflict, "wait for it")
	problemOf(t, l.Result(t.Context(), 9, io.Discard), http.StatusNotFound, "9")
	problemOf(t, l.WaitJob(t.Context(), 9), http.StatusNotFound, "9")
	problemOf(t, l.Logs(t.Context(), api.LogQuery{Job: 9}, nil), http.StatusNotFound, "9")
	problemOf(t, l.Logs(t.Context(), api.LogQuery{Job: 1, OneTask: true, Stage: "map", Index: 4}, nil), http.StatusNotFound, "map/4")
}

// A submit that is repeated with its key creates one job.
func TestIdempotencyKey(t *testing.T) {
	for _, kind := range []string{"output", "spool"} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t)
			req := request(2)
			if kind == "output" {
				req.Output = filepath.Join(r.spool, "out")
			}
			first := submit(t, r.node, req, "key")
			again := submit(t, r.node, req, "key")
			if first.ID != 1 || again.ID != 1 {
				t.Errorf("submitted twice with one key: jobs %d and %d, want 1 and 1", first.ID, again.ID)
			}
			_, _, err := r.node.Submit(t.Context(), request(3), "key")
			problemOf(t, err, http.StatusConflict, "use a new key")
		})
	}
}

// Two concurrent requests with one key both get an answer.
func TestIdempotencyKeyConcurrently(t *testing.T) {
	r := newRig(t)
	r.log.hold()
	add := func(tasks int64) chan error {
		answer := make(chan error, 1)
		spec := &state.Spec{Output: "/out"}
		spec.Input, _ = state.RangeInput(1, tasks)
		go func() {
			_, err := r.node.execute(t.Context(), "k", func(e *state.Entry) { e.Submit("k", "uid", "", spec) })
			answer <- err
		}()
		return answer
	}
	first := add(1)
	r.asked(1)
	second := add(2)
	r.asked(2)
	r.log.release()
	if err := <-first; err != nil {
		t.Errorf("the first = %v, want it to be taken", err)
	}
	problemOf(t, <-second, http.StatusConflict, "use a new key")
}

// asked waits until n requests are in flight.
func (r *rig) asked(n int) {
	r.t.Helper()
	for got := -1; got != n; {
		if err := r.node.do(r.t.Context(), func() {
			got = 0
			for _, list := range r.node.loop.requests.waiting {
				got += len(list)
			}
		}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestExplainNamesWhatWorkersLack(t *testing.T) {
	r := newRig(t)
	w := r.worker("alice", nil)
	<-w.welcomed
	req := request(1)
	req.SlotsPerTask, req.Labels = 50, map[string]string{"gpu": "yes"}
	submit(t, r.node, req, "")
	e, err := r.node.Explain(t.Context(), 1, "", 0)
	said := strings.Join(append(e.Reasons, e.Advice...), "\n")
	for _, want := range []string{
		"worker 1 does not fit: it has no label gpu=yes; an attempt needs 50 slots, it has ",
		"bridgefour worker --leader ADDR --slots 50 --label gpu=yes",
	} {
		if err != nil || !strings.Contains(said, want) {
			t.Errorf("Explain() = %s, %v, want %q in it", said, err, want)
		}
	}
}

func TestLogIsFullAndHasRoomAgain(t *testing.T) {
	r := newRig(t)
	var attempts holding
	w := r.worker("alice", attempts.answer)
	<-w.welcomed
	submit(t, r.node, request(1), "")
	r.until("the lease", func() bool { job, _ := r.node.Job(1); return job.Stages[0].Running == 1 })
	r.log.fill(true)
	r.until("the leader knows", func() bool { return r.node.Cluster().NotReady != "" })
	_, _, err := r.node.Submit(t.Context(), request(1), "")
	problemOf(t, err, http.StatusServiceUnavailable, "disk of the test")
	e, err := r.node.Explain(t.Context(), 1, "", 0)
	if err != nil || !strings.Contains(strings.Join(e.Reasons, "\n"), "disk of the test") {
		t.Errorf("Explain() = %+v, %v, want it to name the full disk", e, err)
	}
	// A completion waits now, and is not lost.
	attempts.release(w)
	for leased := uint64(1); leased > 0; { // until the report has come: the views show it once it is in the log
		if err := r.node.do(t.Context(), func() { leased = r.node.loop.controller.Core().Leased(1) }); err != nil {
			t.Fatal(err)
		}
	}
	r.log.fill(false)
	if job := finished(t, r.node, 1); job.Status != api.JobDone {
		t.Errorf("finished: %+v, want it done", job)
	}
	submit(t, r.node, request(1), "")
}

// A request that was accepted just before the log became full is answered, though its entry waits for room.
func TestRequestWhileLogBecomesFull(t *testing.T) {
	r := newRig(t)
	submit(t, r.node, request(1), "") // it leads
	r.log.mu.Lock()
	r.log.full = fmt.Errorf("disk of the test: %w", replica.ErrLogFull)
	r.log.mu.Unlock()
	_, _, err := r.node.Submit(t.Context(), request(1), "")
	problemOf(t, err, http.StatusServiceUnavailable, "disk of the test: "+replica.ErrLogFull.Error()+": the request may have been carried out")
	r.log.fill(false)
	r.until("the entry is in the log", func() bool { _, ok := r.node.Job(2); return ok })
}

// An entry that the log refuses for its size ends the node, and with it the requests in it.
func TestEntryTooLarge(t *testing.T) {
	r := newRig(t)
	submit(t, r.node, request(1), "") // it leads
	r.log.mu.Lock()
	r.log.full = replica.ErrEntryTooLarge
	r.log.mu.Unlock()
	_, _, err := r.node.Submit(t.Context(), request(1), "")
	problemOf(t, err, http.StatusServiceUnavailable, "")
	if err := <-r.ended; !errors.Is(err, replica.ErrEntryTooLarge) {
		t.Errorf("Run() = %v, want ErrEntryTooLarge", err)
	}
	r.ended <- nil // for the cleanup
}

func TestSnapshotWhileRunning(t *testing.T) {
	r := newRig(t)
	r.log.save = make(chan struct{})
	r.log.mu.Lock()
	r.log.events <- replica.Event{WantSnapshot: true}
	r.log.mu.Unlock()
	r.worker("alice", finishEmpty)
	submit(t, r.node, request(2000), "")
	job := finished(t, r.node, 1) // while the snapshot is being written
	close(r.log.save)
	r.end() // which waits for the snapshot
	m, rerr := state.Restore(io.NopCloser(bytes.NewReader(r.log.saved)))
	if rerr != nil || m.Index() > uint64(len(r.log.entries)) {
		t.Fatalf("Restore() = index %d, %v", m.Index(), rerr)
	}
	if job.Status != api.JobDone || m.Job(1) != nil && m.Job(1).Stages[0].Done == 2000 {
		t.Errorf("the job is %+v; the snapshot, taken before, has %+v", job, m.Job(1))
	}
}

func TestLogs(t *testing.T) {
	r := newRig(t)
	w := r.worker("alice", nil)
	<-w.welcomed
	submit(t, r.node, request(2), "")
	var got []string
	emit := func(rec api.LogRecord) error {
		got = append(got, fmt.Sprintf("%s %s", rec.Task, rec.Text))
		return nil
	}
	if err := r.node.Logs(t.Context(), api.LogQuery{Job: 1}, emit); err != nil {
		t.Fatal(err)
	}
	if want := []string{"1/map/0 zero\n", "1/map/1 one\n"}; !slices.Equal(got, want) {
		t.Errorf("Logs() gave %q, want %q", got, want)
	}
	// Following ends with the job, without duplicates.
	got = nil
	followed := make(chan error, 1)
	given := make(chan struct{}, 10)
	go func() {
		followed <- r.node.Logs(t.Context(), api.LogQuery{Job: 1, Follow: true}, func(rec api.LogRecord) error {
			defer func() { given <- struct{}{} }()
			return emit(rec)
		})
	}()
	<-given
	<-given
	if err := r.node.Stop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := <-followed; err != nil {
		t.Errorf("Logs(follow) = %v", err)
	}
	if want := []string{"1/map/0 zero\n", "1/map/1 one\n"}; !slices.Equal(got, want) {
		t.Errorf("Logs(follow) gave %q, want %q", got, want)
	}
	// A reader may stop.
	enough := errors.New("enough")
	if err := r.node.Logs(t.Context(), api.LogQuery{Job: 1}, func(api.LogRecord) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Logs() = %v, want the reader's error", err)
	}
}

func TestListsAndViews(t *testing.T) {
	r := newRig(t)
	for range 5 {
		submit(t, r.node, request(1), "")
	}
	if err := r.node.Stop(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	var ids []uint64
	for cursor := ""; ; {
		list, err := r.node.Jobs(api.JobQuery{Limit: 2, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range list.Jobs {
			ids = append(ids, job.ID)
		}
		if cursor = list.Next; cursor == "" {
			break
		}
	}
	if want := []uint64{5, 4, 3, 2, 1}; !slices.Equal(ids, want) {
		t.Errorf("Jobs(), page by page = %v, want %v", ids, want)
	}
	list, err := r.node.Jobs(api.JobQuery{Limit: 10, Status: []string{api.JobStopped}})
	if err != nil || len(list.Jobs) != 1 || list.Jobs[0].ID != 3 {
		t.Errorf("Jobs(stopped) = %+v, %v", list, err)
	}
	w := r.worker("alice", nil)
	<-w.welcomed
	r.until("the worker", func() bool { return len(r.node.Workers()) == 1 })
	if c := r.node.Cluster(); c.Status != "healthy" || c.Workers != 1 || c.Slots != 2 || c.Jobs != 4 {
		t.Errorf("Cluster() = %+v", c)
	}
	if worker, ok := r.node.Worker(1); !ok || worker.Identity != "alice" {
		t.Errorf("Worker(1) = %+v, %v", worker, ok)
	}
	if _, ok := r.node.Worker(2); ok {
		t.Error("Worker(2) is there")
	}
	index, age, leader := r.node.Status()
	if age != 0 || leader != 1 {
		t.Errorf("Status() = %d, %d, %d, want age 0 on leader 1", index, age, leader)
	}
	waited := make(chan error, 1)
	go func() { waited <- r.node.WaitIndex(t.Context(), index+1) }()
	if err := r.node.Stop(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("WaitIndex() = %v", err)
	}
	if c := r.node.Consensus(); c.Role != "Leader" || c.Term != 1 || c.Leader == nil || *c.Leader != 1 {
		t.Errorf("Consensus() = %+v", c)
	}
}

func TestDrainWorker(t *testing.T) {
	r := newRig(t)
	w := r.worker("alice", nil)
	<-w.welcomed
	r.until("the worker", func() bool { return len(r.node.Workers()) == 1 })
	if worker, err := r.node.DrainWorker(t.Context(), 1); err != nil || worker.Status != "draining" {
		t.Errorf("DrainWorker() = %+v, %v", worker, err)
	}
	if err := <-w.ended; status.Code(err) != codes.FailedPrecondition { // it drains, and is removed
		t.Errorf("the drained worker's session ended with %v, want FailedPrecondition", err)
	}
	r.until("it is gone", func() bool { return len(r.node.Workers()) == 0 })
}

func TestDuplicateIdentity(t *testing.T) {
	r := newRig(t)
	w := r.worker("alice", nil)
	<-w.welcomed
	second := r.worker("alice", nil) // the same incarnation: a reconnect
	<-second.welcomed
	if err := <-w.ended; status.Code(err) != codes.Unavailable {
		t.Errorf("the replaced session ended with %v, want Unavailable", err)
	}
	third := &wire.Hello{Identity: "alice", Incarnation: "other", Slots: 1}
	claim := func() error {
		call, err := second.client.Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := call.Send(&wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: third}}); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = call.Recv() // a ping, and then the end
		}
		return err
	}
	if err := claim(); status.Code(err) != codes.Unavailable {
		t.Errorf("a second process with one identity was told %v at first, want Unavailable: the first may be dead", err)
	}
	r.until("the second process is refused for good", func() bool {
		second.report(&wire.Report{Heartbeat: true})
		err := claim()
		return status.Code(err) == codes.FailedPrecondition && strings.Contains(err.Error(), "data directory")
	})
	call, err := second.client.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := call.Send(&wire.FromWorker{Message: &wire.FromWorker_Report{Report: &wire.Report{}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := call.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a session without a hello was told %v, want InvalidArgument", err)
	}
}

func TestParts(t *testing.T) {
	r := newRig(t)
	w := r.worker("alice", finishEmpty)
	n := partsPage + 100
	submit(t, r.node, request(int64(n)), "")
	finished(t, r.node, 1)
	call, err := w.client.Parts(t.Context(), &wire.PartsRequest{Job: 1, Host: "another"})
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	pages, elsewhere := 0, 0
	for {
		page, err := call.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pages++
		got = append(got, page.GetIndex()...)
		for _, maker := range page.GetMaker() {
			if maker == wire.Maker_MAKER_ELSEWHERE {
				elsewhere++
			}
		}
		if page.GetTasks() != uint64(n) || len(page.GetLease()) != len(page.GetIndex()) {
			t.Fatalf("page: %d tasks, %d leases for %d", page.GetTasks(), len(page.GetLease()), len(page.GetIndex()))
		}
	}
	if pages != 2 || len(got) != n || !slices.IsSorted(got) || elsewhere != n {
		t.Errorf("Parts() = %d pages, %d tasks, %d of them done elsewhere", pages, len(got), elsewhere)
	}
	call, err = w.client.Parts(t.Context(), &wire.PartsRequest{Job: 1, Stage: 5})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call.Recv(); status.Code(err) != codes.NotFound {
		t.Errorf("Parts(no stage) = %v, want NotFound", err)
	}
}

func TestClientsOfStoppingNode(t *testing.T) {
	r := newRig(t)
	submit(t, r.node, request(1), "")
	waited := make(chan error, 1)
	go func() { waited <- r.node.WaitJob(t.Context(), 1) }()
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := r.node.WaitJob(gone, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitJob() of a client that has left = %v", err)
	}
	r.end()
	problemOf(t, <-waited, http.StatusServiceUnavailable, "shutting down")
	err := r.node.Stop(t.Context(), 1)
	problemOf(t, err, http.StatusServiceUnavailable, "shutting down")
}

func TestLogCloses(t *testing.T) {
	log := newFakeLog()
	l := New(Config{Log: log})
	close(log.events)
	if err := l.Run(t.Context()); err == nil {
		t.Error("Run() = nil though the log has closed")
	}
}

// The user of a job is the authenticated principal, whatever the request claims.
func TestUserIsThePrincipal(t *testing.T) {
	r := newRig(t)
	n := r.node
	r.until("the level rises", func() bool { return n.Cluster().Level > 0 }) // below it, older nodes use the name in the request
	req := request(1)
	req.User = "forged"
	for name, ctx := range map[string]context.Context{
		"ada": access.WithPrincipal(t.Context(), access.Principal{Name: "ada"}), "": t.Context(),
	} {
		id, _, err := n.Submit(ctx, req, "")
		if job, _ := n.Job(id); err != nil || job.User != name {
			t.Errorf("the job of %q is shown with user %q, %v", name, job.User, err)
		}
	}
}

// TestNodeServesTheAPI: the node passes the suite of the fake that stands for it in the tests of the HTTP routes.
func TestNodeServesTheAPI(t *testing.T) {
	leadertest.Suite(t, func(t *testing.T) httpapi.Leader {
		t.Helper()
		r := newRig(t)
		if err := r.node.WaitLeader(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		return Owned{r.node}
	})
}

// TestStreamWaitsForLostOutput: an output that is missing when its turn comes is sent once the job has made it again. The end of the stream has its sum.
func TestStreamWaitsForLostOutput(t *testing.T) {
	r := newRig(t)
	submit(t, r.node, request(3), "")
	begun, live := make(chan struct{}, 2), make(chan string, 2)
	for _, unordered := range []bool{false, true} {
		go func() {
			var b strings.Builder
			sums := map[uint64]uint64{}
			err := r.node.StreamParts(t.Context(), api.PartQuery{Job: 1, Unordered: unordered, Sums: true}, func(p api.Part) error {
				if p.Final {
					fmt.Fprintf(&b, "final %d, %v\n", p.Task, p.Sum == sums[p.Task] && p.Sum != 0)
					return nil
				}
				sums[p.Task] = p.Sum
				if p.Task == 0 {
					begun <- struct{}{}
				}
				b.Write(p.Text)
				return nil
			})
			live <- fmt.Sprintf("%s%v", b.String(), err)
		}()
	}
	var lost uint64 // the lease whose output was removed
	r.worker("alice", func(s *scripted, w *wire.Leases) *wire.Report {
		job := s.jobs[w.GetJob()]
		if job.GetPlan()[w.GetStage()].GetRole() == wire.StageRole_STAGE_CHECK {
			if lost == 0 {
				return finishEmpty(s, w)
			}
			<-begun
			<-begun
			report := &wire.Report{Returned: []uint64{w.GetFirstLease()}, Lost: []*wire.OutputLost{{Job: w.GetJob(), Index: 1, Lease: lost, Message: "is missing"}}}
			lost = 0
			return report
		}
		report := finishAll(s, w)
		if i := slices.Index(w.GetIndex(), 1); i >= 0 && len(w.GetAttempt()) == 0 {
			lost = w.GetFirstLease() + uint64(i) //nolint:gosec // not negative
			if err := os.Remove(filepath.Join(job.GetOutput(), "_temporary", job.GetUid(), fmt.Sprintf("map-1-%d", lost))); err != nil {
				s.t.Error(err)
			}
		}
		return report
	})
	for range 2 {
		lines := strings.SplitAfter(<-live, "\n")
		slices.Sort(lines)
		if got, want := strings.Join(lines, ""), "<nil>final 1, true\nmap 0\nmap 1\nmap 2\n"; got != want {
			t.Errorf("StreamParts() = %q, want %q", got, want)
		}
	}
}

// TestStreamParts reads outputs from before the first task has ended, again from the middle, and those of a job that has failed.
func TestStreamParts(t *testing.T) {
	r := newRig(t)
	submit(t, r.node, request(3), "")
	read := func(q api.PartQuery) string {
		t.Helper()
		var b strings.Builder
		if err := r.node.StreamParts(t.Context(), q, func(p api.Part) error {
			_, err := fmt.Fprintf(&b, "%d+%d %s:%s", p.Task, p.Offset, p.Input, p.Text)
			return err
		}); err != nil {
			t.Errorf("StreamParts(%+v) = %v", q, err)
		}
		return b.String()
	}
	live := make(chan string, 2)
	for _, unordered := range []bool{false, true} {
		go func() { live <- read(api.PartQuery{Job: 1, Unordered: unordered, Inputs: true}) }()
	}
	r.worker("alice", finishAll)
	for range 2 {
		lines := strings.SplitAfter(<-live, "\n")
		slices.Sort(lines) // those of the unordered stream come as the tasks end
		if got, want := strings.Join(lines, ""), "0+0 1:map 0\n1+0 2:map 1\n2+0 3:map 2\n"; got != want {
			t.Errorf("StreamParts() = %q, want %q", got, want)
		}
	}
	for _, c := range []struct {
		q    api.PartQuery
		want string
	}{
		{api.PartQuery{Job: 1, Task: 1, Offset: 4}, "1+4 :1\n2+0 :map 2\n"},
		{api.PartQuery{Job: 1, Task: 1, Offset: 6}, "2+0 :map 2\n"},
		{api.PartQuery{Job: 1, Task: 1, Offset: 4, Unordered: true}, "1+4 :1\n2+0 :map 2\n0+0 :map 0\n"},
	} {
		if got := read(c.q); got != c.want {
			t.Errorf("StreamParts(%+v) = %q, want %q", c.q, got, c.want)
		}
	}
	problemOf(t, r.node.StreamParts(t.Context(), api.PartQuery{Job: 2}, nil), http.StatusNotFound, "2")
}
