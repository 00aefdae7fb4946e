package leader

import "time"

// When a worker is quarantined: quarantineTasks different tasks have failed on it without a success in between, while another worker
// has had a success within quarantineProof. So a job whose tasks fail everywhere quarantines no worker.
const (
	quarantineTasks = 8
	quarantineProof = time.Minute
	quarantineTime  = 30 * time.Second
)

// quarantine is the evidence against a worker on which many different tasks fail, and its sentence: no leases for a while.
type quarantine struct {
	failed  map[taskKey]struct{} // since the last success; at most quarantineTasks
	success time.Time            // the last one
	until   time.Time            // zero: not quarantined
}

// active reports whether the worker is quarantined.
func (q *quarantine) active() bool { return !q.until.IsZero() }

// expired reports whether the quarantine should be lifted.
func (q *quarantine) expired(now time.Time) bool { return q.active() && !now.Before(q.until) }

// lift ends the quarantine, and drops the evidence.
func (q *quarantine) lift() {
	q.until = time.Time{}
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

// quarantine stops granting leases to a worker for a while, if another one proves that the fault is not with the tasks.
func (c *Core) quarantine(w *worker) {
	for _, other := range c.registry.workers {
		if other != w && other.assignable() && c.now.Sub(other.quarantine.success) < quarantineProof {
			w.quarantine.until = c.now.Add(quarantineTime)
			c.sched.Leave(&w.Worker)
			return
		}
	}
}
