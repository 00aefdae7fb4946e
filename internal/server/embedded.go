package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/worker"
)

// EmbeddedConfig configures a cluster in this process.
type EmbeddedConfig struct {
	DataDir string // leader/ and worker-1/, worker-2/ …
	// Jobs are the built-in jobs.
	Jobs []bridgefour.Job
	// Reserved are the folders apart from which outputs must lie.
	Reserved plan.Reserved
	Listen   string   // empty: no TCP port
	Socket   string   // empty: no unix socket
	Hosts    []string // further names that clients use for it
	Insecure bool     // serves every client
	Idle     bool     // runs no task
	Growing  bool     // see node.ProcessConfig
	Workers  int
	Slots    int // of each worker; 0: the CPUs, shared evenly
	// Resources are shared evenly by the workers.
	Resources map[string][]string
	Nice      int  // of the tasks' commands
	EnvAll    bool // the tasks' commands get the environment of this process
	Version   string
	// Confinement is the least of the tasks' commands.
	Confinement keeper.Confinement
	Logger      *slog.Logger
	// DrainGrace is how long attempts may run on when the cluster ends. Defaults to the worker's default.
	DrainGrace time.Duration
	// Hold delays the workers until it is closed; nil: they start at once.
	Hold <-chan struct{}
}

// ClusterName is the name of a cluster that was started without one.
const ClusterName = "bridgefour"

// Embedded is a leader and its workers in this process. They talk in memory.
type Embedded struct {
	node    *node.Process
	memory  *transport.Memory
	workers []*Worker
	hold    <-chan struct{}
}

// OpenEmbedded opens the leader and the workers. The caller must call Run or Close.
func OpenEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
	slots := SlotsOfWorker(cfg.Slots, cfg.Workers)
	memory := transport.ListenMemory()
	advertise := ""
	if cfg.Listen == "" {
		advertise = inMemory
	}
	n, err := OpenLeader(ctx, node.ProcessConfig{
		DataDir: filepath.Join(cfg.DataDir, "leader"), Listen: cfg.Listen, Advertise: advertise, Socket: cfg.Socket, Memory: memory,
		Insecure: cfg.Insecure, Idle: cfg.Idle, Growing: cfg.Growing, Slots: slots * cfg.Workers, Hosts: cfg.Hosts, Version: cfg.Version, Logger: cfg.Logger,
		ClusterName: ClusterName,
		Reserved:    []plan.Reserved{cfg.Reserved},
	}, cfg.Jobs, nil)
	if err != nil {
		return nil, err
	}
	e := &Embedded{node: n, memory: memory, hold: cfg.Hold}
	for i := range cfg.Workers {
		s, err := OpenWorker(ctx, worker.Config{
			DataDir: filepath.Join(cfg.DataDir, "worker-"+strconv.Itoa(i+1)), Leaders: []string{n.Advertised()}, Dial: memory.Dial,
			Slots: slots, Resources: shareResources(cfg.Resources, i, cfg.Workers), Nice: cfg.Nice, EnvAll: cfg.EnvAll, Confinement: cfg.Confinement, Version: cfg.Version, Jobs: cfg.Jobs, DrainGrace: cfg.DrainGrace, Logger: cfg.Logger,
		}, Listener{})
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.workers = append(e.workers, s)
	}
	return e, nil
}

// inMemory stands for the address of a node without a TCP port.
const inMemory = "in-memory:1"

// SlotsOfWorker is the number of slots of each worker of a process; given is what a user has set, or 0.
func SlotsOfWorker(given, workers int) int {
	if given > 0 {
		return given
	}
	return max(1, runtime.GOMAXPROCS(0)/workers)
}

// Addr is the listen address of the leader. It must have one.
func (e *Embedded) Addr() net.Addr { return e.node.Address() }

// Grow adds files to the input of a job, see node.Node, and waits until at most so many of its tasks are open or running, unless they are the last.
func (e *Embedded) Grow(ctx context.Context, job uint64, files []string, last bool, most uint64) error {
	if err := e.node.Grow(ctx, job, files, last); err != nil || last {
		return err
	}
	return e.node.AwaitOpen(ctx, job, most)
}

// Close releases the resources of OpenEmbedded when Run is not called.
func (e *Embedded) Close() error {
	err := e.node.Close()
	for _, s := range e.workers {
		err = errors.Join(err, s.Close())
	}
	return err
}

// AwaitWorkers waits until the workers are connected, while Run runs.
func (e *Embedded) AwaitWorkers(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(e.workers, func(s *Worker) bool { return !s.State().Connected }) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Client returns a client of the cluster, whose options need no HTTP.
func (e *Embedded) Client(o client.Options) (*client.Client, error) {
	t := transport.NewHTTP()
	t.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) { return e.memory.Dial(ctx, address) }
	o.HTTP = &http.Client{Transport: t}
	return client.New([]string{e.node.Advertised()}, o)
}

// Run runs the cluster until ctx is done or a part of it fails. The workers end first, so that the leader receives their last
// results and returned leases.
func (e *Embedded) Run(ctx context.Context) error {
	working, stopWorking := context.WithCancelCause(ctx)
	defer stopWorking(nil)
	leading, stopLeading := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopLeading(nil)

	var workers, leader sync.WaitGroup
	failed := make(chan error, 1+len(e.workers))
	leader.Go(func() {
		if err := e.node.Run(leading); err != nil {
			failed <- err
			stopWorking(fmt.Errorf("the leader failed: %w", worker.ErrStopNow))
		}
	})
	for _, s := range e.workers {
		workers.Go(func() {
			if e.hold != nil {
				select {
				case <-e.hold:
				case <-working.Done():
				}
			}
			if err := s.Run(working); err != nil {
				failed <- err
				stopWorking(fmt.Errorf("another worker failed: %w", worker.ErrStopNow))
			}
		})
	}
	if len(e.workers) == 0 {
		<-working.Done()
	}
	workers.Wait()
	stopLeading(nil)
	leader.Wait()
	close(failed)
	var err error
	for e := range failed {
		err = errors.Join(err, e)
	}
	return err
}

// shareResources is the part of worker i of n workers that share the resources of a process.
func shareResources(resources map[string][]string, i, n int) map[string][]string {
	part := maps.Clone(resources)
	for name, ids := range part {
		part[name] = ids[i*len(ids)/n : (i+1)*len(ids)/n]
	}
	return part
}
