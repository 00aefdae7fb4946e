package leader

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// logPatience is how long a reader waits for a worker that does not begin to answer.
const logPatience = 5 * time.Second

// logFetch is one reading of logs: the workers' calls of SendLog meet the reader here.
type logFetch struct {
	left     <-chan struct{}   // closed when the reader has left
	expected chan int          // how many workers were asked
	records  chan workerRecord // closed by nobody: the reader counts the ends
}

// workerRecord is a record of one worker's log, or the end of it.
type workerRecord struct {
	worker uint64
	record *wire.LogRecord // nil: this worker has sent all it has
}

// SendLog takes a worker's answer to a LogRequest.
func (l *Leader) SendLog(rpc grpc.ClientStreamingServer[wire.LogRecords, wire.SendLogDone]) error {
	first, err := rpc.Recv()
	if err != nil {
		return err
	}
	l.mu.Lock()
	fetch := l.fetches[first.GetRequest()]
	l.mu.Unlock()
	if fetch == nil {
		return status.Error(codes.Canceled, "nobody reads this log any more")
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		fetch.pass(first, rpc)
	}()
	select {
	case <-sent:
		return rpc.SendAndClose(&wire.SendLogDone{})
	case <-fetch.left: // returning ends the call, and with it pass
		return status.Error(codes.Canceled, "the reader of this log has left")
	}
}

// pass hands on what one worker sends, and its end.
func (f *logFetch) pass(first *wire.LogRecords, rpc grpc.ClientStreamingServer[wire.LogRecords, wire.SendLogDone]) {
	var err error
	for m := first; err == nil; m, err = rpc.Recv() {
		for _, record := range m.GetRecords() {
			if !f.give(workerRecord{first.GetWorker(), record}) {
				return
			}
		}
	}
	f.give(workerRecord{worker: first.GetWorker()}) // io.EOF, or a broken stream: either way it is over
}

func (f *logFetch) give(r workerRecord) bool {
	select {
	case f.records <- r:
		return true
	case <-f.left:
		return false
	}
}

// expectLogs is called in the loop when the workers are asked.
func (l *Leader) expectLogs(request uint64) {
	l.mu.Lock()
	fetch := l.fetches[request]
	l.mu.Unlock()
	if fetch == nil {
		return
	}
	n := 0
	for _, w := range l.loop.core.workers {
		if w.session != nil {
			n++
		}
	}
	fetch.expected <- n
}

// logPlace is where a reader stands in one attempt's log.
type logPlace struct {
	worker, lease uint64
}

// Logs gives what the workers hold. With q.Follow it goes on until the job has ended, and then reads once more from the
// start, passing over what it gave, so that nothing written at the end is missed.
func (l *Leader) Logs(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error {
	if _, ok := l.views.job(q.Job); !ok {
		return api.NotFound("there is no job %d", q.Job)
	}
	given := map[logPlace]int{}
	if q.Follow {
		follow, cancel := context.WithCancelCause(ctx)
		go func() { cancel(l.WaitJob(follow, q.Job)) }()
		err := l.fetchLogs(follow, q, true, given, emit)
		ended := follow.Err() != nil
		cancel(nil)
		if ctx.Err() != nil || err != nil && !ended {
			return err
		}
	}
	seen := map[logPlace]int{}
	return l.fetchLogs(ctx, q, false, seen, func(r api.LogRecord) error {
		place := logPlace{r.Worker, r.Lease}
		end := seen[place]
		skip := max(0, len(r.Text)-(end-given[place]))
		if skip >= len(r.Text) {
			return nil
		}
		r.Text = r.Text[skip:]
		return emit(r)
	})
}

// fetchLogs asks the workers and emits what they send; given counts the bytes of each attempt, this record included.
func (l *Leader) fetchLogs(ctx context.Context, q api.LogQuery, follow bool, given map[logPlace]int, emit func(api.LogRecord) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fetch := &logFetch{left: ctx.Done(), expected: make(chan int, 1), records: make(chan workerRecord, 64)}
	request := l.lastRequest.Add(1)
	l.mu.Lock()
	l.fetches[request] = fetch
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.fetches, request)
	}()
	stages, err := l.stageNames(ctx, q)
	if err != nil {
		return err
	}
	r := &wire.LogRequest{Request: request, Job: q.Job, OneTask: q.OneTask, Stage: stages.number(q.Stage), Index: q.Index, Follow: follow}
	select {
	case l.inputs <- message{in: FetchLog{Request: r}}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	patience := time.NewTimer(logPatience)
	defer patience.Stop()
	expected, ended := -1, 0
	for expected < 0 || ended < expected {
		select {
		case expected = <-fetch.expected:
		case w := <-fetch.records:
			patience.Reset(logPatience)
			if w.record == nil {
				ended++
				continue
			}
			given[logPlace{w.worker, w.record.GetLease()}] += len(w.record.GetText())
			if err := emit(l.logRecord(ctx, q.Job, stages, w)); err != nil {
				return err
			}
		case <-patience.C:
			if !follow {
				return nil // what the silent ones hold is read when they answer again
			}
			patience.Reset(logPatience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if follow { // every worker has gone; wait for the job, or the reader, to end
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

// stageList names a job's stages by number.
type stageList []string

func (s stageList) number(name string) uint32 {
	for i, n := range s {
		if n == name {
			return uint32(i)
		}
	}
	return 0
}

func (l *Leader) stageNames(ctx context.Context, q api.LogQuery) (stageList, error) {
	var names stageList
	known := !q.OneTask
	err := l.scan(ctx, q.Job, func() {
		job := l.loop.machine.Job(state.JobID(q.Job))
		if job == nil {
			return
		}
		for _, s := range job.Stages {
			names = append(names, s.Kind.String())
			known = known || s.Kind.String() == q.Stage && q.Index < s.Tasks
		}
	})
	if err == nil && !known {
		err = api.NotFound("job %d has no task %s/%d", q.Job, q.Stage, q.Index)
	}
	return names, err
}

// logRecord makes the public form of a record.
func (l *Leader) logRecord(ctx context.Context, id uint64, stages stageList, w workerRecord) api.LogRecord {
	r := w.record
	name := "?"
	if int(r.GetStage()) < len(stages) {
		name = stages[r.GetStage()]
	}
	out := api.LogRecord{
		Task: fmt.Sprintf("%d/%s/%d", id, name, r.GetIndex()), Attempt: r.GetAttempt(), Worker: w.worker, Lease: r.GetLease(), Text: r.GetText(),
	}
	// A reader that leaves in the middle does not need to know who won.
	_ = l.do(ctx, func() {
		key := taskKey{job: state.JobID(id), stage: r.GetStage(), task: r.GetIndex()}
		if stage := stageOf(l.loop.machine.Job(key.job), key); stage != nil {
			won, done := stage.Output(key.task)
			out.Winner = done && uint64(won.Winner) == r.GetLease()
		}
	})
	return out
}
