package node

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

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/discover"
	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// ProcessConfig sets a process up.
type ProcessConfig struct {
	DataDir   string // log/ holds the replicated log, spool/ the outputs of jobs that name none
	Listen    string
	Advertise string   // empty: what it listens on
	Spool     string   // empty: spool/ of DataDir
	Hosts     []string // further names that clients use for it

	// On an empty data directory; all but the name are ignored on one that is in use.
	ID          uint64           // 0: what there is, or what the cluster gives
	Peers       []replica.Member // the leaders of a new cluster; none: this one alone
	Join        []string         // leaders of a running cluster
	ClusterName string
	ClusterID   string // of a new cluster; empty: a random one

	Invitable bool // may be made a leader of another cluster while it is fresh
	Builtins  []plan.Builtin
	Version   string
	Logger    *slog.Logger
	// HTTP returns the server of the API, whose requests end with ctx, and a function that frees what it uses.
	HTTP func(ctx context.Context, p *Process) (server *http.Server, free func())
}

// Process is a node with all that it needs: the replicated log, the links to the other leaders, and one port for workers,
// leaders and clients.
type Process struct {
	*Node
	cfg        ProcessConfig
	listener   net.Listener
	advertised string
	policy     *access.Policy
	replica    *replica.Replica
	transport  *peer.Transport
	invited    chan []string                // by the leaders that it names
	idlers     atomic.Pointer[[]api.Worker] // workers that wait to be invited
}

// Open takes hold of the port and the data directory; where it joins a cluster, it asks for that first, however long it takes.
// The caller must call Run or Close.
func Open(ctx context.Context, cfg ProcessConfig) (p *Process, err error) {
	if cfg.Spool == "" {
		cfg.Spool = filepath.Join(cfg.DataDir, "spool")
	}
	if err := errors.Join(os.MkdirAll(cfg.DataDir, 0o755), os.MkdirAll(cfg.Spool, 0o755)); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	l, err := transport.Listen(ctx, cfg.Listen)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	p = &Process{cfg: cfg, listener: l, advertised: cfg.Advertise, invited: make(chan []string, 1)}
	if p.advertised == "" {
		p.advertised = discover.Reachable(l.Addr())
	}
	p.policy = access.NewPolicy(append(cfg.Hosts, cfg.Listen, p.advertised)...)
	if err := p.openLog(ctx); err != nil {
		return nil, err
	}
	p.Node = New(Config{
		Log: p.replica, Spool: cfg.Spool, Cluster: cfg.ClusterName, Version: cfg.Version, Builtins: cfg.Builtins, Logger: cfg.Logger,
		Peers: p.transport, InviteLeader: p.transport.Invite, InviteWorker: p.inviteWorker, IdleWorkers: p.foundWorkers,
	})
	return p, nil
}

// ID is the number of the node among the leaders.
func (p *Process) ID() uint64 { return p.replica.ID() }

// Advertised is the host:port that others are told.
func (p *Process) Advertised() string { return p.advertised }

// Policy decides on what comes to the port.
func (p *Process) Policy() *access.Policy { return p.policy }

// Address is where the process listens.
func (p *Process) Address() *net.TCPAddr {
	addr, ok := p.listener.Addr().(*net.TCPAddr)
	if !ok {
		panic("the listener was opened for tcp")
	}
	return addr
}

// Close gives back what Open took where Run is not called.
func (p *Process) Close() error { return errors.Join(p.listener.Close(), p.replica.Close()) }

// spareProcs are Go processors beyond the CPUs. While every processor runs a goroutine, the runtime looks for network input only
// now and then (up to 10 ms later); with one to spare a read is taken up at once, though the loop, or a built-in job in the
// same process, keeps the CPUs busy.
const spareProcs = 2

// Run leads until ctx is done, which gives nil, or until a part of the node fails.
func (p *Process) Run(ctx context.Context) error {
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

	split := newSplitter(p.listener, p.cfg.Logger)
	workers := wire.NewServer(append(p.policy.ServerOptions(),
		grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(8<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
	)...)
	p.Register(workers)
	p.transport.Register(workers)
	clients, freeClients := p.cfg.HTTP(leading, p)
	clients.Handler = early{p.Begun(), clients.Handler}

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
	part("log", func() error { return p.replica.Run(logging) })
	part("traffic with other leaders", func() error {
		defer close(silent)
		return p.transport.Run(talking)
	})
	part("leader", func() error {
		defer close(ended)
		return p.Node.Run(leading)
	})
	if p.cfg.Invitable {
		parts.Go(func() { p.beFound(leading) })
	}
	part("port", split.run)
	part("worker traffic", func() error { return ignore(workers.Serve(split.grpc), grpc.ErrServerStopped, net.ErrClosed) })
	part("http", func() error { return ignore(clients.Serve(split.http), http.ErrServerClosed, net.ErrClosed) })

	var err error
	select {
	case err = <-failed:
	case others := <-p.invited:
		err = &InvitedError{Leaders: others}
	case <-ctx.Done():
		p.handOver(logging)
	}
	stopLeading(errNodeEnds)
	<-ended
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if clients.Shutdown(stop) != nil {
		_ = clients.Close() // who has not finished by now is cut off
	}
	freeClients()
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
func (p *Process) handOver(ctx context.Context) {
	const handOverMax = 2 * time.Second // an election comes by itself after that
	if len(p.replica.Members().List) < 2 || !p.ready.leading() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverMax)
	defer cancel()
	if err := p.replica.TransferLeadership(ctx); err != nil {
		p.cfg.Logger.WarnContext(ctx, "leadership not handed over; the others will elect a leader", "error", err)
	}
}

// InvitedError ends a node that is to become a leader of another cluster.
type InvitedError struct{ Leaders []string }

func (e *InvitedError) Error() string {
	return "invited by the leaders " + strings.Join(e.Leaders, ", ")
}

// fresh reports whether nothing would be lost if this node's cluster were given up: it was never used.
func (p *Process) fresh() bool {
	jobs, err := p.Jobs(api.JobQuery{Limit: 1})
	c := p.Cluster()
	return p.cfg.Invitable && len(p.replica.Members().List) == 1 && err == nil && len(jobs.Jobs) == 0 && c.Workers+c.Dead == 0
}

// onInvite has the node give up its cluster once the invitation is answered.
func (p *Process) onInvite(req peer.InviteRequest) error {
	select {
	case p.invited <- req.Leaders:
		return nil
	default:
		return errors.New("it was invited already, and joins that cluster")
	}
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
