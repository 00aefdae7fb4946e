package sched

import "fmt"

// Check returns an error if the scheduler's account of a worker is not that of so many leases of that cost together.
func (w *Worker) Check(leases int, load int64) error {
	if w.leases != leases || w.load != load {
		return fmt.Errorf("worker %d has %d leases of load %d; the scheduler counts %d of %d", w.ID, leases, load, w.leases, w.load)
	}
	if leases == 0 && (w.strict != 0 || w.promised != 0 || w.memoryUsed != 0) {
		return fmt.Errorf("worker %d has no leases; the scheduler counts %d strict ones, %d slots, %d bytes", w.ID, w.strict, w.promised, w.memoryUsed)
	}
	return nil
}

// Empty reports whether the scheduler has no job and no user.
func (s *Scheduler) Empty() bool { return len(s.queues) == 0 && len(s.users) == 0 }
