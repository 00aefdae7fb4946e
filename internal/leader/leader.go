package leader

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
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

// Leader is the driver of a node: the goroutine of Run owns the clock, the workers' streams, the log and the state, feeds
// the node and carries out its effects, whether it leads or follows. Everything else reaches the state through it, or reads
// the views it publishes.
type Leader struct {
	wire.UnimplementedLeaderServer
	cfg     Config
	log     *slog.Logger
	born    time.Time
	views   *views
	inputs  chan message
	queries chan func()
	begun   chan struct{} // see Begun
	stopped chan struct{} // closed when Run returns
	// changes tells of a change in who leads, who the members are, or whether writes are accepted.
	changes *news
	members atomic.Pointer[replica.Members]

	lastSession atomic.Uint64
	lastRequest atomic.Uint64
	leading     atomic.Bool
	waiting     atomic.Int64 // who waits for a position of the log
	// notReady is why a node that leads refuses writes, if it does.
	notReady atomic.Pointer[string]

	mu      sync.Mutex
	fetches map[uint64]*logFetch // by request number

	loop loop
}

// loop is what only the goroutine of Run touches.
type loop struct {
	node    *Node
	streams map[SessionID]*stream
	asked   asked
	stuck   [][]byte // entries that the log had no room for, oldest first
	saving  bool     // a snapshot is being written
	saved   chan error
	helpers sync.WaitGroup           // goroutines that act for the loop
	stale   map[state.JobID]struct{} // jobs whose views are old
	// reached is a position up to which all news of the log was taken in. The state's own may be lower: raft has entries
	// of its own.
	reached  uint64
	rendered time.Time
	looked   time.Time // at who the members are
	leader   uint64    // at that time
	begun    bool      // Leader.begun is closed
	urgent   bool      // somebody waits for the views
	target   uint64    // position at which a follower begins
	shadow   *shadow   // what the leader has told; nil while none has, and on the leader
	told     told      // what this node, leading, tells the others
}

// message is an input for the core.
type message struct {
	in     Input
	stream *stream        // of a Hello
	answer chan<- outcome // of an Ask; there is room for it
}

// New returns a leader over cfg.Log. Run must be called for anything to happen.
func New(cfg Config) *Leader {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	l := &Leader{
		cfg: cfg, log: cfg.Logger, born: time.Now(), views: newViews(), inputs: make(chan message, 1024), queries: make(chan func()),
		begun: make(chan struct{}), stopped: make(chan struct{}), changes: newNews(), fetches: map[uint64]*logFetch{},
		loop: loop{
			node:    NewNode(NodeConfig{Cluster: cfg.Cluster, Seed: rand.Uint64}),
			streams: map[SessionID]*stream{}, asked: newAsked(), saved: make(chan error, 1), stale: map[state.JobID]struct{}{},
		},
	}
	members := cfg.Log.Members()
	l.members.Store(&members)
	l.loop.node.SetMembers(members)
	l.setNotReady("the leader is starting")
	return l
}

// Register adds the leader's service for workers, and for other leaders, to a gRPC server.
func (l *Leader) Register(s grpc.ServiceRegistrar) { wire.RegisterLeaderServer(s, l) }

// Run leads, or follows, until ctx is done or the log is lost. It returns nil for the former.
func (l *Leader) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer close(l.stopped)
	defer l.endTerm("the leader is shutting down")
	defer l.loop.helpers.Wait()
	defer cancel()
	defer l.waitSnapshot()
	l.loop.helpers.Go(l.sweepSpool)
	l.loop.helpers.Go(func() { l.follow(ctx) })
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-l.cfg.Log.Events():
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("the log has closed")
			}
			err = l.logEvent(ctx, e)
		case m := <-l.inputs:
			l.take(m)
		case query := <-l.queries:
			query()
		case err = <-l.loop.saved:
			l.snapshotSaved(err)
			err = nil
		case <-timer.C:
		}
		if err == nil {
			err = l.drain(ctx)
		}
		if err == nil {
			err = l.step(ctx, timer)
		}
		if err != nil {
			return err
		}
	}
}

// batchMax bounds how much is taken in before a step.
const batchMax = 64

// drain takes in what else has come, so that one step, and one log entry, serves it all.
func (l *Leader) drain(ctx context.Context) error {
	applied := l.cfg.Log.Status().Applied // all news of the log up to there is in the channel by now, or was taken
	for range batchMax {
		select {
		case e, ok := <-l.cfg.Log.Events():
			if !ok {
				return nil // seen again, and acted on, by Run
			}
			if err := l.logEvent(ctx, e); err != nil {
				return err
			}
		case m := <-l.inputs:
			l.take(m)
		default:
			l.loop.reached = max(l.loop.reached, applied)
			return nil
		}
	}
	return nil
}

