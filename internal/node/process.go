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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/discover"
	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// ProcessConfig configures a process.
type ProcessConfig struct {
	DataDir   string            // log/ contains the replicated log, spool/ the outputs of jobs without --output
	Listen    string            // host:port; empty: no TCP port
	Advertise string            // empty: the listen address
	Socket    string            // path of a unix socket; empty: none
	Memory    *transport.Memory // connections within this process; nil: none
	Spool     string            // empty: spool/ of DataDir
	Hosts     []string          // further host names that clients use
	AuditFile string            // to which audit records are appended; empty: none
	Insecure  bool              // every client may do everything
	Idle      bool              // runs no task: the state is only read
	Growing   bool              // the files of a submit are the first of its input: Grow adds the others
	Slots     int               // of the workers of this process, which may be connected later than jobs come
	// Of an outside authority: the certificate is for clients other than our programs, and the authority is that of their certificates.
	Outside  transport.Files
	Reserved []plan.Reserved // further folders apart from which outputs must lie

	// For an empty data directory; in one that is in use, all but the name are ignored.
	ClusterKey  *access.Key      // nil: that of the cluster it joins, or a random one
	ID          uint64           // 0: the first, or assigned by the cluster
	Peers       []replica.Member // the nodes of a new cluster; none: this one alone
	Join        []string         // nodes of a running cluster
	Invitation  *transport.Join  // of that cluster; nil: its connections are not encrypted
	ClusterName string
	ClusterID   string // of a new cluster; empty: a random one

	Workers []ExpectedWorker // of a new cluster

	Invitable bool // accepts invitations to another cluster while it is fresh
	Builtins  []plan.Builtin
	Version   string
	Logger    *slog.Logger
	// HTTP returns the server of the API, whose requests end with ctx, and a function that frees its resources.
	HTTP func(ctx context.Context, p *Process) (server *http.Server, free func())
}

// Process is a node with its replicated log, its links to the other nodes, and one port for workers, nodes and clients.
type Process struct {
	*Node
	cfg        ProcessConfig
	listeners  []net.Listener // that of Listen is the first
	advertised string
	policy     *access.Policy
	replica    *replica.Replica
	transport  *peer.Transport
	invited    chan []string                // addresses of the inviting cluster
	idle       atomic.Pointer[[]api.Worker] // workers that wait for an invitation
	security   *security                    // nil: connections are not encrypted
}

