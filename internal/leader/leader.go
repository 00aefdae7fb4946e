package leader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
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
}

// Config sets a leader up.
type Config struct {
	Log      Log
	Spool    string         // folder for the outputs of jobs that name none; workers must reach it under the same path
	Cluster  string         // name of the cluster
	Version  string         // of the program
	Builtins []plan.Builtin // the built-in jobs
	Logger   *slog.Logger
}

// Leader is the driver of the core: the goroutine of Run owns the clock, the workers' streams, the log and the state, feeds
// the core and carries out its effects. Everything else reaches the state through it, or reads the views it publishes.
type Leader struct {
	wire.UnimplementedLeaderServer
	cfg     Config
	log     *slog.Logger
	views   *views
	inputs  chan message
	queries chan func()
	begun   chan struct{} // see Begun
	stopped chan struct{} // closed when Run returns

	lastSession atomic.Uint64
	lastRequest atomic.Uint64
	leading     atomic.Bool
	// notReady is why writes are refused, if they are.
	notReady atomic.Pointer[string]

	mu      sync.Mutex
	fetches map[uint64]*logFetch // by request number

	loop loop
}

// loop is what only the goroutine of Run touches.
type loop struct {
	machine *state.Machine
	core    *Core // nil while this node does not lead
	term    uint64
	streams map[SessionID]*stream
	// waiting are those who have asked, by request key and in the order of the log: two who use one key get an answer each.
	waiting  map[string][]chan<- state.Event
	inputs   []Input
	result   state.Result
	stuck    [][]byte // entries that the log had no room for, oldest first
	saving   bool     // a snapshot is being written
	saved    chan error
	removals sync.WaitGroup           // of spool folders
	stale    map[state.JobID]struct{} // jobs whose views are old
	rendered time.Time
	begun    bool // Leader.begun is closed
	urgent   bool // somebody waits for the views
}

// message is an input for the core.
type message struct {
	in     Input
	stream *stream            // of a Hello
	answer chan<- state.Event // of an Ask; closed where there will be none
}

// New returns a leader over cfg.Log. Run must be called for anything to happen.
func New(cfg Config) *Leader {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Leader{
		cfg: cfg, log: cfg.Logger, views: newViews(), inputs: make(chan message, 1024), queries: make(chan func()),
		begun: make(chan struct{}), stopped: make(chan struct{}), fetches: map[uint64]*logFetch{},
		loop: loop{machine: state.New(), streams: map[SessionID]*stream{}, waiting: map[string][]chan<- state.Event{}, saved: make(chan error, 1), stale: map[state.JobID]struct{}{}},
	}
	l.setNotReady("the leader is starting")
	return l
}

// begin waits a moment for a node that is just starting, so that who comes early need not come again.
func (l *Leader) begin(ctx context.Context) {
	select {
	case <-l.begun:
		return
	default:
	}
	const patience = time.Second
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-l.begun:
	case <-ctx.Done():
	case <-l.stopped:
	case <-timer.C:
	}
}

// Register adds the leader's service for workers to a gRPC server.
func (l *Leader) Register(s grpc.ServiceRegistrar) { wire.RegisterLeaderServer(s, l) }

