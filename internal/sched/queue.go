package sched

import (
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Slot is the cost of a lease that takes a slot for the horizon or longer.
const Slot = 1 << 16

// horizon is how much work is leased ahead for each slot. It is several round trips to the leader, and bounds how much later one worker
// can finish than another.
const horizon = 20 * time.Millisecond

// Key names a stage of a job.
type Key struct {
	Job   state.JobID
	Stage uint32
}

// queue is the open tasks of one stage.
type queue struct {
	job    *state.Job
	stage  *state.Stage
	index  uint32 // of the stage
	of     *jobQueue
	splits bool // each lease carries a split

	cursor uint64              // position in order: tasks before it were leased in this term, or are not open
	order  []uint32            // longest first; nil: by number
	skip   map[uint64]struct{} // adopted, or open again after a loss: the cursor skips them

	again reopenedTasks

	mean    float64 // run time of an attempt, microseconds; 0: none has ended yet
	load    int64   // cost of the leases
	leases  int
	held    bool // not leased: workers may still reconnect with its attempts
	backOff int  // place in Scheduler.backOffs
}

func newQueue(job *state.Job, index uint32) *queue {
	q := &queue{job: job, stage: job.Stages[index], index: index, splits: job.Spec.Splits(int(index))}
	if q.stage.Role == state.RoleMap && !job.Growing() {
		q.order = job.Spec.Input.Longest()
	}
	return q
}

func (q *queue) key() Key { return Key{q.job.ID, q.index} }

// cost of one lease, in parts of a slot.
func (q *queue) cost() int64 {
	c := int64(Slot)
	if q.mean > 0 && !q.strict() && q.job.Spec.MaxRunning == 0 {
		c = min(c, max(1, int64(Slot*q.mean/float64(horizon.Microseconds()))))
	}
	return c * int64(q.slots())
}

func (q *queue) strict() bool { return strict(q.job.Spec) }
func (q *queue) slots() int   { return slots(q.job.Spec) }

// strict reports whether an attempt needs a certain part of a worker, or a certain time, so that its lease must not wait there.
func strict(spec *state.Spec) bool {
	return spec.SlotsPerTask > 1 || spec.Memory > 0 || len(spec.Resources) > 0 || spec.DelayMS > 0
}

// slots is how many slots an attempt needs.
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

func (q *queue) Place() *int { return &q.backOff }

// Before compares stages with a task in back-off.
func (q *queue) Before(other *queue) bool { return q.again.later[0].at.Before(other.again.later[0].at) }

// open reports whether a task can be leased now, to some worker.
func (q *queue) open() bool {
	if q.held || q.stage.Closed {
		return false
	}
	return q.again.trim(q.stage) || q.advance()
}

// offers reports whether a task can be leased now to worker w.
func (q *queue) offers(now time.Time, w *Worker) bool {
	if !q.open() {
		return false
	}
	return q.again.offers(q.stage, now, w) || q.advance()
}

// adopt keeps a task from being leased.
func (q *queue) adopt(task uint64) {
	if q.skip == nil {
		q.skip = map[uint64]struct{}{}
	}
	q.skip[task] = struct{}{}
	delete(q.again.waiting, task)
}

// appendTasks appends up to n tasks for worker w to tasks.
func (q *queue) appendTasks(now time.Time, w *Worker, n int, tasks []uint64) []uint64 {
	had := len(tasks)
	tasks = q.again.appendTasks(q.stage, now, w, n, tasks)
	n -= len(tasks) - had
	for ; n > 0 && q.advance(); n-- {
		tasks = append(tasks, q.at(q.cursor))
		q.cursor++
	}
	return tasks
}