// Open opens the port and the data directory. A node that is to join a cluster does that first, as long as it takes. The caller must call
// Run or Close.
func Open(ctx context.Context, cfg ProcessConfig) (_ *Process, err error) {
	if cfg.Spool == "" {
		cfg.Spool = filepath.Join(cfg.DataDir, spoolDir)
	}
	if err := datadir.Mkdir(cfg.DataDir, inDataDir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := datadir.Mkdir(cfg.Spool, inSpool); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	p := &Process{cfg: cfg, advertised: cfg.Advertise, invited: make(chan []string, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(p.listeners))
		}
	}()
	if cfg.Listen != "" {
		l, err := transport.Listen(ctx, cfg.Listen)
		if err != nil {
			return nil, err
		}
		p.listeners = append(p.listeners, l)
		if p.advertised == "" {
			p.advertised = discover.Reachable(ctx, l.Addr())
		}
	}
	if cfg.Memory != nil {
		p.listeners = append(p.listeners, cfg.Memory)
	}
	key, err := OpenClusterKey(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	if err := p.openSecurity(key); err != nil {
		return nil, err
	}
	p.policy = access.NewPolicy(access.Options{
		Hosts: append(p.security.outsideNames(), append(slices.Clip(cfg.Hosts), cfg.Listen, p.advertised)...), Insecure: cfg.Insecure, Member: p.isMember, Accepts: p.accepts,
		Current: p.isCurrent, CatchUp: func(ctx context.Context) error { return p.catchUp(ctx) }, Outside: p.security.outsideClients(),
	})
	if err := p.openLog(ctx); err != nil {
		return nil, err
	}
	if cfg.Socket != "" { // the log is locked, so no other process listens there
		if l, err := transport.ListenUnix(ctx, cfg.Socket); err == nil {
			p.listeners = append(p.listeners, l)
		} else {
			cfg.Logger.WarnContext(ctx, "no unix socket; clients use the listen address", "error", err)
		}
	}
	p.Node = New(Config{
		Log: p.replica, Spool: cfg.Spool, Cluster: cfg.ClusterName, Version: cfg.Version, Builtins: cfg.Builtins, Logger: cfg.Logger, Key: key,
		Reserved: append(slices.Clip(cfg.Reserved),
			plan.Reserved{What: fmt.Sprintf("the data directory of leader %d", p.replica.ID()), Dir: cfg.DataDir},
			plan.Reserved{What: "the spool of the cluster", Dir: cfg.Spool}),
		AuditFile: cfg.AuditFile, Idle: cfg.Idle, Growing: cfg.Growing, Slots: cfg.Slots, OnAccess: p.onAccess, Dial: p.Dial, Pin: p.pin,
		Peers: p.transport, InviteLeader: p.transport.Invite, InviteWorker: p.inviteWorker, IdleWorkers: p.foundWorkers, Workers: cfg.Workers,
	})
	return p, nil
}

// ID returns the number of the node.
func (p *Process) ID() uint64 { return p.replica.ID() }

// Advertised returns the host:port that is announced to others.
func (p *Process) Advertised() string { return p.advertised }

// isMember reports whether the leader with a data directory is a member of the cluster.
func (p *Process) isMember(directory string) bool {
	return slices.ContainsFunc(p.replica.Members().List, func(m replica.Member) bool { return m.Directory == directory })
}

// isCurrent reports whether the access tables are as new as what was committed when the node started, and complete: those of a new cluster get their first
// entries before the authority.
func (p *Process) isCurrent() bool {
	return p.ready.current.Load() && (p.security == nil || len(p.Access().Authorities()) > 0)
}

// Policy returns the access policy of the port.
func (p *Process) Policy() *access.Policy { return p.policy }

// Address returns the listen address. The process must have one.
func (p *Process) Address() *net.TCPAddr {
	addr, ok := p.listeners[0].Addr().(*net.TCPAddr)
	if !ok {
		panic("the process has no TCP port")
	}
	return addr
}

// Close frees what Open opened, if Run is not called.
func (p *Process) Close() error { return errors.Join(closeAll(p.listeners), p.replica.Close()) }

// spareProcs are Go processors beyond the CPUs. While every processor runs a goroutine, the runtime polls the network only every
// 10 ms; a spare one handles input at once although the goroutine of Run, or a built-in job in the same process, keeps the CPUs
// busy.
const spareProcs = 2

// Run runs the node until ctx is done, which returns nil, or until one of its parts fails.
func (p *Process) Run(ctx context.Context) error {
	if os.Getenv("GOMAXPROCS") == "" {
		procs := runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(procs + spareProcs)
		defer runtime.GOMAXPROCS(procs)
	}
	// The parts end in this order: pending requests, the node, the port, the links to other nodes, the log.
	// None is stopped by ctx itself: a node that has stopped leading could not hand leadership over.
	logging, stopLogging := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLogging()
	leading, stopLeading := context.WithCancelCause(logging)
	defer stopLeading(nil)
	talking, stopTalking := context.WithCancel(logging)
	defer stopTalking()

	split := newSplitter(p.listeners, transport.NewConnLimits(), p.cfg.Logger)
	split.tls, split.insecure = p.security.portTLS(), p.cfg.Insecure
	workers := wire.NewServer(append(p.policy.ServerOptions(),
		grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(8<<20),
		// Workers and leaders always have a call open.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute, Time: 10 * time.Second, Timeout: 10 * time.Second}),
	)...)
	p.Register(workers)
	p.transport.Register(workers)
	clients, freeClients := p.cfg.HTTP(leading, p)
	watch(clients, untilBegun{p.Begun(), clients.Handler})

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
		parts.Go(func() { p.announce(leading) })
	}
	parts.Go(func() { p.keepCertified(leading) })
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
	stopClients(ctx, clients)
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

// stopClients lets requests finish, and cuts the others.
func stopClients(ctx context.Context, s *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		_ = s.Close()
	}
}

// stopServer lets short calls finish, such as the invitation of this node, and cuts the others.
func stopServer(s *grpc.Server) {
	const grace = 200 * time.Millisecond
	cut := time.AfterFunc(grace, s.Stop)
	defer cut.Stop()
	s.GracefulStop()
}

// handOver transfers leadership to another node, if there is one, so that no election is needed.
func (p *Process) handOver(ctx context.Context) {
	const handOverMax = 2 * time.Second // after that, the others elect one
	if len(p.replica.Members().List) < 2 || !p.ready.leading() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverMax)
	defer cancel()
	if err := p.replica.TransferLeadership(ctx); err != nil {
		p.cfg.Logger.WarnContext(ctx, "leadership not handed over; the others will elect a leader", "error", err)
		return
	}
	p.cfg.Logger.InfoContext(ctx, "leadership handed over")
}

// InvitedError ends a node that accepted an invitation to another cluster.
type InvitedError struct{ Leaders []string }

func (e *InvitedError) Error() string {
	return "invited by the leaders " + strings.Join(e.Leaders, ", ")
}

// fresh reports whether the cluster of this node was never used, so that nothing is lost if it is discarded.
func (p *Process) fresh() bool {
	jobs, err := p.Jobs(api.JobQuery{Limit: 1})
	c := p.Cluster()
	return p.cfg.Invitable && len(p.replica.Members().List) == 1 && err == nil && len(jobs.Jobs) == 0 && c.Workers+c.Dead == 0
}

// onInvite accepts an invitation: the node leaves its cluster once it is answered.
func (p *Process) onInvite(req peer.InviteRequest) error {
	select {
	case p.invited <- req.Leaders:
		return nil
	default:
		return errors.New("it has accepted another invitation")
	}
}

var errNodeEnds = errors.New("the leader is shutting down")

// ignore returns err unless it is one of the expected ones.
func ignore(err error, expected ...error) error {
	for _, e := range expected {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
