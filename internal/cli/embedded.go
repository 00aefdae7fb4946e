package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/worker"
	"github.com/bridgefour/bridgefour/jobs"
)

// embeddedConfig configures a cluster in this process.
type embeddedConfig struct {
	dataDir string // leader/ and worker-1/, worker-2/ …
	// reserved are the folders apart from which outputs must lie.
	reserved plan.Reserved
	listen   string   // empty: no TCP port
	socket   string   // empty: no unix socket
	hosts    []string // further names that clients use for it
	insecure bool     // serves every client
	idle     bool     // runs no task
	workers  int
	slots    int // of each worker; 0: the CPUs, shared evenly
	// resources are shared evenly by the workers.
	resources map[string][]string
	nice      int  // of the tasks' commands
	envAll    bool // the tasks' commands get the environment of this process
	version   string
	// confinement is the least of the tasks' commands.
	confinement keeper.Confinement
	logger      *slog.Logger
	// drainGrace is how long attempts may run on when the cluster ends. Defaults to the worker's default.
	drainGrace time.Duration
	// hold delays the workers until it is closed; nil: they start at once.
	hold <-chan struct{}
}

// embedded is a node and its workers in this process. They talk in memory.
type embedded struct {
	node    *node.Process
	memory  *transport.Memory
	workers []*spren
	hold    <-chan struct{}
}

func openEmbedded(ctx context.Context, cfg embeddedConfig) (*embedded, error) {
	slots := embeddedSlots(cfg.slots, cfg.workers)
	memory := transport.ListenMemory()
	advertise := ""
	if cfg.listen == "" {
		advertise = inMemory
	}
	n, err := openNode(ctx, node.ProcessConfig{
		DataDir: filepath.Join(cfg.dataDir, "leader"), Listen: cfg.listen, Advertise: advertise, Socket: cfg.socket, Memory: memory,
		Insecure: cfg.insecure, Idle: cfg.idle, Hosts: cfg.hosts, Version: cfg.version, Logger: cfg.logger,
		ClusterName: clusterNameDefault,
		Reserved:    []plan.Reserved{cfg.reserved},
	})
	if err != nil {
		return nil, err
	}
	e := &embedded{node: n, memory: memory, hold: cfg.hold}
	for i := range cfg.workers {
		s, err := openSpren(ctx, worker.Config{
			DataDir: filepath.Join(cfg.dataDir, "worker-"+strconv.Itoa(i+1)), Leaders: []string{n.Advertised()}, Dial: memory.Dial,
			Slots: slots, Resources: shareResources(cfg.resources, i, cfg.workers), Nice: cfg.nice, EnvAll: cfg.envAll, Confinement: cfg.confinement, Version: cfg.version, Jobs: jobs.All(), DrainGrace: cfg.drainGrace, Logger: cfg.logger,
		}, listener{})
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
		e.workers = append(e.workers, s)
	}
	return e, nil
}

// inMemory stands for the address of a node without a TCP port.
const inMemory = "in-memory:1"

// embeddedSlots is the number of slots of each worker; given is the --slots flag, or 0.
func embeddedSlots(given, workers int) int {
	if given > 0 {
		return given
	}
	return max(1, runtime.GOMAXPROCS(0)/workers)
}

// close releases the resources of openEmbedded when run is not called.
func (e *embedded) close() error {
	err := e.node.Close()
	for _, s := range e.workers {
		err = errors.Join(err, s.worker.Close())
	}
	return err
}

// awaitWorkers waits until the workers are connected, while run runs.
func (e *embedded) awaitWorkers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, viewPatience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(e.workers, func(s *spren) bool { return !s.worker.State().Connected }) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// client returns a client of the cluster.
func (e *embedded) client() (*client.Client, error) {
	t := transport.NewHTTP()
	t.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) { return e.memory.Dial(ctx, address) }
	return client.New([]string{e.node.Advertised()}, client.Options{HTTP: &http.Client{Transport: t}})
}

// run runs the cluster until ctx is done or a part of it fails. The workers end first, so that the leader receives their last
// results and returned leases.
func (e *embedded) run(ctx context.Context) error {
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
			if err := s.run(working); err != nil {
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
