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
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/view"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Log is what a leader needs of the replicated log; *replica.Replica is one.
type Log interface {
	Events() <-chan replica.Event
	Propose(ctx context.Context, data []byte) error
	SaveSnapshot(index uint64, write func(io.Writer) error) error
	Status() replica.Status
	// ReadIndex returns a position that has all that was acknowledged before the call.
	ReadIndex(ctx context.Context) (uint64, error)
	Members() replica.Members
	RemoveMember(ctx context.Context, id uint64, force bool) error
}

// Peers are the other leaders; *peer.Transport is one.
type Peers interface {
	// Behind returns the leaders that are not connected, or cannot read a feature level.
	Behind(level uint32) []uint64
	// SetLevel has leaders refused that cannot read the cluster's feature level. Needs is the version that can.
	SetLevel(level uint32, needs string)
}

// Config sets a leader up.
type Config struct {
	Log      Log
	Spool    string         // folder for the outputs of jobs that name none; workers must reach it under the same path
	Cluster  string         // name of the cluster
	Version  string         // of the program
	Builtins []plan.Builtin // the built-in jobs
	Stores   blob.Stores    // hold inputs and outputs
	Logger   *slog.Logger

	// Dial reaches another leader. Defaults to TCP.
	Dial peer.Dialer
	// Peers is nil where there are no other leaders.
	Peers Peers
	// InviteLeader asks the fresh leader at an address to join; InviteWorker asks an idle worker. They return when it has
	// agreed. Nil: nobody can be invited.
	InviteLeader func(ctx context.Context, address string) error
	InviteWorker func(ctx context.Context, address string) error
	// IdleWorkers are the workers on the network that wait to be invited. It answers from memory. Nil: none is known.
	IdleWorkers func() []api.Worker
}

// Node is the driver: the goroutine of Run owns the clock, the workers' streams, the log and the state, feeds
// the node and carries out its effects, whether it leads or follows. Everything else reaches the state through it, or reads
// the views it publishes.
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
	members atomic.Pointer[replica.Members]
	// received is the volatile state that the leader has sent; nil while none has, and on the leader. Run stores it.
	received atomic.Pointer[shadow]

	lastSession atomic.Uint64
	observer    *observer
	loop        loop
}

// loop is what only the goroutine of Run touches.
type loop struct {
	controller *leader.Controller
	streams    map[leader.SessionID]*stream
	requests   requests
	stuck      [][]byte // entries that the log had no room for, oldest first
	saving     bool     // a snapshot is being written
	saved      chan error
	helpers    sync.WaitGroup // goroutines that act for the loop
	// reached is a position up to which all news of the log was taken in. The state's own may be lower: raft has entries
	// of its own.
	reached   uint64
	looked    time.Time // at who the members are
	leader    uint64    // at that time
	level     uint32    // the feature level at that time
	target    uint64    // position at which a follower begins
	publisher *view.Publisher
	told      told // what this node, leading, tells the others
	timer     *time.Timer
}

// message is an input for the core.
type message struct {
	in     leader.Input
	stream *stream        // of a Hello
	answer chan<- outcome // of a Command; there is room for it
}

// New returns a leader over cfg.Log. Run must be called for anything to happen.
func New(cfg Config) *Node {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, views: view.NewViews(), inputs: make(chan message, 1024), queries: make(chan func()),
		stopped: make(chan struct{}), ready: newReadiness(), observer: newObserver(cfg.Logger), fetches: logFetches{byRequest: map[uint64]*logFetch{}},
		loop: loop{
			controller: leader.NewController(leader.ControllerConfig{Cluster: cfg.Cluster, Seed: rand.Uint64}),
			streams:    map[leader.SessionID]*stream{}, requests: newRequests(), saved: make(chan error, 1),
		},
	}
	n.Reader = view.NewReader(n.views, n, cfg.Stores, cfg.Spool)
	n.loop.publisher = view.NewPublisher(n.views, api.Cluster{Name: cfg.Cluster, Version: cfg.Version, Spool: cfg.Spool})
	members := cfg.Log.Members()
	n.members.Store(&members)
	n.loop.controller.SetMembers(Members(members))
	return n
}

// Register adds the leader's service for workers, and for other leaders, to a gRPC server.
func (n *Node) Register(s grpc.ServiceRegistrar) { wire.RegisterLeaderServer(s, n) }

// Run leads, or follows, until ctx is done or the log is lost. It returns nil for the former.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer n.end()
	defer n.loop.helpers.Wait()
	defer cancel()
	defer n.waitSnapshot()
	n.loop.helpers.Go(func() { n.sweepSpool(ctx) })
	n.loop.helpers.Go(func() { n.receiveVolatile(ctx) })
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

// serve feeds the controller and carries out its effects. It returns nil when ctx is done, or when this node has begun or ceased
// to lead.
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

// end answers all who wait for the node.
func (n *Node) end() {
	close(n.stopped)
	n.ready.changed.Close(n.stopping())
	n.views.Changed().Close(n.stopping())
}

// batchMax bounds how much is taken in before a step.
const batchMax = 64

