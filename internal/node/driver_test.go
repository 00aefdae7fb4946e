package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// rig is a running node and a listener for workers.
type rig struct {
	t        *testing.T
	log      *fakeLog
	node     *Node
	spool    string
	listener *bufconn.Listener
	stop     context.CancelFunc
	ended    chan error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := startRig(t, newFakeLog())
	r.log.elect()
	return r
}

// startRig runs a node over log until the test ends.
func startRig(t *testing.T, log *fakeLog, configure ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, log: log, spool: t.TempDir(), listener: bufconn.Listen(1 << 20), ended: make(chan error, 1)}
	cfg := Config{Log: log, Spool: r.spool, Cluster: "test", Version: "1"}
	for _, f := range configure {
		f(&cfg)
	}
	r.spool = cfg.Spool
	r.node = New(cfg)
	server := grpc.NewServer()
	r.node.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(r.listener) }()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- r.node.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-r.ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // a short test may end before it has begun
			t.Errorf("Serve() = %v", err)
		}
	})
	return r
}

// end stops the node and waits for it.
func (r *rig) end() {
	r.stop()
	err := <-r.ended
	r.ended <- err
}

// newRigs runs n nodes of one cluster that can reach each other and share a spool. The first leads.
func newRigs(t *testing.T, n int) []*rig {
	t.Helper()
	logs := newFakeGroup(n)
	spool := t.TempDir()
	var rigs []*rig
	var mu sync.Mutex // of rigs
	for _, log := range logs {
		r := startRig(t, log, func(c *Config) {
			c.Spool = spool
			c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				for _, other := range rigs {
					if fmt.Sprintf("leader-%d:1", other.log.id) == address {
						return other.listener.DialContext(ctx)
					}
				}
				return nil, fmt.Errorf("nothing listens at %s yet", address)
			}
		})
		mu.Lock()
		rigs = append(rigs, r)
		mu.Unlock()
	}
	logs[0].elect()
	rigs[0].until("leading", func() bool { _, self := rigs[0].node.LeaderAddress(); return self })
	return rigs
}

// scripted is a worker that answers each lease as its test says, in its own goroutine.
type scripted struct {
	t        *testing.T
	client   wire.LeaderClient
	session  grpc.BidiStreamingClient[wire.FromWorker, wire.ToWorker]
	answer   func(s *scripted, w *wire.Leases) *wire.Report
	mu       sync.Mutex // of sends
	jobs     map[uint64]*wire.Job
	welcomed chan *wire.Welcome
	leaders  chan *wire.Leaders
	// The error of the session, and the redirect before it.
	ended    chan error
	redirect chan *wire.Elsewhere
}

// worker connects a worker. Answer is called with each grant; nil: the attempts never end.
func (r *rig) worker(identity string, answer func(*scripted, *wire.Leases) *wire.Report) *scripted {
	r.t.Helper()
	conn, err := grpc.NewClient("passthrough:///leader", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.listener.DialContext(ctx) }))
	if err != nil {
		r.t.Fatal(err)
	}
	s := &scripted{
		t: r.t, client: wire.NewLeaderClient(conn), answer: answer, jobs: map[uint64]*wire.Job{}, welcomed: make(chan *wire.Welcome, 1),
		leaders: make(chan *wire.Leaders, 8), ended: make(chan error, 1), redirect: make(chan *wire.Elsewhere, 1),
	}
	ctx, cancel := context.WithCancel(context.Background())
	if s.session, err = s.client.Session(ctx); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	s.send(&wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: &wire.Hello{Identity: identity, Incarnation: identity, Slots: 2, Protocol: wire.Protocol}}})
	go func() {
		defer close(done)
		s.ended <- s.receive()
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
		if err := conn.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return s
}

func (s *scripted) send(m *wire.FromWorker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// An error is that of the session, which receive gets.
	_ = s.session.Send(m)
}

// hello opens another session over the same connection until the test ends.
func (s *scripted) hello(h *wire.Hello) {
	s.t.Helper()
	call, err := s.client.Session(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := call.Send(&wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: h}}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scripted) report(r *wire.Report) {
	s.send(&wire.FromWorker{Message: &wire.FromWorker_Report{Report: r}})
}

