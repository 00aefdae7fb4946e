package leader

import (
	"slices"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// TestDueInputs: the leader of the term has a deferred input planned, and so has the next one, until it is in the log.
func TestDueInputs(t *testing.T) {
	m := state.New()
	apply := func(e *state.Entry) {
		t.Helper()
		if err := m.Apply(m.Index()+1, e.Data(), &state.Result{}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.UnixMilli(1)
	apply(state.RaiseLevel(1, state.FeatureLevel, "v1"))
	e := state.NewEntry(1, state.FeatureLevel)
	e.Submit("", "a", "", &state.Spec{Output: "/a", Spool: true})
	e.Submit("", "b", "", &state.Spec{Output: "/b", Spool: true, After: []state.Dependency{{Job: 1}}, Deferred: &state.Deferred{}})
	apply(e)
	core := func(term uint64) *Core { return NewCore(CoreConfig{Machine: m, Term: term, Now: now}) }
	due := func(c *Core, inputs ...Input) []state.JobID {
		t.Helper()
		effects, err := c.Step(now, inputs...)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(effects.Due)
	}
	c := core(1)
	if got := due(c); len(got) > 0 {
		t.Errorf("while job 1 runs, %v are due", got)
	}
	e = state.NewEntry(1, state.FeatureLevel)
	e.Done(1, 1, 0, []state.Completion{{Lease: 1}})
	if got := due(c, Committed{Index: m.Index() + 1, Data: e.Data()}); !slices.Equal(got, []state.JobID{2}) {
		t.Errorf("once job 1 is done, %v are due, want 2", got)
	}
	if got := due(c); len(got) > 0 {
		t.Errorf("in the next step, %v are due again", got)
	}
	c = core(2)
	if got := due(c); !slices.Equal(got, []state.JobID{2}) {
		t.Errorf("at the next leader, %v are due, want 2", got)
	}
	for range 2 { // of both leaders
		e = state.NewEntry(1, state.FeatureLevel)
		e.SetInput("", m.Job(2), state.Input{Kind: state.InputRange, Tasks: 3, From: 1}, 0, 0)
		apply(e)
	}
	if job := m.Job(2); job.Status != state.JobActive || job.Stages[0].Tasks != 3 {
		t.Errorf("job 2 is %v, with %d tasks", job.Status, job.Stages[0].Tasks)
	}
	if got := due(core(3)); len(got) > 0 {
		t.Errorf("in the end, %v are due", got)
	}
}