// await waits until something happens or the next step is due, and takes in what else has happened by then, so that one step,
// and one log entry, serves it all. It reports when this node has begun or ceased to lead: what comes later belongs to
// another term.
func (n *Node) await(ctx context.Context) (turned bool, err error) {
	select {
	case <-ctx.Done():
		return false, nil
	case e, ok := <-n.cfg.Log.Events():
		switch {
		case ok:
			turned, err = n.logEvent(ctx, e)
		case ctx.Err() == nil:
			err = errors.New("the log has closed")
		}
	case m := <-n.inputs:
		n.take(m)
	case query := <-n.queries:
		query()
	case err := <-n.loop.saved:
		n.snapshotSaved(err)
	case <-n.loop.timer.C:
	}
	applied := n.cfg.Log.Status().Applied // all news of the log up to there is in the channel by now, or was taken
	for range batchMax {
		if turned || err != nil {
			break
		}
		select {
		case e, ok := <-n.cfg.Log.Events():
			if !ok {
				return false, nil // seen again at the next call
			}
			turned, err = n.logEvent(ctx, e)
		case m := <-n.inputs:
			n.take(m)
		default:
			n.loop.reached = max(n.loop.reached, applied)
			return false, nil
		}
	}
	return turned, err
}

func (n *Node) take(m message) {
	if !n.loop.controller.Handle(m.in) {
		if m.stream != nil {
			m.stream.close(leader.Close{Reason: notLeading})
		}
		if m.answer != nil {
			m.answer <- outcome{fate: notDone}
		}
		return
	}
	n.observer.input(m.in)
	switch in := m.in.(type) {
	case leader.Command:
		n.loop.requests.add(in.Key, m.answer)
	case leader.Hello:
		n.loop.streams[in.Session] = m.stream
	case leader.Closed:
		delete(n.loop.streams, in.Session)
	case leader.FetchLog:
		n.expectLogs(in.Request.GetRequest())
	}
}

// step lets the node act, and carries out its effects.
func (n *Node) step(ctx context.Context) error {
	now := time.Now()
	effects, err := n.loop.controller.Step(now)
	if err != nil {
		return err
	}
	n.loop.stuck = append(n.loop.stuck, effects.Propose...)
	n.propose(ctx)
	for _, dir := range effects.Spools { // before new leases of the same job go out
		n.removeSpool(dir)
	}
	for _, s := range effects.Send {
		if st := n.loop.streams[s.Session]; st != nil {
			st.send(s.Message)
			if s.Message.GetWelcome() != nil {
				n.askForLogs(st)
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
		n.observer.effects(n.loop.controller.Machine(), effects)
	}
	for _, id := range effects.Changed {
		n.loop.publisher.Invalidate(id)
	}
	n.loop.publisher.Forget(effects.Forgotten)
	if len(effects.Replies) > 0 || len(effects.Facts) > 0 {
		n.loop.publisher.Hurry()
	}
	n.lookAround(now)
	n.loop.publisher.Publish(now, n.index(), n.loop.controller.Machine(), n.volatile())
	n.beginIfCaughtUp(now)
	for i := range effects.Replies {
		n.loop.requests.reply(&effects.Replies[i])
	}
	n.loop.requests.reached(n.index())
	wake := effects.Wake
	if due := n.loop.publisher.Due(now); !due.IsZero() {
		wake = earlier(wake, due)
	}
	if n.loop.requests.until != 0 { // raft's own entries come without an event
		wake = earlier(wake, now.Add(settleEvery))
	}
	n.loop.timer.Reset(max(0, wake.Sub(now)))
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// index is the log position that the state reflects.
func (n *Node) index() uint64 { return max(n.loop.controller.Machine().Index(), n.loop.reached) }

// propose hands entries to the log in order. Where the log is full they wait, writes are refused, and each step tries again.
// Where this node leads no more, the role event will end the term.
func (n *Node) propose(ctx context.Context) {
	for len(n.loop.stuck) > 0 {
		err := n.cfg.Log.Propose(ctx, n.loop.stuck[0])
		switch {
		case errors.Is(err, replica.ErrLogFull):
			n.refuseWrites(ctx, err)
			return
		case err != nil && ctx.Err() != nil:
			return // shutting down
		case err != nil:
			n.log.DebugContext(ctx, "entry not accepted by the log", "error", err)
			return
		}
		n.observer.proposal(time.Now())
		n.loop.stuck[0] = nil
		n.loop.stuck = n.loop.stuck[1:]
	}
}

// HandleLog brings an event of the log to the controller. The simulator does it in the same way.
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

// Members is what the controller knows of the members.
func Members(m replica.Members) leader.Members {
	return leader.Members{ClusterID: m.Cluster, Former: m.Former, Addresses: m.Addresses()}
}

// logEvent takes in an event of the log, and reports when this node has begun or ceased to lead.
func (n *Node) logEvent(ctx context.Context, e replica.Event) (turned bool, err error) {
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

// saveSnapshot writes the state out beside the loop.
func (n *Node) saveSnapshot() {
	n.loop.saving = true
	snapshot := n.loop.controller.Machine().Snapshot()
	go func() { // snapshotSaved takes its word, waitSnapshot at the latest
		n.loop.saved <- n.cfg.Log.SaveSnapshot(snapshot.Index(), func(w io.Writer) error {
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
