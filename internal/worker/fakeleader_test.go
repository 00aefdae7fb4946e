package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout is how long a test waits for an event. It measures nothing.
const testTimeout = time.Minute

var errNotLeader = status.Error(codes.Unavailable, "this node does not lead")

// fakeLeader serves on a real listener, as its test directs. TestContract holds it to the contract of a real leader.
type fakeLeader struct {
	wire.UnimplementedLeaderServer
	t        testing.TB
	addr     string
	server   *grpc.Server
	sessions chan *fakeSession
	logs     chan *wire.LogRecords
	stopLogs chan struct{} // closed: the readers of logs leave

	mu     sync.Mutex
	refuse error
	parts  map[uint32][]*wire.PartsPage // by stage
}

type fakeSession struct {
	hello *wire.Hello
	first *wire.FromWorker      // read from in already; nil: none
	in    chan *wire.FromWorker // closed when the worker has closed its side
	out   chan *wire.ToWorker
	end   chan error
	ended chan struct{}
	t     testing.TB
}

func newFakeLeader(tb testing.TB, addr string) *fakeLeader {
	tb.Helper()
	var lc net.ListenConfig
	lis, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	l := &fakeLeader{
		t: tb, addr: lis.Addr().String(), server: grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20)),
		sessions: make(chan *fakeSession, 16), logs: make(chan *wire.LogRecords, 1024), stopLogs: make(chan struct{}),
		parts: map[uint32][]*wire.PartsPage{},
	}
	wire.RegisterLeaderServer(l.server, l)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = l.server.Serve(lis)
	}()
	tb.Cleanup(func() {
		l.server.Stop()
		<-served
	})
	return l
}

func (l *fakeLeader) Session(stream grpc.BidiStreamingServer[wire.FromWorker, wire.ToWorker]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	l.mu.Lock()
	refuse := l.refuse
	l.mu.Unlock()
	s := &fakeSession{
		t: l.t, hello: first.GetHello(), in: make(chan *wire.FromWorker, 4096), out: make(chan *wire.ToWorker), end: make(chan error),
		ended: make(chan struct{}),
	}
	defer close(s.ended)
	l.sessions <- s
	if refuse != nil {
		return refuse
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		defer close(s.in)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			s.in <- m
		}
	}()
	for {
		select {
		case m := <-s.out:
			if err := stream.Send(m); err != nil {
				return err
			}
		case err := <-s.end:
			return err
		case <-left:
			return nil
		}
	}
}

func (l *fakeLeader) Parts(req *wire.PartsRequest, stream grpc.ServerStreamingServer[wire.PartsPage]) error {
	l.mu.Lock()
	pages, known := l.parts[req.GetStage()]
	l.mu.Unlock()
	if !known {
		return status.Error(codes.NotFound, "no such stage")
	}
	for _, p := range pages {
		if p == nil {
			return status.Error(codes.Unavailable, "this node does not lead any more")
		}
		if err := stream.Send(p); err != nil {
			return err
		}
	}
	return nil
}

func (l *fakeLeader) SendLog(stream grpc.ClientStreamingServer[wire.LogRecords, wire.SendLogDone]) error {
	received := make(chan error, 1)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			l.logs <- m
		}
	}()
	select {
	case err := <-received:
		if !errors.Is(err, io.EOF) {
			return err
		}
		return stream.SendAndClose(&wire.SendLogDone{})
	case <-l.stopLogs:
		return status.Error(codes.Canceled, "the reader has left")
	}
}

// session waits for a session of a worker.
func (l *fakeLeader) session() *fakeSession {
	l.t.Helper()
	select {
	case s := <-l.sessions:
		return s
	case <-time.After(testTimeout): //nolint:forbidigo // only when the test fails
		l.t.Fatal("no session of a worker")
		return nil
	}
}

// heartbeatMillis is that of all welcomes: the first heartbeat shows that the worker follows the leader.
const heartbeatMillis = 20

