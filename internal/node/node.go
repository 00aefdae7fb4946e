package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/view"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Log is the replicated log; *replica.Replica implements it.
type Log interface {
	Events() <-chan replica.Event
	Propose(ctx context.Context, data []byte) error
	SaveSnapshot(index uint64, write func(io.Writer) error) error
	Status() replica.Status
	// Usage returns the space of the log, without a wait for the disk.
	Usage() replica.Usage
	// ReadIndex returns a position that includes everything acknowledged before the call.
	ReadIndex(ctx context.Context) (uint64, error)
	Members() replica.Members
	RemoveMember(ctx context.Context, id uint64, force bool) error
}

// Peers are the other nodes; *peer.Transport implements it.
type Peers interface {
	// Behind returns the leaders that are not connected, or cannot read a feature level.
	Behind(level uint32) []uint64
	// SetLevel makes the transport refuse nodes that cannot read the cluster's feature level. Needs is the version that can.
	SetLevel(level uint32, needs string)
}

// Config configures a node.
type Config struct {
	Log      Log
	Spool    string // folder for the outputs of jobs without --output; workers must reach it under the same path
	Cluster  string // name of the cluster
	Version  string // of the binary
	Builtins []plan.Builtin
	Stores   blob.Stores     // hold inputs and outputs
	Reserved []plan.Reserved // folders apart from which outputs must lie
	Logger   *slog.Logger
	// Key seals secrets of jobs. Defaults to one in memory.
	Key *ClusterKey

	AuditFile string // see ProcessConfig
	Idle      bool   // see ProcessConfig
	Growing   bool   // see ProcessConfig
	Slots     int    // see ProcessConfig

	// Dial connects to other nodes. Defaults to TCP.
	Dial peer.Dialer
	// Peers is nil if there are no other nodes.
	Peers Peers
	// InviteLeader invites the fresh node at an address, InviteWorker an idle worker. They return when it has agreed. Nil:
	// invitations are not possible.
	InviteLeader func(ctx context.Context, address string) error
	InviteWorker func(ctx context.Context, address string, id *uint64) error
	// Workers are those of a new cluster that have ids of their own: they are invited.
	Workers []ExpectedWorker
	// Pin returns the pin of the cluster's certificate authority; nil, or a nil Pin: connections are not encrypted.
	Pin func() *transport.Pin
	// OnAccess is called with the access tables when they have changed, before that is acknowledged. It must be quick. Nil: nothing is.
	OnAccess func(*state.Access)
	// IdleWorkers returns the workers on the network that wait for an invitation, from memory. Nil: none is known.
	IdleWorkers func() []api.Worker
}

// Node is the driver. The goroutine of Run owns the clock, the log, the state and the sessions: it feeds the controller and carries out
// its effects. Other goroutines send it messages and queries, or read the views that it publishes.
type Node struct {
	wire.UnimplementedLeaderServer
	*view.Reader
	cfg     Config
	log     *slog.Logger
	views   *view.Views
	inputs  chan message
	queries chan func()
	stopped chan struct{} // closed when Run returns
	ready   *readiness
	fetches logFetches
	large   chan struct{} // turns of large submits: see largeTurn
	due     chan struct{} // turns of deferred inputs: see planDue
	submits *access.Rates[string]
	members atomic.Pointer[replica.Members]
	access  atomic.Pointer[state.Access]
	// received is the latest volatile state from the leader; nil before the first, and on the leader. Run stores it.
	received atomic.Pointer[volatileState]

	lastSession atomic.Uint64
	refusals    refusals
	seeded      bool // the workers of the configuration are in the log; keepInviting's
	observer    *observer
	loop        loop
}

