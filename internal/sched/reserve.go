package sched

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// A strict job whose turn it is on a worker that has too little free, though it could run the task when empty, reserves that worker, or
// one that will be free much earlier. As attempts end there, what the task needs is left free, until it fits. The task counts as leased
// in the load of the job meanwhile, so a job has one reservation, a worker serves one, and reservations overtake no job. The slots that
// stand empty do so for as long as the longest attempt runs that was there before, and until then others may use
//   - what the task does not need, see spare,
//   - slots for a small part of the time that is left by the run times of their stages: the task is delayed by such a part at most,
//   - everything, if their priority is higher.
//
// A reservation ends if a task of the job finds room elsewhere. It is reviewed when the worker is not free in time: it may move.

const (
	// backfill is how often an attempt must fit into the time until the worker is free, to be started there.
	backfill = 4
	// sampleMax bounds how many workers are compared for a reservation.
	sampleMax = 32
	// reviewFirst is the least time until the first review. Each is twice as late as the one before.
	reviewFirst = time.Second
)

// reservation is a worker that is emptied for the next task of a job.
type reservation struct {
	worker *Worker // nil: there is no reservation
	since  time.Time
	review time.Time
}

// stageLeases are the leases of one stage at a worker.
type stageLeases struct {
	queue *queue
	n     int
	since time.Time // of the latest
}

// addLeases adds n leases.
func (w *Worker) addLeases(now time.Time, q *queue, n int) {
	for i := range w.byStage {
		if h := &w.byStage[i]; h.queue.key() == q.key() { // it may have started again
			*h = stageLeases{q, h.n + n, now}
			return
		}
	}
	w.byStage = append(w.byStage, stageLeases{q, n, now})
}

// removeLeases removes n leases.
func (w *Worker) removeLeases(key Key, n int) {
	for i := range w.byStage {
		if h := &w.byStage[i]; h.queue.key() == key {
			if h.n -= n; h.n <= 0 {
				last := len(w.byStage) - 1
				w.byStage[i], w.byStage[last] = w.byStage[last], stageLeases{}
				w.byStage = w.byStage[:last]
			}
			return
		}
	}
}

// left estimates how long the leases still run: their mean run time, or, if they have run for longer, as long as they have run.
func (l *stageLeases) left(now time.Time, w *Worker) time.Duration {
	rounds := (l.n*l.queue.slots() + w.Slots - 1) / w.Slots // of leases ahead of need
	return max(time.Duration(l.queue.mean*float64(time.Microsecond))*time.Duration(rounds), now.Sub(l.since))
}

// fits reports whether an attempt can start on worker w at once.
func (n *Need) fits(w *Worker) bool {
	for _, a := range n.amounts {
		if a.N > w.free(a.Name) {
			return false
		}
	}
	return n.Slots <= w.idle()
}

// wait estimates when an attempt fits on worker w. Known is false if it waits for attempts of a stage of which none has ended yet.
func (n *Need) wait(now time.Time, w *Worker) (d time.Duration, known bool) {
	slots := n.Slots - w.idle()
	lacks, some := n.lacks(w)
	known = true
	slices.SortFunc(w.byStage, func(a, b stageLeases) int { return cmp.Compare(a.left(now, w), b.left(now, w)) })
	for _, h := range w.byStage {
		if slots <= 0 && !some {
			return d, known
		}
		d, known = h.left(now, w), known && h.queue.mean > 0
		slots -= h.n * h.queue.slots()
		some = n.freed(lacks, h.queue.job.Spec, h.n)
	}
	if slots > 0 || some {
		return math.MaxInt64, false // it cannot run the task even when empty
	}
	return d, known
}

// spare reports whether a task of q can be leased to worker w, which is reserved for holder.
func spare(now time.Time, holder *jobQueue, q *queue, w *Worker) bool {
	if q.of.priority() > holder.priority() {
		return true
	}
	need, other := &holder.share.group.Need, &q.of.share.group.Need
	slots := need.Slots
	if _, some := need.lacks(w); some {
		slots-- // what releases what is lacking releases a slot, too
	}
	if need.spares(other, w) && w.idle()-other.Slots >= slots {
		return true
	}
	if q.mean == 0 || !other.fits(w) {
		return false
	}
	d, _ := need.wait(now, w)
	return q.mean*backfill <= float64(d.Microseconds())
}

// blocked reports whether no job of the group can use worker w now, whatever its run times.
func (g *group) blocked(s *Scheduler, w *Worker) bool {
	holder := s.reserved[w.ID]
	if g.strict {
		return !g.fits(w) && holder != nil && g.class.priority <= holder.priority()
	}
	return w.idle() <= 0 && (w.strict > 0 || w.Behind || holder != nil) || w.leases >= leasesPerSlot*w.Slots
}

