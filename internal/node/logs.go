package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/view"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// logTimeout is how long a reader waits for the next record of any worker.
const logTimeout = 5 * time.Second

// logFetches are the readers of task logs.
type logFetches struct {
	last      atomic.Uint64 // request number
	mu        sync.Mutex
	byRequest map[uint64]*logFetch
}

// logFetch is one reader: the workers' calls of SendLog fill its records.
type logFetch struct {
	left     <-chan struct{} // closed when the reader has left
	request  *wire.LogRequest
	expected chan []state.WorkerID // the workers that got the request
	records  chan workerRecord     // never closed: the reader counts the ends
	calls    uint64                // under logFetches.mu
	senders  sync.WaitGroup        // the calls that fill records; started under logFetches.mu, awaited by the reader
}

// workerRecord is a record of one worker's log, or the end of it.
type workerRecord struct {
	call       uint64 // of SendLog; each gives a worker's log from its start
	worker     uint64
	record     *wire.LogRecord // nil: the call has ended
	incomplete string          // why records are missing, at the end; empty: none are
}

// SendLog receives a worker's answer to a LogRequest.
func (n *Node) SendLog(rpc grpc.ClientStreamingServer[wire.LogRecords, wire.SendLogDone]) error {
	first, err := wire.FirstMessage(rpc.Recv)
	if err != nil {
		return err
	}
	if err := n.checkSender(rpc.Context(), first.GetWorker()); err != nil {
		return err
	}
	sent := make(chan struct{})
	n.fetches.mu.Lock()
	fetch := n.fetches.byRequest[first.GetRequest()]
	if fetch != nil {
		fetch.calls++
		call := fetch.calls
		fetch.senders.Go(func() {
			defer close(sent)
			fetch.receive(call, first, rpc)
		})
	}
	n.fetches.mu.Unlock()
	if fetch == nil {
		return status.Error(codes.Canceled, "the reader of this log has left")
	}
	select {
	case <-sent:
		return rpc.SendAndClose(&wire.SendLogDone{})
	case <-fetch.left: // returning ends the call, and with it receive
		return status.Error(codes.Canceled, "the reader of this log has left")
	}
}

// checkSender refuses a caller that is not the worker with that number, if it has authenticated as another one.
func (n *Node) checkSender(ctx context.Context, number uint64) error {
	who := access.From(ctx)
	if who.Role != access.RoleWorker {
		return nil
	}
	identity := ""
	if err := n.DoLeading(ctx, func(m *state.Machine, _ *leader.Core) {
		if w := m.Worker(state.WorkerID(number)); w != nil {
			identity = w.Identity
		}
	}); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	if identity != who.Name {
		return status.Errorf(codes.PermissionDenied, "logs of worker %d are not accepted from %q, which is another worker", number, who.Name)
	}
	return nil
}

// receive passes the records of one worker to the reader, and its end.
func (f *logFetch) receive(call uint64, first *wire.LogRecords, rpc grpc.ClientStreamingServer[wire.LogRecords, wire.SendLogDone]) {
	var err error
	end := workerRecord{call: call, worker: first.GetWorker()}
	for m := first; err == nil; m, err = rpc.Recv() {
		if m.Check() != nil {
			break // its reader misses a worker's log
		}
		for _, record := range m.GetRecords() {
			if !f.add(workerRecord{call: call, worker: first.GetWorker(), record: record}) {
				return
			}
		}
		end.incomplete = wire.FailureMessage(m.GetIncomplete())
	}
	if !errors.Is(err, io.EOF) {
		end.incomplete = "its answer broke off"
	}
	f.add(end)
}

func (f *logFetch) add(r workerRecord) bool {
	select {
	case f.records <- r:
		return true
	case <-f.left:
		return false
	}
}

// expectLogs is called in the goroutine of Run when the core sends the request to the workers.
func (n *Node) expectLogs(request uint64) {
	n.fetches.mu.Lock()
	fetch := n.fetches.byRequest[request]
	n.fetches.mu.Unlock()
	if fetch == nil {
		return
	}
	fetch.expected <- n.loop.controller.Core().Connected()
}