// loop belongs to the goroutine of Run.
type loop struct {
	controller *leader.Controller
	streams    map[leader.SessionID]*stream
	requests   requests
	lockCalls  lockCalls
	unproposed [][]byte // entries that the log had no room for, oldest first
	saving     bool     // a snapshot is being written
	saved      chan error
	helpers    sync.WaitGroup // goroutines that act for the loop
	// delivered is a position up to which all events of the log were handled. The state's own may be lower: raft has entries
	// of its own.
	delivered uint64
	polled    polled
	beginAt   uint64 // position at which a follower may serve its views
	stalled   bool   // writes are refused because the log commits nothing
	publisher *view.Publisher
	sent      sentVolatile
	timer     *time.Timer
}

// message is an input for the core.
type message struct {
	in     leader.Input
	stream *stream        // of a Hello
	answer chan<- outcome // of a Command; there is room for it. Nil: nobody waits for it
}

// New returns a node over cfg.Log. Nothing happens until Run.
func New(cfg Config) *Node {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Key == nil {
		cfg.Key = &ClusterKey{}
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, views: view.NewViews(), inputs: make(chan message, 1024), queries: make(chan func()),
		stopped: make(chan struct{}), ready: newReadiness(), observer: newObserver(cfg.Logger), refusals: newRefusals(),
		large: make(chan struct{}, largeMax), due: make(chan struct{}, dueMax), submits: access.NewRates[string](submitRate, submitBurst), fetches: logFetches{byRequest: map[uint64]*logFetch{}},
		loop: loop{
			streams: map[leader.SessionID]*stream{}, requests: newRequests(), lockCalls: lockCalls{}, saved: make(chan error, 1),
		},
	}
	n.loop.controller = leader.NewController(leader.ControllerConfig{Cluster: cfg.Cluster, Seed: rand.Uint64, OpenSecret: n.openSecret, Idle: cfg.Idle})
	n.Reader = view.NewReader(n.views, n, cfg.Stores, cfg.Spool)
	n.loop.publisher = view.NewPublisher(n.views, api.Cluster{Name: cfg.Cluster, Version: cfg.Version, Spool: cfg.Spool})
	n.publishAccess()
	members := cfg.Log.Members()
	n.members.Store(&members)
	n.loop.controller.SetMembers(Members(members))
	return n
}

// Register adds the service for workers and for other nodes to a gRPC server.
func (n *Node) Register(s grpc.ServiceRegistrar) { wire.RegisterLeaderServer(s, n) }

// Run leads or follows until ctx is done, which returns nil, or the log fails.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer n.end()
	defer n.loop.helpers.Wait()
	defer cancel()
	defer n.waitSnapshot()
	if n.cfg.AuditFile != "" {
		audit, err := openAudit(n.cfg.AuditFile)
		if err != nil {
			return err
		}
		n.loop.helpers.Go(func() { n.writeAudit(ctx, audit) })
	}
	n.loop.helpers.Go(func() { n.sweepSpool(ctx) })
	n.loop.helpers.Go(func() { n.receiveVolatile(ctx) })
	if n.cfg.InviteWorker != nil {
		n.loop.helpers.Go(func() { n.keepInviting(ctx) })
	}
	n.loop.timer = time.NewTimer(0)
	defer n.loop.timer.Stop()
	for ctx.Err() == nil {
		term := n.serve
		if n.loop.controller.Leading() {
			term = n.lead
		}
		if err := term(ctx); err != nil {
			return err
		}
	}
	return nil
}

