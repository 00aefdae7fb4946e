package node

import (
	"context"
	"fmt"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Grow adds files, each of them a task, to the input of a job that was submitted while the node was Growing. They must not change any more. Last:
// the input is complete. The problem is a 409 if the job takes no more.
func (n *Node) Grow(ctx context.Context, id uint64, files []string, last bool) error {
	b := state.NewFiles(0)
	for _, path := range files {
		store, name, err := n.cfg.Stores.Open(path)
		if err != nil {
			return fmt.Errorf("input %w", err)
		}
		info, err := store.Stat(ctx, name)
		if err != nil {
			return fmt.Errorf("input %q: %w", name, err)
		}
		b.AddFile([]byte(info.Name), state.Version{Size: uint64(info.Size), Modified: info.Modified, Identity: info.Identity}, false) //nolint:gosec // of a file
	}
	more, err := b.Input()
	if err != nil {
		return err
	}
	blocks := 0
	if err := n.do(ctx, func() {
		if job := n.loop.controller.Machine().Job(state.JobID(id)); job != nil {
			blocks = len(job.Spec.Input.Blocks)
		}
	}); err != nil {
		return err
	}
	return n.jobCommand(ctx, id, func(e *state.Entry, key string, job state.JobID) { e.Grow(key, job, blocks, &more, last) })
}

// AwaitOpen waits until a job has ended, or at most so many tasks of its first stage are open or running.
func (n *Node) AwaitOpen(ctx context.Context, id, most uint64) error {
	return n.views.Changed().Wait(ctx, func() (bool, error) {
		job, ok := n.Job(id)
		if !ok {
			return false, api.NoJob(id)
		}
		stage := job.Stages[0]
		return job.IsEnded() || stage.Open+stage.Running <= most, nil
	})
}
