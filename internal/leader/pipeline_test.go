package leader

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestPipelineProposesWhenDue(t *testing.T) {
	start := time.UnixMilli(1)
	tests := []struct {
		name string
		fill func(p *pipeline)
		want time.Duration // from the opening of the entry to its proposal
	}{
		{"completions alone", func(p *pipeline) { p.open(start).Done(1, 1, 0, make([]state.Completion, 3)) }, entryAgeIdle},
		{"a command that is waited for", func(p *pipeline) { p.openUrgent(start, 1).Stop("", 1) }, 0},
		{"completions that may end a stage", func(p *pipeline) { p.open(start).Stop("", 1); p.urge() }, 0},
		{"a command, with entries in flight", func(p *pipeline) {
			p.openUrgent(start, 1).Stop("", 1)
			p.flush(start, nil)
			p.openUrgent(start, 1).Stop("", 1)
		}, entryAge},
		{"a full entry, with entries in flight", func(p *pipeline) {
			p.openUrgent(start, 1).Stop("", 1)
			p.flush(start, nil)
			p.open(start).Done(1, 1, 0, make([]state.Completion, entryItems))
		}, 0},
	}
	for _, tt := range tests {
		p := newPipeline(0)
		tt.fill(&p)
		at := start.Add(tt.want)
		if tt.want > 0 {
			if list := p.flush(at.Add(-1), nil); len(list) != 0 {
				t.Errorf("%s: proposed before %v", tt.name, tt.want)
			}
			if wake, ok := p.wake(); !ok || !wake.Equal(at) {
				t.Errorf("%s: wake() = %v, %v, want %v", tt.name, wake, ok, at)
			}
		}
		if list := p.flush(at, nil); len(list) != 1 {
			t.Errorf("%s: %d entries proposed after %v, want 1", tt.name, len(list), tt.want)
		}
		if err := p.check(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// While the log applies nothing, entries are full before they are sealed and no more than inFlightMax are proposed.
func TestPipelineIsBounded(t *testing.T) {
	p := newPipeline(0)
	now := time.UnixMilli(1)
	var proposed [][]byte
	const more = 5
	for range inFlightMax + more {
		for range entryItems {
			p.openUrgent(now, 1).Stop("", 1)
		}
		proposed = p.flush(now, proposed)
	}
	if len(proposed) != inFlightMax || p.inFlight != inFlightMax || len(p.sealed) != more-1 {
		t.Errorf("%d entries proposed, %d sealed, want %d and %d", len(proposed), len(p.sealed), inFlightMax, more-1)
	}
	if _, ok := p.wake(); ok {
		t.Error("wake() with as many entries in flight as may be: want none")
	}
	for range inFlightMax + more {
		p.applied(now)
		proposed = p.flush(now, proposed)
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
	}
	if len(proposed) != inFlightMax+more || !p.idle() {
		t.Errorf("%d entries proposed in the end, want %d; idle: %v", len(proposed), inFlightMax+more, p.idle())
	}
}

// A job is frozen until the last entry that fences it is applied, and a failed lease ends with its own entry.
func TestPipelineSettlesEntriesInOrder(t *testing.T) {
	p := newPipeline(0)
	now := time.UnixMilli(1)
	for i := range 2 {
		p.openUrgent(now, 1).Stop("", 7)
		p.freeze([]state.JobID{7})
		p.addFailure(failedLease{worker: 1, lease: state.Lease(i)})
		p.flush(now.Add(entryAge), nil)
	}
	p.open(now).Done(1, 1, 0, make([]state.Completion, 2))
	p.addCompletions(2)
	if p.uncommitted != 4 {
		t.Errorf("%d reports wait, want 4", p.uncommitted)
	}
	for i, thaws := range []bool{false, true} {
		failures, thawed := p.applied(now)
		if want := []failedLease{{1, state.Lease(i)}}; !slices.Equal(failures, want) {
			t.Errorf("entry %d: failures %v, want %v", i, failures, want)
		}
		if got := slices.Equal(thawed, []state.JobID{7}); got != thaws {
			t.Errorf("entry %d: thawed %v, want job 7: %v", i, thawed, thaws)
		}
	}
	p.flush(now.Add(entryAgeIdle), nil)
	p.applied(now)
	p.decided()
	p.decided()
	if err := p.check(); err != nil || !p.idle() {
		t.Errorf("in the end: idle %v, %v", p.idle(), err)
	}
}

// TestRaiseLevelCompletesWorkers: what the log could not hold of a worker that registered before the level was raised is in it afterwards.
func TestRaiseLevelCompletesWorkers(t *testing.T) {
	r := newCoreRig(t, 0)
	hello := func(id SessionID) Hello {
		return Hello{id, &wire.Hello{Identity: fmt.Sprint(id), Incarnation: "x", Slots: 1, Confinement: []string{"sandbox"}}}
	}
	r.step(hello(1))
	r.step()
	r.step(RaiseLevel{Needs: "v2"}, hello(2))
	for range 10 {
		r.step()
	}
	for _, id := range []state.WorkerID{1, 2} {
		if w := r.machine.Worker(id); w == nil || !slices.Equal(w.Confinement, []string{"sandbox"}) {
			t.Errorf("worker %d is %+v, want its confinement", id, w)
		}
	}
}

// TestRaiseLevel: commands that were given before are proposed before, and the level is raised once.
func TestRaiseLevel(t *testing.T) {
	r := newCoreRig(t, 0)
	r.submit(1, 1)
	r.log.held = true
	r.step(Command{"k", func(e *state.Entry) { e.Submit("", "u", "", &state.Spec{Output: "/o"}) }}, RaiseLevel{Needs: "v2"}, RaiseLevel{Needs: "v3"})
	r.step(RaiseLevel{Needs: "v3"})
	r.log.held = false
	for r.machine.Level() == 0 {
		r.step()
	}
	if r.machine.Level() != state.FeatureLevel || r.machine.Needs() != "v2" || r.machine.Len() != 2 {
		t.Errorf("level %d needs %q, %d jobs, want level %d, v2 and 2", r.machine.Level(), r.machine.Needs(), r.machine.Len(), state.FeatureLevel)
	}
	index := r.machine.Index()
	r.step(RaiseLevel{Needs: "v3"})
	r.submit(1, 1)
	for r.machine.Len() == 2 {
		r.step()
	}
	if r.machine.Index() != index+1 {
		t.Errorf("%d entries follow, want 1", r.machine.Index()-index)
	}
}
