package sched

import (
	"cmp"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Limits of leases and grants.
const (
	leasesPerSlot = 4096 // however short the tasks
	grantTasks    = 4096 // in one grant
	grantSplits   = 512  // in one grant whose leases carry splits
)

// Worker is a worker for scheduling. The leader sets the exported fields, the scheduler the others.
type Worker struct {
	ID        state.WorkerID
	Slots     int
	Memory    uint64 // bytes for tasks; 0: not limited
	Labels    map[string]string
	Resources []state.Resource
	Protocol  uint32 // the version of the workers' protocol that it supports
	Alone     bool   // no other worker accepts leases
	Apart     bool   // it has a lease of a task that runs apart: it is granted no other one
	Behind    bool   // it has returned leases that waited too long: until an attempt ends, it is granted only what it can start at once

	load     int64 // cost of its leases
	leases   int
	strict   int               // leases of strict jobs
	promised int               // slots of those leases
	used     map[string]uint64 // amounts that those take, by name
	byStage  []stageLeases     // the leases
	byUser   []userLeases      // the leases
	known    int               // place in Scheduler.workers, from 1; 0: it is not there
}

// Leases is the number of leases of the worker.
func (w *Worker) Leases() int { return w.leases }

// Busy is the number of slots that attempts occupy: a worker starts its leases at once, as far as it has slots.
func (w *Worker) Busy() int { return w.Slots - max(0, w.idle()) }

// Waiting is the number of leases that wait for a slot.
func (w *Worker) Waiting() int { return max(0, -w.idle()) }

// idle is how many slots are free if every lease occupies a slot; below 1, leases wait at the worker.
func (w *Worker) idle() int { return w.Slots - w.promised - (w.leases - w.strict) }

// Scheduler has the open tasks of all jobs. Use New.
type Scheduler struct {
	jobs     map[state.JobID]*jobQueue
	users    map[string]*usage
	quotas   *state.Quotas
	freed    bool                         // see Freed
	classes  []*class                     // highest priority first
	backOffs Ordered[*queue]              // stages with a task in back-off
	pauses   Ordered[*pause]              // of jobs
	workers  []*Worker                    // that accept leases
	fleet    uint64                       // the number of changes of workers
	round    int                          // place in workers
	reserved map[state.WorkerID]*jobQueue // by the worker that is reserved
	frozen   map[state.JobID]struct{}
	raised   map[state.JobID]uint32 // priorities that are not those of the jobs' specs
	tasks    []uint64               // Grant.Tasks, reused
	passed   []*jobQueue            // jobs that have nothing for the worker of this call of Next
	ahead    []*usage               // users with the mark, see leaseAhead
}

// New returns an empty scheduler.
func New() *Scheduler {
	return &Scheduler{
		jobs: map[state.JobID]*jobQueue{}, users: map[string]*usage{}, quotas: &state.Quotas{}, reserved: map[state.WorkerID]*jobQueue{}, frozen: map[state.JobID]struct{}{}, raised: map[state.JobID]uint32{},
	}
}

// SetQuotas sets the quotas of all users. Leases beyond a quota stand until they end.
func (s *Scheduler) SetQuotas(quotas *state.Quotas) {
	s.quotas = quotas
	for name, u := range s.users {
		u.quota = quotas.Of(name)
		u.use(0)
	}
}

// Start opens the tasks of a stage. Tasks of held stages are not leased until Release.
func (s *Scheduler) Start(job *state.Job, stage uint32, held bool) {
	s.EndStage(Key{job.ID, stage})
	q := newQueue(job, stage)
	q.held = held
	s.add(q)
}

// Resume opens a task again, from the given time on: one that was done and whose output was lost, or one that has failed before this term.
// Its stage may be in the scheduler, or may have ended.
func (s *Scheduler) Resume(job *state.Job, stage uint32, task uint64, at time.Time) {
	q := s.queue(Key{job.ID, stage})
	if q == nil {
		q = newQueue(job, stage)
		q.order, q.cursor = nil, q.stage.Tasks
		s.add(q)
		s.begin(at, q.of) // when its last task started is forgotten
	}
	q.adopt(task) // the cursor may not have reached it in this term
	s.reopen(q, reopened{task: task, at: at})
}

// queue returns a stage; nil if it is not in the scheduler.
func (s *Scheduler) queue(key Key) *queue {
	if j := s.jobs[key.Job]; j != nil {
		for _, q := range j.stages {
			if q.index == key.Stage {
				return q
			}
		}
	}
	return nil
}

// add adds a queue in order.
func (s *Scheduler) add(q *queue) {
	j := s.jobs[q.job.ID]
	if j == nil {
		j = &jobQueue{job: q.job, share: s.shareOf(q.job)}
		j.pause.job = j
		j.share.jobs++
		s.jobs[q.job.ID] = j
	}
	q.of = j
	at, _ := slices.BinarySearchFunc(j.stages, q.index, func(q *queue, index uint32) int { return cmp.Compare(q.index, index) })
	j.stages = slices.Insert(j.stages, at, q)
	j.offer()
}

// SetPriority sets the priority of a job, whatever its spec says, until it ends. Leases and reservations stand.
func (s *Scheduler) SetPriority(job *state.Job, priority uint32) {
	if s.raised[job.ID] = priority; priority == job.Spec.Priority {
		delete(s.raised, job.ID)
	}
	j := s.jobs[job.ID]
	if j == nil || j.priority() == priority {
		return
	}
	offered, old := j.at > 0, j.share
	if offered {
		j.withdraw()
	}
	j.share = s.shareOf(job)
	j.share.jobs++
	if old.jobs--; old.jobs == 0 {
		s.dropShare(old)
	}
	if offered {
		j.offer()
	}
}

// End drops a job, and its leases that were not returned.
func (s *Scheduler) End(id state.JobID) {
	delete(s.raised, id)
	if j := s.jobs[id]; j != nil {
		for _, q := range slices.Clone(j.stages) {
			s.EndStage(q.key())
		}
	}
}

// EndStage drops a stage, and its leases that were not returned.
func (s *Scheduler) EndStage(key Key) {
	q := s.queue(key)
	if q == nil {
		return
	}
	j := q.of
	s.backOffs.Remove(q)
	j.stages = without(j.stages, q)
	j.leases -= q.leases
	j.charge(-q.load, 0)
	if len(j.stages) > 0 {
		return
	}
	s.unreserve(j)
	j.withdraw()
	s.pauses.Remove(&j.pause)
	delete(s.jobs, key.Job)
	if j.share.jobs--; j.share.jobs == 0 {
		s.dropShare(j.share)
	}
}

// Grow offers the tasks that a stage has more of.
func (s *Scheduler) Grow(key Key) {
	if q := s.queue(key); q != nil {
		q.of.offer()
	}
}

// Release lets held stages be leased.
func (s *Scheduler) Release() {
	for _, j := range s.jobs {
		for _, q := range j.stages {
			q.held = false
		}
		j.offer()
	}
}

// Freeze stops or resumes the leasing of a job, while the log decides whether its leases are void.
func (s *Scheduler) Freeze(id state.JobID, on bool) {
	if on {
		s.frozen[id] = struct{}{}
	} else {
		delete(s.frozen, id)
	}
	switch j := s.jobs[id]; {
	case j == nil:
	case on:
		s.unreserve(j)
		j.withdraw()
	default:
		j.offer()
	}
}

func (s *Scheduler) isFrozen(id state.JobID) bool {
	_, frozen := s.frozen[id]
	return frozen
}

// Reopen makes a task available again that was leased: from the given time on, and to another worker than avoid if there is one. One that runs apart is
// granted to workers that are not Apart alone.
func (s *Scheduler) Reopen(key Key, task uint64, at time.Time, avoid state.WorkerID, apart bool) {
	if q := s.queue(key); q != nil {
		s.reopen(q, reopened{task: task, at: at, avoid: avoid, apart: apart})
	}
}

func (s *Scheduler) reopen(q *queue, r reopened) {
	q.again.add(r)
	s.backOffs.Put(q)
}

// wake ends the back-offs and pauses that are due.
func (s *Scheduler) wake(now time.Time) {
	s.resumeJobs(now)
	for len(s.backOffs) > 0 && !s.backOffs[0].again.later[0].at.After(now) {
		q := s.backOffs[0]
		q.again.wake(now)
		if q.of.offer(); len(q.again.later) > 0 {
			s.backOffs.Put(q)
		} else {
			s.backOffs.Remove(q)
		}
	}
}

// Adopt adds a lease of an earlier term, and returns its cost.
func (s *Scheduler) Adopt(now time.Time, w *Worker, key Key, task uint64) int64 {
	q := s.queue(key)
	if q == nil {
		return 0
	}
	q.adopt(task)
	c := q.cost()
	s.lease(now, q, w, 1, c)
	return c
}

// Observe adds the run times of n successful attempts of a stage.
func (s *Scheduler) Observe(key Key, n int, micros uint64) {
	q := s.queue(key)
	if q == nil || n == 0 {
		return
	}
	const window = 64 // attempts in the mean
	mean := max(float64(micros)/float64(n), 0.1)
	if q.mean == 0 {
		q.mean = mean
		return
	}
	q.mean += (mean - q.mean) * min(1, float64(n)/window)
}

// Grant is tasks of one stage for one worker.
type Grant struct {
	Job   *state.Job
	Stage uint32
	Cost  int64    // of each lease, for Return
	Tasks []uint64 // valid until the next call of Next
	// Second: the task has a lease already, and gets another one beside it.
	Second bool
}

// Bounds of how many jobs of a group are passed over in a call of Next.
const (
	avoidMax   = 64 // because their open tasks have failed on this worker
	reserveMax = 8  // because they have reserved another worker, or this one is reserved
)

// Next returns the next grant for worker w; ok is false if there is none, or the worker is full.
func (s *Scheduler) Next(now time.Time, w *Worker) (g Grant, ok bool) {
	s.wake(now)
	if w.known == 0 {
		s.workers = append(s.workers, w)
		w.known = len(s.workers)
		s.fleet++
	}
	holder := s.holder(now, w)
	if w.load >= int64(w.Slots)*Slot {
		return g, false
	}
	defer s.restore()
	s.leaseAhead(w)
	for ; ; holder = s.reserved[w.ID] {
		q := s.pick(now, w, holder)
		if q == nil {
			return g, false
		}
		n := s.room(now, q, w)
		if n == 0 { // a strict job whose turn it is
			s.reserve(now, q.of, w)
			s.pass(q.of)
			continue
		}
		s.tasks = q.appendTasks(now, w, n, s.tasks[:0])
		s.unreserve(q.of) // its next task has found a worker, this one or another
		g = Grant{Job: q.job, Stage: q.index, Cost: q.cost(), Tasks: s.tasks}
		s.lease(now, q, w, len(s.tasks), g.Cost)
		return g, true
	}
}

// Second returns the grant of a second attempt of a task that is leased; ok is false unless worker w has an idle slot for it, and the stage has no
// open task.
func (s *Scheduler) Second(now time.Time, w *Worker, key Key, task uint64) (g Grant, ok bool) {
	q := s.queue(key)
	if q == nil || q.open() || w.idle() <= 0 || s.isFrozen(key.Job) || q.of.allows() <= 0 || s.reserved[w.ID] != nil ||
		!q.of.share.group.eligible(w) || s.room(now, q, w) == 0 {
		return g, false
	}
	g = Grant{Job: q.job, Stage: q.index, Cost: q.cost(), Tasks: append(s.tasks[:0], task), Second: true}
	s.lease(now, q, w, 1, g.Cost)
	return g, true
}

// pass leaves a job out of this call of Next.
func (s *Scheduler) pass(j *jobQueue) {
	j.withdraw()
	s.passed = append(s.passed, j)
}

// restore ends a call of Next.
func (s *Scheduler) restore() {
	for _, u := range s.ahead {
		u.ahead = false
		u.rank()
	}
	s.ahead = s.ahead[:0]
	for _, j := range s.passed {
		j.offer()
	}
	clear(s.passed)
	s.passed = s.passed[:0]
}

// pick returns the stage whose turn it is on worker w, which is reserved for holder, or for none: the stage has a task for the worker, and
// the worker has room for the task, or may be reserved for it.
func (s *Scheduler) pick(now time.Time, w *Worker, holder *jobQueue) *queue {
	for _, c := range s.classes {
		if holder != nil && c.priority <= holder.priority() && holder.share.group.fits(w) {
			return s.stageFor(now, holder, w)
		}
		var best *queue
		for _, g := range c.groups {
			if len(g.shares) == 0 || !g.eligible(w) {
				continue
			}
			if q := s.first(now, g, w); q != nil && (best == nil || before(q.of, best.of)) {
				best = q
			}
		}
		if best != nil {
			return best
		}
	}
	return nil
}

// first returns the stage of a group whose turn it is on worker w.
func (s *Scheduler) first(now time.Time, g *group, w *Worker) *queue {
	if g.blocked(s, w) {
		return nil
	}
	most := avoidMax
	if s.reserved[w.ID] != nil || g.strict && !g.fits(w) {
		most = reserveMax
	}
	for passed := 0; len(g.shares) > 0; {
		j := g.shares[0].runnable[0]
		q := s.stageFor(now, j, w)
		switch {
		case q != nil && (s.room(now, q, w) > 0 || g.strict && s.mayReserve(j, w)):
			return q
		case q == nil && !s.runnable(j):
			j.withdraw()
		case passed == most:
			return nil
		default:
			s.pass(j)
			passed++
		}
	}
	return nil
}

// runnable reports whether a task of a job can be leased now.
func (s *Scheduler) runnable(j *jobQueue) bool {
	return !s.isFrozen(j.job.ID) && j.allows() > 0 && slices.ContainsFunc(j.stages, (*queue).open)
}

// stageFor returns the first stage of a job with a task for worker w; nil if there is none.
func (s *Scheduler) stageFor(now time.Time, j *jobQueue, w *Worker) *queue {
	if s.isFrozen(j.job.ID) || j.allows() <= 0 {
		return nil
	}
	for _, q := range j.stages {
		if q.offers(now, w) {
			return q
		}
	}
	return nil
}

// room is how many leases of q worker w has room for, which is reserved for another job or for none.
func (s *Scheduler) room(now time.Time, q *queue, w *Worker) int {
	free := int64(w.Slots)*Slot - w.load
	holder, quota := s.reserved[w.ID], q.allowed(w)
	switch {
	case free <= 0 || quota <= 0 || holder != nil && holder != q.of && !spare(now, holder, q, w):
		return 0
	case q.strict(): // the worker must be able to start it at once
		if q.of.share.group.fits(w) {
			return 1
		}
		return 0
	case w.strict > 0 || w.Behind || holder != nil: // no leasing ahead beside strict attempts, or long ones
		return min(max(w.idle(), 0), 1)
	}
	// At most one slot's load, so that jobs share the slots of a worker as they share all slots.
	n := max(1, int(min(free, Slot)/q.cost()))
	n = min(n, max(leasesPerSlot*w.Slots-w.leases, 0), grantTasks, quota, q.of.allows())
	if q.splits {
		n = min(n, grantSplits)
	}
	return n
}

// lease adds n leases of q to worker w.
func (s *Scheduler) lease(now time.Time, q *queue, w *Worker, n int, cost int64) {
	total := int64(n) * cost
	q.load += total
	q.leases += n
	q.of.leases += n
	q.of.charge(total, w.occupy(q.of.share.user, n*q.slots()))
	w.load += total
	w.leases += n
	w.addLeases(now, q, n)
	if q.strict() {
		w.strict += n
		w.promised += n * q.slots()
		w.take(q.job.Spec, n)
	}
	s.begin(now, q.of)
}

// Return removes n leases of a stage at worker w, of this cost in total: they have ended.
func (s *Scheduler) Return(w *Worker, job *state.Job, stage uint32, n int, total int64) {
	w.load -= total
	w.leases -= n
	if strict(job.Spec) {
		w.strict -= n
		w.promised -= n * slots(job.Spec)
		w.take(job.Spec, -n)
	}
	w.removeLeases(Key{job.ID, stage}, n)
	u := s.user(job.Spec.User)
	freed := w.occupy(u, -n*slots(job.Spec))
	if q := s.queue(Key{job.ID, stage}); q != nil {
		q.load -= total
		q.leases -= n
		q.of.leases -= n
		q.of.charge(-total, freed)
		s.ended(q.of, n)
		return
	}
	u.use(freed)
	s.dropUser(u)
}

// Leased is the number of leases of a job.
func (s *Scheduler) Leased(id state.JobID) int {
	if j := s.jobs[id]; j != nil {
		return j.leases
	}
	return 0
}

// StageLeased is the number of leases of a stage.
func (s *Scheduler) StageLeased(key Key) int {
	if q := s.queue(key); q != nil {
		return q.leases
	}
	return 0
}

// Waiting is how many tasks of a job are in back-off, and when the first back-off ends.
func (s *Scheduler) Waiting(id state.JobID) (n int, first time.Time) {
	j := s.jobs[id]
	if j == nil {
		return 0, first
	}
	for _, q := range j.stages {
		if len(q.again.later) == 0 {
			continue
		}
		if n == 0 || q.again.later[0].at.Before(first) {
			first = q.again.later[0].at
		}
		n += len(q.again.later)
	}
	return n, first
}

// RetryAt is the time from which a task may be leased that is open again; ok is false if it is not.
func (s *Scheduler) RetryAt(key Key, task uint64) (at time.Time, ok bool) {
	if q := s.queue(key); q != nil {
		at, ok = q.again.waiting[task]
	}
	return at, ok
}

// Held reports whether a job has held stages: workers may still reconnect with their attempts.
func (s *Scheduler) Held(id state.JobID) bool {
	j := s.jobs[id]
	return j != nil && slices.ContainsFunc(j.stages, func(q *queue) bool { return q.held })
}

// Wake is when the next back-off or pause ends; ok is false if there is none.
func (s *Scheduler) Wake() (at time.Time, ok bool) {
	if len(s.backOffs) > 0 {
		at, ok = s.backOffs[0].again.later[0].at, true
	}
	if len(s.pauses) > 0 && (!ok || s.pauses[0].until.Before(at)) {
		at, ok = s.pauses[0].until, true
	}
	return at, ok
}

// Fleet is a number that changes with the workers that accept leases.
func (s *Scheduler) Fleet() uint64 { return s.fleet }

// Able reports whether a worker that accepts leases can run an attempt of the job, when it is empty.
func (s *Scheduler) Able(job *state.Job) bool {
	able := func(n *Need) bool { return slices.ContainsFunc(s.workers, n.eligible) }
	j := s.jobs[job.ID]
	if j == nil {
		need := needOf(job.Spec)
		return able(&need)
	}
	g := j.share.group
	if g.asked != s.fleet+1 {
		g.asked, g.able = s.fleet+1, able(&g.Need)
	}
	return g.able
}

// Eligible reports whether worker w, if it is empty, can run an attempt of the job: it has the labels, the slots, the memory and the resources, and is new
// enough.
func Eligible(spec *state.Spec, w *Worker) bool {
	need := needOf(spec)
	return need.eligible(w)
}