// serve feeds the controller and carries out its effects. It returns nil when ctx is done, or when this node was elected or deposed.
func (n *Node) serve(ctx context.Context) error {
	for {
		if err := n.step(ctx); err != nil {
			return err
		}
		if turned, err := n.await(ctx); turned || err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// end wakes all goroutines that wait for the node.
func (n *Node) end() {
	close(n.stopped)
	n.ready.changed.Close(n.stopping())
	n.views.Changed().Close(n.stopping())
}

// batchMax bounds how many messages are handled before a step.
const batchMax = 64

// await waits until something happens or the next step is due, and handles everything that has happened by then, so that it shares
// one step and one log entry. It returns early when this node was elected or deposed: later messages belong to another term.
func (n *Node) await(ctx context.Context) (turned bool, err error) {
	select {
	case <-ctx.Done():
		return false, nil
	case e, ok := <-n.cfg.Log.Events():
		switch {
		case ok:
			turned, err = n.handleLogEvent(ctx, e)
		case ctx.Err() == nil:
			err = errors.New("the log has closed")
		}
	case m := <-n.inputs:
		n.handle(m)
	case query := <-n.queries:
		query()
	case err := <-n.loop.saved:
		n.snapshotSaved(err)
	case <-n.loop.timer.C:
	}
	applied := n.cfg.Log.Status().Applied // the events up to there are in the channel by now, or handled
	for range batchMax {
		if turned || err != nil {
			break
		}
		select {
		case e, ok := <-n.cfg.Log.Events():
			if !ok {
				return false, nil // the next call returns the error
			}
			turned, err = n.handleLogEvent(ctx, e)
		case m := <-n.inputs:
			n.handle(m)
		default:
			n.loop.delivered = max(n.loop.delivered, applied)
			return false, nil
		}
	}
	return turned, err
}

func (n *Node) handle(m message) {
	if !n.loop.controller.Handle(m.in) {
		if m.stream != nil {
			m.stream.close(leader.Close{Reason: notLeading})
		}
		if m.answer != nil {
			m.answer <- outcome{err: errNotDone}
		}
		return
	}
	n.observer.input(m.in)
	switch in := m.in.(type) {
	case leader.Command:
		if m.answer != nil {
			n.loop.requests.add(in.Key, m.answer)
		}
	case leader.Hello:
		n.loop.streams[in.Session] = m.stream
	case leader.Closed:
		delete(n.loop.streams, in.Session)
	case leader.FetchLog:
		n.expectLogs(in.Request.GetRequest())
	}
}

// step steps the controller and carries out its effects.
func (n *Node) step(ctx context.Context) error {
	now := time.Now()
	effects, err := n.loop.controller.Step(now)
	if err != nil {
		return err
	}
	n.loop.unproposed = append(n.loop.unproposed, effects.Propose...)
	if err := n.propose(ctx); err != nil {
		return err
	}
	for _, id := range effects.Due {
		n.loop.helpers.Go(func() { n.planDue(ctx, id) })
	}
	for _, dir := range effects.Spools { // before new leases of the same job are sent
		n.removeSpool(dir)
	}
	for _, s := range effects.Send {
		if st := n.loop.streams[s.Session]; st != nil {
			st.send(s.Message)
			if s.Message.GetWelcome() != nil {
				n.requestLogs(st)
			}
		}
	}
	for _, c := range effects.Close {
		if st := n.loop.streams[c.Session]; st != nil {
			n.log.WarnContext(ctx, "worker session ended by the leader", "reason", c.Reason, "refused", c.Refused)
			st.close(c)
		}
	}
	if n.ready.leading() {
		n.observer.effects(now, n.loop.controller.Machine(), effects)
	}
	for _, id := range effects.Changed {
		n.loop.publisher.Invalidate(id)
	}
	n.loop.publisher.Forget(effects.Forgotten)
	if len(effects.Replies) > 0 || len(effects.Facts) > 0 {
		n.loop.publisher.Hurry()
	}
	n.publishAccess() // a reply says that it is in force
	n.poll(now)
	n.watchProgress(ctx, now)
	n.loop.publisher.Publish(now, n.index(), n.loop.controller.Machine(), n.volatile())
	n.beginIfCaughtUp(now)
	for i := range effects.Replies {
		n.loop.requests.reply(&effects.Replies[i])
	}
	n.loop.requests.reached(n.index())
	n.loop.lockCalls.wake(effects.Locks)
	wait := effects.Wake.Sub(now)
	if due := n.loop.publisher.Due(now); !due.IsZero() {
		wait = min(wait, due.Sub(now))
	}
	if n.loop.requests.until != 0 { // raft's own entries come without an event
		wait = min(wait, settleEvery)
	}
	n.loop.timer.Reset(max(0, wait))
	return nil
}

// index is the log position that the state reflects.
func (n *Node) index() uint64 { return max(n.loop.controller.Machine().Index(), n.loop.delivered) }

// propose proposes entries in order. While the log is full they wait, writes are refused, and each step tries again. If this node no
// longer leads, the role event will end the term. The core makes no entry that is too large: one ends the node, as other defects do, so that
// requests fail instead of waiting for it for ever.
func (n *Node) propose(ctx context.Context) error {
	for len(n.loop.unproposed) > 0 {
		err := n.cfg.Log.Propose(ctx, n.loop.unproposed[0])
		switch {
		case errors.Is(err, replica.ErrLogFull):
			n.refuseWrites(ctx, err)
			return nil
		case errors.Is(err, replica.ErrEntryTooLarge):
			return err
		case err != nil && ctx.Err() != nil:
			return nil //nolint:nilerr // shutting down
		case err != nil:
			n.log.DebugContext(ctx, "entry not accepted by the log", "error", err)
			return nil
		}
		n.observer.proposal(time.Now())
		n.loop.unproposed[0] = nil
		n.loop.unproposed = n.loop.unproposed[1:]
	}
	return nil
}

// HandleLog passes an event of the log to the controller. The simulator shares it.
func HandleLog(c *leader.Controller, now time.Time, e replica.Event) error {
	if e.Snapshot != nil {
		m, err := state.Restore(e.Snapshot)
		if cerr := e.Snapshot.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("snapshot at %d: %w", e.SnapshotIndex, err)
		}
		c.Restore(m)
	}
	for _, entry := range e.Entries {
		if err := c.Commit(leader.Committed{Index: entry.Index, Term: entry.Term, Data: entry.Data}); err != nil {
			return err
		}
	}
	if e.Role != nil {
		return c.SetRole(now, e.Role.Leader, e.Role.Term)
	}
	return nil
}

// Members converts the members for the controller.
func Members(m replica.Members) leader.Members {
	return leader.Members{ClusterID: m.Cluster, Former: m.Former, Addresses: m.Addresses()}
}

// handleLogEvent handles an event of the log, and reports whether this node was elected or deposed.
func (n *Node) handleLogEvent(ctx context.Context, e replica.Event) (turned bool, err error) {
	led, now := n.loop.controller.Leading(), time.Now()
	if err := HandleLog(n.loop.controller, now, e); err != nil {
		return false, err
	}
	if led {
		n.observer.committed(now, len(e.Entries))
	}
	if e.Snapshot != nil || e.Role != nil {
		n.loop.publisher.Hurry()
	}
	switch {
	case e.LogFull != nil && n.ready.leading():
		n.refuseWrites(ctx, e.LogFull)
	case e.LogRoom && n.ready.leading():
		n.acceptWrites()
	}
	if e.Role != nil {
		n.logRole(ctx, e.Role)
		n.ready.changed.Notify()
	}
	if e.WantSnapshot && !n.loop.saving {
		n.saveSnapshot()
	}
	return e.Role != nil && (led || e.Role.Leader), nil
}

// saveSnapshot writes the state in the background.
func (n *Node) saveSnapshot() {
	n.loop.saving = true
	// The state's own index is below that of the last snapshot while raft's own entries are all that followed.
	snapshot, index := n.loop.controller.Machine().Snapshot(), n.index()
	go func() { // ends before Run does: see waitSnapshot
		n.loop.saved <- n.cfg.Log.SaveSnapshot(index, func(w io.Writer) error {
			_, err := snapshot.WriteTo(w)
			return err
		})
	}()
}

func (n *Node) snapshotSaved(err error) {
	n.loop.saving = false
	if err != nil {
		n.log.Warn("snapshot not saved; the log keeps growing until one is", "error", err)
	}
}

func (n *Node) waitSnapshot() {
	if n.loop.saving {
		n.snapshotSaved(<-n.loop.saved)
	}
}
