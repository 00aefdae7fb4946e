package leader

import (
	"fmt"
	"maps"
	"slices"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Check returns an error if an invariant is broken: it compares the leases with the scheduler, the pipeline and the state. It looks at
// every lease, so tests call it, and the leader never does.
func (c *Core) Check() error {
	if err := c.pipeline.check(); err != nil {
		return err
	}
	current := map[taskKey]state.Lease{}
	leased := map[state.JobID]int{}
	ended := 0
	for _, w := range c.registry.inOrder {
		standing := 0
		for _, number := range slices.Sorted(maps.Keys(w.leases)) {
			l := w.leases[number]
			if c.leases.current(number, l.Key) {
				if other, twice := current[l.taskKey]; twice {
					return fmt.Errorf("task %v has the leases %d and %d", l.taskKey, other, number)
				}
				current[l.taskKey] = number
			}
			if l.ended {
				ended++
				continue
			}
			standing++
			leased[l.Job]++
			if err := c.checkLease(number, l); err != nil {
				return fmt.Errorf("worker %d: %w", w.ID, err)
			}
		}
		if w.Leases() != standing {
			return fmt.Errorf("worker %d has %d leases; the scheduler counts %d", w.ID, standing, w.Leases())
		}
	}
	for _, id := range c.machine.Jobs() {
		if got := c.sched.Leased(id); got != leased[id] {
			return fmt.Errorf("job %d has %d leases; the scheduler counts %d", id, leased[id], got)
		}
	}
	if ended > 0 && c.pipeline.idle() {
		return fmt.Errorf("the log is idle, and %d leases wait for it", ended)
	}
	return nil
}

// checkLease compares a lease that stands with the state.
func (c *Core) checkLease(number state.Lease, l lease) error {
	job := c.machine.Job(l.Job)
	if stageOf(job, l.taskKey) == nil || !job.Open(int(l.Stage), l.task) {
		return fmt.Errorf("lease %d is of task %d/%d/%d, which is not open", number, l.Job, l.Stage, l.task)
	}
	if job.Fenced(int(l.Stage), l.task, number) {
		return fmt.Errorf("lease %d is of task %d/%d/%d, and fenced at %d", number, l.Job, l.Stage, l.task, job.Fence)
	}
	return nil
}