func (l *Leader) take(m message) {
	if !l.loop.node.Take(m.in) {
		if m.stream != nil {
			m.stream.close(Close{Reason: notLeading})
		}
		if m.answer != nil {
			m.answer <- outcome{fate: notDone}
		}
		return
	}
	switch in := m.in.(type) {
	case Ask:
		l.loop.asked.add(in.Key, m.answer)
	case Hello:
		l.loop.streams[in.Session] = m.stream
	case Closed:
		delete(l.loop.streams, in.Session)
	case FetchLog:
		l.expectLogs(in.Request.GetRequest())
	}
}

// step lets the node act, and carries out its effects.
func (l *Leader) step(ctx context.Context, timer *time.Timer) error {
	now := time.Now()
	effects, err := l.loop.node.Step(now)
	if err != nil {
		return err
	}
	l.loop.stuck = append(l.loop.stuck, effects.Propose...)
	l.propose(ctx)
	for _, dir := range effects.Spools { // before new leases of the same job go out
		l.removeSpool(dir)
	}
	for _, s := range effects.Send {
		if st := l.loop.streams[s.Session]; st != nil {
			st.send(s.Message)
			if s.Message.GetWelcome() != nil {
				l.askForLogs(st)
			}
		}
	}
	for _, c := range effects.Close {
		if st := l.loop.streams[c.Session]; st != nil {
			l.log.WarnContext(ctx, "worker session ended by the leader", "reason", c.Reason, "refused", c.Refused)
			st.close(c)
		}
	}
	if l.leading.Load() { // the others have the same facts: one of them tells
		for i := range effects.Facts {
			l.logFact(&effects.Facts[i])
		}
	}
	for _, id := range effects.Changed {
		l.loop.stale[id] = struct{}{}
	}
	l.views.forget(effects.Forgotten)
	l.loop.urgent = l.loop.urgent || len(effects.Replies) > 0 || len(effects.Facts) > 0
	l.lookAround(now)
	l.render(now)
	l.beginIfKnown(now)
	for i := range effects.Replies {
		l.loop.asked.reply(&effects.Replies[i])
	}
	l.loop.asked.reached(l.index())
	wake := effects.Wake
	if len(l.loop.stale) > 0 {
		wake = earlier(wake, l.loop.rendered.Add(renderEvery))
	}
	if l.waiting.Load() > 0 || l.loop.asked.until != 0 { // entries of raft's own come without any news
		wake = earlier(wake, now.Add(renderEvery))
	}
	timer.Reset(max(0, wake.Sub(now)))
	return nil
}

// index is the log position that the state reflects.
func (l *Leader) index() uint64 { return max(l.loop.node.Machine().Index(), l.loop.reached) }

// propose hands entries to the log in order. Where the log is full they wait, writes are refused, and each step tries again.
// Where this node leads no more, the role event will end the term.
func (l *Leader) propose(ctx context.Context) {
	for len(l.loop.stuck) > 0 {
		err := l.cfg.Log.Propose(ctx, l.loop.stuck[0])
		switch {
		case errors.Is(err, replica.ErrLogFull):
			l.logFull(err)
			return
		case err != nil && ctx.Err() != nil:
			return // shutting down
		case err != nil:
			l.log.DebugContext(ctx, "entry not accepted by the log", "error", err)
			return
		}
		l.loop.stuck[0] = nil
		l.loop.stuck = l.loop.stuck[1:]
	}
}

// logEvent takes in news of the log.
func (l *Leader) logEvent(ctx context.Context, e replica.Event) error {
	if err := l.loop.node.Log(time.Now(), e); err != nil {
		return err
	}
	if e.Snapshot != nil {
		l.loop.urgent = true
	}
	switch {
	case e.LogFull != nil && l.leading.Load():
		l.logFull(e.LogFull)
	case e.LogRoom && l.leading.Load():
		l.setReady()
	}
	if e.Role != nil {
		l.role(ctx, e.Role)
	}
	if e.WantSnapshot && !l.loop.saving {
		l.saveSnapshot()
	}
	return nil
}

