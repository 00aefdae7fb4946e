package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/worker/core"
	"github.com/bridgefour/bridgefour/internal/worker/tasklog"
)

// ErrStopNow as the cause of a context's end makes [Worker.Run] stop running attempts instead of letting them finish.
var ErrStopNow = errors.New("stop now")

// errExited is the cause of all that ends with the worker.
var errExited = errors.New("the worker has exited")

// Worker is a worker process, or one of several in a process.
type Worker struct {
	cfg    Config
	logger *slog.Logger
	dir    *dataDir
	log    *tasklog.Log
	disk   *disk
	leader *leaderConn
	logs   *logSender

	slots     []*slot
	meters    *meters
	newRunner func() attemptRunner

	status atomic.Pointer[State] // what changes with the leader
	number atomic.Uint64         // 0: not welcomed yet

	inputs  chan core.Input
	invites chan invitation
	done    chan struct{} // closed when the driver accepts no more inputs
}

// invitation is a call of Invite.
type invitation struct {
	core.Invite
	answer chan error // takes one
}

// New locks the data directory. The caller closes the Worker.
func New(cfg Config) (*Worker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := openDataDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	dir.identity = cmp.Or(cfg.Identity, dir.identity)
	if id := dir.member.ClusterID; cfg.ClusterID != "" && id != "" && id != cfg.ClusterID {
		return nil, errors.Join(fmt.Errorf("data directory %s belongs to a worker of cluster %s, not of cluster %s; "+
			"name another directory with --data-dir, or omit --cluster-id", cfg.DataDir, id, cfg.ClusterID), dir.close())
	}
	if c := cfg.Confinement; c.Sandbox || c.NoNetwork {
		if err := keeper.Check(c, filepath.Join(dir.temp, "check")); err != nil {
			return nil, errors.Join(fmt.Errorf("commands cannot be confined on this machine: %w", err), dir.close())
		}
	}
	log, err := tasklog.Open(tasklog.Config{Dir: filepath.Join(cfg.DataDir, logsDir), Logger: cfg.Logger})
	if err != nil {
		return nil, errors.Join(err, dir.close())
	}
	users := runner.Users{RunAs: cfg.RunAs, Host: cfg.host(), Stores: cfg.Stores}
	w := &Worker{
		cfg: cfg, logger: cfg.Logger, dir: dir, log: log, leader: newLeaderConn(), disk: newDisk(users, cfg.Logger),
		slots: make([]*slot, cfg.Slots), meters: &meters{},
		inputs: make(chan core.Input, 256), invites: make(chan invitation), done: make(chan struct{}),
	}
	w.status.Store(&State{ClusterID: cmp.Or(dir.member.ClusterID, cfg.ClusterID), Claim: cfg.Claim})
	w.logs = newLogSender(log, w.leader, w.number.Load, cfg.Logger)
	run := runner.New(runner.Config{
		Jobs: cfg.Jobs, Users: users, DataDir: cfg.DataDir, Worker: w.number.Load, Nice: cfg.Nice, EnvAll: cfg.EnvAll,
		Confinement: cfg.Confinement, SortMemory: cfg.sortMemory(keeper.MachineMemory()), Temp: dir.temp, Held: dir.attempts, Logger: cfg.Logger,
	})
	w.newRunner = func() attemptRunner { return run.NewSlot() }
	st, tails := &stages{leader: w.leader, users: users}, newTailLimit()
	for i := range w.slots {
		w.slots[i] = &slot{
			id: i, work: make(chan slotWork, 1), fresh: func() attemptRunner { return w.newRunner() }, stages: st,
			sink: log.NewSink(), tails: tails, meters: w.meters, logger: cfg.Logger,
		}
	}
	return w, nil
}

// Close unlocks the data directory.
func (w *Worker) Close() error { return errors.Join(w.log.Close(), w.dir.close()) }

// Invite makes the worker join the cluster of those leaders, if it belongs to none or to that one. Claim is its id there, plus 1; 0: not given. It returns when
// this is decided, before a leader is dialed.
func (w *Worker) Invite(ctx context.Context, leaders []string, clusterID, clusterName string, claim uint64) error {
	in := invitation{core.Invite{Leaders: leaders, ClusterID: clusterID, ClusterName: clusterName, Claim: claim}, make(chan error, 1)}
	select {
	case w.invites <- in:
		return <-in.answer
	case <-w.done:
		return errExited
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Leaders returns addresses of leaders: of the present one, and of those that the worker was given or knew when it started.
func (w *Worker) Leaders() []string {
	all := slices.Concat(w.cfg.Leaders, w.dir.member.Leaders)
	if leader := w.status.Load().Leader; leader != "" {
		all = append([]string{leader}, all...)
	}
	return all
}

// post hands an input to the driver, or drops it after the driver has ended.
func (w *Worker) post(in core.Input) {
	select {
	case w.inputs <- in:
	case <-w.done:
	}
}
