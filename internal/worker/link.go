package worker

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

const flushTimeout = time.Second // of the last messages

var (
	errReplaced = errors.New("the session was replaced")
	errFlushed  = errors.New("the last message was sent")
)

// link is the connection of one session. Its goroutines post messages received and sent, and the end.
type link struct {
	epoch     uint64
	conn      *grpc.ClientConn
	cancel    context.CancelCauseFunc // closes the session at once
	flushLogs func()
	// Neither is ever full: bulk holds what the core may have in flight, and a heartbeat is dropped while another one waits.
	bulk   chan *wire.FromWorker
	urgent chan *wire.FromWorker
	over   chan struct{} // closed when the last goroutine has ended
}

type dialFunc func(ctx context.Context, address string) (net.Conn, error)

// openLink starts a session. post may block. flushLogs is called before each report: a reported attempt's log survives the worker.
func openLink(ctx context.Context, dial dialFunc, c core.Connect, post func(core.Input), flushLogs func()) (*link, error) {
	conn, err := wire.Connect(c.Leader, dial,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: core.WelcomeTimeout}),
		grpc.WithInitialWindowSize(4<<20), grpc.WithInitialConnWindowSize(8<<20),
	)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	l := &link{
		epoch: c.Epoch, conn: conn, cancel: cancel, flushLogs: flushLogs, over: make(chan struct{}),
		bulk: make(chan *wire.FromWorker, core.ReportsInFlight+1), urgent: make(chan *wire.FromWorker, 1),
	}
	go func() {
		defer close(l.over)
		err := l.run(ctx, c.Hello, post)
		if ctx.Err() != nil && status.Code(err) == codes.Canceled {
			err = context.Cause(ctx)
		}
		_ = conn.Close() // its only error is that it is closed already
		ended := core.SessionEnded{Epoch: l.epoch, Refused: status.Code(err) == codes.FailedPrecondition, Removed: wire.IsRevoked(err)}
		s, ok := status.FromError(err)
		switch {
		case ended.Refused:
			err = &core.RefusedError{Leader: c.Leader, Reason: s.Message()}
		case ended.Removed:
			err = api.NewProblem(http.StatusUnauthorized, "%s", s.Message())
		case ok && err != nil:
			err = errors.New(s.Message()) // for users; the code adds nothing
		}
		ended.Err = err
		post(ended)
	}()
	return l, nil
}

func (l *link) run(ctx context.Context, hello *wire.Hello, post func(core.Input)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	stream, err := wire.NewLeaderClient(l.conn).Session(ctx)
	if err != nil {
		cancel(err)
		return err
	}
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel(errors.New("the leader has ended the session"))
	if err := stream.Send(&wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: hello}}); err != nil {
		return receiveErr(stream)
	}
	sender.Go(func() { l.write(ctx, stream, post) })
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		post(core.Received{Epoch: l.epoch, Message: m})
	}
}

// receiveErr is the reason for the end of a stream, which Send does not return.
func receiveErr(stream grpc.BidiStreamingClient[wire.FromWorker, wire.ToWorker]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// write writes messages to the stream, urgent ones first, until the stream or ctx ends or bulk is closed. Errors are ignored: the
// receiving side gets them too, with the reason.
func (l *link) write(ctx context.Context, stream grpc.BidiStreamingClient[wire.FromWorker, wire.ToWorker], post func(core.Input)) {
	for {
		select {
		case m := <-l.urgent:
			if stream.Send(m) != nil {
				return
			}
			continue
		default:
		}
		select {
		case m := <-l.urgent:
			if stream.Send(m) != nil {
				return
			}
		case m, ok := <-l.bulk:
			if !ok {
				_ = stream.CloseSend()
				return
			}
			l.flushLogs()
			if stream.Send(m) != nil {
				return
			}
			post(core.Sent{Epoch: l.epoch})
		case <-ctx.Done():
			return
		}
	}
}

// send queues a message; it does not block.
func (l *link) send(s core.Send) {
	if s.Urgent {
		select {
		case l.urgent <- s.Message:
		default:
		}
		return
	}
	l.bulk <- s.Message
}

// flush sends the queued messages, and closes the session.
func (l *link) flush() {
	close(l.bulk)
	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	select {
	case <-l.over:
	case <-timer.C:
	}
	l.cancel(errFlushed)
}
