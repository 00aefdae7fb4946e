package node

import (
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// sendQueue is how many messages may wait for one worker. A worker that lets them pile up has its session ended: what it
// holds is bounded by its leases, so this many mean that it does not read.
const sendQueue = 4096

// stream is the sending half of a session. The loop owns it; the handler's goroutine empties it.
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
		s.close(leader.Close{Reason: "the worker does not read what it is sent"})
	}
}

func (s *stream) close(c leader.Close) {
	s.once.Do(func() {
		s.end = c
		close(s.done)
	})
}

// Session serves one worker.
func (n *Node) Session(rpc grpc.BidiStreamingServer[wire.FromWorker, wire.ToWorker]) error {
	first, err := rpc.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return status.Error(codes.InvalidArgument, "a session begins with a hello")
	}
	// A first word at once: the worker would leave a node that seems to be stopped.
	if err := rpc.Send(&wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}}); err != nil {
		return err
	}
	if !n.awaitLeading(rpc.Context(), workerElectionWait) {
		return n.elsewhere(rpc)
	}
	id := leader.SessionID(n.lastSession.Add(1))
	st := &stream{out: make(chan *wire.ToWorker, sendQueue), done: make(chan struct{})}
	if !n.deliver(message{in: leader.Hello{Session: id, Hello: hello}, stream: st}) {
		return status.Error(codes.Unavailable, "the leader is shutting down")
	}
	received := make(chan error, 1)
	go func() { received <- n.receiveReports(rpc, id) }() // ends when this call does
	defer n.deliver(message{in: leader.Closed{Session: id}})
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
			// What was queued before goes out first: a removed worker is told what became of its last attempts.
			for len(st.out) > 0 {
				welcomed = true
				if err := rpc.Send(<-st.out); err != nil {
					return err
				}
			}
			if !welcomed && !n.ready.leading() {
				return n.elsewhere(rpc)
			}
			code := codes.Unavailable
			if st.end.Refused {
				code = codes.FailedPrecondition
			}
			return status.Error(code, st.end.Reason)
		case <-n.stopped: // before the loop had taken the Hello
			return status.Error(codes.Unavailable, n.stopping().Error())
		}
	}
}

// elsewhere sends a worker on to who leads, or, where nobody knows, to the other leaders.
func (n *Node) elsewhere(rpc grpc.BidiStreamingServer[wire.FromWorker, wire.ToWorker]) error {
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

// deliver hands a message to the loop. After the loop has ended there is nobody to tell.
func (n *Node) deliver(m message) bool {
	select {
	case n.inputs <- m:
		return true
	case <-n.stopped:
		return false
	}
}

// receiveReports passes on what the worker says until its stream ends.
func (n *Node) receiveReports(rpc grpc.BidiStreamingServer[wire.FromWorker, wire.ToWorker], id leader.SessionID) error {
	for {
		m, err := rpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var in leader.Input
		switch m := m.GetMessage().(type) {
		case *wire.FromWorker_Report:
			in = leader.Report{Session: id, Report: m.Report}
		case *wire.FromWorker_Goodbye:
			in = leader.Drained{Session: id}
		default:
			return status.Error(codes.InvalidArgument, "unknown message; the worker may be newer than this leader")
		}
		if !n.deliver(message{in: in}) {
			return status.Error(codes.Unavailable, "the leader is shutting down")
		}
	}
}