// requestLogs requests the logs that are being followed from a new worker. Called in the goroutine of Run.
func (n *Node) requestLogs(st *stream) {
	n.fetches.mu.Lock()
	defer n.fetches.mu.Unlock()
	for _, fetch := range n.fetches.byRequest {
		if fetch.request.GetFollow() {
			st.send(&wire.ToWorker{Message: &wire.ToWorker_Log{Log: fetch.request}})
		}
	}
}

// logPlace is the log of one attempt on one worker.
type logPlace struct {
	worker, lease uint64
}

// Logs emits the logs that the workers hold, then the leaders' own copies of what failed attempts wrote last as far as the workers do not
// have it, then a record for each worker whose logs are missing. With q.Follow it continues until the job has ended, and then reads once
// more, so that no output at the end is missed. It returns api.NotLeader when this node steps down: the workers leave it.
func (n *Node) Logs(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error {
	emitted := map[logPlace]int{}
	if q.Follow && q.Failed {
		if err := n.followFailed(ctx, q, emitted, emit); err != nil {
			return err
		}
	} else if q.Follow {
		follow, cancel := context.WithCancelCause(ctx)
		var waiting sync.WaitGroup
		waiting.Go(func() { cancel(n.WaitJob(follow, q.Job)) })
		_, err := n.fetchLogs(follow, q, emitted, emit)
		ended := follow.Err() != nil
		cancel(nil)
		waiting.Wait()
		if ctx.Err() != nil || err != nil && !ended {
			return err
		}
	}
	q.Follow = false
	answers, err := n.fetchLogs(ctx, q, emitted, emit)
	if err != nil {
		return err
	}
	if err := n.emitKept(ctx, q, emitted, answers, emit); err != nil {
		return err
	}
	return n.emitMissing(ctx, q, answers, emit)
}

// failedEvery bounds how often the logs of tasks that fail are read while they are followed.
const failedEvery = time.Second

// followFailed emits the logs of tasks when they have failed, until the job has ended.
func (n *Node) followFailed(ctx context.Context, q api.LogQuery, emitted map[logPlace]int, emit func(api.LogRecord) error) error {
	q.Follow = false
	for dead := uint64(0); ; {
		ended := false
		if err := n.views.Changed().Wait(ctx, func() (bool, error) {
			job, ok := n.Job(q.Job)
			switch {
			case !ok:
				return false, api.NoJob(q.Job)
			case !n.ready.leading():
				return false, n.notLeader()
			}
			last := dead
			dead = 0
			for _, s := range job.Stages {
				dead += s.Dead
			}
			ended = job.IsEnded()
			return dead > last || ended, nil
		}); err != nil || ended {
			return err
		}
		if _, err := n.fetchLogs(ctx, q, emitted, emit); err != nil {
			return err
		}
		pause, cancel := context.WithTimeout(ctx, failedEvery)
		<-pause.Done()
		cancel()
	}
}

// logAnswers are what the workers answered to one request.
type logAnswers struct {
	// gaps says why the logs of a worker are missing; empty: they are not. Workers that were not asked are not in it.
	gaps   map[uint64]string
	at     map[callPlace]int // bytes received
	leases map[uint64]bool   // attempts of which text was received
	owns   map[logPlace]bool // whether a worker sends its own log: see ownsLog
	asked  bool              // the request was sent
	ended  map[uint64]bool   // workers that have answered to the end
}

// callPlace is the log of one attempt in one call of SendLog.
type callPlace struct{ call, lease uint64 }

// expect adds the workers that got the request.
func (a *logAnswers) expect(workers []state.WorkerID) {
	a.asked = true
	for _, id := range workers {
		if !a.ended[uint64(id)] {
			a.gaps[uint64(id)] = fmt.Sprintf("it has not answered for %v", logTimeout)
		}
	}
}

// complete reports whether every worker has answered.
func (a *logAnswers) complete() bool { return a.asked && len(a.ended) >= len(a.gaps) }

// whole reports whether all workers, of which there is one, have sent all that they were asked for.
func (a *logAnswers) whole() bool {
	for _, gap := range a.gaps {
		if gap != "" {
			return false
		}
	}
	return len(a.gaps) > 0
}

// owned reports whether a worker sends its own log, which owns finds once for each attempt.
func (a *logAnswers) owned(w *workerRecord, owns func() bool) bool {
	place := logPlace{w.worker, w.record.GetLease()}
	if _, known := a.owns[place]; !known {
		a.owns[place] = owns()
	}
	return a.owns[place]
}

// cut keeps what of a record was not emitted before, and counts it as emitted. It reports whether there is any.
func (a *logAnswers) cut(w *workerRecord, emitted map[logPlace]int) bool {
	text, lease := w.record.GetText(), w.record.GetLease()
	place := logPlace{w.worker, lease}
	a.leases[lease] = true
	a.at[callPlace{w.call, lease}] += len(text)
	n := max(0, a.at[callPlace{w.call, lease}]-emitted[place])
	emitted[place] += n
	w.record.Text = text[len(text)-min(n, len(text)):]
	return len(w.record.GetText()) > 0
}

// fetchLogs requests logs from the workers and emits what they send beyond the bytes of each attempt that were emitted before.
func (n *Node) fetchLogs(ctx context.Context, q api.LogQuery, emitted map[logPlace]int, emit func(api.LogRecord) error) (*logAnswers, error) {
	changed := n.ready.changed.Changed()
	stages, err := n.stageNames(ctx, q)
	if err == nil && !q.Follow {
		err = n.awaitWorkers(ctx)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	request := n.fetches.last.Add(1)
	fetch := &logFetch{
		left: ctx.Done(), expected: make(chan []state.WorkerID, 1), records: make(chan workerRecord, 64),
		request: &wire.LogRequest{Request: request, Job: q.Job, OneTask: q.OneTask, Stage: stages.number(q.Stage), Index: q.Index, Follow: q.Follow},
	}
	n.fetches.mu.Lock()
	n.fetches.byRequest[request] = fetch
	n.fetches.mu.Unlock()
	defer func() {
		n.fetches.mu.Lock()
		delete(n.fetches.byRequest, request)
		n.fetches.mu.Unlock()
		cancel() // ends the workers' calls
		fetch.senders.Wait()
	}()
	if err := n.deliver(ctx, message{in: leader.FetchLog{Request: fetch.request}}); err != nil {
		return nil, err
	}
	timeout := time.NewTimer(logTimeout)
	defer timeout.Stop()
	answers := &logAnswers{gaps: map[uint64]string{}, at: map[callPlace]int{}, leases: map[uint64]bool{}, owns: map[logPlace]bool{}, ended: map[uint64]bool{}}
	for q.Follow || !answers.complete() {
		select {
		case workers := <-fetch.expected:
			answers.expect(workers)
		case w := <-fetch.records:
			timeout.Reset(logTimeout)
			if w.record == nil {
				answers.ended[w.worker] = true
				answers.gaps[w.worker] = w.incomplete
				continue
			}
			if !answers.owned(&w, func() bool { return n.ownsLog(ctx, q, &w) }) || !answers.cut(&w, emitted) || before(w.record.GetTimeMs(), q.Since) {
				continue
			}
			if err := emit(n.logRecord(ctx, q.Job, stages, w)); err != nil {
				return nil, err
			}
		case <-timeout.C:
			if !q.Follow {
				return answers, nil // the logs of silent workers can be read when they answer again
			}
		case <-changed:
			if changed = n.ready.changed.Changed(); !n.ready.leading() {
				return nil, n.notLeader()
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-n.stopped:
			return nil, n.stopping()
		}
	}
	return answers, nil
}

// before reports whether a time, of Unix milliseconds, is known to be before another one.
func before(millis int64, since time.Time) bool {
	return millis > 0 && !since.IsZero() && millis < since.UnixMilli()
}

// awaitWorkers waits for the workers of the previous term as long as the core does.
func (n *Node) awaitWorkers(ctx context.Context) error {
	return n.views.Changed().Wait(ctx, func() (bool, error) {
		awaited := 0
		err := n.do(ctx, func() {
			if c := n.loop.controller.Core(); c != nil {
				awaited = c.Awaited()
			}
		})
		return awaited == 0, err
	})
}

// stageList names a job's stages by number.
type stageList []string

// number returns the number of a stage; 0 if there is none of that name.
func (s stageList) number(name string) uint32 { return uint32(max(0, slices.Index(s, name))) }

func (n *Node) stageNames(ctx context.Context, q api.LogQuery) (stageList, error) {
	var names stageList
	known := !q.OneTask
	found := false
	err := n.DoLeading(ctx, func(m *state.Machine, _ *leader.Core) {
		job := m.Job(state.JobID(q.Job))
		if job == nil {
			return
		}
		found = true
		for _, s := range job.Stages {
			names = append(names, s.Name)
			known = known || s.Name == q.Stage && q.Index < s.Tasks
		}
	})
	switch {
	case err != nil:
	case !found:
		err = api.NoJob(q.Job)
	case !known:
		err = api.NotFound("job %d has no task %s/%d", q.Job, q.Stage, q.Index)
	}
	return names, err
}

// ownsLog reports whether a record can be of an attempt that the worker that has sent it ran: there is such a task, and the attempt is not known to
// be that of another worker. One that has left the cluster may have come back under another number. Of tasks that have not failed it owns none
// if q is about those that have.
func (n *Node) ownsLog(ctx context.Context, q api.LogQuery, w *workerRecord) (owns bool) {
	// Without ctx: it ends with the followed job, whose last records count. The only error is that the node stops, which ends the reader.
	_ = n.do(context.WithoutCancel(ctx), func() {
		m := n.loop.controller.Machine()
		stage, task, lease := stageOf(m.Job(state.JobID(q.Job)), w.record.GetStage()), w.record.GetIndex(), state.Lease(w.record.GetLease())
		if stage == nil || task >= stage.Tasks || !selects(q, stage, task) {
			return
		}
		var owner state.WorkerID
		if won, done := stage.Output(task); done && won.Winner == lease {
			owner = won.Worker
		}
		for _, f := range stage.Failures(task).Last {
			if f.Lease == lease {
				owner = f.Worker
			}
		}
		owns = owner == 0 || owner == state.WorkerID(w.worker) || m.Worker(owner) == nil
	})
	return owns
}

// selects reports whether a query is about a task.
func selects(q api.LogQuery, s *state.Stage, task uint64) bool {
	return (!q.OneTask || s.Name == q.Stage && task == q.Index) && (!q.Failed || s.Status(task) == state.TaskDead)
}

// logRecord makes the public form of a record.
func (n *Node) logRecord(ctx context.Context, id uint64, stages stageList, w workerRecord) api.LogRecord {
	r := w.record
	name := "?"
	if int(r.GetStage()) < len(stages) {
		name = stages[r.GetStage()]
	}
	out := api.LogRecord{
		Task: fmt.Sprintf("%d/%s/%d", id, name, r.GetIndex()), Attempt: r.GetAttempt(), Worker: w.worker, Lease: r.GetLease(), Time: view.Time(r.GetTimeMs()), Text: r.GetText(),
	}
	// Without ctx: it ends with the followed job, whose last records must have the right winner as well. The only error is that the
	// node stops, which ends the reader.
	_ = n.do(context.WithoutCancel(ctx), func() {
		stage := stageOf(n.loop.controller.Machine().Job(state.JobID(id)), r.GetStage())
		if stage != nil && r.GetIndex() < stage.Tasks {
			won, done := stage.Output(r.GetIndex())
			out.Winner = done && uint64(won.Winner) == r.GetLease()
		}
	})
	return out
}
