package leader

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// unledMax is how long attempts of a job that holds named locks run without a leader: their worker stops them when no leader has heard of it for so long (wire.Job.unled_ms).
// It is twice the default time to live of a client's lock: a restart of a lone leader should not stop them.
const unledMax = time.Minute

const (
	// graceDefault is that of jobs that have no other: see state.Spec.GraceMS.
	graceDefault = 2 * time.Second
	// killMargin is for SIGKILL, for a deposed leader that has not noticed yet, and for clocks of different rates.
	killMargin = 10 * time.Second
)

// leftoverBook is the attempts that may still run although their leases are void, of jobs that lock something. A worker reports the end of each attempt that is revoked. If
// it cannot be reached:
//
//   - attempts of jobs that hold named locks end by themselves (unledMax), so they count until then;
//   - those of other jobs count no more once their worker is lost. What they still do disturbs no other job: they write to private places, their outputs are void, and
//     publication is checked by the fencing number.
//
// Attempts that an earlier leader has granted are known when their worker has come; until then, it counts as having some of each job of before the term that began before the
// worker was dead. If a user removes a worker that is dead or lost, its machine is gone, and nothing runs there.
type leftoverBook struct {
	byWorker map[state.WorkerID]map[state.Lease]*leftover
	jobs     map[state.JobID]int // how many each has
	// over is the requests for locks that are held by jobs that have ended, until none of their attempts runs.
	over    map[state.LockID]*overLock
	changed bool // since it was last looked for requests to end

	unled   time.Duration
	began   time.Time // of the term
	fence   uint64    // the last fencing number of before the term: jobs with a later one have no attempts of before
	unknown map[state.WorkerID]*state.Worker
	// forgotten is the dead workers that the leader itself removes.
	forgotten map[state.WorkerID]struct{}
}

// leftover is an attempt.
type leftover struct {
	job   state.JobID
	wait  time.Duration // from when its worker was last heard until it has ended by itself; 0: it does not
	until time.Time     // of a lost worker; zero: the worker will report the end
}

// overLock is a request that is over.
type overLock struct {
	job    state.JobID
	fence  uint64
	wait   time.Duration // that of a leftover
	ending bool          // its end is on its way into the log
}

func newLeftoverBook(m *state.Machine, unled time.Duration, now time.Time) leftoverBook {
	b := leftoverBook{
		byWorker: map[state.WorkerID]map[state.Lease]*leftover{}, jobs: map[state.JobID]int{}, over: map[state.LockID]*overLock{},
		unled: cmp.Or(unled, unledMax), began: now, fence: m.Fence(), unknown: map[state.WorkerID]*state.Worker{},
		forgotten: map[state.WorkerID]struct{}{},
	}
	for _, id := range m.Workers() {
		b.unknown[id] = m.Worker(id)
	}
	return b
}

func (b *leftoverBook) add(id state.WorkerID, number state.Lease, l leftover) {
	set := b.byWorker[id]
	if set == nil {
		set = map[state.Lease]*leftover{}
		b.byWorker[id] = set
	}
	if set[number] == nil {
		set[number] = &l
		b.jobs[l.job]++
	}
}

// end notes that an attempt has ended.
func (b *leftoverBook) end(id state.WorkerID, number state.Lease) {
	set := b.byWorker[id]
	l := set[number]
	if l == nil {
		return
	}
	b.changed = true
	if b.jobs[l.job]--; b.jobs[l.job] == 0 {
		delete(b.jobs, l.job)
	}
	if delete(set, number); len(set) == 0 {
		delete(b.byWorker, id)
	}
}

// known compares what a worker that has come runs with what it may run: the rest has ended.
func (b *leftoverBook) known(id state.WorkerID, runs map[state.Lease]struct{}) {
	b.changed = b.changed || len(b.unknown) > 0
	delete(b.unknown, id)
	for number, l := range b.byWorker[id] {
		if _, ok := runs[number]; ok {
			l.until = time.Time{}
		} else {
			b.end(id, number)
		}
	}
}

// status notes the status of a worker that has not come.
func (b *leftoverBook) status(info *state.Worker) {
	if b.unknown[info.ID] != nil {
		b.unknown[info.ID] = info
	}
}

// removed notes that a worker was removed, which is nil if it has not come. If it was lost, its machine is gone, unless the leader itself has removed it because there are too many.
func (b *leftoverBook) removed(id state.WorkerID, w *worker) {
	before := b.unknown[id]
	lost := w != nil && w.lost || w == nil && before != nil && before.Status == state.WorkerDead
	_, forgotten := b.forgotten[id]
	if delete(b.forgotten, id); lost && !forgotten {
		b.known(id, nil)
	}
}

