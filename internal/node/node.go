package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
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

// Config sets a leader up.
type Config struct {
	Log      Log
	Spool    string         // folder for the outputs of jobs that name none; workers must reach it under the same path
	Cluster  string         // name of the cluster
	Version  string         // of the program
	Builtins []plan.Builtin // the built-in jobs
	Logger   *slog.Logger

	// Dial reaches another leader. Defaults to TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
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
	born    time.Time
	views   *view.Views
	inputs  chan message
	queries chan func()
	begun   chan struct{} // see Begun
	stopped chan struct{} // closed when Run returns
	// changes tells of a change in who leads, who the members are, or whether writes are accepted.
	changes *view.Broadcast
	members atomic.Pointer[replica.Members]
	// received is the volatile state that the leader has sent; nil while none has, and on the leader. Run stores it.
	received atomic.Pointer[shadow]

	lastSession atomic.Uint64
	lastRequest atomic.Uint64
	leading     atomic.Bool
	// notReady is why a node that leads refuses writes, if it does.
	notReady atomic.Pointer[string]

	mu      sync.Mutex
	fetches map[uint64]*logFetch // by request number

	loop loop
}

// loop is what only the goroutine of Run touches.
type loop struct {
	controller *leader.Controller
	streams    map[leader.SessionID]*stream
	asked      asked
	stuck      [][]byte // entries that the log had no room for, oldest first
	saving     bool     // a snapshot is being written
	saved      chan error
	helpers    sync.WaitGroup // goroutines that act for the loop
	// reached is a position up to which all news of the log was taken in. The state's own may be lower: raft has entries
	// of its own.
	reached   uint64
	looked    time.Time // at who the members are
	leader    uint64    // at that time
	begun     bool      // Leader.begun is closed
	target    uint64    // position at which a follower begins
	publisher *view.Publisher
	told      told // what this node, leading, tells the others
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
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, born: time.Now(), views: view.NewViews(), inputs: make(chan message, 1024), queries: make(chan func()),
		begun: make(chan struct{}), stopped: make(chan struct{}), changes: view.NewBroadcast(), fetches: map[uint64]*logFetch{},
		loop: loop{
			controller: leader.NewController(leader.ControllerConfig{Cluster: cfg.Cluster, Seed: rand.Uint64}),
			streams:    map[leader.SessionID]*stream{}, asked: newAsked(), saved: make(chan error, 1),
		},
	}
	n.Reader = view.NewReader(n.views, n, cfg.Spool)
	n.loop.publisher = view.NewPublisher(n.views, api.Cluster{Name: cfg.Cluster, Version: cfg.Version, Spool: cfg.Spool})
	members := cfg.Log.Members()
	n.members.Store(&members)
	n.loop.controller.SetMembers(Members(members))
	n.setNotReady("the leader is starting")
	return n
}

// Register adds the leader's service for workers, and for other leaders, to a gRPC server.
func (n *Node) Register(s grpc.ServiceRegistrar) { wire.RegisterLeaderServer(s, n) }

// Run leads, or follows, until ctx is done or the log is lost. It returns nil for the former.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer n.end()
	defer n.endTerm("the leader is shutting down")
	defer n.loop.helpers.Wait()
	defer cancel()
	defer n.waitSnapshot()
	n.loop.helpers.Go(n.sweepSpool)
	n.loop.helpers.Go(func() { n.follow(ctx) })
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-n.cfg.Log.Events():
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("the log has closed")
			}
			err = n.logEvent(ctx, e)
		case m := <-n.inputs:
			n.take(m)
		case query := <-n.queries:
			query()
		case err = <-n.loop.saved:
			n.snapshotSaved(err)
			err = nil
		case <-timer.C:
		}
		if err == nil {
			err = n.drain(ctx)
		}
		if err == nil {
			err = n.step(ctx, timer)
		}
		if err != nil {
			return err
		}
	}
}

// end answers all who wait for the node.
func (n *Node) end() {
	close(n.stopped)
	n.changes.Close(n.stopping())
	n.views.Changed().Close(n.stopping())
}

// batchMax bounds how much is taken in before a step.
const batchMax = 64

// drain takes in what else has come, so that one step, and one log entry, serves it all.
func (n *Node) drain(ctx context.Context) error {
	applied := n.cfg.Log.Status().Applied // all news of the log up to there is in the channel by now, or was taken
	for range batchMax {
		select {
		case e, ok := <-n.cfg.Log.Events():
			if !ok {
				return nil // seen again, and acted on, by Run
			}
			if err := n.logEvent(ctx, e); err != nil {
				return err
			}
		case m := <-n.inputs:
			n.take(m)
		default:
			n.loop.reached = max(n.loop.reached, applied)
			return nil
		}
	}
	return nil
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
	switch in := m.in.(type) {
	case leader.Command:
		n.loop.asked.add(in.Key, m.answer)
	case leader.Hello:
		n.loop.streams[in.Session] = m.stream
	case leader.Closed:
		delete(n.loop.streams, in.Session)
	case leader.FetchLog:
		n.expectLogs(in.Request.GetRequest())
	}
}

