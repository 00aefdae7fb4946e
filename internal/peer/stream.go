package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// errSilent means that nothing was received for too long.
var errSilent = errors.New("nothing received")

// errEnded means that the other side has ended the stream in order. For a snapshot this is success.
var errEnded = errors.New("the other side has ended the stream")

// outgoing is a stream to a member.
type outgoing[Req any] = grpc.BidiStreamingClient[Req, peerpb.Reply]

// openStream opens a stream to the member id at address, sends first, which holds the handshake, and after the welcome calls send.
// The context of send ends with the stream, which also ends when there is no welcome within setupMax, or nothing for silenceMax after
// it; its cause is the reason, an errSilent in both cases.
// The returned error is never nil.
func openStream[Req any](ctx context.Context, t *Transport, id uint64, address string, setupMax, silenceMax time.Duration,
	open func(context.Context, peerpb.PeerClient) (outgoing[Req], error), first *Req, send func(context.Context, outgoing[Req]) error,
) error {
	conn, err := t.cfg.Dial.Open(address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the only error is that it is closed already
	ctx, cancel := context.WithCancelCause(ctx)
	silentFor := func(d time.Duration) *time.Timer {
		return time.AfterFunc(d, func() { cancel(fmt.Errorf("%w for %v", errSilent, d)) })
	}
	setup := silentFor(setupMax)
	defer setup.Stop()
	var receiver sync.WaitGroup
	defer receiver.Wait()
	defer cancel(nil)

	stream, err := open(ctx, peerpb.NewPeerClient(conn))
	if err != nil {
		return orCause(ctx, err)
	}
	if err := stream.Send(first); err != nil && !errors.Is(err, io.EOF) { // with io.EOF, Recv has the reason
		return orCause(ctx, err)
	}
	reply, err := stream.Recv()
	if err != nil {
		return orCause(ctx, err)
	}
	if err := t.welcomed(id, address, reply.GetWelcome()); err != nil {
		return err
	}
	setup.Stop()
	silent := silentFor(silenceMax)
	defer silent.Stop()
	receiver.Go(func() {
		for {
			silent.Reset(silenceMax)
			if _, err := stream.Recv(); err != nil {
				cancel(orCause(ctx, err))
				return
			}
		}
	})
	return send(ctx, stream)
}

// rejectedError means that this node refuses the node that it dialed.
type rejectedError struct {
	directory string
	refusal   *peerpb.Refusal
}

func (e *rejectedError) Error() string { return e.refusal.GetReason() }

// orCause returns why a call has ended: the cause of its context, if that is what ended it.
func orCause(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return errEnded
	case ctx.Err() != nil && status.Code(err) == codes.Canceled:
		return context.Cause(ctx)
	}
	return err
}

// handshake returns the handshake for the member id.
func (t *Transport) handshake(id uint64, lane peerpb.Lane) *peerpb.Handshake {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &peerpb.Handshake{
		ClusterId: t.members.logged.Cluster, ClusterName: t.cfg.Name, From: t.self.ID, Address: t.self.Address, Directory: t.self.Directory,
		To: id, Version: t.cfg.Version, Protocol: Protocol, ProtocolMin: ProtocolMin, Lane: lane,
		Committed: t.replica.Status().Committed, Incarnation: t.incarnation, FeatureLevel: t.cfg.Level,
	}
}

// welcomed checks the welcome of the dialed member. Nothing is sent to one that has lost its log: its answers would contradict what it
// has acknowledged before.
func (t *Transport) welcomed(id uint64, address string, w *peerpb.Welcome) error {
	if w == nil {
		return fmt.Errorf("the leader at %s answers without a welcome", address)
	}
	if err := wire.Text("directory", w.GetDirectory()); err != nil {
		return fmt.Errorf("invalid welcome of the leader at %s: %w", address, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.policy().checkDirectory(id, address, w.GetDirectory()); r != nil {
		return &rejectedError{directory: w.GetDirectory(), refusal: r}
	}
	t.answered = true
	delete(t.wrongCluster, id)
	return nil
}
