package leader

import (
	"fmt"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// reattachment is a newly elected leader, and the Hellos of the workers with the leases that they hold.
type reattachment struct {
	machine *state.Machine
	hellos  []Input
}

func newReattachment(tb testing.TB, workers, held int) *reattachment {
	tb.Helper()
	a := &reattachment{machine: state.New()}
	e := state.NewEntry(1, 0)
	spec := &state.Spec{Output: "/x", Spool: true}
	spec.Input, _ = state.RangeInput(1, int64(workers*held+1))
	e.Submit("", "u", "", spec)
	for w := range workers {
		h := &wire.Hello{Identity: fmt.Sprint(w), Incarnation: "x", Slots: uint32(held + 1)}
		e.Register("", &state.WorkerInfo{Identity: h.Identity, Slots: h.Slots})
		for i := range held {
			task := uint64(w*held + i)
			h.Held = append(h.Held, &wire.Held{Job: 1, Index: task, Lease: uint64(state.NewLease(1, task+1)), Started: i < 8})
		}
		a.hellos = append(a.hellos, Hello{SessionID(w + 1), h})
	}
	var out state.Result
	if err := a.machine.Apply(1, e.Data(), &out); err != nil {
		tb.Fatal(err)
	}
	return a
}

// run has the workers connect one by one, in steps of their own, and returns the core once all are welcomed.
func (a *reattachment) run(tb testing.TB) *Core {
	tb.Helper()
	now := time.UnixMilli(1)
	log := &testLog{machine: a.machine, term: 2, index: 1, latency: func() time.Duration { return 0 }}
	core := NewCore(CoreConfig{Machine: a.machine, Term: 2, Now: now, Seed: 1})
	welcomed := 0
	for i := 0; welcomed < len(a.hellos); i++ {
		now = now.Add(100 * time.Microsecond)
		inputs := log.committed(now)
		if i < len(a.hellos) {
			inputs = append(inputs, a.hellos[i])
		}
		e, err := core.Step(now, inputs...)
		if err != nil {
			tb.Fatal(err)
		}
		log.propose(now, e.Propose)
		for _, m := range e.Send {
			if w := m.Message.GetWelcome(); w != nil {
				if welcomed++; len(w.GetRevoked()) > 0 {
					tb.Fatalf("revoked %v", w.GetRevoked())
				}
			}
		}
	}
	return core
}

// Every lease that the workers hold is adopted, and only the remaining task is leased.
func TestReattach(t *testing.T) {
	const workers, held = 20, 50
	core := newReattachment(t, workers, held).run(t)
	if err := core.Check(); err != nil {
		t.Fatal(err)
	}
	for id, w := range core.registry.workers {
		for lease, l := range w.leases {
			if want := int(id-1)*held + int(l.task%held); lease.Term() == 1 && (int(l.task) != want || lease != state.NewLease(1, l.task+1)) {
				t.Fatalf("worker %d holds %v of task %d", id, lease, l.task)
			}
		}
	}
	if got := core.sched.Leased(1); got != workers*held+1 {
		t.Errorf("%d leases, want %d", got, workers*held+1)
	}
}

// BenchmarkReattach measures a new leader until it has adopted the leases of all its workers, once in an iteration.
func BenchmarkReattach(b *testing.B) {
	for _, test := range []struct{ workers, held int }{{100, 8}, {100, 4096}, {1000, 8}} {
		b.Run(fmt.Sprintf("workers=%d/held=%d", test.workers, test.held), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				a := newReattachment(b, test.workers, test.held)
				b.StartTimer()
				a.run(b)
			}
		})
	}
}

// BenchmarkIdleWorkers measures a second of a leader whose thousand workers send nothing but a heartbeat every 300 ms, each in a step of
// its own.
func BenchmarkIdleWorkers(b *testing.B) {
	const workers = 1000
	a := newReattachment(b, workers, 0)
	core := a.run(b)
	now := time.UnixMilli(1000)
	beat := &wire.Report{Heartbeat: true}
	const between = heartbeat / workers
	for b.Loop() {
		for i := range int(time.Second / between) {
			now = now.Add(between)
			e, err := core.Step(now, Report{SessionID(i%workers + 1), beat})
			if err != nil {
				b.Fatal(err)
			}
			if len(e.Close) > 0 || len(e.Propose) > 0 {
				b.Fatalf("the leader closes %v and proposes %v", e.Close, e.Propose)
			}
		}
	}
	b.ReportMetric(100*b.Elapsed().Seconds()/float64(b.N), "%core")
}
