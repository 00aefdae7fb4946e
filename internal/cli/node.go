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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	driver "github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/jobs"
)

// messageBytesMax is the largest message between leader and worker.
const messageBytesMax = 64 << 20

// nodeConfig sets a leader process up.
type nodeConfig struct {
	dataDir   string // log/ holds the replicated log, spool/ the outputs of jobs that name none
	listen    string
	advertise string   // empty: what it listens on
	spool     string   // empty: spool/ of dataDir
	hosts     []string // further names that clients use for it

	// On an empty data directory; all but the name are ignored on one that is in use.
	id          uint64           // 0: what there is, or what the cluster gives
	peers       []replica.Member // the leaders of a new cluster; none: this one alone
	join        []string         // leaders of a running cluster
	clusterName string
	clusterID   string // of a new cluster; empty: a random one

	invitable bool // may be made a leader of another cluster while it is fresh
	version   string
	logger    *slog.Logger
}

// node is a leader process: the log, the leader over it, and one port for workers, leaders and clients.
type node struct {
	cfg        nodeConfig
	listener   net.Listener
	advertised string
	replica    *replica.Replica
	transport  *peer.Transport
	leader     *driver.Node
	invited    chan []string                // by the leaders that it names
	idlers     atomic.Pointer[[]api.Worker] // workers that wait to be invited
}

// openNode takes hold of the port and the data directory; where it joins a cluster, it asks for that first, however long it
// takes. The caller must call run or close.
func openNode(ctx context.Context, cfg nodeConfig) (n *node, err error) {
	if cfg.spool == "" {
		cfg.spool = filepath.Join(cfg.dataDir, "spool")
	}
	if err := errors.Join(os.MkdirAll(cfg.dataDir, 0o755), os.MkdirAll(cfg.spool, 0o755)); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.listen)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	n = &node{cfg: cfg, listener: l, advertised: cfg.advertise, invited: make(chan []string, 1)}
	if n.advertised == "" {
		n.advertised = reachable(l.Addr())
	}
	if err := n.openLog(ctx); err != nil {
		return nil, err
	}
	n.leader = driver.New(driver.Config{
		Log: n.replica, Spool: cfg.spool, Cluster: cfg.clusterName, Version: cfg.version, Builtins: builtins(), Logger: cfg.logger,
		InviteLeader: n.transport.Invite, InviteWorker: n.inviteWorker, IdleWorkers: n.idleWorkers,
	})
	return n, nil
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
	// The parts end in this order: requests that wait, the leader, the port, the traffic with other leaders, the log.
	leading, stopLeading := context.WithCancelCause(ctx)
	defer stopLeading(nil)
	logging, stopLogging := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLogging()
	talking, stopTalking := context.WithCancel(logging)
	defer stopTalking()

	split := newSplitter(n.listener, n.cfg.logger)
	workers := grpc.NewServer(
		grpc.MaxRecvMsgSize(messageBytesMax), grpc.MaxSendMsgSize(messageBytesMax),
		grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(8<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
	)
	n.leader.Register(workers)
	n.transport.Register(workers)
	routes := httpapi.New(httpapi.Options{
		Leader: n.leader, Hosts: access.NewHosts(append(n.cfg.hosts, n.cfg.listen, n.advertised)...), Metrics: metricsHandler(n.leader), Version: n.cfg.version, Log: n.cfg.logger,
	})
	clients := httpapi.Server(leading, early{n.leader.Begun(), routes}, n.cfg.logger)

	var parts sync.WaitGroup
	failed := make(chan error, 6)
	part := func(what string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	ended, silent := make(chan struct{}), make(chan struct{})
	part("log", func() error { return n.replica.Run(logging) })
	part("traffic with other leaders", func() error {
		defer close(silent)
		return n.transport.Run(talking)
	})
	part("leader", func() error {
		defer close(ended)
		return n.leader.Run(leading)
	})
	if n.cfg.invitable {
		parts.Go(func() { n.beFound(leading) })
	}
	part("port", split.run)
	part("worker traffic", func() error { return ignore(workers.Serve(split.grpc), grpc.ErrServerStopped, net.ErrClosed) })
	part("http", func() error { return ignore(clients.Serve(split.http), http.ErrServerClosed, net.ErrClosed) })

	var err error
	select {
	case err = <-failed:
	case others := <-n.invited:
		err = &invitedError{leaders: others}
	case <-ctx.Done():
		n.handOver(logging)
	}
	stopLeading(errNodeEnds)
	<-ended
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if clients.Shutdown(stop) != nil {
		_ = clients.Close() // who has not finished by now is cut off
	}
	routes.Close()
	stopServer(workers)
	stopTalking()
	<-silent
	stopLogging()
	parts.Wait()
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	return err
}

// stopServer lets short calls, as the one that has invited this node, have their answers, and cuts off the rest.
func stopServer(s *grpc.Server) {
	const grace = 200 * time.Millisecond
	cut := time.AfterFunc(grace, s.Stop)
	defer cut.Stop()
	s.GracefulStop()
}

// handOver makes another leader lead, where there is one and this one does: then nobody waits for an election.
func (n *node) handOver(ctx context.Context) {
	const handOverMax = 2 * time.Second // an election comes by itself after that
	if len(n.replica.Members().List) < 2 || !n.replica.Status().Leader {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverMax)
	defer cancel()
	if err := n.replica.TransferLeadership(ctx); err != nil {
		n.cfg.logger.WarnContext(ctx, "leadership not handed over; the others will elect a leader", "error", err)
	}
}

// invitedError ends a node that is to become a leader of another cluster.
type invitedError struct{ leaders []string }

func (e *invitedError) Error() string {
	return "invited by the leaders " + strings.Join(e.leaders, ", ")
}

// fresh reports whether nothing would be lost if this node's cluster were given up: it was never used.
func (n *node) fresh() bool {
	jobs, err := n.leader.Jobs(api.JobQuery{Limit: 1})
	c := n.leader.Cluster()
	return n.cfg.invitable && len(n.replica.Members().List) == 1 && err == nil && len(jobs.Jobs) == 0 && c.Workers+c.Dead == 0
}

// onInvite has the node give up its cluster once the invitation is answered.
func (n *node) onInvite(req peer.InviteRequest) error {
	select {
	case n.invited <- req.Leaders:
		return nil
	default:
		return errors.New("it was invited already, and joins that cluster")
	}
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
