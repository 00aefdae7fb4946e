package leader

import (
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// A worker that has come in time is not given up because the log is slow to register it.
func TestSlowRegistrationKeepsLease(t *testing.T) {
	r := newCoreRig(t, 1)
	r.workers = nil // it sends nothing more: its attempt runs
	r.submit(1, 1)
	var held state.Lease
	for range 100 {
		r.step()
		for number := range r.core.registry.workers[1].leases {
			held = number
		}
	}
	if held == 0 {
		t.Fatal("no lease was granted")
	}
	r.log.term = 2
	r.core = NewCore(CoreConfig{Machine: r.machine, Term: 2, Now: r.now, Seed: 1})
	r.step(Hello{8, &wire.Hello{Identity: "another", Incarnation: "y", Slots: 2}})
	r.step()
	r.log.latency = func() time.Duration { return LossAfter + time.Second }
	r.step(Hello{7, &wire.Hello{
		Identity: "0", Incarnation: "x", Slots: 2, Held: []*wire.Held{{Job: 1, Lease: uint64(held), Attempt: 1, Started: true}},
	}})
	for range 35 {
		r.now = r.now.Add(tick)
		r.step(Report{8, &wire.Report{Heartbeat: true}})
	}
	if w := r.core.registry.workers[1]; w == nil || len(w.leases) != 1 || w.leases[held].Job != 1 {
		t.Errorf("worker 1 = %+v, want it to go on with lease %v", w, held)
	}
}

// The time in which a leader was stopped does not count as proof that two processes use one identity.
func TestStarvedLeaderAndDuplicateIdentity(t *testing.T) {
	r := newCoreRig(t, 1)
	again := &wire.Hello{Identity: "0", Incarnation: "again", Slots: 2}
	r.step(Hello{7, again})
	if len(r.last.Close) != 1 || r.last.Close[0].Refused {
		t.Fatalf("closed %+v, want the second process closed, and not refused", r.last.Close)
	}
	r.now = r.now.Add(2 * duplicateProof)
	r.step()
	r.step(Hello{8, again})
	if len(r.last.Close) != 1 || r.last.Close[0].Refused {
		t.Errorf("closed %+v after the leader was stopped, want the worker not refused for good: the first process is dead", r.last.Close)
	}
}

// The time in which a leader was stopped does not count as a stall of its log: it would refuse writes, and a run would end with that error.
func TestStoppedLeaderHasNoStalledLog(t *testing.T) {
	r := newCoreRig(t, 1)
	r.log.latency = func() time.Duration { return time.Hour }
	r.submit(1, 1)
	r.step()
	if r.core.pipeline.inFlight == 0 {
		t.Fatal("no entry is in flight")
	}
	r.now = r.now.Add(time.Minute)
	r.step()
	if d := r.core.Stalled(r.now); d > tick {
		t.Errorf("Stalled() = %v after the leader was stopped, want %v at most", d, tick)
	}
	for range 20 {
		r.now = r.now.Add(tick)
		r.step()
	}
	if d := r.core.Stalled(r.now); d < 20*tick {
		t.Errorf("Stalled() = %v, want %v at least: the log has applied nothing since", d, 20*tick)
	}
}