// lose notes that a worker that was last heard then does not report what ends.
func (b *leftoverBook) lose(id state.WorkerID, heard time.Time) {
	for number, l := range b.byWorker[id] {
		switch {
		case l.wait == 0:
			b.end(id, number)
		case l.until.IsZero():
			l.until = heard.Add(l.wait)
		}
	}
}

// shift adds a time in which the leader was stopped or starved: it may not have read what its workers have sent.
func (b *leftoverBook) shift(by time.Duration) {
	b.began = b.began.Add(by)
	for _, set := range b.byWorker {
		for _, l := range set {
			if !l.until.IsZero() {
				l.until = l.until.Add(by)
			}
		}
	}
}

// expire ends the attempts of lost workers that have ended by themselves.
func (b *leftoverBook) expire(now time.Time) {
	for id, set := range b.byWorker {
		for number, l := range set {
			if !l.until.IsZero() && !now.Before(l.until) {
				b.end(id, number)
			}
		}
	}
}

// wait is leftover.wait of the attempts of a job, of which the spec may be gone, that holds these locks.
func (b *leftoverBook) wait(spec *state.Spec, named bool) time.Duration {
	if !named {
		return 0
	}
	grace := graceDefault
	if spec != nil && spec.GraceMS > 0 {
		grace = time.Duration(spec.GraceMS) * time.Millisecond //nolint:gosec // bounded at the submit
	}
	return b.unled + grace + killMargin
}

// leaveBehind notes that the attempt of a void lease may run for a while. Workers of before these reports end attempts as they always did: unseen.
func (c *Core) leaveBehind(w *worker, number state.Lease, id state.JobID) {
	job := c.machine.Job(id)
	if !w.ends || job != nil && !job.Spec.LocksAny() {
		return
	}
	l := leftover{job: id}
	if job != nil {
		l.wait = c.leftovers.wait(job.Spec, len(job.Spec.Locks) > 0)
	}
	c.leftovers.add(w.ID, number, l)
}

// loseLeftovers notes that a worker that is lost, or was removed, may go on with all that it runs.
func (c *Core) loseLeftovers(w *worker) {
	for _, number := range w.leases.standing() {
		c.leaveBehind(w, number, w.leases[number].Job)
	}
	c.leftovers.lose(w.ID, w.heard)
}

// leave keeps the session of a worker that was removed while attempts may run there, until they have ended: it reports that.
func (c *Core) leave(s *session, id state.WorkerID) {
	s.worker, s.leaving = nil, id
	if len(c.leftovers.byWorker[id]) == 0 {
		delete(c.registry.sessions, s.id)
		c.reject(s.id, removedReason)
	}
}

// handleLeaving handles a report of a worker that was removed.
func (c *Core) handleLeaving(s *session, r *wire.Report) {
	ended := slices.Clone(r.GetReturned())
	for _, f := range r.GetFinished() {
		ended = append(ended, f.GetLease()...)
	}
	for _, f := range r.GetFailed() {
		ended = append(ended, f.GetLease())
	}
	for _, number := range ended {
		c.leftovers.end(s.leaving, state.Lease(number))
	}
	c.leave(s, s.leaving)
}

// come notes which attempts a worker runs that has come. Another process than before runs none of those of the last one, which have ended with it.
func (c *Core) come(w *worker, h *wire.Hello) {
	w.ends = h.GetEnds()
	runs := make(map[state.Lease]struct{}, len(h.GetHeld())+len(h.GetStopping()))
	for _, list := range [][]*wire.Held{h.GetHeld(), h.GetStopping()} {
		for _, held := range list {
			runs[state.Lease(held.GetLease())] = struct{}{}
		}
	}
	c.leftovers.known(w.ID, runs)
	for _, held := range h.GetStopping() {
		c.leaveClaimed(w, state.Lease(held.GetLease()), state.JobID(held.GetJob()))
	}
}

// leaveClaimed is leaveBehind of a lease that a worker says it has, and may not keep. It is believed of leases of earlier terms, and of those that it was granted in this
// one: otherwise a worker could keep the locks of any job.
func (c *Core) leaveClaimed(w *worker, number state.Lease, id state.JobID) {
	if l := w.leases[number]; number.Term() < c.term || l != nil && l.Job == id {
		c.leaveBehind(w, number, id)
	}
}

// startLeftovers finds the requests that were over when the term began.
func (c *Core) startLeftovers() {
	for l := range c.machine.Locks() {
		if l.Over {
			c.lockOver(l)
		}
	}
}

