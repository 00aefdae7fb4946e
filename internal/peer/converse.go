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
)

// errEnded is that the other side has ended a stream in order. For a snapshot this is success.
var errEnded = errors.New("the other side has ended the stream")

// outgoing is a stream to a member.
type outgoing[Req any] = grpc.BidiStreamingClient[Req, peerpb.Reply]

// converse opens a stream to the member id at address, says first, which holds the handshake, and once it is welcome has speak
// say the rest. The context that speak gets ends with the stream, and its cause is why; the silence of the other side for
// silenceMax ends the stream too. What it returns is not nil.
func converse[Req any](ctx context.Context, t *Transport, id uint64, address string, silenceMax time.Duration,
	open func(context.Context, peerpb.PeerClient) (outgoing[Req], error), first *Req, speak func(context.Context, outgoing[Req]) error,
) error {
	conn, err := t.dial.open(address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // says only that it is closed already
	ctx, cancel := context.WithCancelCause(ctx)
	silent := time.AfterFunc(silenceMax, func() { cancel(fmt.Errorf("nothing was heard for %v", silenceMax)) })
	defer silent.Stop()
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
	receiver.Go(func() {
		for {
			if _, err := stream.Recv(); err != nil {
				cancel(orCause(ctx, err))
				return
			}
			silent.Reset(silenceMax)
		}
	})
	return speak(ctx, stream)
}

// rejectedError is that this node will not have the one that it dialed.
type rejectedError struct {
	directory string
	refusal   *peerpb.Refusal
}

func (e *rejectedError) Error() string { return e.refusal.GetReason() }

// orCause is why a call has ended: what ended its context, where that is what the call says.
func orCause(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return errEnded
	case ctx.Err() != nil && status.Code(err) == codes.Canceled:
		return context.Cause(ctx)
	}
	return err
}

// handshake is what this node says to the member id when it dials it.
func (t *Transport) handshake(id uint64, lane peerpb.Lane) *peerpb.Handshake {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &peerpb.Handshake{
		ClusterId: t.book.members.Cluster, ClusterName: t.cfg.Name, From: t.self.ID, Address: t.self.Address, Directory: t.self.Directory,
		To: id, Version: t.cfg.Version, Protocol: Protocol, ProtocolMin: ProtocolMin, Lane: lane,
		Committed: t.replica.Status().Committed, Incarnation: t.incarnation,
	}
}

// welcomed checks the answer of who was dialed as the member id. Nothing is sent to one that has lost its log: what it would
// answer is not what it has acknowledged before.
func (t *Transport) welcomed(id uint64, address string, w *peerpb.Welcome) error {
	if w == nil {
		return fmt.Errorf("the leader at %s answers without a welcome", address)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.door().checkDirectory(id, address, w.GetDirectory()); r != nil {
		return &rejectedError{directory: w.GetDirectory(), refusal: r}
	}
	t.met = true
	delete(t.strangers, id)
	return nil
}
