package leader

import (
	"fmt"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
)

// When a worker is quarantined as failing: quarantineTasks different tasks have failed on it without a success in between, while another worker
// has had a success within quarantineProof. So a job whose tasks fail everywhere quarantines no worker.
const (
	quarantineTasks = 8
	quarantineProof = time.Minute
	quarantineTime  = 30 * time.Second
)

// The first quarantine of a worker that is slow or flaps; each next one, if the trial between them was not passed, is twice as long, up to 16 minutes.
const (
	triedTimeFirst = time.Minute
	triedDoublings = 4
)

// QuarantineCause is why a worker is quarantined.
type QuarantineCause uint8

// The causes. The numbers are those of the wire.
const (
	NotQuarantined QuarantineCause = iota
	Failing                        // many different tasks failed on it
	Slow                           // its attempts take far longer than those of other workers, whatever the stage
	Flapping                       // its leases were lost again and again, because it was silent
)

func (q QuarantineCause) String() string { return [...]string{"", "failing", "slow", "flapping"}[q] }

// QuarantineCauses returns all causes.
func QuarantineCauses() []QuarantineCause { return []QuarantineCause{Failing, Slow, Flapping} }

// tried reports whether a trial follows the quarantine, which a need for the worker ends early, and a new process of it.
func (q QuarantineCause) tried() bool { return q == Slow || q == Flapping }

// Quarantine is a change of a worker's quarantine: it begins, or has ended if it has no cause.
type Quarantine struct {
	Worker state.WorkerID
	Cause  QuarantineCause
	For    time.Duration
}

// quarantine is the evidence against a worker, and what it has led to: no leases for a while.
type quarantine struct {
	cause   QuarantineCause
	until   time.Time
	failed  map[taskKey]struct{} // since the last success; at most quarantineTasks
	success time.Time            // the last one
	speeds  speeds
	losses  losses
}

// active reports whether the worker is quarantined.
func (q *quarantine) active() bool { return q.cause != NotQuarantined }

// expired reports whether the quarantine should be lifted.
func (q *quarantine) expired(now time.Time) bool { return q.active() && !now.Before(q.until) }

// onTrial reports whether the worker has been quarantined, and has yet to prove itself.
func (q *quarantine) onTrial(now time.Time) bool { return q.speeds.onTrial || q.losses.onTrial(now) }

// lift ends the quarantine, and drops the evidence.
func (q *quarantine) lift(now time.Time) {
	switch q.cause {
	case Slow:
		q.speeds.onTrial = true
	case Flapping:
		q.losses.trial = now.Add(flapWindow)
	case NotQuarantined, Failing:
	}
	q.cause, q.until = NotQuarantined, time.Time{}
	q.speeds.stages, q.losses.times = nil, nil
	clear(q.failed)
}

// succeed notes an attempt that has ended well.
func (q *quarantine) succeed(now time.Time) {
	q.success = now
	clear(q.failed)
}

// fail notes a failed attempt, and reports whether the evidence suffices.
func (q *quarantine) fail(key taskKey) bool {
	if len(q.failed) < quarantineTasks {
		if q.failed == nil {
			q.failed = map[taskKey]struct{}{}
		}
		q.failed[key] = struct{}{}
	}
	return len(q.failed) == quarantineTasks
}

// quarantineFailing quarantines a worker on which tasks fail, if another one proves that the fault is not with the tasks.
func (c *Core) quarantineFailing(w *worker) {
	for _, other := range c.registry.workers {
		if other != w && other.assignable() && c.now.Sub(other.quarantine.success) < quarantineProof {
			c.quarantine(w, Failing, quarantineTime)
			return
		}
	}
}

// quarantineSlow quarantines a worker that is slow, unless the cluster needs it.
func (c *Core) quarantineSlow(w *worker) {
	if w.assignable() && !c.needed(w) {
		w.quarantine.speeds.inRow++
		c.quarantine(w, Slow, triedTime(w.quarantine.speeds.inRow))
	}
}

// quarantineFlapping quarantines a worker that has just been lost again, unless the cluster needs it.
func (c *Core) quarantineFlapping(w *worker) {
	if !w.quarantine.active() && !c.needed(w) {
		w.quarantine.losses.inRow++
		c.quarantine(w, Flapping, triedTime(w.quarantine.losses.inRow))
	}
}

// triedTime is how long the n-th quarantine in a row lasts if a trial follows it.
func triedTime(n int) time.Duration { return triedTimeFirst << min(n-1, triedDoublings) }

// quarantine stops granting leases to a worker for a while.
func (c *Core) quarantine(w *worker, cause QuarantineCause, d time.Duration) {
	w.quarantine.cause, w.quarantine.until = cause, c.now.Add(d)
	c.sched.Leave(&w.Worker)
	c.effects.Quarantines = append(c.effects.Quarantines, Quarantine{w.ID, cause, d})
	c.pipeline.open(c.now).Quarantine(w.ID, fmt.Sprintf("%v: no leases for %v", cause, d))
}

// lift ends the quarantine of a worker. One on trial gets no attempts ahead of need until the first has ended.
func (c *Core) lift(w *worker) {
	w.quarantine.lift(c.now)
	w.Behind = w.Behind || w.quarantine.onTrial(c.now)
	c.dirty.mark(w)
	c.effects.Quarantines = append(c.effects.Quarantines, Quarantine{Worker: w.ID})
	c.pipeline.open(c.now).Quarantine(w.ID, "")
}

// needed reports whether a worker that is slow or flaps is better than none: more such slots would be quarantined than are left, or it is the last worker
// that fits a job. Each slow slot does at most a fifth of what another one does, so the cluster loses no more than a sixth of its speed. If most workers
// are lost again and again, the network is at fault or the leader.
func (c *Core) needed(w *worker) bool {
	left, aside := 0, w.Slots
	for _, other := range c.registry.inOrder {
		switch {
		case other == w:
		case other.assignable() && !other.silent(c.now): // several may be lost in one step
			left += other.Slots
		case other.quarantine.cause.tried() && other.session != nil && !other.lost:
			aside += other.Slots
		}
	}
	if aside > left {
		return true
	}
	for _, id := range c.machine.Live() {
		job := c.machine.Job(id)
		if job.Status != state.JobActive || w.quarantine.active() && c.sched.Able(job) { // which does not count it then, and is cheap
			continue
		}
		if sched.Eligible(job.Spec, &w.Worker) && !c.fitsOther(job.Spec, w) {
			return true
		}
	}
	return false
}

// fitsOther reports whether a worker other than w can run the attempts of a job.
func (c *Core) fitsOther(spec *state.Spec, w *worker) bool {
	for _, other := range c.registry.inOrder {
		if other != w && other.assignable() && sched.Eligible(spec, &other.Worker) {
			return true
		}
	}
	return false
}
