package sched

import (
	"math"

	"github.com/bridgefour/bridgefour/internal/state"
)

// A user's leases occupy as many slots of a worker as they need, but no more than it has: the others, leased ahead, wait for those. So a
// quota bounds the slots that run attempts of a user at one time, whatever the workers are sent. Tasks shorter than the horizon are leased
// ahead of need if the quota allows all slots of a worker.
//
// No slots of a quota are kept for a task that needs several: while the user's other jobs have tasks that need fewer, those may use each slot
// that becomes free.

// userLeases are the leases of one user at a worker.
type userLeases struct {
	user     *usage
	need     int // slots of all leases
	occupied int // of the worker's slots
}

// occupy adds leases of a user that need so many slots, or removes them, and returns how many slots more are occupied.
func (w *Worker) occupy(u *usage, slots int) int {
	at := w.leasesOf(u)
	if at < 0 {
		at = len(w.byUser)
		w.byUser = append(w.byUser, userLeases{user: u})
	}
	l := &w.byUser[at]
	before := l.occupied
	l.need += slots
	l.occupied = min(l.need, w.Slots)
	more := l.occupied - before
	if l.need <= 0 {
		last := len(w.byUser) - 1
		w.byUser[at], w.byUser[last] = w.byUser[last], userLeases{}
		w.byUser = w.byUser[:last]
	}
	return more
}

// leasesOf is the place of a user in w.byUser; -1: none of the leases are the user's.
func (w *Worker) leasesOf(u *usage) int {
	for i := range w.byUser {
		if w.byUser[i].user == u {
			return i
		}
	}
	return -1
}

// leaseAhead marks the users whose leases occupy all slots of worker w. In this call of Next they may have more, also if their quotas are used
// up: what is leased ahead occupies no more slots.
func (s *Scheduler) leaseAhead(w *Worker) {
	for i := range w.byUser {
		if l := &w.byUser[i]; l.occupied >= w.Slots && l.user.free() == 0 {
			l.user.ahead = true
			l.user.rank()
			s.ahead = append(s.ahead, l.user)
		}
	}
}

// allowed is how many leases of q at worker w the quota of its user allows.
func (q *queue) allowed(w *Worker) int {
	u := q.of.share.user
	if u.quota.Slots == 0 {
		return math.MaxInt
	}
	free := u.free()
	if q.of.reserved.worker != nil { // the reservation ends with the lease
		free += q.slots()
	}
	occupied := 0
	if at := w.leasesOf(u); at >= 0 {
		occupied = w.byUser[at].occupied
	}
	if free >= w.Slots-occupied {
		return math.MaxInt
	}
	return max(free, 0) / q.slots()
}

// Freed reports, once, whether tasks may be leased again that a quota has held back: any worker may have room for them.
func (s *Scheduler) Freed() bool {
	freed := s.freed
	s.freed = false
	return freed
}

// Use is what a user uses of the quota.
type Use struct {
	state.Quota

	Used int // slots
}

// Use returns what a user uses.
func (s *Scheduler) Use(name string) Use {
	use := Use{Quota: s.quotas.Of(name)}
	if u := s.users[name]; u != nil {
		use.Used = u.slots
	}
	return use
}
