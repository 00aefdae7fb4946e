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
	ID     state.WorkerID
	Slots  int
	Memory uint64 // bytes for tasks; 0: not limited
	Labels map[string]string
	Alone  bool // no other worker accepts leases
	Behind bool // it has returned leases that waited too long: until an attempt ends, it is granted only what it can start at once

	load       int64 // cost of its leases
	leases     int
	strict     int    // leases of strict jobs
	promised   int    // slots of those leases
	memoryUsed uint64 // by those leases
}

// Leases is the number of leases of the worker.
func (w *Worker) Leases() int { return w.leases }

// idle is how many slots are free if every lease occupies a slot; below 1, leases wait at the worker.
func (w *Worker) idle() int { return w.Slots - w.promised - (w.leases - w.strict) }

// Scheduler has the open tasks of all jobs. Use New.
type Scheduler struct {
	queues map[Key]*queue
	order  []*queue // by priority, then age of the job, then stage
	jobs   map[state.JobID]*inUse
	users  map[string]*usage
	frozen map[state.JobID]struct{}
	tasks  []uint64 // Grant.Tasks, reused
	passed []*queue // stages without a task for the worker of this call of Next
}

// New returns an empty scheduler.
func New() *Scheduler {
	return &Scheduler{
		queues: map[Key]*queue{}, jobs: map[state.JobID]*inUse{}, users: map[string]*usage{}, frozen: map[state.JobID]struct{}{},
	}
}

// usage is the load of a user.
type usage struct {
	load int64
	jobs int // in the scheduler
}

// Start opens the tasks of a stage. Tasks of held stages are not leased until Release.
func (s *Scheduler) Start(job *state.Job, stage uint32, held bool) {
	s.EndStage(Key{job.ID, stage})
	q := newQueue(job, stage)
	q.held = held
	s.add(q)
}

// Resume opens a done task again whose output was lost. Its stage may be in the scheduler, or may have ended.
func (s *Scheduler) Resume(job *state.Job, stage uint32, task uint64, now time.Time) {
	q := s.queues[Key{job.ID, stage}]
	if q == nil {
		q = newQueue(job, stage)
		q.order, q.cursor = nil, q.stage.Tasks
		s.add(q)
	}
	q.adopt(task) // the cursor may not have reached it in this term
	q.reopen(reopened{task: task, at: now})
}

// add adds a queue in order.
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

// End drops a job, and its leases that were not returned.
func (s *Scheduler) End(id state.JobID) {
	for _, q := range slices.Clone(s.order) {
		if q.job.ID == id {
			s.EndStage(q.key())
		}
	}
}

// EndStage drops a stage, and its leases that were not returned.
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

// Release lets held stages be leased.
func (s *Scheduler) Release() {
	for _, q := range s.order {
		q.held = false
	}
}

// Freeze stops or resumes the leasing of a job, while the log decides whether its leases are void.
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

// Reopen makes a task available again that was leased: from the given time on, and to another worker than avoid if there is one.
func (s *Scheduler) Reopen(key Key, task uint64, at time.Time, avoid state.WorkerID) {
	if q := s.queues[key]; q != nil {
		q.reopen(reopened{task: task, at: at, avoid: avoid})
	}
}

// Adopt adds a lease of an earlier term, and returns its cost.
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

// Observe adds the run times of n successful attempts of a stage.
func (s *Scheduler) Observe(key Key, n int, micros uint64) {
	q := s.queues[key]
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
}

// Next returns the next grant for worker w; ok is false if there is none, or the worker is full.
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
		s.tasks = q.appendTasks(now, w, n, s.tasks[:0])
		if len(s.tasks) == 0 { // the open tasks have failed on this worker
			s.passed = append(s.passed, q)
			continue
		}
		q.reserved = 0
		g = Grant{Job: q.job, Stage: q.index, Cost: q.cost(), Tasks: s.tasks}
		lease(q, w, len(s.tasks), g.Cost)
		return g, true
	}
}

// pick returns the next stage for worker w. A strict stage that does not fit reserves a worker: that worker is granted nothing else until
// the attempt fits, and the other workers run other stages.
func (s *Scheduler) pick(now time.Time, w *Worker) *queue {
	var best *queue
	for _, q := range s.order {
		if best != nil && q.job.Spec.Priority < best.job.Spec.Priority {
			break // and so are all that follow
		}
		if best != nil && !before(q, best) {
			continue
		}
		reserved := q.reserved != 0 && q.reserved != w.ID && room(q, w) <= 0
		if reserved || len(s.frozen) > 0 && s.isFrozen(q.job.ID) {
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

// Leave drops a worker whose leases were returned.
func (s *Scheduler) Leave(id state.WorkerID) {
	for _, q := range s.order {
		if q.reserved == id {
			q.reserved = 0
		}
	}
}

// before compares two stages of one priority.
func before(a, b *queue) bool {
	return cmp.Or(
		cmp.Compare(a.user.load, b.user.load), cmp.Compare(a.use.load, b.use.load), cmp.Compare(a.job.ID, b.job.ID),
		cmp.Compare(a.index, b.index),
	) < 0
}

// room is how many leases of q worker w has room for.
func room(q *queue, w *Worker) int {
	free := int64(w.Slots)*Slot - w.load
	if free <= 0 {
		return 0
	}
	cost := q.cost()
	if q.strict() {
		// The worker must be able to start it at once: no lease may wait there, and slots and memory must be free.
		if cost > free || q.slots() > w.idle() || w.Memory > 0 && q.job.Spec.Memory > w.Memory-min(w.Memory, w.memoryUsed) {
			return 0
		}
		return 1
	}
	if w.strict > 0 || w.Behind { // no leasing ahead beside strict attempts, or long ones
		return min(w.idle(), 1)
	}
	// At most one slot's load, so that jobs share the slots of a worker as they share all slots.
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

// Return removes n leases of a stage at worker w, of this cost in total: they have ended.
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

// Leased is the number of leases of a job.
func (s *Scheduler) Leased(id state.JobID) int {
	if use := s.jobs[id]; use != nil {
		return use.leases
	}
	return 0
}

// StageLeased is the number of leases of a stage.
func (s *Scheduler) StageLeased(key Key) int {
	if q := s.queues[key]; q != nil {
		return q.leases
	}
	return 0
}

// Waiting is how many tasks of a job are in back-off, and when the first back-off ends.
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

// Held reports whether a job has held stages: workers may still reconnect with their attempts.
func (s *Scheduler) Held(id state.JobID) bool {
	return slices.ContainsFunc(s.order, func(q *queue) bool { return q.job.ID == id && q.held })
}

// Wake is when the next back-off ends; ok is false if there is none.
func (s *Scheduler) Wake() (at time.Time, ok bool) {
	for _, q := range s.order {
		if len(q.later) > 0 && (!ok || q.later[0].at.Before(at)) {
			at, ok = q.later[0].at, true
		}
	}
	return at, ok
}

// Eligible reports whether worker w, if it is empty, can run an attempt of the job: it has the labels, the slots and the memory.
func Eligible(spec *state.Spec, w *Worker) bool {
	for k, v := range spec.Labels {
		if w.Labels[k] != v {
			return false
		}
	}
	return int(spec.SlotsPerTask) <= w.Slots && (w.Memory == 0 || spec.Memory <= w.Memory)
}
