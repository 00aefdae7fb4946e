package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// Receive handles messages of a peer, other than a MsgSnap (see ReceiveSnapshot), and waits until that is done. An error other than that of
// ctx or ErrClosed means that a message is invalid; it has changed nothing.
func (r *Replica) Receive(ctx context.Context, messages ...*raftpb.Message) error {
	for _, m := range messages {
		if m.GetType() == raftpb.MsgSnap {
			return fmt.Errorf("message of member %d: a snapshot without a body", m.GetFrom())
		}
	}
	in := received{messages, make(chan error, 1)}
	if err := toLoop(ctx, r, r.inbox, in); err != nil {
		return err
	}
	verdict, err := fromLoop(ctx, r, in.verdict)
	if err != nil {
		return err
	}
	return verdict
}

// ReportUnreachable reports that messages to a member were lost.
func (r *Replica) ReportUnreachable(id uint64) {
	_ = r.queue(context.Background(), request{input: core.ReportUnreachable{To: id}}) // after the end of Run it does not matter
}

// ReportSnapshot reports the outcome of the snapshot that was last sent to a member.
func (r *Replica) ReportSnapshot(id uint64, ok bool) {
	_ = r.queue(context.Background(), request{input: core.ReportSnapshot{To: id, OK: ok}}) // after the end of Run it does not matter
}

// OpenSnapshot opens the body for a MsgSnap m of this node: a whole snapshot file. The caller closes it.
func (r *Replica) OpenSnapshot(m *raftpb.Message) (io.ReadCloser, error) {
	p, err := core.PositionOf(m.GetSnapshot())
	if err != nil {
		return nil, err
	}
	f, err := os.Open(r.store.path(p))
	if err != nil {
		return nil, fmt.Errorf("open snapshot to send: %w", err) // a newer one may have replaced it
	}
	return f, nil
}

// ReceiveSnapshot handles the MsgSnap m of a peer with its body, from the peer's OpenSnapshot. When it returns nil, the snapshot is
// durable and will be installed, or was not needed. It handles one at a time.
func (r *Replica) ReceiveSnapshot(ctx context.Context, m *raftpb.Message, body io.Reader) error {
	err := core.Acceptable(m, r.id)
	if err == nil && m.GetType() != raftpb.MsgSnap {
		err = fmt.Errorf("%v is not a snapshot", m.GetType())
	}
	var p core.Position
	if err == nil {
		p, err = core.PositionOf(m.GetSnapshot())
	}
	if err == nil && p.Members.Cluster != r.head.Cluster {
		err = fmt.Errorf("its snapshot belongs to cluster %s, not %s", p.Members.Cluster, r.head.Cluster)
	}
	if err != nil {
		return fmt.Errorf("message of member %d: %w", m.GetFrom(), err)
	}
	if err := toLoop(ctx, r, r.receiving, struct{}{}); err != nil {
		return err
	}
	defer func() { <-r.receiving }()

	q := request{input: core.Receive{Message: m}, outcome: make(chan outcome, 1)}
	if s := r.Status(); p.Index > s.Committed && m.GetTerm() >= s.Term { // otherwise it is not needed
		if q.body, err = r.store.receive(p, contextReader{ctx, body}); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx) // by then the body may belong to the consumer
	var o outcome
	if err = r.queue(ctx, q); err == nil {
		if o, err = fromLoop(ctx, r, q.outcome); err == nil {
			err = o.err
		}
	}
	if q.body == nil || o.accepted {
		return err
	}
	return errors.Join(err, q.body.Close(), r.store.remove(p))
}

// contextReader reads until its context ends.
type contextReader struct {
	ctx context.Context //nolint:containedctx // lives as long as one call
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// SaveSnapshot saves the state after the entry at index, which must have been delivered and which write writes. It must be called from a
// goroutine other than Run's and the consumer's, and does not delay them while write runs. When it returns nil, the snapshot is
// durable, and the log before the previous snapshot is removed.
func (r *Replica) SaveSnapshot(index uint64, write func(io.Writer) error) error {
	ctx := context.Background() // the steps are short, and end with Run
	begun, err := r.await(ctx, func(ref core.Ref) core.Input { return core.BeginSnapshot{Ref: ref, Index: index} })
	if err != nil {
		return err
	}
	recorded, err := r.saveSnapshot(ctx, begun.Position, write)
	_ = r.queue(ctx, request{input: core.EndSnapshot{Failed: !recorded}}) // after the end of Run it does not matter
	return err
}

// saveSnapshot writes the file, records it in the log, and removes what is no longer needed. It reports whether the snapshot was
// recorded: a failure after that costs disk space only, until the next snapshot.
func (r *Replica) saveSnapshot(ctx context.Context, p core.Position, write func(io.Writer) error) (recorded bool, err error) {
	if err := r.store.create(p, write); err != nil {
		return false, err
	}
	a, err := r.await(ctx, func(ref core.Ref) core.Input { return core.RecordSnapshot{Ref: ref, Position: p} })
	if err != nil {
		return false, err
	}
	kept := a.Snapshots
	if len(kept) == 0 { // a peer's snapshot has overtaken it
		return true, r.store.remove(p)
	}
	from := uint64(0)
	if len(kept) > 1 {
		from = kept[1].Index
	}
	return true, removeOld(r.journal.walDir(), r.store, kept, from)
}

// removeOld removes the snapshots other than kept, newest first, and the log before the entry from.
func removeOld(walDir string, store snapStore, kept []core.Position, from uint64) error {
	if err := removeSegments(walDir, from); err != nil {
		return err
	}
	return store.prune(kept, false)
}
