package node

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/state"
)

const (
	dueMax      = 4 // deferred inputs that are planned at one time
	dueRetryMin = time.Second
	dueRetryMax = time.Minute
)

// planDue plans the deferred input of a job, again and again until it is in the log, or this node does not lead any more: then the next leader
// plans it.
func (n *Node) planDue(ctx context.Context, id state.JobID) {
	for delay := dueRetryMin; ; delay = min(2*delay, dueRetryMax) {
		err := n.planInput(ctx, id)
		if err == nil || ctx.Err() != nil {
			return
		}
		n.log.WarnContext(ctx, "input not planned", "job", id, "retry_in", delay, "error", err)
		retry := time.NewTimer(delay)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return
		}
	}
}

func (n *Node) planInput(ctx context.Context, id state.JobID) error {
	select {
	case n.due <- struct{}{}:
		defer func() { <-n.due }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var job *state.Job
	if err := n.do(ctx, func() {
		m := n.loop.controller.Machine()
		if j := m.Job(id); j != nil && m.InputDue(j) {
			job = &state.Job{ID: j.ID, UID: j.UID, Spec: j.Spec} // the spec never changes
		}
	}); err != nil || job == nil {
		return err
	}
	turn := largeTurn{turns: n.large}
	defer turn.end()
	slots, err := n.slots(ctx)
	if err != nil {
		return err
	}
	in, partitions, err := plan.Deferred(ctx, job.Spec, plan.Options{
		Slots: slots, Stores: n.cfg.Stores, Reserved: n.cfg.Reserved, Turn: func(bytes uint64) error { return turn.wait(ctx, bytes) },
	})
	key := newID()
	if bad, ok := errors.AsType[plan.Errors](err); ok {
		return n.setInput(ctx, key, func(e *state.Entry) { e.FailInput(key, job, "its input cannot be planned: "+bad.Error()) })
	}
	if err != nil {
		return err
	}
	staged := uint64(0)
	if in.BlockBytes() > state.StageBytes {
		if err := turn.wait(ctx, in.BlockBytes()); err != nil {
			return err
		}
		if err := n.stage(ctx, job.UID, &in); err != nil {
			n.unstage(ctx, job.UID)
			return err
		}
		staged = uint64(len(in.Blocks))
	}
	return n.setInput(ctx, key, func(e *state.Entry) { e.SetInput(key, job, in, staged, partitions) })
}

// setInput executes a command with a deferred input. It is refused if the job was stopped meanwhile, or another leader was faster.
func (n *Node) setInput(ctx context.Context, key string, add func(*state.Entry)) error {
	_, err := n.execute(ctx, key, add)
	if api.IsStatus(err, http.StatusConflict) {
		return nil
	}
	return err
}
