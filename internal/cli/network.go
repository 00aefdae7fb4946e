package cli

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/discover"
	"github.com/bridgefour/bridgefour/internal/worker"
)

// beFound lets workers on the network find this leader, and finds those that wait to be invited, until ctx is done. A leader
// that only its own machine can reach does neither.
func (n *node) beFound(ctx context.Context) {
	host, _, err := net.SplitHostPort(n.advertised)
	if ip := net.ParseIP(host); err != nil || host == "localhost" || ip != nil && ip.IsLoopback() {
		return
	}
	members := n.replica.Members()
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		discover.Watch(ctx, discover.Worker, n.cfg.logger, func(found []discover.Node) {
			idle := n.idle(found)
			n.idlers.Store(&idle)
		})
	})
	discover.Announce(ctx, discover.Announcement{
		Role: discover.Leader, ID: strconv.FormatUint(n.replica.ID(), 10), Address: n.advertised, ClusterID: members.Cluster,
		ClusterName: n.cfg.clusterName, Former: members.Former, Version: n.cfg.version,
	}, n.cfg.logger)
}

// idle lists the workers that wait for an invitation and could join this cluster.
func (n *node) idle(found []discover.Node) []api.Worker {
	var idle []api.Worker
	cluster := n.replica.Members().Cluster
	for _, w := range found {
		if w.ClusterID != "" && w.ClusterID != cluster || w.ClusterName != "" && w.ClusterName != n.cfg.clusterName {
			continue
		}
		idle = append(idle, api.Worker{
			Identity: w.ID, Status: api.WorkerIdle, Address: w.Addresses[0], Version: w.Version, Slots: uint32(w.Slots), //nolint:gosec // 16 bits
		})
	}
	slices.SortFunc(idle, func(a, b api.Worker) int { return strings.Compare(a.Identity, b.Identity) })
	return idle
}

// idleWorkers are those found last.
func (n *node) idleWorkers() []api.Worker {
	if idle := n.idlers.Load(); idle != nil {
		return *idle
	}
	return nil
}

// announcer has a worker be found by leaders while it waits for one.
func announcer(cfg *worker.Config) func(ctx context.Context, identity, clusterID string) {
	return func(ctx context.Context, identity, clusterID string) {
		discover.Announce(ctx, discover.Announcement{
			Role: discover.Worker, ID: identity, Address: cfg.Address, ClusterID: clusterID, ClusterName: cfg.ClusterName,
			Version: cfg.Version, Slots: embeddedSlots(cfg.Slots, 1),
		}, cfg.Logger)
	}
}
