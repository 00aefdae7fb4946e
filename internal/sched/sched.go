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
	queues map[state.JobID]*queue
	order  []*queue // by priority, then age
	users  map[string]*usage
	tasks  []uint64 // Grant.Tasks, reused
	passed []*queue // of one Next: jobs that had nothing for the worker
}

// New returns an empty scheduler.
func New() *Scheduler {
	return &Scheduler{queues: map[state.JobID]*queue{}, users: map[string]*usage{}}
}

// usage is what the jobs of a user have in use.
type usage struct {
	load int64
	jobs int // that the scheduler holds
}

// Start opens the tasks of a job's current stage. Held jobs are not leased until Release.
func (s *Scheduler) Start(job *state.Job, held bool) {
	s.End(job.ID)
	q := newQueue(job, uint32(job.Current))
	q.held = held
	q.user = s.users[job.Spec.User]
	if q.user == nil {
		q.user = &usage{}
		s.users[job.Spec.User] = q.user
	}
	q.user.jobs++
	s.queues[job.ID] = q
	at, _ := slices.BinarySearchFunc(s.order, q, func(a, b *queue) int {
		return cmp.Or(cmp.Compare(b.job.Spec.Priority, a.job.Spec.Priority), cmp.Compare(a.job.ID, b.job.ID))
	})
	s.order = slices.Insert(s.order, at, q)
}

// End forgets a job. Its leases must have been given back with Return, or are forgotten with it.
func (s *Scheduler) End(id state.JobID) {
	q := s.queues[id]
	if q == nil {
		return
	}
	q.user.load -= q.load
	if q.user.jobs--; q.user.jobs == 0 {
		delete(s.users, q.job.Spec.User)
	}
	delete(s.queues, id)
	s.order = slices.DeleteFunc(s.order, func(o *queue) bool { return o == q })
}

// Release ends the holding back of all jobs.
func (s *Scheduler) Release() {
	for _, q := range s.order {
		q.held = false
	}
}

// Freeze has nothing of a job leased while the log decides whether its attempts are void; the leader says when that is over.
func (s *Scheduler) Freeze(id state.JobID, on bool) {
	if q := s.queues[id]; q != nil {
		q.frozen = on
	}
}

// Reopen puts a task back that was leased: it may go out again at the given time, to another worker than avoid if there is
// one.
func (s *Scheduler) Reopen(id state.JobID, task uint64, at time.Time, avoid state.WorkerID) {
	if q := s.queues[id]; q != nil {
		q.reopen(reopened{task: task, at: at, avoid: avoid})
	}
}

// Adopt takes note of a lease from an earlier term that goes on, and returns its cost.
func (s *Scheduler) Adopt(w *Worker, id state.JobID, task uint64) int64 {
	q := s.queues[id]
	if q == nil {
		return 0
	}
	q.adopt(task)
	c := q.cost()
	s.lease(q, w, 1, c)
	return c
}

// Observe is told the run times of n attempts of a job that have ended well.
func (s *Scheduler) Observe(id state.JobID, n int, micros uint64) {
	q := s.queues[id]
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

// Grant is a number of tasks of one job for one worker.
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
		n := s.room(q, w)
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
		s.lease(q, w, len(s.tasks), g.Cost)
		return g, true
	}
}

// pick returns the job whose turn it is at worker w. A strict job that does not fit reserves one worker: that one is given
// nothing else until it is empty enough; the other workers go on with other jobs.
func (s *Scheduler) pick(now time.Time, w *Worker) *queue {
	var best *queue
	for _, q := range s.order {
		if best != nil && q.job.Spec.Priority < best.job.Spec.Priority {
			break // and so are all that follow
		}
		if best != nil && !before(q, best) {
			continue
		}
		elsewhere := q.reserved != 0 && q.reserved != w.ID && s.room(q, w) <= 0
		if !elsewhere && Eligible(q.job.Spec, w) && q.open(now) && !slices.Contains(s.passed, q) {
			best = q
		}
	}
	if best != nil && best.strict() && s.room(best, w) <= 0 {
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

// before is the order of two jobs of one priority.
func before(a, b *queue) bool {
	return cmp.Or(cmp.Compare(a.user.load, b.user.load), cmp.Compare(a.load, b.load), cmp.Compare(a.job.ID, b.job.ID)) < 0
}

// room is how many leases of q worker w can take now.
func (s *Scheduler) room(q *queue, w *Worker) int {
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
	if q.job.Spec.Input.Kind == state.InputLines || q.job.Spec.Input.Kind == state.InputFiles {
		n = min(n, grantSplits)
	}
	return n
}

func (s *Scheduler) lease(q *queue, w *Worker, n int, cost int64) {
	total := int64(n) * cost
	q.load += total
	q.leases += n
	q.user.load += total
	w.load += total
	w.leases += n
	if q.strict() {
		w.strict += n
		w.promised += n * q.slots()
		w.memoryUsed += uint64(n) * q.job.Spec.Memory
	}
}

// Return gives back n leases of a job at worker w that cost total together: they have ended, one way or another.
func (s *Scheduler) Return(w *Worker, job *state.Job, n int, total int64) {
	w.load -= total
	w.leases -= n
	if strict(job.Spec) {
		w.strict -= n
		w.promised -= n * slots(job.Spec)
		w.memoryUsed -= min(w.memoryUsed, uint64(n)*job.Spec.Memory)
	}
	if q := s.queues[job.ID]; q != nil {
		q.load -= total
		q.leases -= n
		q.user.load -= total
	}
}

// Leased is the number of leases of a job that are out.
func (s *Scheduler) Leased(id state.JobID) int {
	if q := s.queues[id]; q != nil {
		return q.leases
	}
	return 0
}

// Waiting is how many tasks of a job wait for their next attempt's time, and when the first of them may go.
func (s *Scheduler) Waiting(id state.JobID) (n int, first time.Time) {
	q := s.queues[id]
	if q == nil || len(q.later) == 0 {
		return 0, time.Time{}
	}
	return len(q.later), q.later[0].at
}

// Held reports whether a job is held back because workers may still come back with its attempts.
func (s *Scheduler) Held(id state.JobID) bool {
	q := s.queues[id]
	return q != nil && q.held
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
