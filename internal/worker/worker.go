package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
	"github.com/bridgefour/bridgefour/internal/worker/tasklog"
)

// Run is New, Run and Close.
func Run(ctx context.Context, cfg Config) error {
	w, err := New(cfg)
	if err != nil {
		return err
	}
	return errors.Join(w.Run(ctx), w.Close())
}

// ErrStopNow as the cause of a context's end makes [Worker.Run] stop what runs instead of letting it finish.
var ErrStopNow = errors.New("stop now")

// Worker is the driver around a [Core].
type Worker struct {
	cfg    Config
	dir    *dataDir
	log    *tasklog.Log
	disk   *disk
	leader *leaderConn
	logs   *logSender
	logger *slog.Logger

	number    atomic.Uint64 // 0: not welcomed yet
	tie       atomic.Pointer[tie]
	drains    chan bool // requests by Drain: stop what runs
	invites   chan invitation
	inputs    chan core.Input
	done      chan struct{} // closed when the driver takes no more inputs
	slots     []*slot
	newRunner func() attemptRunner

	// These belong to Run's goroutine.
	core    *core.Core
	link    *link
	links   sync.WaitGroup
	seekers sync.WaitGroup          // who look around, or announce this worker
	hush    context.CancelCauseFunc // ends the announcement; nil: there is none
	keeper  *keeper
	stops   []context.CancelCauseFunc // by slot, of its chunk
	alone   bool                      // that there is no leader has been logged
	answer  chan<- error              // of the invitation that the core is asked about
	exiting bool
}

// invitation is a call of Invite.
type invitation struct {
	core.Invite
	answer chan error // takes one
}

// New takes hold of the data directory. The caller closes the Worker.
func New(cfg Config) (*Worker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := openDataDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	if id := dir.kept.ClusterID; cfg.ClusterID != "" && id != "" && id != cfg.ClusterID {
		return nil, errors.Join(fmt.Errorf("data directory %s is that of a worker of cluster %s, and the cluster asked for is %s; "+
			"name another directory with --data-dir, or leave --cluster-id out", cfg.DataDir, id, cfg.ClusterID), dir.close())
	}
	scratch := filepath.Join(cfg.DataDir, "scratch")
	// What a killed process left there is of no use to anyone.
	if err := errors.Join(os.RemoveAll(scratch), os.MkdirAll(scratch, 0o700)); err != nil {
		return nil, errors.Join(fmt.Errorf("worker data directory: %w", err), dir.close())
	}
	log, err := tasklog.Open(cfg.Logs)
	if err != nil {
		return nil, errors.Join(err, dir.close())
	}
	w := &Worker{
		cfg: cfg, dir: dir, log: log, logger: cfg.Logger, leader: newLeaderConn(),
		disk:   newDisk(cfg.Store, cfg.Logger),
		drains: make(chan bool, 1), invites: make(chan invitation), inputs: make(chan core.Input, 256), done: make(chan struct{}),
		slots: make([]*slot, cfg.Slots), stops: make([]context.CancelCauseFunc, cfg.Slots),
	}
	w.tie.Store(&tie{clusterID: cmp.Or(dir.kept.ClusterID, cfg.ClusterID)})
	w.logs = newLogSender(log, w.leader, w.number.Load, cfg.Logger)
	run := runner.New(runner.Config{
		Jobs: cfg.Jobs, ScratchDir: scratch, LogBytesMax: cfg.LogBytesMax, Worker: w.number.Load, Logger: cfg.Logger,
	})
	w.newRunner = func() attemptRunner { return run.NewSlot() }
	st := &stages{leader: w.leader, store: cfg.Store}
	for i := range w.slots {
		w.slots[i] = &slot{
			id: i, work: make(chan slotWork, 1), fresh: func() attemptRunner { return w.newRunner() }, stages: st,
			sink: log.NewSink(), logger: cfg.Logger,
		}
	}
	return w, nil
}

// Close gives the data directory free.
func (w *Worker) Close() error { return errors.Join(w.log.Close(), w.dir.close()) }

// Drain makes Run hand back what has not begun, finish what runs (stopRunning: stop it), and return. It can be repeated.
func (w *Worker) Drain(stopRunning bool) {
	select {
	case w.drains <- stopRunning:
	case <-w.done:
	}
}