// step lets the node act, and carries out its effects.
func (n *Node) step(ctx context.Context, timer *time.Timer) error {
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
	if n.leading.Load() { // the others have the same facts: one of them tells
		for i := range effects.Facts {
			n.logFact(&effects.Facts[i])
		}
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
	n.beginIfKnown(now)
	for i := range effects.Replies {
		n.loop.asked.reply(&effects.Replies[i])
	}
	n.loop.asked.reached(n.index())
	wake := effects.Wake
	if due := n.loop.publisher.Due(now); !due.IsZero() {
		wake = earlier(wake, due)
	}
	if n.loop.asked.until != 0 { // raft's own entries come without an event
		wake = earlier(wake, now.Add(settleEvery))
	}
	timer.Reset(max(0, wake.Sub(now)))
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
			n.logFull(err)
			return
		case err != nil && ctx.Err() != nil:
			return // shutting down
		case err != nil:
			n.log.DebugContext(ctx, "entry not accepted by the log", "error", err)
			return
		}
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

// logEvent takes in news of the log.
func (n *Node) logEvent(ctx context.Context, e replica.Event) error {
	if err := HandleLog(n.loop.controller, time.Now(), e); err != nil {
		return err
	}
	if e.Snapshot != nil {
		n.loop.publisher.Hurry()
	}
	switch {
	case e.LogFull != nil && n.leading.Load():
		n.logFull(e.LogFull)
	case e.LogRoom && n.leading.Load():
		n.setReady()
	}
	if e.Role != nil {
		n.role(ctx, e.Role)
	}
	if e.WantSnapshot && !n.loop.saving {
		n.saveSnapshot()
	}
	return nil
}

// role begins or ends a term as leader, as the node has it.
func (n *Node) role(ctx context.Context, r *replica.Role) {
	if n.leading.Load() { // nothing of one term may reach the core of the next
		n.endTerm("this node no longer leads")
		n.settleAsked(ctx)
	}
	n.loop.publisher.Hurry()
	if r.Leader {
		n.loop.asked.fail(notDone) // what an earlier term has put into the log is applied by now
		n.received.Store(nil)
		if err := n.cfg.Log.Status().LogFull; err != nil {
			n.logFull(err)
		} else {
			n.setReady()
		}
		n.leading.Store(true)
		m := n.loop.controller.Machine()
		n.log.InfoContext(ctx, "leading", "term", r.Term, "index", m.Index(), "jobs", m.Len())
	}
	switch {
	case r.Leader: // said above
	case r.LeaderID == 0:
		n.log.InfoContext(ctx, "no leader is known", "term", r.Term)
	default:
		n.log.InfoContext(ctx, "following", "term", r.Term, "leader", r.LeaderID)
	}
	n.changes.Notify()
}

// endTerm ends what belongs to a term: streams, and what was not proposed.
func (n *Node) endTerm(why string) {
	n.leading.Store(false)
	n.setNotReady(why)
	n.loop.stuck, n.loop.told = nil, told{}
	for id, st := range n.loop.streams {
		st.close(leader.Close{Reason: why})
		delete(n.loop.streams, id)
	}
}

// Begun is closed when this node's views show what the log held when it came up, and it leads or knows who does: before
// that it would deny jobs that it will know in a moment. A node that hears of no leader begins after a while all the same.
func (n *Node) Begun() <-chan struct{} { return n.begun }

// lonely is how long a node that hears of no leader keeps its readers waiting.
const lonely = 2 * time.Second

// beginIfKnown closes begun when it is time. Called after the views were published.
func (n *Node) beginIfKnown(now time.Time) {
	if n.loop.begun {
		return
	}
	status := n.cfg.Log.Status()
	if n.loop.target == 0 && status.LeaderID != 0 {
		n.loop.target = status.Committed
	}
	follows := !status.Leader && status.LeaderID != 0 && n.views.Index() >= n.loop.target
	if n.leading.Load() || follows || now.Sub(n.born) > lonely && n.views.Index() >= status.Committed {
		n.loop.begun = true
		close(n.begun)
		n.changes.Notify()
	}
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

// setNotReady has writes refused; changed says that they were accepted, or refused for another reason.
func (n *Node) setNotReady(why string) (changed bool) {
	old := n.notReady.Swap(&why)
	return old == nil || *old != why
}

func (n *Node) logFull(err error) {
	if n.setNotReady(err.Error()) {
		n.log.Warn("not accepting writes", "error", err)
	}
}

func (n *Node) setReady() {
	if n.notReady.Swap(nil) != nil {
		n.log.Info("accepting writes")
		n.changes.Notify()
	}
}

func (n *Node) logFact(e *state.Event) {
	switch e.Kind {
	case state.JobSubmitted:
		n.log.Info("job submitted", "job", e.Job)
	case state.StageStarted:
		n.log.Info("stage started", "job", e.Job, "stage", e.Stage)
	case state.JobEnded:
		if job := n.loop.controller.Machine().Job(e.Job); job != nil {
			n.log.Info("job status changed", "job", e.Job, "status", job.Status.String(), "error", job.Error)
		}
	case state.TaskDied:
		n.log.Warn("task is dead", "job", e.Job, "stage", e.Stage, "task", e.Task, "worker", e.Worker, "kind", e.Fault.String())
	case state.WorkerJoined:
		n.log.Info("worker registered", "worker", e.Worker)
	case state.WorkerChanged:
		status := "removed"
		if w := n.loop.controller.Machine().Worker(e.Worker); w != nil {
			status = w.Status.String()
		}
		n.log.Info("worker status changed", "worker", e.Worker, "status", status)
	case state.JobEnding, state.StageEnded, state.TaskReopened, state.JobForgotten, state.RequestApplied:
	}
}