// Run leads, or follows, until ctx is done or the log is lost. It returns nil for the former.
func (l *Leader) Run(ctx context.Context) error {
	defer close(l.stopped)
	defer l.stepDown("the leader is shutting down")
	defer l.loop.removals.Wait()
	defer l.waitSnapshot()
	l.loop.removals.Go(l.sweepSpool)
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for {
		var err error
		l.loop.inputs = l.loop.inputs[:0]
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
			err = l.logEvent(e)
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
			err = l.drain()
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
func (l *Leader) drain() error {
	for range batchMax {
		select {
		case e, ok := <-l.cfg.Log.Events():
			if !ok {
				return nil // seen again, and acted on, by Run
			}
			if err := l.logEvent(e); err != nil {
				return err
			}
		case m := <-l.inputs:
			l.take(m)
		default:
			return nil
		}
	}
	return nil
}

func (l *Leader) take(m message) {
	if l.loop.core == nil {
		if m.stream != nil {
			m.stream.close(Close{Reason: "this node does not lead"})
		}
		if m.answer != nil {
			close(m.answer)
		}
		return
	}
	if a, ok := m.in.(Ask); ok {
		l.loop.waiting[a.Key] = append(l.loop.waiting[a.Key], m.answer)
	}
	if h, ok := m.in.(Hello); ok {
		l.loop.streams[h.Session] = m.stream
	}
	if c, ok := m.in.(Closed); ok {
		delete(l.loop.streams, c.Session)
	}
	if f, ok := m.in.(FetchLog); ok {
		l.expectLogs(f.Request.GetRequest())
	}
	l.loop.inputs = append(l.loop.inputs, m.in)
}

// step lets the core act, and carries out its effects.
func (l *Leader) step(ctx context.Context, timer *time.Timer) error {
	now := time.Now()
	if l.loop.core == nil {
		timer.Reset(tick)
		return nil
	}
	effects, err := l.loop.core.Step(now, l.loop.inputs...)
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
		}
	}
	for _, c := range effects.Close {
		if st := l.loop.streams[c.Session]; st != nil {
			l.log.WarnContext(ctx, "worker session ended by the leader", "reason", c.Reason, "refused", c.Refused)
			st.close(c)
		}
	}
	for i := range effects.Facts {
		l.logFact(&effects.Facts[i])
	}
	for _, id := range effects.Changed {
		l.loop.stale[id] = struct{}{}
	}
	l.views.forget(effects.Forgotten)
	l.loop.urgent = l.loop.urgent || len(effects.Replies) > 0 || len(effects.Facts) > 0
	l.render(now)
	if !l.loop.begun {
		l.loop.begun = true
		close(l.begun)
	}
	for i := range effects.Replies {
		l.reply(&effects.Replies[i])
	}
	wake := effects.Wake
	if len(l.loop.stale) > 0 {
		wake = earlier(wake, l.loop.rendered.Add(renderEvery))
	}
	timer.Reset(max(0, wake.Sub(now)))
	return nil
}

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
			l.log.WarnContext(ctx, "entry not accepted by the log", "error", err)
			return
		}
		l.loop.stuck[0] = nil
		l.loop.stuck = l.loop.stuck[1:]
	}
}

// logEvent takes in news of the log.
func (l *Leader) logEvent(e replica.Event) error {
	if e.Snapshot != nil {
		m, err := state.Restore(e.Snapshot)
		if cerr := e.Snapshot.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("snapshot at %d: %w", e.SnapshotIndex, err)
		}
		l.loop.machine = m
	}
	for _, entry := range e.Entries {
		if l.loop.core != nil {
			l.loop.inputs = append(l.loop.inputs, Committed{Index: entry.Index, Term: entry.Term, Data: entry.Data})
			continue
		}
		if err := l.loop.machine.Apply(entry.Index, entry.Data, &l.loop.result); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
	}
	switch {
	case e.LogFull != nil:
		l.logFull(e.LogFull)
	case e.LogRoom && l.leading.Load():
		l.setReady()
	}
	if e.Role != nil {
		if err := l.role(e.Role); err != nil {
			return err
		}
	}
	if e.WantSnapshot && !l.loop.saving {
		l.saveSnapshot()
	}
	return nil
}

// role begins or ends a term as leader. What the log has committed before is applied before.
func (l *Leader) role(r *replica.Role) error {
	for _, in := range l.loop.inputs {
		if c, ok := in.(Committed); ok {
			if err := l.loop.machine.Apply(c.Index, c.Data, &l.loop.result); err != nil {
				return fmt.Errorf("apply: %w", err)
			}
		}
	}
	l.loop.inputs = l.loop.inputs[:0]
	if !r.Leader {
		l.stepDown("this node no longer leads")
		return nil
	}
	if l.loop.core != nil {
		l.stepDown("a new term begins") // nothing of one term may reach the core of the next
	}
	l.loop.term = r.Term
	l.loop.core = NewCore(l.loop.machine, l.cfg.Cluster, r.Term, time.Now(), rand.Uint64())
	for _, id := range l.loop.machine.Jobs() {
		l.loop.stale[id] = struct{}{}
	}
	l.loop.urgent = true
	l.leading.Store(true)
	l.setReady()
	l.log.Info("leading", "term", r.Term, "index", l.loop.machine.Index(), "jobs", l.loop.machine.Len())
	return nil
}

// Begun is closed when this node leads for the first time and its views show what the log held: before that it would deny
// jobs that it will know in a moment.
func (l *Leader) Begun() <-chan struct{} { return l.begun }

// stepDown ends what belongs to a term: streams, waiting clients, what was not proposed.
func (l *Leader) stepDown(why string) {
	l.leading.Store(false)
	l.setNotReady(why)
	l.loop.core, l.loop.stuck = nil, nil
	for id, st := range l.loop.streams {
		st.close(Close{Reason: why})
		delete(l.loop.streams, id)
	}
	for key, list := range l.loop.waiting {
		for _, answer := range list {
			close(answer)
		}
		delete(l.loop.waiting, key)
	}
}

