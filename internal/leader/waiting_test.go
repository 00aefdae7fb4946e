package leader

import (
	"fmt"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// BenchmarkWaiting measures a leader with a thousand workers while ten thousand jobs wait: a step in which a task has ended and another
// one is leased, and the periodic step.
func BenchmarkWaiting(b *testing.B) {
	const workers, jobs = 1000, 10_000
	m := state.New()
	if err := m.Apply(1, state.RaiseLevel(0, state.FeatureLevel, "test").Data(), &state.Result{}); err != nil {
		b.Fatal(err)
	}
	now := time.UnixMilli(1)
	log := &testLog{machine: m, term: 1, index: 1, latency: func() time.Duration { return 0 }}
	core := NewCore(CoreConfig{Machine: m, Term: 1, Now: now, Seed: 1})
	leases := make([][]*wire.Leases, workers+1) // by session
	step := func(d time.Duration, inputs ...Input) *Effects {
		now = now.Add(d)
		e, err := core.Step(now, append(inputs, log.committed(now)...)...)
		if err != nil {
			b.Fatal(err)
		}
		log.propose(now, e.Propose)
		for _, s := range e.Send {
			leases[s.Session] = append(leases[s.Session], s.Message.GetWork().GetLeases()...)
		}
		return e
	}
	for i := range jobs {
		spec := &state.Spec{Output: fmt.Sprint("/", i), Spool: true, User: fmt.Sprint("user", i%7), SlotsPerTask: uint32(1 + i%3)}
		if i%10 == 0 {
			spec.Labels = map[string]string{"gpu": "yes"} // no worker has it
		}
		spec.Input, _ = state.RangeInput(1, 1_000_000)
		step(time.Microsecond, Command{"", func(e *state.Entry) { e.Submit("", fmt.Sprint(i), spec.User, spec) }})
	}
	for i := range workers {
		step(time.Microsecond, Hello{SessionID(i + 1), &wire.Hello{Identity: fmt.Sprint(i), Incarnation: "x", Slots: 4}})
	}
	b.Run("task ended", func(b *testing.B) {
		next := 0
		for b.Loop() {
			next = next%workers + 1
			var inputs []Input
			if list := leases[next]; len(list) > 0 {
				l := list[0]
				leases[next] = list[1:]
				inputs = append(inputs, Report{SessionID(next), &wire.Report{Finished: []*wire.Finished{{
					Job: l.GetJob(), Stage: l.GetStage(), Index: l.GetIndex(), Lease: []uint64{l.GetFirstLease()}, Micros: []uint64{1_000_000},
				}}}})
			}
			step(50*time.Microsecond, inputs...)
		}
	})
	b.Run("tick", func(b *testing.B) {
		var e *Effects
		for b.Loop() {
			var beats []Input
			for i := range workers {
				beats = append(beats, Report{SessionID(i + 1), &wire.Report{Heartbeat: true}})
			}
			step(0, beats...)
			e = step(tick)
		}
		b.ReportMetric(float64(len(e.Changed)), "views")
	})
	b.Run("halted", func(b *testing.B) { // the job of each view is asked for a worker
		job := m.Job(1)
		for b.Loop() {
			if core.Eligible(job) {
				b.Fatal("a worker has its labels")
			}
		}
	})
}