// role begins or ends a term as leader, as the node has it.
func (l *Leader) role(ctx context.Context, r *replica.Role) {
	if l.leading.Load() { // nothing of one term may reach the core of the next
		l.endTerm("this node no longer leads")
		l.settleAsked(ctx)
	}
	l.loop.urgent = true
	if r.Leader {
		l.loop.asked.fail(notDone) // what an earlier term has put into the log is applied by now
		l.loop.shadow = nil
		if err := l.cfg.Log.Status().LogFull; err != nil {
			l.logFull(err)
		} else {
			l.setReady()
		}
		l.leading.Store(true)
		m := l.loop.node.Machine()
		l.log.InfoContext(ctx, "leading", "term", r.Term, "index", m.Index(), "jobs", m.Len())
	}
	switch {
	case r.Leader: // said above
	case r.LeaderID == 0:
		l.log.InfoContext(ctx, "no leader is known", "term", r.Term)
	default:
		l.log.InfoContext(ctx, "following", "term", r.Term, "leader", r.LeaderID)
	}
	l.changes.tell()
}

// endTerm ends what belongs to a term: streams, and what was not proposed.
func (l *Leader) endTerm(why string) {
	l.leading.Store(false)
	l.setNotReady(why)
	l.loop.stuck, l.loop.told = nil, told{}
	for id, st := range l.loop.streams {
		st.close(Close{Reason: why})
		delete(l.loop.streams, id)
	}
}

// Begun is closed when this node's views show what the log held when it came up, and it leads or knows who does: before
// that it would deny jobs that it will know in a moment. A node that hears of no leader begins after a while all the same.
func (l *Leader) Begun() <-chan struct{} { return l.begun }

// lonely is how long a node that hears of no leader keeps its readers waiting.
const lonely = 2 * time.Second

// beginIfKnown closes begun when it is time. Called after the views were published.
func (l *Leader) beginIfKnown(now time.Time) {
	if l.loop.begun {
		return
	}
	status := l.cfg.Log.Status()
	if l.loop.target == 0 && status.LeaderID != 0 {
		l.loop.target = status.Committed
	}
	follows := !status.Leader && status.LeaderID != 0 && l.views.index.Load() >= l.loop.target
	if l.leading.Load() || follows || now.Sub(l.born) > lonely && l.views.index.Load() >= status.Committed {
		l.loop.begun = true
		close(l.begun)
		l.changes.tell()
	}
}

// saveSnapshot writes the state out beside the loop.
func (l *Leader) saveSnapshot() {
	l.loop.saving = true
	snapshot := l.loop.node.Machine().Snapshot()
	go func() { // snapshotSaved takes its word, waitSnapshot at the latest
		l.loop.saved <- l.cfg.Log.SaveSnapshot(snapshot.Index(), func(w io.Writer) error {
			_, err := snapshot.WriteTo(w)
			return err
		})
	}()
}

func (l *Leader) snapshotSaved(err error) {
	l.loop.saving = false
	if err != nil {
		l.log.Warn("snapshot not saved; the log keeps growing until one is", "error", err)
	}
}

func (l *Leader) waitSnapshot() {
	if l.loop.saving {
		l.snapshotSaved(<-l.loop.saved)
	}
}

// setNotReady has writes refused; changed says that they were accepted, or refused for another reason.
func (l *Leader) setNotReady(why string) (changed bool) {
	old := l.notReady.Swap(&why)
	return old == nil || *old != why
}

func (l *Leader) logFull(err error) {
	if l.setNotReady(err.Error()) {
		l.log.Warn("not accepting writes", "error", err)
	}
}

func (l *Leader) setReady() {
	if l.notReady.Swap(nil) != nil {
		l.log.Info("accepting writes")
		l.changes.tell()
	}
}

func (l *Leader) logFact(e *state.Event) {
	switch e.Kind {
	case state.JobSubmitted:
		l.log.Info("job submitted", "job", e.Job)
	case state.StageStarted:
		l.log.Info("stage started", "job", e.Job, "stage", e.Stage)
	case state.JobEnded:
		if job := l.loop.node.Machine().Job(e.Job); job != nil {
			l.log.Info("job status changed", "job", e.Job, "status", job.Status.String(), "error", job.Error)
		}
	case state.TaskDied:
		l.log.Warn("task is dead", "job", e.Job, "stage", e.Stage, "task", e.Task, "worker", e.Worker, "kind", e.Fault.String())
	case state.WorkerJoined:
		l.log.Info("worker registered", "worker", e.Worker)
	case state.WorkerChanged:
		status := "removed"
		if w := l.loop.node.Machine().Worker(e.Worker); w != nil {
			status = w.Status.String()
		}
		l.log.Info("worker status changed", "worker", e.Worker, "status", status)
	case state.JobEnding, state.TaskReopened, state.JobForgotten, state.RequestApplied:
	}
}
