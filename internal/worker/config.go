package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Config configures a worker.
type Config struct {
	// DataDir holds the worker's identity, its cluster, and its tasks' logs. One process can use it at a time.
	DataDir string
	// Identity is that of the worker's certificate. Defaults to one that is made in the data directory.
	Identity string
	// Leaders are addresses as host:port, dialed in turn until one accepts, after those that the last leader has named. With
	// none, and no Discover, the worker waits for an invitation.
	Leaders []string
	// Discover searches for leaders, of that cluster if it is not empty, when no known one can be used. It may return both
	// addresses and an error, and is not called again before it has returned. Defaults to none.
	Discover func(ctx context.Context, clusterID string) ([]string, error)
	// Announce makes the worker known on the network until ctx ends. It is called while there is no leader. Defaults to none.
	Announce func(ctx context.Context, identity, clusterID string)
	// ClusterName is the cluster to join. Defaults to any.
	ClusterName string
	// ClusterID distinguishes clusters of one name. Defaults to the worker's cluster, or none.
	ClusterID string
	// Slots is the number of attempts that run at a time. Defaults to the number of CPUs.
	Slots int
	// Memory is the bytes offered to attempts. Defaults to 0: not limited.
	Memory uint64
	// Resources are ids of countable things, such as devices, by name. No two attempts have the same at one time.
	Resources map[string][]string
	// Labels are matched against those that jobs require.
	Labels map[string]string
	// Claim is the id of the worker on the original system's routes, plus 1. Defaults to 0: none, or that of an invitation.
	Claim uint64
	// Address is the host:port of the worker's own HTTP listener, as others reach it. Defaults to none.
	Address string
	// Version of the binary.
	Version string
	// Jobs are the built-in jobs.
	Jobs []bridgefour.Job
	// Nice is added to the nice value of commands, so that the worker and a leader beside it are not slowed down by them.
	Nice int
	// EnvAll gives commands the environment of this process, and not just PATH, HOME, USER, LANG and TZ of it.
	EnvAll bool
	// Confinement is the least of all commands.
	Confinement keeper.Confinement
	// RunAs is the user of all commands, and of the files of their jobs: a name, or runner.Submitter. Only root can set it. Defaults to the
	// user of this process.
	RunAs string
	// DrainGrace is the time that a drain gives running attempts before it stops them. Defaults to 30 s.
	DrainGrace time.Duration
	// Stores hold the jobs' inputs and outputs.
	Stores blob.Stores
	// Dial opens the connection to a leader. Defaults to TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Logger defaults to none.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.DataDir == "":
		return c, errors.New("worker: no data directory given")
	case slices.ContainsFunc(c.Leaders, func(a string) bool { return transport.CheckDial(a) != nil }):
		return c, fmt.Errorf("worker: invalid leaders %q: want host:port or unix:PATH", c.Leaders)
	case c.Slots < 0 || c.Slots > wire.SlotsMax:
		return c, fmt.Errorf("worker: %d slots: want 1 to %d", c.Slots, wire.SlotsMax)
	}
	if c.RunAs != "" && (runtime.GOOS != "linux" || os.Geteuid() != 0) {
		return c, errors.New("worker: --run-as needs a worker that root has started, on Linux")
	}
	if c.RunAs != "" && c.RunAs != runner.Submitter {
		if _, err := (&runner.Users{RunAs: c.RunAs, Host: c.host()}).Of(nil); err != nil {
			return c, fmt.Errorf("worker: --run-as: %w", err)
		}
	}
	if c.Slots == 0 {
		c.Slots = runtime.GOMAXPROCS(0)
	}
	if c.DrainGrace == 0 {
		c.DrainGrace = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = transport.Dial
	}
	return c, nil
}

// resourceCounts is the number of each resource.
func (c Config) resourceCounts() map[string]uint32 {
	counts := map[string]uint32{}
	for name, ids := range c.Resources {
		if len(ids) > 0 {
			counts[name] = uint32(len(ids)) //nolint:gosec // bounded where they are parsed
		}
	}
	return counts
}

// sortMemory is [runner.Config.SortMemory] on a machine with so much memory: what a slot sorts in and has for tables, with what is not collected yet, must fit into its part
// of that, and of what is offered. 0: its default, as for a memory that is not known.
func (c Config) sortMemory(machine uint64) int64 {
	const parts, least = 4, 8 << 20
	if c.Memory > 0 && (machine == 0 || c.Memory < machine) {
		machine = c.Memory
	}
	if machine == 0 {
		return 0
	}
	return min(max(int64(machine/parts)/int64(c.Slots), least), runner.SortMemoryMax) //nolint:gosec // a size
}

// confinement is what is enforced for all attempts, for users.
func (c Config) confinement() (list []string) {
	for _, part := range []struct {
		on   bool
		name string
	}{
		{c.Confinement.NoNewPrivileges, "no new privileges"},
		{c.Confinement.Sandbox, "sandbox"},
		{c.Confinement.NoNetwork, "no network"},
	} {
		if part.on {
			list = append(list, part.name)
		}
	}
	if c.RunAs != "" {
		list = append(list, "run as "+c.RunAs)
	}
	return list
}

func (c Config) host() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}
