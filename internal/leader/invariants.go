package leader

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Check returns an error if an invariant is broken: it compares the leases with the scheduler, the pipeline and the state. It looks at
// every lease, so tests call it, and the leader never does.
func (c *Core) Check() error {
	if err := c.pipeline.check(); err != nil {
		return err
	}
	if err := cmp.Or(c.sched.Check(), c.leftovers.check()); err != nil {
		return err
	}
	current := map[taskKey]state.Lease{}
	leased := map[state.JobID]int{}
	ended := 0
	for _, w := range c.registry.inOrder {
		standing, load := 0, int64(0)
		for _, number := range slices.Sorted(maps.Keys(w.leases)) {
			l := w.leases[number]
			if err := c.checkAlone(current, number, l); err != nil {
				return err
			}
			if l.ended {
				ended++
				continue
			}
			standing++
			load += l.cost
			leased[l.Job]++
			if err := c.checkLease(number, l); err != nil {
				return fmt.Errorf("worker %d: %w", w.ID, err)
			}
		}
		if err := w.Check(standing, load); err != nil {
			return err
		}
	}
	for _, id := range c.machine.Jobs() {
		if got := c.sched.Leased(id); got != leased[id] {
			return fmt.Errorf("job %d has %d leases; the scheduler counts %d", id, leased[id], got)
		}
	}
	if err := cmp.Or(c.checkSlots(), c.checkBounds()); err != nil {
		return err
	}
	if c.pipeline.idle() {
		return c.checkIdle(ended)
	}
	return nil
}

// checkBounds checks what workers can make large.
func (c *Core) checkBounds() error {
	for id, s := range c.registry.sessions {
		if s.id != id || s.worker != nil && s.worker.session != s {
			return fmt.Errorf("session %d is open, and of no worker", id)
		}
	}
	for _, w := range c.registry.inOrder {
		if w.Slots > wire.SlotsMax || w.Memory > memoryMax || len(w.running) > wire.SlotsMax || len(w.leases) > 2*wire.HeldMax(uint32(w.Slots)) { //nolint:gosec // see above
			return fmt.Errorf("worker %d has %d slots, %d bytes of memory and %d leases, and runs %d", w.ID, w.Slots, w.Memory, len(w.leases), len(w.running))
		}
	}
	return nil
}

// checkSlots compares the slots that each user uses, by leases and reservations, with those that the scheduler counts.
func (c *Core) checkSlots() error {
	used := map[string]int{}
	for _, w := range c.registry.inOrder {
		need := map[string]int{}
		for _, l := range w.leases {
			if job := c.machine.Job(l.Job); job != nil && !l.ended {
				need[job.Spec.User] += int(max(1, job.Spec.SlotsPerTask))
			}
		}
		for user, slots := range need {
			used[user] += min(slots, w.Slots) // the rest is leased ahead of need
		}
	}
	for _, id := range c.machine.Live() {
		r, _ := c.sched.Reservation(id)
		used[c.machine.Job(id).Spec.User] += r.Slots
	}
	for user, slots := range used {
		if got := c.sched.Use(user).Used; got != slots {
			return fmt.Errorf("user %q uses %d slots; the scheduler counts %d", user, slots, got)
		}
	}
	return nil
}

// checkIdle checks what holds while no entry is on its way through the log.
func (c *Core) checkIdle(ended int) error {
	if ended > 0 {
		return fmt.Errorf("the log is idle, and %d leases wait for it", ended)
	}
	if len(c.machine.Live()) == 0 && !c.sched.Empty() {
		return fmt.Errorf("no job is live; the scheduler has %+v", c.sched)
	}
	for _, id := range c.machine.Workers() {
		_, awaited := c.registry.awaited[id]
		if c.machine.Worker(id).Status == state.WorkerAlive && !awaited && c.registry.workers[id] == nil {
			return fmt.Errorf("worker %d is alive, and unknown to the leader", id)
		}
	}
	return nil
}

// checkLease compares a lease that stands with the state.
func (c *Core) checkLease(number state.Lease, l *lease) error {
	job := c.machine.Job(l.Job)
	if stageOf(job, l.taskKey) == nil || !job.Open(int(l.Stage), l.task) {
		return fmt.Errorf("lease %d is of task %d/%d/%d, which is not open", number, l.Job, l.Stage, l.task)
	}
	if job.Fenced(int(l.Stage), l.task, number) {
		return fmt.Errorf("lease %d is of task %d/%d/%d, and fenced at %d", number, l.Job, l.Stage, l.task, job.Fence)
	}
	return nil
}

// checkAlone adds a lease to those that are valid, by task. Another one of the task must be that of a straggler.
func (c *Core) checkAlone(valid map[taskKey]state.Lease, number state.Lease, l *lease) error {
	if !c.leases.current(number, l.Key) {
		return nil
	}
	if before, twice := valid[l.taskKey]; twice {
		if other, ok := c.leases.other(l.taskKey, before); !ok || other.number != number {
			return fmt.Errorf("task %v has the leases %d and %d", l.taskKey, before, number)
		}
	}
	valid[l.taskKey] = number
	return nil
}
