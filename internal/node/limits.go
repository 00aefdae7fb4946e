package node

import (
	"context"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

const (
	// largeMax is how many large submits are read and committed at one time. Each may take state.InputBytesMax of memory.
	largeMax = 4
	// largeBytes is the size of an input from which a submit is large.
	largeBytes = state.StageBytes
	// largeWait is how long a large submit waits for its turn.
	largeWait = 10 * time.Second
)

// largeTurn is the turn of one submit among the large ones.
type largeTurn struct {
	turns chan struct{} // room for largeMax
	begun bool
}

// wait waits for the turn if the input takes so many bytes that the submit is large.
func (t *largeTurn) wait(ctx context.Context, bytes uint64) error {
	if t.begun || bytes <= largeBytes {
		return nil
	}
	timer := time.NewTimer(largeWait)
	defer timer.Stop()
	select {
	case t.turns <- struct{}{}:
		t.begun = true
		return nil
	case <-timer.C:
		return api.Unavailable("%d jobs with large inputs are being submitted: try again in a moment", largeMax)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *largeTurn) end() {
	if t.begun {
		<-t.turns
	}
}

// submit puts a job into the log. A large input is staged before, unless the job was submitted again.
func (n *Node) submit(ctx context.Context, key, uid, claim string, spec *state.Spec, again bool) (state.Event, error) {
	size := spec.Input.BlockBytes()
	if size > unstagedBytesMax {
		_ = n.awaitLevel(ctx, "the job", 2) // the error is below
	}
	cluster, _ := n.views.Cluster()
	switch {
	case size <= state.StageBytes:
	case cluster.Level >= 2:
		return n.submitStaged(ctx, key, uid, claim, spec, again)
	case size > unstagedBytesMax:
		wayOut := "make several jobs of its files"
		if spec.Input.Kind == state.InputLines {
			wayOut = "put the lines into files and pass those with --input, or make several jobs of them"
		}
		return state.Event{}, api.TooLarge("the list of the job's input takes %.1f MiB as compressed, and the limit is %d MiB until every leader is "+
			"connected and runs version %s or newer: start or upgrade the others (bridgefour leaders lists them), or %s",
			float64(size)/(1<<20), unstagedBytesMax>>20, n.cfg.Version, wayOut)
	}
	return n.execute(ctx, key, func(e *state.Entry) { e.Submit(key, uid, claim, spec) })
}

// unstagedBytesMax bounds an input that cannot be staged because of the feature level: with the rest of the submit, it is one entry.
const unstagedBytesMax = leader.EntryBytesMax - 4<<20

// submitStaged stages the input one entry after the other, so that the log keeps room for other writes, and submits the job.
func (n *Node) submitStaged(ctx context.Context, key, uid, claim string, spec *state.Spec, again bool) (e state.Event, err error) {
	defer func() {
		if err != nil && !again {
			n.unstage(ctx, uid)
		}
	}()
	sum := spec.RequestSum(claim)
	if !again {
		if err := n.stage(ctx, uid, &spec.Input); err != nil {
			return state.Event{}, err
		}
	}
	return n.execute(ctx, key, func(e *state.Entry) { e.SubmitStaged(key, uid, sum, spec) })
}

// stage stages the blocks of an input, which are empty afterwards.
func (n *Node) stage(ctx context.Context, uid string, in *state.Input) error {
	for staged := 0; staged < len(in.Blocks); {
		blocks, part := in.NextStage(staged), newID()
		if _, err := n.execute(ctx, part, func(e *state.Entry) { e.Stage(part, uid, staged, blocks) }); err != nil {
			return err
		}
		staged += len(blocks)
		clear(blocks) // the state has them: hold them once
	}
	return nil
}

// unstage drops what is staged, unless a submit took it. It does not wait: if this node no longer leads, the next leader drops it.
func (n *Node) unstage(ctx context.Context, uid string) {
	key := newID()
	_ = n.deliver(context.WithoutCancel(ctx), message{ // an error: the node stops, and the next leader drops it
		in:     leader.Command{Key: key, Add: func(e *state.Entry) { e.Unstage(key, uid) }},
		answer: make(chan outcome, 1),
	})
}