// welcomed welcomes a worker.
func (l *fakeLeader) welcomed() *fakeSession {
	l.t.Helper()
	return l.welcomedWith(&wire.Welcome{Worker: 7, Term: 1, Cluster: "test"})
}

// welcomedWith welcomes a worker, and returns the session in which it follows. Sessions that it has left are skipped: one of several leaders has to
// answer within 400 ms, and this process may be stopped for longer.
func (l *fakeLeader) welcomedWith(w *wire.Welcome) *fakeSession {
	l.t.Helper()
	w.HeartbeatMs = heartbeatMillis
	for {
		s := l.session()
		if !s.offer(&wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: w}}) {
			continue
		}
		if m, ok := <-s.in; ok {
			s.first = m
			return s
		}
	}
}

// offer sends a message, unless the worker has left.
func (s *fakeSession) offer(m *wire.ToWorker) bool {
	select {
	case s.out <- m:
		return true
	case <-s.ended:
		return false
	}
}

func (s *fakeSession) send(m *wire.ToWorker) {
	s.t.Helper()
	select {
	case s.out <- m:
	case <-s.ended:
		s.t.Fatal("the session has ended")
	case <-time.After(testTimeout): //nolint:forbidigo // only when the test fails
		s.t.Fatal("the worker reads nothing")
	}
}

func (s *fakeSession) work(w *wire.Work) {
	s.t.Helper()
	s.send(&wire.ToWorker{Message: &wire.ToWorker_Work{Work: w}})
}

// next returns the next message of the worker that is no heartbeat; nil: it has exited.
func (s *fakeSession) next() *wire.FromWorker {
	s.t.Helper()
	deadline := time.NewTimer(testTimeout)
	defer deadline.Stop()
	for {
		if m := s.first; m != nil && !m.GetReport().GetHeartbeat() {
			s.first = nil
			return m
		}
		select {
		case s.first = <-s.in:
			if s.first == nil {
				return nil
			}
		case <-deadline.C:
			s.t.Fatal("no message of the worker")
		}
	}
}

func (s *fakeSession) report() *wire.Report {
	s.t.Helper()
	m := s.next()
	if m.GetReport() == nil {
		s.t.Fatalf("message = %v, want a report", m)
	}
	return m.GetReport()
}

// hangUp ends the session as a leader does that steps down.
func (s *fakeSession) hangUp() {
	s.t.Helper()
	select {
	case s.end <- errNotLeader:
	case <-s.ended:
	}
}

// scriptRunner runs attempts as its test directs.
type scriptRunner func(ctx context.Context, a *runner.Attempt) runner.Outcome

func (f scriptRunner) Run(ctx context.Context, a *runner.Attempt) runner.Outcome { return f(ctx, a) }
func (scriptRunner) Close() error                                                { return nil }

// running is a worker under test.
type running struct {
	*Worker
	t      testing.TB
	cancel context.CancelCauseFunc
	result chan error
	// mayFail: Run may return an error.
	mayFail bool
}

// startWorker runs a worker until the test ends, at the latest. run nil: the real runner.
func startWorker(tb testing.TB, cfg Config, run scriptRunner) *running {
	tb.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = tb.TempDir()
	}
	w, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	if run != nil {
		w.newRunner = func() attemptRunner { return run }
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &running{Worker: w, t: tb, cancel: cancel, result: make(chan error, 1)}
	go func() { r.result <- errors.Join(w.Run(ctx), w.Close()) }()
	tb.Cleanup(func() {
		cancel(ErrStopNow)
		select {
		case err := <-r.result:
			if err != nil && !r.mayFail {
				tb.Errorf("Run() = %v", err)
			}
		case <-time.After(testTimeout): //nolint:forbidigo // only when the test fails
			tb.Error("the worker does not exit")
		}
	})
	return r
}

// end waits for the end of Run.
func (r *running) end() error {
	r.t.Helper()
	select {
	case err := <-r.result:
		r.result <- err // for the cleanup
		return err
	case <-time.After(testTimeout): //nolint:forbidigo // only when the test fails
		r.t.Fatal("the worker does not exit")
		return nil
	}
}