// saveSnapshot writes the state out beside the loop.
func (l *Leader) saveSnapshot() {
	l.loop.saving = true
	snapshot := l.loop.machine.Snapshot()
	go func() {
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
	}
}

// removedMark is in the names of spool folders that are being deleted.
const removedMark = ".removed-"

// sweepSpool deletes what a leader that died was deleting.
func (l *Leader) sweepSpool() {
	entries, err := os.ReadDir(l.cfg.Spool)
	if err != nil {
		return // there is no spool yet
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), removedMark) {
			if err := os.RemoveAll(filepath.Join(l.cfg.Spool, e.Name())); err != nil {
				l.log.Warn("spool folder not removed", "dir", e.Name(), "error", err)
			}
		}
	}
}

// removeSpool deletes a spool folder. The name comes from the log, and lies in the spool. It is out of the way when this
// returns, for the job may be run again in a folder of that name; its files go beside the loop.
func (l *Leader) removeSpool(dir string) {
	aside := dir + removedMark + newID()
	switch err := os.Rename(dir, aside); {
	case errors.Is(err, fs.ErrNotExist):
		return // no attempt has written anything
	case err != nil:
		l.log.Warn("spool folder not removed", "dir", dir, "error", err)
		return
	}
	l.loop.removals.Go(func() {
		if err := os.RemoveAll(aside); err != nil {
			l.log.Warn("spool folder not removed", "dir", aside, "error", err)
		}
	})
}

func (l *Leader) logFact(e *state.Event) {
	switch e.Kind {
	case state.JobSubmitted:
		l.log.Info("job submitted", "job", e.Job)
	case state.StageStarted:
		l.log.Info("stage started", "job", e.Job, "stage", e.Stage)
	case state.JobEnded:
		if job := l.loop.machine.Job(e.Job); job != nil {
			l.log.Info("job status changed", "job", e.Job, "status", job.Status.String(), "error", job.Error)
		}
	case state.TaskDied:
		l.log.Warn("task is dead", "job", e.Job, "stage", e.Stage, "task", e.Task, "worker", e.Worker, "kind", e.Fault.String())
	case state.WorkerJoined:
		l.log.Info("worker registered", "worker", e.Worker)
	case state.WorkerChanged:
		status := "removed"
		if w := l.loop.machine.Worker(e.Worker); w != nil {
			status = w.Status.String()
		}
		l.log.Info("worker status changed", "worker", e.Worker, "status", status)
	case state.JobEnding, state.TaskReopened, state.JobForgotten, state.RequestApplied:
	}
}

// do runs f in the loop, where it may read the state and the core. It must be quick.
func (l *Leader) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	query := func() { defer close(done); f() }
	select {
	case l.queries <- query:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.stopped:
		return api.Unavailable("the leader is shutting down")
	}
	<-done // the loop never abandons a query it has taken
	return nil
}

// ask has the log apply a command and returns its answer.
func (l *Leader) ask(ctx context.Context, key string, add func(*state.Entry)) (state.Event, error) {
	l.begin(ctx)
	if why := l.notReady.Load(); why != nil {
		return state.Event{}, api.Unavailable("%s", *why)
	}
	answer := make(chan state.Event, 1)
	select {
	case l.inputs <- message{in: Ask{Key: key, Add: add}, answer: answer}:
	case <-ctx.Done():
		return state.Event{}, context.Cause(ctx)
	case <-l.stopped:
		return state.Event{}, api.Unavailable("the leader is shutting down")
	}
	select {
	case e, ok := <-answer:
		if !ok {
			return e, api.Unavailable("leadership was lost before the log had the request: it may or may not be carried out; " +
				"send it again with the same Idempotency-Key")
		}
		return e, problem(e.Err)
	case <-ctx.Done():
		return state.Event{}, context.Cause(ctx)
	case <-l.stopped:
		return state.Event{}, api.Unavailable("the leader stopped before the log had the request; send it again with the same Idempotency-Key")
	}
}

func (l *Leader) reply(e *state.Event) {
	list := l.loop.waiting[e.Key]
	if len(list) == 0 {
		return // asked in another term
	}
	list[0] <- *e
	if l.loop.waiting[e.Key] = list[1:]; len(list) == 1 {
		delete(l.loop.waiting, e.Key)
	}
}

// problem is what a client is told of a refused command.
func problem(err error) error {
	var r *state.Rejection
	if !errors.As(err, &r) {
		return err
	}
	switch r.Code {
	case state.NotFound:
		return api.NotFound("%s", r.Message)
	case state.Conflict:
	}
	return api.Conflict("%s", r.Message)
}
