package sched

import (
	"container/heap"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Slot is the cost of a lease that takes a slot for the horizon or longer.
const Slot = 1 << 16

// horizon is how much work a worker is given ahead of need, per slot. It covers a round trip to the leader with room to
// spare, and bounds by how much one worker can end later than another.
const horizon = 20 * time.Millisecond

// Key names a stage of a job.
type Key struct {
	Job   state.JobID
	Stage uint32
}

// inUse is what the leases of a job take, those of all of its stages.
type inUse struct {
	user   *usage
	load   int64
	leases int
	queues int // stages that the scheduler holds
}

// queue is what is open of one stage.
type queue struct {
	job    *state.Job
	stage  *state.Stage
	index  uint32 // of the stage
	use    *inUse
	user   *usage // that of use: looked at for every job in every decision
	splits bool   // each lease carries a split

	cursor uint64              // tasks of order (or of the index, where order is nil) before it have been leased in this term or are over
	order  []uint32            // longest first; nil: as numbered
	skip   map[uint64]struct{} // adopted, or lost and open again: the cursor passes over them

	// waiting says when each task that waits for another attempt may go. It decides: an entry of ready or later that it does
	// not know, or knows with another time, is void. So a task that is adopted, or reopened again, while it waits goes out once.
	waiting map[uint64]time.Time
	ready   []reopened // may be leased now
	later   reopenedHeap

	mean     float64 // run time of an attempt, microseconds; 0: none has ended yet
	load     int64   // cost of the leases that are out
	leases   int
	held     bool           // not to be leased: workers may still come back with its attempts
	reserved state.WorkerID // this worker is being emptied for a task that needs much of it
}

// reopened is a task that waits for another attempt.
type reopened struct {
	task  uint64
	at    time.Time      // not before
	avoid state.WorkerID // where it has failed; 0: nowhere
}

type reopenedHeap []reopened

func (h *reopenedHeap) Len() int           { return len(*h) }
func (h *reopenedHeap) Less(i, j int) bool { return (*h)[i].at.Before((*h)[j].at) }
func (h *reopenedHeap) Swap(i, j int)      { (*h)[i], (*h)[j] = (*h)[j], (*h)[i] }
func (h *reopenedHeap) Push(x any)         { *h = append(*h, x.(reopened)) }
func (h *reopenedHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

func newQueue(job *state.Job, index uint32) *queue {
	q := &queue{job: job, stage: job.Stages[index], index: index, splits: job.Spec.Splits(int(index))}
	if q.stage.Role == state.RoleMap {
		q.order = job.Spec.Input.Longest()
	}
	return q
}

func (q *queue) key() Key { return Key{q.job.ID, q.index} }

// cost of one lease of the job, in parts of a slot.
func (q *queue) cost() int64 {
	c := int64(Slot)
	if q.mean > 0 && !q.strict() {
		c = min(c, max(1, int64(Slot*q.mean/float64(horizon.Microseconds()))))
	}
	return c * int64(q.slots())
}

func (q *queue) strict() bool { return strict(q.job.Spec) }
func (q *queue) slots() int   { return slots(q.job.Spec) }

// strict jobs need a given amount of a worker for each attempt, so none of their leases may wait at the worker.
func strict(spec *state.Spec) bool { return spec.SlotsPerTask > 1 || spec.Memory > 0 }

// slots is how many slots an attempt takes.
func slots(spec *state.Spec) int { return int(max(1, spec.SlotsPerTask)) }

// advance moves the cursor to the next task that has not been leased, and reports whether there is one.
func (q *queue) advance() bool {
	for q.cursor < q.stage.Tasks {
		task := q.at(q.cursor)
		if _, adopted := q.skip[task]; !adopted && q.stage.Status(task) == state.TaskOpen {
			return true
		}
		q.cursor++
	}
	return false
}

func (q *queue) at(cursor uint64) uint64 {
	if q.order == nil {
		return cursor
	}
	return uint64(q.order[cursor])
}

// wake makes the tasks whose time has come ready.
func (q *queue) wake(now time.Time) {
	for len(q.later) > 0 && !q.later[0].at.After(now) {
		q.ready = append(q.ready, heap.Pop(&q.later).(reopened))
	}
}

// open reports whether a task could be leased now.
func (q *queue) open(now time.Time) bool {
	if q.held || q.stage.Closed {
		return false
	}
	q.wake(now)
	return len(q.ready) > 0 || q.advance()
}

// avoidance is how long a task waits for a worker on which it has not failed yet.
const avoidance = time.Second

// readyScan bounds how many waiting tasks are looked at for one that suits a worker.
const readyScan = 64

// reopen lets a task that was leased go out again.
func (q *queue) reopen(r reopened) {
	if q.waiting == nil {
		q.waiting = map[uint64]time.Time{}
	}
	q.waiting[r.task] = r.at
	heap.Push(&q.later, r)
}

// adopt takes a task out of what could be leased.
func (q *queue) adopt(task uint64) {
	if q.skip == nil {
		q.skip = map[uint64]struct{}{}
	}
	q.skip[task] = struct{}{}
	delete(q.waiting, task)
}

// take appends up to n tasks for worker w to tasks.
func (q *queue) take(now time.Time, w *Worker, n int, tasks []uint64) []uint64 {
	at, left := 0, 0 // of ready: looked at so far, and left there for another worker
	for ; at < len(q.ready) && left < readyScan && n > 0; at++ {
		r := q.ready[at]
		if due, ok := q.waiting[r.task]; !ok || !due.Equal(r.at) {
			continue
		}
		if r.avoid == w.ID && !w.Alone && now.Sub(r.at) < avoidance {
			q.ready[left] = r
			left++
			continue
		}
		delete(q.waiting, r.task)
		if q.stage.Status(r.task) == state.TaskOpen {
			tasks = append(tasks, r.task)
			n--
		}
	}
	// The few that were left move up to the rest, and not the rest down to them: there may be very many of those.
	copy(q.ready[at-left:at], q.ready[:left])
	q.ready = q.ready[at-left:]
	for ; n > 0 && q.advance(); n-- {
		tasks = append(tasks, q.at(q.cursor))
		q.cursor++
	}
	return tasks
}
