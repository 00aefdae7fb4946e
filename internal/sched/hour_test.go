package sched

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// hour simulates workers that run what the scheduler grants them.
type hour struct {
	t       *testing.T
	rng     *rand.Rand
	now     time.Time
	s       *Scheduler
	machine *state.Machine
	workers []*hourWorker
	events  Ordered[*hourEvent]
	means   map[state.JobID]time.Duration
	lease   state.Lease
	longest time.Duration // attempt
	waits   []time.Duration
	idle    time.Duration // of slots of reserved workers
	busy    time.Duration
}

// hourWorker is a worker with its queue of leases, and how long it has been reserved.
type hourWorker struct {
	Worker
	queue  []hourLease
	free   int // slots
	holder *jobQueue
	since  time.Time // it has been reserved for holder
}

type hourLease struct {
	job  *state.Job
	task uint64
	cost int64
}

type hourEvent struct {
	at time.Time
	n  int
	do func()
	in int // place in hour.events
}

func (e *hourEvent) Place() *int { return &e.in }

func (e *hourEvent) Before(other *hourEvent) bool {
	return cmp.Or(e.at.Compare(other.at), cmp.Compare(e.n, other.n)) < 0
}

func (h *hour) after(d time.Duration, do func()) {
	h.events.Put(&hourEvent{at: h.now.Add(d), n: h.rng.Int(), do: do})
}

func (h *hour) apply(add func(e *state.Entry)) {
	e := state.NewEntry(1, state.FeatureLevel)
	add(e)
	if err := h.machine.Apply(h.machine.Index()+1, e.Data(), &state.Result{}); err != nil {
		h.t.Fatal(err)
	}
}

// submit submits a job: every third one has wide tasks, or tasks that need memory.
func (h *hour) submit() {
	n := len(h.means)
	spec := &state.Spec{Output: fmt.Sprint("/", n), User: fmt.Sprint("user", h.rng.IntN(3)), Spool: true, Priority: uint32(h.rng.IntN(20) / 19)}
	mean := []time.Duration{time.Millisecond, 100 * time.Millisecond, 2 * time.Second, 30 * time.Second}[h.rng.IntN(4)]
	tasks := min(1+int64(40*time.Second/mean), 400)
	switch h.rng.IntN(6) {
	case 0:
		spec.SlotsPerTask = 2 + uint32(h.rng.IntN(7))
	case 1:
		spec.Memory = 10 + uint64(h.rng.IntN(90))
	}
	if spec.SlotsPerTask > 1 || spec.Memory > 0 {
		tasks = 1 + tasks/10
	}
	spec.Input, _ = state.RangeInput(1, tasks)
	h.apply(func(e *state.Entry) { e.Submit("", spec.Output, spec.User, spec) })
	ids := h.machine.Jobs()
	job := h.machine.Job(ids[len(ids)-1])
	h.means[job.ID] = mean
	h.s.Start(job, 0, false)
}

// grant grants everything that can be, as a leader does.
func (h *hour) grant() {
	for granted := true; granted; {
		granted = false
		for _, w := range h.workers {
			g, ok := h.s.Next(h.now, &w.Worker)
			for _, task := range g.Tasks {
				w.queue = append(w.queue, hourLease{g.Job, task, g.Cost})
			}
			granted = granted || ok
			if w.promised > w.Slots || w.Memory > 0 && w.used[state.Memory] > w.Memory {
				h.t.Fatalf("worker %+v is granted more than it has", w.Worker)
			}
			h.run(w)
		}
	}
	for _, w := range h.workers {
		h.checkReservation(w)
	}
}

// run starts what a worker has slots for.
func (h *hour) run(w *hourWorker) {
	for len(w.queue) > 0 && w.free >= slots(w.queue[0].job.Spec) {
		l := w.queue[0]
		w.queue = w.queue[1:]
		n := slots(l.job.Spec)
		w.free -= n
		takes := time.Duration(float64(h.means[l.job.ID]) * (0.2 + 1.6*h.rng.Float64()))
		if h.rng.IntN(50) == 0 {
			takes *= 4
		}
		h.longest = max(h.longest, takes)
		h.busy += takes * time.Duration(n)
		h.after(takes, func() { h.ended(w, l, takes) })
	}
}

func (h *hour) ended(w *hourWorker, l hourLease, took time.Duration) {
	w.free += slots(l.job.Spec)
	h.s.Return(&w.Worker, l.job, 0, 1, l.cost)
	h.s.Observe(Key{l.job.ID, 0}, 1, uint64(took.Microseconds()))
	h.lease++
	h.apply(func(e *state.Entry) { e.Done(w.ID, l.job.ID, 0, []state.Completion{{Index: l.task, Lease: h.lease}}) })
	if !l.job.Ready(0) {
		h.s.End(l.job.ID)
	}
	h.run(w)
}

// checkReservation bounds how long a worker is emptied for one task: by the longest attempt, and what is started there meanwhile.
func (h *hour) checkReservation(w *hourWorker) {
	holder := h.s.reserved[w.ID]
	if w.holder != nil && w.holder != holder {
		h.waits = append(h.waits, h.now.Sub(w.since))
	}
	if w.holder != holder {
		w.holder, w.since = holder, h.now
	}
	if waits := h.now.Sub(w.since); holder != nil && waits > h.longest+h.longest/backfill {
		h.t.Fatalf("worker %d is emptied for job %d since %v; the longest attempt took %v", w.ID, holder.job.ID, waits, h.longest)
	}
}

var hourTime = flag.Duration("sched.time", 10*time.Minute, "time that TestHour simulates")

// TestHour simulates ten minutes, or in make test-long an hour, with narrow and wide jobs: all of them end, no worker has more than it can run, and no worker is emptied for
// longer than the longest attempt runs.
func TestHour(t *testing.T) {
	h := &hour{t: t, rng: rand.New(rand.NewPCG(8, 4)), now: epoch, s: New(), machine: state.New(), means: map[state.JobID]time.Duration{}}
	h.apply(func(e *state.Entry) { *e = *state.RaiseLevel(1, state.FeatureLevel, "test") })
	for i, slots := range []int{2, 4, 4, 8, 8, 16} {
		w := &hourWorker{free: slots}
		w.ID, w.Slots, w.Memory = state.WorkerID(i+1), slots, uint64(i%2)*100
		h.workers = append(h.workers, w)
	}
	for at := time.Duration(0); at < *hourTime; at += time.Duration(h.rng.IntN(1700)) * time.Millisecond {
		h.after(at, h.submit)
	}
	for len(h.events) > 0 {
		e := h.events[0]
		h.events.Remove(e)
		slotsIdle := 0
		for _, w := range h.workers {
			if h.s.reserved[w.ID] != nil {
				slotsIdle += w.free
			}
		}
		h.idle += time.Duration(slotsIdle) * e.at.Sub(h.now)
		h.now = e.at
		e.do()
		h.grant()
	}
	if live := h.machine.Live(); len(live) > 0 && !h.s.Empty() {
		t.Errorf("%d of %d jobs have open tasks in the end", len(live), len(h.means))
	}
	if err := h.s.Check(); err != nil {
		t.Error(err)
	}
	slices.Sort(h.waits)
	if len(h.waits) < 100 {
		t.Fatalf("only %d reservations", len(h.waits))
	}
	t.Logf("%v: %d jobs, %v of slot time; %d reservations, half of them up to %v, the longest %v, %v of slot time idle for them; longest attempt %v",
		h.now.Sub(epoch), len(h.means), h.busy, len(h.waits), h.waits[len(h.waits)/2], h.waits[len(h.waits)-1], h.idle, h.longest)
}
