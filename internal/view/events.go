package view

import (
	"context"
	"math"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Events emits the events after a position, oldest first, and continues with new ones. They are part of the state, so a reader can
// continue at another node. A slow reader delays no one; it gets an error when its next event is no longer kept.
func (r *Reader) Events(ctx context.Context, after api.Position, emit func(api.Event) error) error {
	at := state.Position{Index: after.Index, Seq: after.Seq}
	for {
		shown := r.views.Index() // a reader of an event must find its effect in the views; read before the facts, which then include all up to there
		var facts []state.Fact
		kept := false
		if err := r.source.Do(ctx, func(c *leader.Controller) { facts, kept = c.Machine().FactsAfter(at) }); err != nil {
			return err
		}
		if !kept {
			return api.Gone("the events after %d-%d are no longer kept: too many newer ones exist; start again without a position", at.Index, at.Seq)
		}
		for i := range facts {
			if facts[i].Index > shown {
				break
			}
			if err := emit(publicEvent(&facts[i])); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if all := (state.Position{Index: shown, Seq: math.MaxUint32}); at.Compare(all) < 0 {
			at = all
		}
		if err := r.views.changed.Wait(ctx, func() (bool, error) {
			return at.Compare(state.Position{Index: r.views.facts.Load(), Seq: math.MaxUint32}) < 0, nil
		}); err != nil {
			return err
		}
	}
}

// publicEvent returns the public form of a fact. It uses nothing else, so that all nodes serve the same events.
func publicEvent(f *state.Fact) api.Event {
	e := api.Event{
		Index: f.Index, Seq: f.Seq, Time: time.UnixMilli(f.Time).UTC(), Job: uint64(f.Job), Worker: uint64(f.Worker), Detail: f.Detail,
	}
	switch f.Kind {
	case state.JobSubmitted:
		e.Type = api.EventJobSubmitted
	case state.StageStarted:
		e.Type, e.Stage = api.EventStageStarted, f.Stage
	case state.TaskDied:
		e.Type, e.Stage, e.Task = api.EventTaskDied, f.Stage, &f.Task
	case state.JobEnding:
		e.Type, e.Status = api.EventJobEnding, f.JobStatus.String()
	case state.JobEnded:
		e.Type, e.Status = api.EventJobEnded, f.JobStatus.String()
	case state.JobForgotten:
		e.Type = api.EventJobForgotten
	case state.WorkerJoined:
		e.Type, e.Status = api.EventWorkerJoined, f.WorkerStatus.String()
	case state.WorkerChanged:
		e.Type, e.Status = api.EventWorkerChanged, f.WorkerStatus.String()
	case state.WorkerQuarantined:
		e.Type, e.Status = api.EventWorkerQuarantined, f.WorkerStatus.String()
	case state.WorkerReleased:
		e.Type, e.Status = api.EventWorkerReleased, f.WorkerStatus.String()
	case state.Audited:
		e.Type, e.Audit = api.EventAudited, (*api.Audit)(f.Audit)
	case state.LockGone:
		e.Type, e.User = api.EventLockLost, f.User
	case state.LockHeld, state.LockWaiting, state.LockOver, state.PriorityChanged, state.TaskReopened, state.TaskLost, state.StageEnded, state.RequestApplied, state.QuotasChanged, state.JobWaits, state.StageGrown, state.InputDue: // internal; not in the history
	}
	return e
}
