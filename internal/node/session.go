package node

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// sendQueue bounds the messages that wait for one worker. They are few, because its leases are bounded; a full queue means that the
// worker does not read, and ends the session.
const sendQueue = 4096

// stream is the sending half of a session. The goroutine of Run fills it, the handler's goroutine empties it.
type stream struct {
	out  chan *wire.ToWorker
	once sync.Once
	done chan struct{}
	end  leader.Close // set before done is closed
}

func (s *stream) send(m *wire.ToWorker) {
	select {
	case s.out <- m:
	default:
		s.close(leader.Close{Reason: "the worker does not read its messages"})
	}
}

func (s *stream) close(c leader.Close) {
	s.once.Do(func() {
		s.end = c
		close(s.done)
	})
}

// Session serves the session of a worker.
func (n *Node) Session(rpc grpc.BidiStreamingServer[wire.FromWorker, wire.ToWorker]) error {
	first, err := wire.FirstMessage(rpc.Recv)
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if err := CheckHello(access.From(rpc.Context()), hello); err != nil {
		return err
	}
	// Answer at once: the worker leaves a node that seems to be stopped.
	if err := rpc.Send(&wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}}); err != nil {
		return err
	}
	if !n.awaitLeading(rpc.Context(), workerElectionWait) {
		return n.redirect(rpc)
	}
	id := leader.SessionID(n.lastSession.Add(1))
	st := &stream{out: make(chan *wire.ToWorker, sendQueue), done: make(chan struct{})}
	if err := n.deliver(rpc.Context(), message{in: leader.Hello{Session: id, Hello: hello}, stream: st}); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	received := make(chan error, 1)
	go func() { received <- n.receiveReports(rpc, id) }() // ends when this call does
	defer func() {
		_ = n.deliver(context.WithoutCancel(rpc.Context()), message{in: leader.Closed{Session: id}}) // fails only when the node stops
	}()
	return n.sendMessages(rpc, st, received)
}

// CheckHello returns the status of a session that begins with a message other than a Hello (nil), or with one of another worker than who.
func CheckHello(who access.Principal, h *wire.Hello) error {
	if h == nil {
		return status.Error(codes.InvalidArgument, "the first message of a session must be a hello")
	}
	if who.Role == access.RoleWorker && who.Name != h.GetIdentity() {
		return status.Errorf(codes.FailedPrecondition, "the worker calls itself %.100q, and its certificate is for %q: it must use the identity of its key",
			h.GetIdentity(), who.Name)
	}
	return nil
}

// SessionInput returns the input of a later message of a session, or the status with which the session ends.
func SessionInput(id leader.SessionID, m *wire.FromWorker) (leader.Input, error) {
	switch m := m.GetMessage().(type) {
	case *wire.FromWorker_Report:
		if err := m.Report.Check(); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "invalid report of the worker: %v", err)
		}
		return leader.Report{Session: id, Report: m.Report}, nil
	case *wire.FromWorker_Goodbye:
		return leader.Drained{Session: id}, nil
	default:
		return nil, status.Error(codes.InvalidArgument, "unknown message: the worker may be newer than this leader")
	}
}

// sendMessages sends the messages of a session until one of its sides ends it.
func (n *Node) sendMessages(rpc grpc.BidiStreamingServer[wire.FromWorker, wire.ToWorker], st *stream, received <-chan error) error {
	welcomed := false
	for {
		select {
		case m := <-st.out:
			welcomed = true
			if err := rpc.Send(m); err != nil {
				return err
			}
		case err := <-received:
			return err
		case <-st.done:
			// Send queued messages first: they may say whether the last attempts of a removed worker were committed.
			for len(st.out) > 0 {
				welcomed = true
				if err := rpc.Send(<-st.out); err != nil {
					return err
				}
			}
			if !welcomed && !n.ready.leading() {
				return n.redirect(rpc)
			}
			code := codes.Unavailable
			if st.end.Refused {
				code = codes.FailedPrecondition
			}
			return status.Error(code, st.end.Reason)
		case <-rpc.Context().Done():
			return status.Error(codes.Unauthenticated, context.Cause(rpc.Context()).Error())
		case <-n.stopped: // the hello was not handled
			return status.Error(codes.Unavailable, n.stopping().Error())
		}
	}
}

// redirect names the leader to a worker or, if none is known, the other nodes.
func (n *Node) redirect(rpc grpc.BidiStreamingServer[wire.FromWorker, wire.ToWorker]) error {
	e := &wire.Elsewhere{}
	if address, self := n.LeaderAddress(); !self {
		e.Leader = address
	}
	e.Leaders = n.members.Load().Addresses()
	if err := rpc.Send(&wire.ToWorker{Message: &wire.ToWorker_Elsewhere{Elsewhere: e}}); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, n.notLeader().Error())
}

// receiveReports delivers the messages of a worker until its stream ends.
func (n *Node) receiveReports(rpc grpc.BidiStreamingServer[wire.FromWorker, wire.ToWorker], id leader.SessionID) error {
	for {
		m, err := rpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		in, err := SessionInput(id, m)
		if err != nil {
			return err
		}
		if err := n.deliver(rpc.Context(), message{in: in}); err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
	}
}
