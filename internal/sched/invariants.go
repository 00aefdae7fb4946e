package sched

import "fmt"

// Check returns an error if the scheduler's account of a worker is not that of so many leases of that cost together.
func (w *Worker) Check(leases int, load int64) error {
	if w.leases != leases || w.load != load {
		return fmt.Errorf("worker %d has %d leases of load %d; the scheduler counts %d of %d", w.ID, leases, load, w.leases, w.load)
	}
	byStage := 0
	for i := range w.byStage {
		byStage += w.byStage[i].n
	}
	if byStage != leases {
		return fmt.Errorf("worker %d has %d leases; the scheduler counts %d by stage", w.ID, leases, byStage)
	}
	if leases == 0 && (w.strict != 0 || w.promised != 0 || len(w.used) != 0) {
		return fmt.Errorf("worker %d has no leases; the scheduler counts %d strict ones, %d slots, %v", w.ID, w.strict, w.promised, w.used)
	}
	return nil
}

// Check returns an error if the loads of jobs and users are not those of their leases and reservations, if a reservation is not
// between one job and one worker, or if a share is not where it belongs.
func (s *Scheduler) Check() error {
	users, reserved := map[*usage]int64{}, 0
	for id, j := range s.jobs {
		load := int64(0)
		for _, q := range j.stages {
			load += q.load
		}
		if w := j.reserved.worker; w != nil {
			reserved++
			load += j.reservedLoad()
			if s.reserved[w.ID] != j {
				return fmt.Errorf("job %d has reserved worker %d, and the worker is not reserved for it", id, w.ID)
			}
			if s.isFrozen(id) || !j.share.group.strict {
				return fmt.Errorf("job %d has reserved worker %d; its tasks cannot be leased now, or need no reservation", id, w.ID)
			}
		}
		if j.load != load {
			return fmt.Errorf("job %d has a load of %d; the scheduler counts %d", id, load, j.load)
		}
		users[j.share.user] += load
	}
	if reserved != len(s.reserved) {
		return fmt.Errorf("%d jobs have reservations, and %d workers are reserved", reserved, len(s.reserved))
	}
	for name, user := range s.users {
		if user.load != users[user] {
			return fmt.Errorf("user %s has a load of %d; the scheduler counts %d", name, users[user], user.load)
		}
		for _, sh := range user.shares {
			if ranked := sh.at > 0; ranked != (len(sh.runnable) > 0 && user.free() >= sh.group.Slots) {
				return fmt.Errorf("user %s has %d of %d slots left, and runnable jobs that need %d: %d; ranked: %v",
					name, user.free(), user.quota.Slots, sh.group.Slots, len(sh.runnable), ranked)
			}
		}
	}
	return nil
}

// Empty reports whether the scheduler has no job, no user and no reservation.
func (s *Scheduler) Empty() bool {
	return len(s.jobs) == 0 && len(s.users) == 0 && len(s.classes) == 0 && len(s.reserved) == 0 && len(s.backOffs) == 0 && len(s.pauses) == 0
}
