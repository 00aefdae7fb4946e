package view

import (
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// nothing is the volatile state of a leader without workers.
type nothing struct{}

func (nothing) Leased(state.JobID) uint64                                   { return 0 }
func (nothing) Eligible(*state.Job) bool                                    { return false }
func (nothing) WorkerState(state.WorkerID) (s leader.WorkerState, has bool) { return s, false }

// TestKeptJobsAreCurrent: who sees that a job was forgotten also sees how many are kept.
func TestKeptJobsAreCurrent(t *testing.T) {
	views := NewViews()
	p, m, now := NewPublisher(views, api.Cluster{}), state.New(), time.Unix(1, 0)
	publish := func(add func(e *state.Entry)) api.KeptJobs {
		t.Helper()
		e := state.NewEntry(now.UnixMilli(), 0)
		add(e)
		if err := m.Apply(m.Index()+1, e.Data(), &state.Result{}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(publishEvery)
		p.Publish(now, m.Index(), m, nothing{})
		c, _ := views.Cluster()
		return c.Kept
	}
	kept := publish(func(e *state.Entry) {
		for _, uid := range []string{"a", "b"} {
			e.Submit("", uid, "", &state.Spec{Output: "/" + uid, Spool: true, Input: state.Input{Kind: state.InputRange}})
			e.Stop("", state.JobID(1+uid[0]-'a'))
		}
	})
	if kept.RetentionRequest.Jobs != state.JobsKept || kept.Jobs != 2 || kept.Next != 1 {
		t.Errorf("kept are %+v, want 2 of %d", kept, state.JobsKept)
	}
	if kept = publish(func(e *state.Entry) { e.Forget("", 1) }); kept.Jobs != 1 || kept.Next != 2 {
		t.Errorf("kept are %+v when one is forgotten, want the other one", kept)
	}
}

// TestRetried: the last failure of a dead task was not retried.
func TestRetried(t *testing.T) {
	m := state.New()
	e := state.NewEntry(1, 0)
	spec := &state.Spec{Output: "/x", Spool: true, Retries: 1}
	spec.Input, _ = state.RangeInput(1, 3)
	e.Submit("", "u", "", spec)
	for i, kind := range []state.FailureKind{state.BadInput, state.ProgramError, state.ProgramError} {
		e.Failed(1, 0, uint64(min(i, 1)), state.Failure{Kind: kind, Worker: 1, Lease: state.NewLease(1, uint64(i+1))}, nil)
	}
	if err := m.Apply(1, e.Data(), &state.Result{}); err != nil {
		t.Fatal(err)
	}
	if job := publicJob(m, m.Job(1), nothing{}); job.Stages[0].Dead != 2 || job.Stages[0].Retried != 1 {
		t.Errorf("%d tasks are dead, %d failures were retried, want 2 and 1", job.Stages[0].Dead, job.Stages[0].Retried)
	}
}
