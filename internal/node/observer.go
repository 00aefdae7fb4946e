package node

import (
	"log/slog"
	"math/bits"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// observer turns the facts that the core emits, and its messages, into log lines and counts, from which metrics are made on demand. It
// observes this node as the leader only: followers have the same facts. The goroutine of Run calls it.
type observer struct {
	log      *slog.Logger
	proposed []time.Time // of the entries of this term that are not committed, oldest first

	mu sync.Mutex
	counts
}

// counts are the counts since the node started.
type counts struct {
	sessions  uint64            // of workers, begun
	submitted uint64            // jobs
	ended     map[string]uint64 // by status
	leased    uint64            // attempts
	failed    map[string]uint64 // by kind
	done      uint64            // tasks
	dead      uint64
	commit    histogram // of entries, from the proposal until the log delivers them
	attempt   histogram // of successful attempts, as workers report them
}

func newObserver(log *slog.Logger) *observer {
	return &observer{log: log, counts: counts{ended: map[string]uint64{}, failed: map[string]uint64{}}}
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
				o.attempt.observe(time.Duration(wire.Entry(f.GetMicros(), i)) * time.Microsecond)
			}
		}
	}
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
		o.commit.observe(now.Sub(at))
	}
	o.proposed = o.proposed[n:]
}

// endTerm drops the entries of the term.
func (o *observer) endTerm() { o.proposed = nil }

// effects observes the effects of a step.
func (o *observer) effects(m *state.Machine, e *leader.Effects) {
	leased := uint64(0)
	for i := range e.Send {
		for _, l := range e.Send[i].Message.GetWork().GetLeases() {
			leased += uint64(len(l.GetIndex()))
		}
	}
	if leased == 0 && e.Done == 0 && len(e.Failed) == 0 && len(e.Facts) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.leased += leased
	o.done += uint64(e.Done)
	for _, kind := range e.Failed {
		o.failed[kind.String()]++
	}
	for i := range e.Facts {
		o.fact(m, &e.Facts[i])
	}
}

func (o *observer) fact(m *state.Machine, e *state.Event) {
	switch e.Kind {
	case state.JobSubmitted:
		o.submitted++
		o.log.Info("job submitted", "job", e.Job)
	case state.StageStarted:
		o.log.Info("stage started", "job", e.Job, "stage", e.Stage)
	case state.JobEnded:
		if job := m.Job(e.Job); job != nil {
			o.ended[job.Status.String()]++
			o.log.Info("job status changed", "job", e.Job, "status", job.Status.String(), "error", job.Error)
		}
	case state.TaskDied:
		o.dead++
		o.log.Warn("task is dead", "job", e.Job, "stage", e.Stage, "task", e.Task, "worker", e.Worker, "kind", e.Fault.String())
	case state.WorkerJoined:
		o.log.Info("worker registered", "worker", e.Worker)
	case state.WorkerChanged:
		status := "removed"
		if w := m.Worker(e.Worker); w != nil {
			status = w.Status.String()
		}
		o.log.Info("worker status changed", "worker", e.Worker, "status", status)
	case state.StageEnded, state.JobEnding, state.TaskReopened, state.TaskLost, state.JobForgotten, state.RequestApplied, state.QuotasChanged, state.Audited:
	}
}

// histogram counts durations in buckets that double. It must cope with a million attempts a second, so it consists of two additions.
type histogram struct {
	buckets [bucketsMax]uint64 // bucket i: less than 2^i microseconds, and not less than half of it
	sum     time.Duration
}

// bucketsMax puts the bound of the last bucket but one at 2^36 microseconds, or 19 hours.
const bucketsMax = 38

func (h *histogram) observe(d time.Duration) {
	h.buckets[min(bits.Len64(uint64(max(0, d.Microseconds()))), bucketsMax-1)]++
	h.sum += d
}

// cumulative returns, for each upper bound in seconds, how many durations are below it, and the number of all.
func (h *histogram) cumulative() (below map[float64]uint64, all uint64) {
	const first, step = 6, 2 // from 64 µs on, by four
	below = map[float64]uint64{}
	for i, n := range h.buckets {
		all += n
		if i >= first && (i-first)%step == 0 && i < bucketsMax-1 {
			below[float64(uint64(1)<<i)/1e6] = all
		}
	}
	return below, all
}