// lockOver follows a request of a job that has ended, until none of its attempts runs.
func (c *Core) lockOver(l *state.Lock) {
	var spec *state.Spec
	if job := c.machine.Job(l.Job); job != nil {
		spec = job.Spec
	}
	named := slices.ContainsFunc(l.Names(), func(n state.LockName) bool { return !n.Data })
	c.leftovers.over[l.ID] = &overLock{job: l.Job, fence: l.Fence, wait: c.leftovers.wait(spec, named)}
	c.leftovers.changed = true
}

// mayHaveOlder reports whether attempts of a job may run that an earlier leader has granted, on a worker that has not come.
func (c *Core) mayHaveOlder(fence uint64, wait time.Duration) bool {
	b := &c.leftovers
	switch {
	case fence > b.fence:
		return false
	case wait == 0:
		return len(c.registry.awaited) > 0
	}
	if c.now.Sub(b.began) >= wait {
		return false
	}
	for _, w := range b.unknown { // the first one may, unless most are dead
		if w.MayRun(fence) {
			return true
		}
	}
	return false
}

// others reports whether attempts of a job may run that were not reported, for state.Entry.Others.
func (c *Core) others(id state.JobID) bool {
	l := c.machine.LockOf(id)
	if l == nil {
		return false
	}
	spec := c.machine.Job(id).Spec
	return c.sched.Leased(id) > 0 || c.leftovers.jobs[id] > 0 || c.mayHaveOlder(l.Fence, c.leftovers.wait(spec, len(spec.Locks) > 0))
}

// endOver ends the requests of ended jobs of which no attempt runs any more.
func (c *Core) endOver(ticked bool) {
	b := &c.leftovers
	if len(b.over) == 0 || !ticked && !b.changed {
		return
	}
	b.changed = false
	var ids []state.LockID
	for id, o := range b.over {
		l := c.machine.Lock(id)
		switch {
		case l == nil || !l.Over: // it has ended, or its job has it again
			delete(b.over, id)
		case !o.ending && b.jobs[o.job] == 0 && !c.mayHaveOlder(o.fence, o.wait):
			o.ending = true
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for chunk := range slices.Chunk(ids, expiryMax) {
		c.open().Expire("", chunk...)
	}
}

// Remnant is a worker where attempts may run of a job that has ended.
type Remnant struct {
	Worker  state.WorkerID
	Lost    bool // it is not connected, or was removed: it counts until Left has passed, at most
	Removed bool
	Left    time.Duration
}

// Remnants returns what a request waits for that is over, by worker.
func (c *Core) Remnants(now time.Time, id state.LockID) (list []Remnant) {
	b := &c.leftovers
	o := b.over[id]
	if o == nil || o.ending {
		return nil
	}
	for worker, set := range b.byWorker {
		r, has := Remnant{Worker: worker, Removed: c.machine.Worker(worker) == nil}, false
		for _, l := range set {
			if l.job != o.job {
				continue
			}
			if has = true; !l.until.IsZero() {
				r.Lost, r.Left = true, max(r.Left, l.until.Sub(now))
			}
		}
		if has {
			list = append(list, r)
		}
	}
	if c.mayHaveOlder(o.fence, o.wait) {
		left := b.began.Add(o.wait).Sub(now)
		if o.wait == 0 {
			left = c.registry.awaitUntil.Sub(now)
		}
		for worker, info := range b.unknown {
			_, awaited := c.registry.awaited[worker]
			if len(b.byWorker[worker]) == 0 && (awaited || o.wait > 0 && info.MayRun(o.fence)) {
				list = append(list, Remnant{worker, true, c.machine.Worker(worker) == nil, max(0, left)})
			}
		}
	}
	slices.SortFunc(list, func(a, b Remnant) int { return cmp.Compare(a.Worker, b.Worker) })
	return list
}

// OverLock returns the request of a job that has ended, which has its locks still; nil if there is none.
func (c *Core) OverLock(id state.JobID) *state.Lock {
	for lock, o := range c.leftovers.over {
		if l := c.machine.Lock(lock); o.job == id && !o.ending && l != nil {
			return l
		}
	}
	return nil
}

// check returns an error if an invariant is broken.
func (b *leftoverBook) check() error {
	count := map[state.JobID]int{}
	for _, set := range b.byWorker {
		for _, l := range set {
			count[l.job]++
		}
	}
	if !maps.Equal(count, b.jobs) {
		return fmt.Errorf("attempts of void leases, by job: %v, counted %v", count, b.jobs)
	}
	return nil
}
