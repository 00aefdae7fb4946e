package sched

import (
	"container/heap"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// reopened is a task that is open again.
type reopened struct {
	task  uint64
	at    time.Time      // not before
	avoid state.WorkerID // where it has failed; 0: nowhere
	apart bool           // it is not leased to a worker that is Apart
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

// reopenedTasks are the tasks of a stage that are open again: after a failure, or with a lost worker.
type reopenedTasks struct {
	// waiting is when each may be leased. Elements of ready and later that differ from it are void, so a task that is adopted, or reopened
	// again, meanwhile is leased once.
	waiting map[uint64]time.Time
	ready   []reopened // their time has come
	later   reopenedHeap
}

// avoidance is how long a task waits for another worker than the one that it failed on.
const avoidance = time.Second

// readyScan bounds how many ready tasks are examined for one worker.
const readyScan = 64

// add adds a task that is open again.
func (t *reopenedTasks) add(r reopened) {
	if t.waiting == nil {
		t.waiting = map[uint64]time.Time{}
	}
	t.waiting[r.task] = r.at
	heap.Push(&t.later, r)
}

// wake moves tasks from later to ready whose time has come.
func (t *reopenedTasks) wake(now time.Time) {
	for len(t.later) > 0 && !t.later[0].at.After(now) {
		t.ready = append(t.ready, heap.Pop(&t.later).(reopened))
	}
}

// due reports whether an element of ready is not void.
func (t *reopenedTasks) due(stage *state.Stage, r reopened) bool {
	at, ok := t.waiting[r.task]
	return ok && at.Equal(r.at) && stage.Status(r.task) == state.TaskOpen
}

// avoids reports whether the task should go to another worker than w, or later.
func (r reopened) avoids(now time.Time, w *Worker) bool {
	return r.apart && w.Apart || r.avoid == w.ID && !w.Alone && now.Sub(r.at) < avoidance
}

// trim drops void elements from the front of ready, and reports whether there is another one.
func (t *reopenedTasks) trim(stage *state.Stage) bool {
	for len(t.ready) > 0 && !t.due(stage, t.ready[0]) {
		t.ready = t.ready[1:]
	}
	return len(t.ready) > 0
}

// offers reports whether a task can be leased now to worker w.
func (t *reopenedTasks) offers(stage *state.Stage, now time.Time, w *Worker) bool {
	for _, r := range t.ready[:min(len(t.ready), readyScan)] {
		if t.due(stage, r) && !r.avoids(now, w) {
			return true
		}
	}
	return false
}

// appendTasks appends up to n tasks for worker w to tasks.
func (t *reopenedTasks) appendTasks(stage *state.Stage, now time.Time, w *Worker, n int, tasks []uint64) []uint64 {
	at, left := 0, 0 // of ready: examined, and left for another worker
	for ; at < len(t.ready) && left < readyScan && n > 0; at++ {
		switch r := t.ready[at]; {
		case !t.due(stage, r):
		case r.avoids(now, w):
			t.ready[left] = r
			left++
		default:
			delete(t.waiting, r.task)
			tasks = append(tasks, r.task)
			n--
			w.Apart = w.Apart || r.apart
		}
	}
	// The few that are left move up to the rest, not the rest down to them: it may be very long.
	copy(t.ready[at-left:at], t.ready[:left])
	t.ready = t.ready[at-left:]
	return tasks
}
