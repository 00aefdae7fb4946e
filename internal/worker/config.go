package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/tasklog"
)

// connectMax is for an address to which nothing gets through; a leader that takes the connection gets longer to answer.
const connectMax = 2 * time.Second

// Config sets a worker up.
type Config struct {
	// DataDir holds the worker's identity, its tasks' logs and their scratch files. It belongs to one process at a time.
	DataDir string
	// Leaders are dialed in turn, as host:port, until one accepts; those that a leader has told of before come first. With
	// none, and no Discover, the worker waits to be invited.
	Leaders []string
	// Discover looks for leaders where those that are known are of no use, of that cluster if it is not empty. It may give both
	// addresses and an error, and is not called again before it has returned. Defaults to none.
	Discover func(ctx context.Context, clusterID string) ([]string, error)
	// Announce tells others that this worker waits for a leader, until ctx ends: called while it has none. Defaults to none.
	Announce func(ctx context.Context, identity, clusterID string)
	// ClusterName is the cluster to join. Defaults to whichever is found.
	ClusterName string
	// ClusterID tells clusters of one name apart. Defaults to the one that the worker belongs to, or none.
	ClusterID string
	// Slots is how many attempts run at a time. Defaults to the number of CPUs.
	Slots int
	// Memory is the bytes offered to attempts. Defaults to 0: not limited.
	Memory uint64
	// Labels are offered to jobs that ask for some.
	Labels map[string]string
	// Address is the host:port of the worker's own HTTP listener, as others reach it. Defaults to none.
	Address string
	// Version of the binary.
	Version string
	// Jobs are the built-in jobs.
	Jobs []bridgefour.Job
	// LogBytesMax is what is kept of one attempt's log. Defaults to the runner's default.
	LogBytesMax int64
	// DrainGrace is how long a drain lets attempts run before it stops them. Defaults to 30 s.
	DrainGrace time.Duration
	// Logs bounds the logs of all attempts together. Its Dir and Logger are set by the worker.
	Logs tasklog.Config
	// Store holds the jobs' outputs. Defaults to the file system.
	Store blob.Store
	// Dial opens the connection to a leader. Defaults to TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Logger defaults to none.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.DataDir == "":
		return c, errors.New("worker: no data directory given")
	case slices.ContainsFunc(c.Leaders, func(a string) bool { return wire.CheckAddress(a) != nil }):
		return c, fmt.Errorf("worker: leaders %q: expected each as host:port", c.Leaders)
	case c.Slots < 0:
		return c, fmt.Errorf("worker: %d slots; a worker has at least 1", c.Slots)
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
	if c.Store == nil {
		c.Store = blob.NewFiles()
	}
	if c.Dial == nil {
		dialer := &net.Dialer{Timeout: connectMax, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3,
		}}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	c.Logs.Logger = c.Logger
	c.Logs.Dir = filepath.Join(c.DataDir, "logs")
	return c, nil
}

func (c Config) host() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}