func (s *scripted) receive() error {
	for {
		m, err := s.session.Recv()
		if err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *wire.ToWorker_Welcome:
			s.welcomed <- m.Welcome
		case *wire.ToWorker_Ping: // a worker that is silent for two seconds is given up
			s.report(&wire.Report{Heartbeat: true})
		case *wire.ToWorker_Elsewhere:
			s.redirect <- m.Elsewhere
		case *wire.ToWorker_Leaders:
			s.leaders <- m.Leaders
		case *wire.ToWorker_Work:
			for _, job := range m.Work.GetJobs() {
				s.jobs[job.GetId()] = job
			}
			for _, leases := range m.Work.GetLeases() {
				if s.answer == nil {
					continue
				}
				if r := s.answer(s, leases); r != nil {
					s.report(r)
				}
			}
		case *wire.ToWorker_Log:
			s.sendLog(m.Log)
		case *wire.ToWorker_Drain:
			s.send(&wire.FromWorker{Message: &wire.FromWorker_Goodbye{Goodbye: &wire.Goodbye{}}})
		}
	}
}

// sendLog answers with one record for each task.
func (s *scripted) sendLog(request *wire.LogRequest) {
	call, err := s.client.SendLog(context.Background())
	if err != nil {
		return
	}
	records := []*wire.LogRecord{{Index: 0, Attempt: 1, Lease: 7, Text: []byte("zero\n")}, {Index: 1, Attempt: 1, Lease: 8, Text: []byte("one\n")}}
	_ = call.Send(&wire.LogRecords{Request: request.GetRequest(), Worker: 1, Records: records})
	_, err = call.CloseAndRecv()
	if err != nil && !errors.Is(err, io.EOF) {
		s.t.Logf("send log: %v", err) // the reader may have left
	}
}

// finishEmpty answers a grant: all attempts finished without output.
func finishEmpty(_ *scripted, w *wire.Leases) *wire.Report {
	f := &wire.Finished{Job: w.GetJob(), Stage: w.GetStage(), Index: w.GetIndex()}
	for i := range w.GetIndex() {
		f.Lease = append(f.Lease, w.GetFirstLease()+uint64(i))
	}
	return &wire.Report{Finished: []*wire.Finished{f}}
}

// holding keeps grants until they are released. A worker that was given up gets another one for the same task.
type holding struct {
	mu       sync.Mutex
	grants   []*wire.Leases
	released bool
}

func (h *holding) answer(s *scripted, w *wire.Leases) *wire.Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released {
		return finishEmpty(s, w)
	}
	h.grants = append(h.grants, w)
	return nil
}

// release reports all attempts, also those of later grants, as finished without output.
func (h *holding) release(s *scripted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = true
	for _, w := range h.grants {
		s.report(finishEmpty(s, w))
	}
}

// finishAll answers a grant: each attempt wrote its task number.
func finishAll(s *scripted, w *wire.Leases) *wire.Report {
	f := &wire.Finished{Job: w.GetJob(), Stage: w.GetStage(), Index: w.GetIndex()}
	job := s.jobs[w.GetJob()]
	dir := filepath.Join(job.GetOutput(), "_temporary", job.GetUid())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Error(err)
	}
	for i, index := range w.GetIndex() {
		lease := w.GetFirstLease() + uint64(i)
		text := fmt.Sprintf("%s %d\n", job.GetStages()[w.GetStage()], index)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%d", job.GetStages()[w.GetStage()], index, lease)), []byte(text), 0o600); err != nil {
			s.t.Error(err)
		}
		f.Lease = append(f.Lease, lease)
		f.Size = append(f.Size, uint64(len(text)))
		f.Checksum = append(f.Checksum, xxhash.Sum64String(text))
	}
	return &wire.Report{Finished: []*wire.Finished{f}}
}

// failAll answers a grant: all attempts failed with bad input.
func failAll(_ *scripted, w *wire.Leases) *wire.Report {
	r := &wire.Report{}
	for i, index := range w.GetIndex() {
		r.Failed = append(r.Failed, &wire.Failure{
			Job: w.GetJob(), Stage: w.GetStage(), Index: index, Lease: w.GetFirstLease() + uint64(i), Kind: wire.FailureKind_BAD_INPUT, Message: "no such line",
		})
	}
	return r
}

// notLeaderOf checks for the code that tells programs that nothing was done and another node may do it.
func notLeaderOf(t *testing.T, err error) {
	t.Helper()
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Type != api.TypeNotLeader {
		t.Errorf("error = %v, want api.NotLeader", err)
	}
}

func unknownOf(t *testing.T, err error) {
	t.Helper()
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Type != api.TypeOutcomeUnknown {
		t.Errorf("error = %v, want api.OutcomeUnknown", err)
	}
}
