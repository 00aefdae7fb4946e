package leader

import (
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// WorkerState is the volatile state of a worker, which is in no log entry.
type WorkerState struct {
	Connected bool // it has a session and is not considered lost
	Draining  bool
	// Quarantined: no attempt is leased to it for a while.
	Quarantined QuarantineCause
	Busy        uint32 // slots that run an attempt
	Queued      uint32 // attempts leased ahead of need
	Slots       []wire.SlotStatus
	Used        map[string]uint64 // of its resources; nil: none
	Heard       time.Time
}

// TaskPlace is a task within its job.
type TaskPlace struct {
	Stage uint32
	Task  uint64
}

// WorkerState returns the volatile state of a worker; false if it has not connected in this term.
func (c *Core) WorkerState(id state.WorkerID) (WorkerState, bool) {
	w := c.registry.workers[id]
	if w == nil {
		return WorkerState{}, false
	}
	return WorkerState{
		Connected: w.session != nil && !w.lost, Draining: w.draining, Quarantined: w.quarantine.cause,
		Busy: uint32(w.Busy()), Queued: uint32(w.Waiting()), Slots: w.slots, Used: w.UsedResources(), Heard: w.heard,
	}, true
}

// Leased returns how many tasks of a job are leased.
func (c *Core) Leased(id state.JobID) uint64 { return uint64(c.sched.Leased(id)) }

// StageLeased returns how many tasks of a stage are leased.
func (c *Core) StageLeased(id state.JobID, stage uint32) uint64 {
	return uint64(c.sched.StageLeased(sched.Key{Job: id, Stage: stage}))
}

// Eligible reports whether a worker that accepts leases can run an attempt of a job.
func (c *Core) Eligible(job *state.Job) bool { return c.sched.Able(job) }

// Fits reports whether a worker has what an attempt of a job needs.
func (c *Core) Fits(id state.WorkerID, spec *state.Spec) bool {
	w := c.registry.workers[id]
	return w != nil && sched.Eligible(spec, &w.Worker)
}

// Speak reports whether all workers that are connected support a version of the workers' protocol.
func (c *Core) Speak(protocol uint32) bool {
	return !slices.ContainsFunc(c.registry.inOrder, func(w *worker) bool { return w.session != nil && w.Protocol < protocol })
}

// Held reports whether a job is not leased yet because workers of the previous term may still run its tasks.
func (c *Core) Held(id state.JobID) bool { return c.sched.Held(id) }

// Demand is a number of tasks that wait for workers with the same properties.
type Demand = sched.Demand

// Demand returns the tasks that wait for workers.
func (c *Core) Demand() []Demand { return c.sched.Demand() }

// Reservation is a worker that is emptied for a task.
type Reservation = sched.Reservation

// Reservation returns the worker that is emptied for the next task of a job; ok is false if none is.
func (c *Core) Reservation(id state.JobID) (r Reservation, ok bool) { return c.sched.Reservation(id) }

// Quota is what a user uses of the quota.
type Quota = sched.Use

// Quota returns what a user uses of the quota.
func (c *Core) Quota(user string) Quota { return c.sched.Use(user) }

// Waiting returns how many failed tasks of a job wait for their back-off to end, and when the first one does.
func (c *Core) Waiting(id state.JobID) (tasks int, first time.Time) { return c.sched.Waiting(id) }

// Pace is what holds back a job that has open tasks.
type Pace = sched.Pace

// Pace returns the pace of a job.
func (c *Core) Pace(id state.JobID) Pace { return c.sched.Pace(id) }

// Place is where a task is leased to.
type Place struct {
	Worker state.WorkerID
	Second state.WorkerID // that of a second attempt; 0: there is none
}

// Running returns the leased tasks of a job and their workers.
func (c *Core) Running(id state.JobID) map[TaskPlace]Place {
	set := map[TaskPlace]Place{}
	for _, w := range c.registry.workers {
		for number, l := range w.leases {
			if l.Job != id || l.ended {
				continue
			}
			place := Place{Worker: w.ID}
			if other, ok := c.leases.other(l.taskKey, number); ok {
				if other.number < number {
					continue
				}
				place.Second = other.worker
			}
			set[TaskPlace{l.Stage, l.task}] = place
		}
	}
	return set
}

// Connected returns the workers that have a session, ascending.
func (c *Core) Connected() []state.WorkerID {
	var list []state.WorkerID
	for id, w := range c.registry.workers {
		if w.session != nil {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}

// Awaited returns how many workers of the previous term are still waited for.
func (c *Core) Awaited() int { return len(c.registry.awaited) }

// Stalled is how long the log has applied nothing although entries are in flight; 0 if none is.
func (c *Core) Stalled(now time.Time) time.Duration {
	if c.pipeline.inFlight == 0 {
		return 0
	}
	return now.Sub(c.pipeline.progress)
}
