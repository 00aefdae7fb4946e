package node

import (
	"log/slog"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/metrics"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// observer turns the facts that the core emits, and its messages, into log lines and counts, from which metrics are made on demand. It
// observes this node as the leader only: followers have the same facts. The goroutine of Run calls it.
type observer struct {
	log      *slog.Logger
	proposed []time.Time            // of the entries of this term that are not committed, oldest first
	started  map[stageKey]time.Time // stages that have started in this term, of jobs that have not ended

	mu sync.Mutex
	counts
}

// counts are the counts since the node started.
type counts struct {
	sessions  uint64            // of workers, begun
	submitted uint64            // jobs
	ended     map[string]uint64 // jobs, by status
	leased    uint64            // attempts
	failed    map[string]uint64 // attempts, by kind
	done      uint64            // tasks
	dead      map[string]uint64 // tasks, by the last failure
	// quarantines of workers, by cause
	quarantines map[string]uint64
	submit      metrics.Histogram // of requests, once they are read
	commit      metrics.Histogram // of entries, from the proposal until the log delivers them
	queue       metrics.Histogram // of first attempts, from the start of the stage to the lease
	attempt     metrics.Histogram // of successful attempts, as workers report them
}

type stageKey struct {
	job   state.JobID
	stage uint32
}

func newObserver(log *slog.Logger) *observer {
	o := &observer{log: log, started: map[stageKey]time.Time{}, counts: counts{
		ended: map[string]uint64{}, failed: map[string]uint64{}, dead: map[string]uint64{}, quarantines: map[string]uint64{},
	}}
	// Zero before the first one, so that rate() sees it.
	for _, s := range []state.JobStatus{state.JobDone, state.JobFailed, state.JobStopped} {
		o.ended[s.String()] = 0
	}
	for _, k := range state.FailureKinds() {
		o.failed[k.String()], o.dead[k.String()] = 0, 0
	}
	for _, cause := range leader.QuarantineCauses() {
		o.quarantines[cause.String()] = 0
	}
	return o
}

// input observes a message of a worker.
func (o *observer) input(in leader.Input) {
	switch in := in.(type) {
	case leader.Hello:
		o.mu.Lock()
		defer o.mu.Unlock()
		o.sessions++
	case leader.Report:
		if len(in.Report.GetFinished()) == 0 {
			return
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, f := range in.Report.GetFinished() {
			for i := range f.GetLease() {
				o.attempt.Observe(time.Duration(wire.Entry(f.GetMicros(), i))*time.Microsecond, 1)
			}
		}
	}
}

// submit observes the time that a submit took.
func (o *observer) submit(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts.submit.Observe(d, 1)
}

// proposal observes that an entry was proposed.
func (o *observer) proposal(now time.Time) { o.proposed = append(o.proposed, now) }

// committed observes that entries of this term were committed, in the order of their proposals.
func (o *observer) committed(now time.Time, entries int) {
	n := min(entries, len(o.proposed))
	if n == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, at := range o.proposed[:n] {
		o.commit.Observe(now.Sub(at), 1)
	}
	o.proposed = o.proposed[n:]
}

// endTerm drops the entries and the stages of the term.
func (o *observer) endTerm() {
	o.proposed = nil
	clear(o.started)
}

// effects observes the effects of a step.
func (o *observer) effects(now time.Time, m *state.Machine, e *leader.Effects) {
	if len(e.Send) == 0 && e.Done == 0 && len(e.Failed) == 0 && len(e.Facts) == 0 && len(e.Quarantines) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done += uint64(e.Done)
	for _, kind := range e.Failed {
		o.failed[kind.String()]++
	}
	for i := range e.Facts {
		o.fact(now, m, &e.Facts[i])
	}
	for _, q := range e.Quarantines {
		o.quarantine(q)
	}
	for i := range e.Send {
		for _, l := range e.Send[i].Message.GetWork().GetLeases() {
			o.lease(now, l)
		}
	}
}

func (o *observer) quarantine(q leader.Quarantine) {
	if q.Cause == leader.NotQuarantined {
		o.log.Info("worker no longer quarantined", "worker", q.Worker)
		return
	}
	o.quarantines[q.Cause.String()]++
	o.log.Warn("worker quarantined", "worker", q.Worker, "cause", q.Cause.String(), "for", q.For)
}

// lease observes leases of tasks of one stage. A stage that started under another leader is not in the histogram.
func (o *observer) lease(now time.Time, l *wire.Leases) {
	first := len(l.GetIndex())
	o.leased += uint64(first)
	for _, number := range l.GetAttempt() {
		if number > 1 {
			first--
		}
	}
	if at, ok := o.started[stageKey{state.JobID(l.GetJob()), l.GetStage()}]; ok {
		o.queue.Observe(now.Sub(at), first)
	}
}

func (o *observer) fact(now time.Time, m *state.Machine, e *state.Event) {
	switch e.Kind {
	case state.JobSubmitted:
		o.submitted++
		o.log.Info("job submitted", "job", e.Job)
	case state.StageStarted:
		o.started[stageKey{e.Job, e.Stage}] = now
		o.log.Info("stage started", "job", e.Job, "stage", e.Stage)
	case state.JobEnded:
		if job := m.Job(e.Job); job != nil {
			o.ended[job.Status.String()]++
			for i := range job.Stages {
				delete(o.started, stageKey{e.Job, uint32(i)})
			}
			o.log.Info("job status changed", "job", e.Job, "status", job.Status.String(), "error", job.Error)
		}
	case state.TaskDied:
		o.dead[e.Fault.String()]++
		o.log.Warn("task is dead", "job", e.Job, "stage", e.Stage, "task", e.Task, "worker", e.Worker, "kind", e.Fault.String())
	case state.WorkerJoined:
		o.log.Info("worker registered", "worker", e.Worker)
	case state.WorkerChanged:
		status := "removed"
		if w := m.Worker(e.Worker); w != nil {
			status = w.Status.String()
		}
		o.log.Info("worker status changed", "worker", e.Worker, "status", status)
	case state.LockGone:
		o.log.Warn("lock lost", "cause", e.Message)
	case state.LockHeld, state.LockWaiting, state.LockOver, state.PriorityChanged, state.StageEnded, state.JobEnding, state.TaskReopened, state.TaskLost, state.JobForgotten, state.RequestApplied, state.QuotasChanged, state.Audited, state.JobWaits, state.StageGrown, state.InputDue,
		state.WorkerQuarantined, state.WorkerReleased: // logged as effects
	}
}