// mayReserve reports whether job j may reserve worker w.
func (s *Scheduler) mayReserve(j *jobQueue, w *Worker) bool {
	holder := s.reserved[w.ID]
	return j.reserved.worker == nil && j.mayTake(holder) && j.share.user.free() >= j.share.group.Slots
}

// mayTake reports whether a job may reserve the worker of a holder, or of none.
func (j *jobQueue) mayTake(holder *jobQueue) bool {
	return holder == nil || holder.priority() < j.priority()
}

// reserve reserves worker w, or a better one, for the next task of job j.
func (s *Scheduler) reserve(now time.Time, j *jobQueue, w *Worker) {
	d, _ := j.share.group.wait(now, w)
	s.assign(j, s.choose(now, j, w), reservation{since: now, review: now.Add(max(d, reviewFirst))})
}

// review moves the reservation of a job if another worker will be free much earlier.
func (s *Scheduler) review(now time.Time, j *jobQueue) {
	r := j.reserved
	r.review = now.Add(now.Sub(r.since))
	s.assign(j, s.choose(now, j, r.worker), r)
}

// choose returns worker w, or one that will be free in less than half the time, of those that come next in a round.
func (s *Scheduler) choose(now time.Time, j *jobQueue, w *Worker) *Worker {
	least, _ := j.share.group.wait(now, w)
	for range min(len(s.workers), sampleMax) {
		s.round = (s.round + 1) % len(s.workers)
		other := s.workers[s.round]
		if !j.share.group.eligible(other) || !j.mayTake(s.reserved[other.ID]) || s.stageFor(now, j, other) == nil {
			continue
		}
		if d, known := j.share.group.wait(now, other); known && d < least/2 {
			w, least = other, d
		}
	}
	return w
}

// assign sets the reservation of a job.
func (s *Scheduler) assign(j *jobQueue, w *Worker, r reservation) {
	s.unreserve(j)
	if holder := s.reserved[w.ID]; holder != nil { // of a lower priority
		s.unreserve(holder)
	}
	r.worker = w
	j.reserved = r
	s.reserved[w.ID] = j
	j.charge(j.reservedLoad(), j.share.group.Slots)
}

// unreserve ends the reservation of a job, if it has one.
func (s *Scheduler) unreserve(j *jobQueue) {
	if w := j.reserved.worker; w != nil {
		delete(s.reserved, w.ID)
		j.reserved = reservation{}
		j.charge(-j.reservedLoad(), -j.share.group.Slots)
	}
}

// reservedLoad is the load of a reservation: that of a lease.
func (j *jobQueue) reservedLoad() int64 { return Slot * int64(j.share.group.Slots) }

// holder returns the job for which worker w is reserved. The reservation ends here if the worker has changed, or the job has no task for
// it any more.
func (s *Scheduler) holder(now time.Time, w *Worker) *jobQueue {
	j := s.reserved[w.ID]
	switch {
	case j == nil:
	case !j.share.group.eligible(w) || s.stageFor(now, j, w) == nil || j.share.user.free() < 0:
		s.unreserve(j)
	case !j.share.group.fits(w) && !now.Before(j.reserved.review):
		s.review(now, j)
	}
	return s.reserved[w.ID]
}

// Leave drops a worker that accepts no leases, until the next call of Next for it.
func (s *Scheduler) Leave(w *Worker) {
	if j := s.reserved[w.ID]; j != nil {
		s.unreserve(j)
	}
	for i := range w.byUser { // its slots may have changed
		l := &w.byUser[i]
		occupied := min(l.need, w.Slots)
		l.user.use(occupied - l.occupied)
		l.occupied = occupied
	}
	if w.known == 0 {
		return
	}
	last := len(s.workers) - 1
	s.workers[w.known-1] = s.workers[last]
	s.workers[w.known-1].known = w.known
	s.workers[last], w.known = nil, 0
	s.workers = s.workers[:last]
	s.fleet++
}

// Reservation is a worker that is emptied for a task.
type Reservation struct {
	Worker state.WorkerID
	Need
	SlotsFree  int              // of the slots needed
	MemoryFree uint64           // of the memory needed
	Free       []state.Resource // of the resources needed
}

// Reservation returns the reservation of a job; ok is false if it has none.
func (s *Scheduler) Reservation(id state.JobID) (r Reservation, ok bool) {
	j := s.jobs[id]
	if j == nil || j.reserved.worker == nil {
		return r, false
	}
	w, need := j.reserved.worker, j.share.group.Need
	r = Reservation{
		Worker: w.ID, Need: need, SlotsFree: max(0, min(w.idle(), need.Slots)), MemoryFree: min(need.Memory, w.free(state.Memory)),
	}
	for _, a := range need.Resources {
		r.Free = append(r.Free, state.Resource{Name: a.Name, N: min(a.N, w.free(a.Name))})
	}
	return r, true
}
