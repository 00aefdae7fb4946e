package leader

import (
	"fmt"
	"maps"
	"slices"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Check holds the books against each other and against the state; an error is a broken invariant. It looks at every lease: the
// model test and the simulator call it after each step, the leader never does.
func (c *Core) Check() error {
	if err := c.pipeline.check(); err != nil {
		return err
	}
	current := map[taskKey]state.Lease{}
	leased := map[state.JobID]int{}
	ended := 0
	for _, id := range c.sorted(c.workers) {
		w, standing := c.workers[id], 0
		for _, number := range slices.Sorted(maps.Keys(w.leases)) {
			l := w.leases[number]
			if key := (taskKey{l.job, l.stage, l.task}); number > c.began[l.job][l.stage] {
				if other, twice := current[key]; twice {
					return fmt.Errorf("task %v has the leases %d and %d", key, other, number)
				}
				current[key] = number
			}
			if l.ended {
				ended++
				continue
			}
			standing++
			leased[l.job]++
			if err := c.checkLease(number, l); err != nil {
				return fmt.Errorf("worker %d: %w", id, err)
			}
		}
		if w.Leases() != standing {
			return fmt.Errorf("worker %d holds %d leases, and is taken to hold %d", id, standing, w.Leases())
		}
	}
	for _, id := range c.machine.Jobs() {
		if got := c.sched.Leased(id); got != leased[id] {
			return fmt.Errorf("job %d has %d leases out, and is taken to have %d", id, leased[id], got)
		}
	}
	if ended > 0 && c.pipeline.idle() {
		return fmt.Errorf("the log is idle, and %d leases wait for it", ended)
	}
	return nil
}

// checkLease holds a lease that stands against the state.
func (c *Core) checkLease(number state.Lease, l lease) error {
	job := c.machine.Job(l.job)
	if job == nil || !job.Open(int(l.stage), l.task) {
		return fmt.Errorf("lease %d is of task %d/%d/%d, which is not open", number, l.job, l.stage, l.task)
	}
	if job.Fenced(number) {
		return fmt.Errorf("lease %d is of task %d/%d/%d, and fenced at %d", number, l.job, l.stage, l.task, job.Fence)
	}
	return nil
}