// Invite has the worker join the cluster of those leaders, if it belongs to none or to that one. It returns once that is
// decided, before any of them is reached; an error is for the one who invites.
func (w *Worker) Invite(ctx context.Context, leaders []string, clusterID, clusterName string) error {
	in := invitation{core.Invite{Leaders: leaders, ClusterID: clusterID, ClusterName: clusterName}, make(chan error, 1)}
	select {
	case w.invites <- in:
		return <-in.answer
	case <-w.done:
		return errLeft
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run works until ctx ends and the drain that this begins is over, which gives nil. A leader that refuses the worker does not end
// it: it says so, and asks again later. It can be called once.
func (w *Worker) Run(ctx context.Context) error {
	w.core = core.New(core.Config{
		Hello: &wire.Hello{
			Identity: w.dir.identity, Incarnation: randomHex(), Version: w.cfg.Version, Address: w.cfg.Address,
			Slots: uint32(w.cfg.Slots), Memory: w.cfg.Memory, Labels: w.cfg.Labels, Host: w.cfg.host(),
			ClusterName: w.cfg.ClusterName, Protocol: wire.Protocol, ProtocolMin: wire.ProtocolMin,
		},
		Leaders: w.cfg.Leaders, Known: w.dir.kept.Leaders, ClusterID: w.tie.Load().clusterID,
		Discovers: w.cfg.Discover != nil, DrainGrace: w.cfg.DrainGrace, Seed: seed(),
	})
	w.keeper = newKeeper(w.cfg.DataDir, w.dir.kept, w.logger)
	// Everything that is started here outlives ctx, which only asks for a drain.
	life, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var slots, disk sync.WaitGroup
	for _, s := range w.slots {
		slots.Go(func() { s.run(func() { w.post(core.SlotIdle{Slot: s.id}) }) })
	}
	disk.Go(func() { w.disk.runSync(life, w.post) })
	disk.Go(func() { w.disk.runRemove(life) })
	disk.Go(w.keeper.run)
	seeking, stopSeeking := context.WithCancelCause(life)

	w.loop(ctx, life, seeking)

	close(w.done)
	stopSeeking(errLeft)
	if w.link != nil && w.tie.Load().leader != "" {
		w.link.leave()
	}
	w.hangUp(errLeft)
	w.links.Wait()
	w.seekers.Wait()
	for _, s := range w.slots {
		close(s.work)
	}
	for _, stop := range w.stops {
		if stop != nil {
			stop(errLeft)
		}
	}
	waitAtMost(&slots, core.KillTimeout)
	close(w.disk.sync)
	close(w.disk.wake)
	close(w.keeper.wake)
	disk.Wait()
	stop(errLeft)
	w.logs.group.Wait()
	return nil
}

// waitAtMost gives up on a built-in job that does not heed its context: the process is about to end.
func waitAtMost(group *sync.WaitGroup, d time.Duration) {
	ended := make(chan struct{})
	go func() {
		group.Wait()
		close(ended)
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
}

// loop feeds the core until it has left. Nothing in it waits but its one select.
func (w *Worker) loop(ctx, life, seeking context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	leave := ctx.Done()
	var inputs []core.Input
	for !w.exiting {
		inputs = inputs[:0]
		select {
		case in := <-w.inputs:
			inputs = w.pending(append(inputs, in))
		case <-timer.C:
		case stopRunning := <-w.drains:
			inputs = append(inputs, core.Drain{StopRunning: stopRunning})
		case invited := <-w.invites:
			w.answer = invited.answer
			inputs = append(inputs, invited.Invite)
		case <-leave:
			leave = nil
			inputs = append(inputs, core.Drain{StopRunning: errors.Is(context.Cause(ctx), ErrStopNow)})
			w.logger.InfoContext(ctx, "worker drains", "reason", context.Cause(ctx))
		}
		now := time.Now()
		effects := w.core.Step(now, inputs...)
		for _, e := range effects.List {
			w.carryOut(life, seeking, e)
		}
		for _, in := range inputs {
			if ended, ok := in.(core.SessionEnded); ok && w.link != nil && ended.Epoch == w.link.epoch {
				w.hangUp(ended.Err) // releases its resources
			}
		}
		if effects.Wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(effects.Wake.Sub(now))
		}
	}
}

// pending appends the inputs that are waiting.
func (w *Worker) pending(inputs []core.Input) []core.Input {
	for len(inputs) < cap(w.inputs) {
		select {
		case in := <-w.inputs:
			inputs = append(inputs, in)
		default:
			return inputs
		}
	}
	return inputs
}

// post hands an input to the driver, or drops it when there is none any more.
func (w *Worker) post(in core.Input) {
	select {
	case w.inputs <- in:
	case <-w.done:
	}
}

func (w *Worker) carryOut(ctx, seeking context.Context, e core.Effect) {
	switch e := e.(type) {
	case core.Start:
		chunkCtx, cancel := context.WithCancelCause(ctx)
		w.stops[e.Slot] = cancel
		w.slots[e.Slot].work <- slotWork{chunkCtx, cancel, e.Chunk}
	case core.Stop:
		w.stops[e.Slot](errStopped)
	case core.Send:
		if w.link != nil && w.link.epoch == e.Epoch {
			w.link.put(e)
		}
	case core.Sync:
		w.disk.sync <- e.Files
	case core.Remove:
		w.disk.removeLater(e.Files)
	case core.Connect:
		w.connect(ctx, e)
	case core.Disconnect:
		w.hangUp(errReplaced)
	case core.SendLog:
		w.logs.answer(ctx, e.Request)
	case core.BadMessage:
		w.logger.WarnContext(ctx, "message of the leader passed over", "what", e.Reason, "job", e.Job, "lease", e.Lease)
	case core.SaveMembership:
		w.keeper.keep(e.Membership)
		w.told(func(t *tie) { t.clusterID = e.Membership.ClusterID })
	case core.Discover:
		w.seekers.Go(func() {
			found, err := w.cfg.Discover(seeking, e.ClusterID)
			w.post(core.Discovered{Leaders: found, Err: err})
		})
	case core.InviteAnswered:
		w.answer <- e.Err
	case core.Welcomed, core.LeaderLost, core.NoLeader, core.Refused, core.StaleLeader, core.DiscoveryFailed, core.DrainOrdered:
		w.tell(seeking, e)
	case core.Exit:
		w.exiting = true
	}
}

// errStopped is why an attempt's context ends before the attempt does.
var errStopped = errors.New("the leader or a drain has stopped the attempt")

func (w *Worker) connect(ctx context.Context, c core.Connect) {
	w.hangUp(errReplaced)
	l, err := openLink(ctx, w.cfg.Dial, c, w.post)
	if err != nil {
		// Only an address that cannot be one gets here; the loop takes it up at its next turn.
		w.links.Go(func() { w.post(core.SessionEnded{Epoch: c.Epoch, Err: err}) })
		return
	}
	w.link = l
	w.links.Go(func() { <-l.over })
}

func (w *Worker) hangUp(why error) {
	if w.link != nil {
		w.link.end(why)
		w.link = nil
	}
}
