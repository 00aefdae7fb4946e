package sched

import (
	"cmp"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Limits of what a worker is given at once.
const (
	leasesPerSlot = 4096 // leased ahead, however short the tasks
	grantTasks    = 4096 // in one grant
	grantSplits   = 512  // in one grant whose tasks carry a split of their own
)

// Worker is what the scheduler knows of a worker. The leader keeps ID to Labels; the scheduler keeps the rest.
type Worker struct {
	ID     state.WorkerID
	Slots  int
	Memory uint64 // bytes for tasks; 0: not limited
	Labels map[string]string
	Alone  bool // no other worker could take its tasks
	Behind bool // it has handed back what waited there too long: until an attempt has ended, it is given what it can begin at once

	load       int64 // cost of its leases
	leases     int
	strict     int    // leases of strict jobs
	promised   int    // slots that those were promised
	memoryUsed uint64 // by strict jobs
}

// Leases is the number of leases the worker holds.
func (w *Worker) Leases() int { return w.leases }

// idle is how many slots are free however long the leases at the worker turn out to be; below 1: work waits there.
func (w *Worker) idle() int { return w.Slots - w.promised - (w.leases - w.strict) }

// Scheduler holds the open tasks of all jobs. The zero value is not usable: New.
type Scheduler struct {
	queues map[Key]*queue
	order  []*queue // by priority, then age of the job, then stage
	jobs   map[state.JobID]*inUse
	users  map[string]*usage
	frozen map[state.JobID]struct{}
	tasks  []uint64 // Grant.Tasks, reused
	passed []*queue // of one Next: stages that had nothing for the worker
}

// New returns an empty scheduler.
func New() *Scheduler {
	return &Scheduler{
		queues: map[Key]*queue{}, jobs: map[state.JobID]*inUse{}, users: map[string]*usage{}, frozen: map[state.JobID]struct{}{},
	}
}

// usage is what the jobs of a user have in use.
type usage struct {
	load int64
	jobs int // that the scheduler holds
}

// Start opens the tasks of a stage. Held stages are not leased until Release.
func (s *Scheduler) Start(job *state.Job, stage uint32, held bool) {
	s.EndStage(Key{job.ID, stage})
	q := newQueue(job, stage)
	q.held = held
	s.add(q)
}

// Resume opens one task of a stage that was over: its output was lost. If the stage is still open, the task joins it.
func (s *Scheduler) Resume(job *state.Job, stage uint32, task uint64, now time.Time) {
	q := s.queues[Key{job.ID, stage}]
	if q == nil {
		q = newQueue(job, stage)
		q.order, q.cursor = nil, q.stage.Tasks
		s.add(q)
	}
	q.adopt(task) // the cursor may not have come to it in this term
	q.reopen(reopened{task: task, at: now})
}

// add puts a new queue among the others.
func (s *Scheduler) add(q *queue) {
	q.use = s.jobs[q.job.ID]
	if q.use == nil {
		user := s.users[q.job.Spec.User]
		if user == nil {
			user = &usage{}
			s.users[q.job.Spec.User] = user
		}
		user.jobs++
		q.use = &inUse{user: user}
		s.jobs[q.job.ID] = q.use
	}
	q.user = q.use.user
	q.use.queues++
	s.queues[q.key()] = q
	at, _ := slices.BinarySearchFunc(s.order, q, func(a, b *queue) int {
		return cmp.Or(cmp.Compare(b.job.Spec.Priority, a.job.Spec.Priority), cmp.Compare(a.job.ID, b.job.ID), cmp.Compare(a.index, b.index))
	})
	s.order = slices.Insert(s.order, at, q)
}

// End forgets a job. Its leases must have been given back with Return, or are forgotten with it.
func (s *Scheduler) End(id state.JobID) {
	for _, q := range slices.Clone(s.order) {
		if q.job.ID == id {
			s.EndStage(q.key())
		}
	}
}

// EndStage forgets a stage. Its leases must have been given back with Return, or are forgotten with it.
func (s *Scheduler) EndStage(key Key) {
	q := s.queues[key]
	if q == nil {
		return
	}
	delete(s.queues, key)
	s.order = slices.DeleteFunc(s.order, func(o *queue) bool { return o == q })
	q.use.load -= q.load
	q.use.leases -= q.leases
	q.user.load -= q.load
	if q.use.queues--; q.use.queues > 0 {
		return
	}
	delete(s.jobs, key.Job)
	if q.user.jobs--; q.user.jobs == 0 {
		delete(s.users, q.job.Spec.User)
	}
}

// Release ends the holding back of all jobs.
func (s *Scheduler) Release() {
	for _, q := range s.order {
		q.held = false
	}
}

// Freeze has nothing of a job leased while the log decides whether its attempts are void; the leader says when that is over.
func (s *Scheduler) Freeze(id state.JobID, on bool) {
	if on {
		s.frozen[id] = struct{}{}
	} else {
		delete(s.frozen, id)
	}
}

func (s *Scheduler) isFrozen(id state.JobID) bool {
	_, frozen := s.frozen[id]
	return frozen
}

// Reopen puts a task back that was leased: it may go out again at the given time, to another worker than avoid if there is
// one.
func (s *Scheduler) Reopen(key Key, task uint64, at time.Time, avoid state.WorkerID) {
	if q := s.queues[key]; q != nil {
		q.reopen(reopened{task: task, at: at, avoid: avoid})
	}
}

// Adopt records a lease from an earlier term that goes on, and returns its cost.
func (s *Scheduler) Adopt(w *Worker, key Key, task uint64) int64 {
	q := s.queues[key]
	if q == nil {
		return 0
	}
	q.adopt(task)
	c := q.cost()
	lease(q, w, 1, c)
	return c
}

// Observe records the run times of n attempts of a stage that have ended well.
func (s *Scheduler) Observe(key Key, n int, micros uint64) {
	q := s.queues[key]
	if q == nil || n == 0 {
		return
	}
	const window = 64 // attempts that count for the mean
	mean := max(float64(micros)/float64(n), 0.1)
	if q.mean == 0 {
		q.mean = mean
		return
	}
	q.mean += (mean - q.mean) * min(1, float64(n)/window)
}

// Grant is a number of tasks of one stage for one worker.
type Grant struct {
	Job   *state.Job
	Stage uint32
	Cost  int64    // of each lease: give it back with Return
	Tasks []uint64 // valid until the next call of Next
}

// Next returns what worker w should be given now; ok is false when there is nothing for it, or it is full.
func (s *Scheduler) Next(now time.Time, w *Worker) (g Grant, ok bool) {
	if w.load >= int64(w.Slots)*Slot {
		return g, false
	}
	s.passed = s.passed[:0]
	for {
		q := s.pick(now, w)
		if q == nil {
			return g, false
		}
		n := room(q, w)
		if n <= 0 {
			return g, false
		}
		s.tasks = q.take(now, w, n, s.tasks[:0])
		if len(s.tasks) == 0 { // what waits has failed on this very worker
			s.passed = append(s.passed, q)
			continue
		}
		q.reserved = 0
		g = Grant{Job: q.job, Stage: q.index, Cost: q.cost(), Tasks: s.tasks}
		lease(q, w, len(s.tasks), g.Cost)
		return g, true
	}
}

// pick returns the stage whose turn it is at worker w. A strict one that does not fit reserves one worker: that one is given
// nothing else until it is empty enough; the other workers go on with other stages.
func (s *Scheduler) pick(now time.Time, w *Worker) *queue {
	var best *queue
	for _, q := range s.order {
		if best != nil && q.job.Spec.Priority < best.job.Spec.Priority {
			break // and so are all that follow
		}
		if best != nil && !before(q, best) {
			continue
		}
		elsewhere := q.reserved != 0 && q.reserved != w.ID && room(q, w) <= 0
		if elsewhere || len(s.frozen) > 0 && s.isFrozen(q.job.ID) {
			continue
		}
		if Eligible(q.job.Spec, w) && q.open(now) && !slices.Contains(s.passed, q) {
			best = q
		}
	}
	if best != nil && best.strict() && room(best, w) <= 0 {
		best.reserved = w.ID
	}
	return best
}

// Leave is told that a worker is gone, after its leases were given back.
func (s *Scheduler) Leave(id state.WorkerID) {
	for _, q := range s.order {
		if q.reserved == id {
			q.reserved = 0
		}
	}
}

// before is the order of two stages of one priority.
func before(a, b *queue) bool {
	return cmp.Or(
		cmp.Compare(a.user.load, b.user.load), cmp.Compare(a.use.load, b.use.load), cmp.Compare(a.job.ID, b.job.ID),
		cmp.Compare(a.index, b.index),
	) < 0
}

// room is how many leases of q worker w can take now.
func room(q *queue, w *Worker) int {
	free := int64(w.Slots)*Slot - w.load
	if free <= 0 {
		return 0
	}
	cost := q.cost()
	if q.strict() {
		// The worker must be able to start it at once: nothing may wait there, and slots and memory must be free.
		if cost > free || q.slots() > w.idle() || w.Memory > 0 && q.job.Spec.Memory > w.Memory-min(w.Memory, w.memoryUsed) {
			return 0
		}
		return 1
	}
	if w.strict > 0 || w.Behind { // no leasing ahead beside attempts that were promised their share, or that take long
		return min(w.idle(), 1)
	}
	// At most what fills one slot, so that jobs share the slots of one worker as they share all.
	n := max(1, int(min(free, Slot)/cost))
	n = min(n, leasesPerSlot*w.Slots-w.leases, grantTasks)
	if q.splits {
		n = min(n, grantSplits)
	}
	return n
}

func lease(q *queue, w *Worker, n int, cost int64) {
	total := int64(n) * cost
	q.load += total
	q.leases += n
	q.use.leases += n
	q.use.load += total
	q.user.load += total
	w.load += total
	w.leases += n
	if q.strict() {
		w.strict += n
		w.promised += n * q.slots()
		w.memoryUsed += uint64(n) * q.job.Spec.Memory
	}
}

// Return gives back n leases of a stage at worker w that cost total together: they have ended, one way or another.
func (s *Scheduler) Return(w *Worker, job *state.Job, stage uint32, n int, total int64) {
	w.load -= total
	w.leases -= n
	if strict(job.Spec) {
		w.strict -= n
		w.promised -= n * slots(job.Spec)
		w.memoryUsed -= min(w.memoryUsed, uint64(n)*job.Spec.Memory)
	}
	if q := s.queues[Key{job.ID, stage}]; q != nil {
		q.load -= total
		q.leases -= n
		q.use.leases -= n
		q.use.load -= total
		q.user.load -= total
	}
}

// Leased is the number of leases of a job that are out.
func (s *Scheduler) Leased(id state.JobID) int {
	if use := s.jobs[id]; use != nil {
		return use.leases
	}
	return 0
}

// StageLeased is the number of leases of a stage that are out.
func (s *Scheduler) StageLeased(key Key) int {
	if q := s.queues[key]; q != nil {
		return q.leases
	}
	return 0
}

// Waiting is how many tasks of a job wait for their next attempt's time, and when the first of them may go.
func (s *Scheduler) Waiting(id state.JobID) (n int, first time.Time) {
	for _, q := range s.order {
		if q.job.ID != id || len(q.later) == 0 {
			continue
		}
		if n == 0 || q.later[0].at.Before(first) {
			first = q.later[0].at
		}
		n += len(q.later)
	}
	return n, first
}

// Held reports whether tasks of a job are held back because workers may still come back with its attempts.
func (s *Scheduler) Held(id state.JobID) bool {
	return slices.ContainsFunc(s.order, func(q *queue) bool { return q.job.ID == id && q.held })
}

// Wake is when the next task's back-off ends; ok is false when none waits.
func (s *Scheduler) Wake() (at time.Time, ok bool) {
	for _, q := range s.order {
		if len(q.later) > 0 && (!ok || q.later[0].at.Before(at)) {
			at, ok = q.later[0].at, true
		}
	}
	return at, ok
}

// Eligible reports whether an empty worker w could run an attempt of the job: it has the labels, the slots and the memory.
func Eligible(spec *state.Spec, w *Worker) bool {
	for k, v := range spec.Labels {
		if w.Labels[k] != v {
			return false
		}
	}
	return int(spec.SlotsPerTask) <= w.Slots && (w.Memory == 0 || spec.Memory <= w.Memory)
}
