package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/jobs"
)

// messageBytesMax is the largest message between leader and worker.
const messageBytesMax = 64 << 20

// nodeConfig sets a leader process up.
type nodeConfig struct {
	dataDir string // log/ holds the replicated log, spool/ the outputs of jobs that name none
	listen  string
	version string
	logger  *slog.Logger
}

// node is a leader process: the log, the leader over it, and one port for workers and clients.
type node struct {
	listener net.Listener
	replica  *replica.Replica
	leader   *leader.Leader
	logger   *slog.Logger
	version  string
}

// openNode takes hold of the data directory and the port. The caller must call run or close.
func openNode(ctx context.Context, cfg nodeConfig) (*node, error) {
	spool := filepath.Join(cfg.dataDir, "spool")
	if err := os.MkdirAll(spool, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.listen)
	if err != nil {
		return nil, err
	}
	r, err := replica.Open(replica.Config{Dir: filepath.Join(cfg.dataDir, "log"), Logger: cfg.logger})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &node{
		listener: l, replica: r, logger: cfg.logger, version: cfg.version,
		leader: leader.New(leader.Config{
			Log: r, Spool: spool, Cluster: "bridgefour", Version: cfg.version, Builtins: builtins(), Logger: cfg.logger,
		}),
	}, nil
}

// address is where the node listens.
func (n *node) address() *net.TCPAddr {
	addr, ok := n.listener.Addr().(*net.TCPAddr)
	if !ok {
		panic("the listener was opened for tcp")
	}
	return addr
}

// close gives back what openNode took where run is not called.
func (n *node) close() error { return errors.Join(n.listener.Close(), n.replica.Close()) }

// spareProcs are Go processors beyond the CPUs. While every processor runs a goroutine, the runtime looks for network input only
// now and then (up to 10 ms later); with one to spare a read is taken up at once, though the loop, or a built-in job in the
// same process, keeps the CPUs busy.
const spareProcs = 2

// run leads until ctx is done, which gives nil, or until a part of the node fails.
func (n *node) run(ctx context.Context) error {
	if os.Getenv("GOMAXPROCS") == "" {
		procs := runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(procs + spareProcs)
		defer runtime.GOMAXPROCS(procs)
	}
	// The parts end in this order: requests that wait, the leader, the port, the log.
	leading, stopLeading := context.WithCancelCause(ctx)
	defer stopLeading(nil)
	logging, stopLogging := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLogging()

	split := newSplitter(n.listener)
	workers := grpc.NewServer(
		grpc.MaxRecvMsgSize(messageBytesMax), grpc.MaxSendMsgSize(messageBytesMax),
		grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(8<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
	)
	n.leader.Register(workers)
	routes := httpapi.New(httpapi.Options{Leader: n.leader, Metrics: metricsHandler(n.leader), Version: n.version, Log: n.logger})
	clients := httpapi.Server(leading, early{n.leader.Begun(), routes}, n.logger)

	var parts sync.WaitGroup
	failed := make(chan error, 5)
	part := func(what string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	ended := make(chan struct{})
	part("log", func() error { return n.replica.Run(logging) })
	part("leader", func() error {
		defer close(ended)
		return n.leader.Run(leading)
	})
	part("port", split.run)
	part("worker traffic", func() error { return ignore(workers.Serve(split.grpc), grpc.ErrServerStopped, net.ErrClosed) })
	part("http", func() error { return ignore(clients.Serve(split.http), http.ErrServerClosed, net.ErrClosed) })

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stopLeading(errNodeEnds)
	<-ended
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if clients.Shutdown(stop) != nil {
		_ = clients.Close() // who has not finished by now is cut off
	}
	workers.Stop()
	stopLogging()
	parts.Wait()
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	return err
}

// early holds requests back until the leader has read its log: before that it would deny jobs that it will know in a moment.
type early struct {
	begun <-chan struct{}
	next  http.Handler
}

// earlyMax is how long a request is held. A log of any ordinary size has been read by then.
const earlyMax = 5 * time.Second

// ServeHTTP implements http.Handler.
func (e early) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-e.begun:
		e.next.ServeHTTP(w, r)
		return
	default:
	}
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics", "/v1/cluster": // these say how it is now
		e.next.ServeHTTP(w, r)
		return
	}
	timer := time.NewTimer(earlyMax)
	defer timer.Stop()
	select {
	case <-e.begun:
		e.next.ServeHTTP(w, r)
	case <-timer.C:
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = printJSON(w, api.Unavailable("the leader is starting: it still reads its log")) // who asked may have gone
	case <-r.Context().Done():
	}
}

// builtins tells the leader what it must know of the built-in jobs to plan them.
func builtins() []plan.Builtin {
	var out []plan.Builtin
	for _, job := range jobs.All() {
		b := plan.Builtin{Name: job.Name(), NeedsInput: true}
		_, b.Collects = job.(bridgefour.Collector)
		switch job.(type) {
		case jobs.AlwaysOk, jobs.Sample: // they read nothing
			b.NeedsInput = false
		}
		out = append(out, b)
	}
	return out
}

var errNodeEnds = errors.New("the leader is shutting down")

// ignore is err unless it is one of those that are an orderly end.
func ignore(err error, orderly ...error) error {
	for _, o := range orderly {
		if errors.Is(err, o) {
			return nil
		}
	}
	return err
}
