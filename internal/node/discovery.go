package node

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/discover"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// beFound lets workers on the network find this leader, and finds those that wait to be invited, until ctx is done. A leader
// that only its own machine can reach does neither.
func (p *Process) beFound(ctx context.Context) {
	if transport.IsLoopback(p.advertised) {
		return
	}
	members := p.replica.Members()
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		discover.Watch(ctx, discover.Worker, p.cfg.Logger, func(found []discover.Node) {
			idle := p.idle(found)
			p.idlers.Store(&idle)
		})
	})
	discover.Announce(ctx, discover.Announcement{
		Role: discover.Leader, ID: strconv.FormatUint(p.replica.ID(), 10), Address: p.advertised, ClusterID: members.Cluster,
		ClusterName: p.cfg.ClusterName, Former: members.Former, Version: p.cfg.Version,
	}, p.cfg.Logger)
}

// idle lists the workers that wait for an invitation and could join this cluster.
func (p *Process) idle(found []discover.Node) []api.Worker {
	var idle []api.Worker
	cluster := p.replica.Members().Cluster
	for _, w := range found {
		if w.ClusterID != "" && w.ClusterID != cluster || w.ClusterName != "" && w.ClusterName != p.cfg.ClusterName {
			continue
		}
		idle = append(idle, api.Worker{
			Identity: w.ID, Status: api.WorkerIdle, Address: w.Addresses[0], Version: w.Version, Slots: uint32(w.Slots), //nolint:gosec // 16 bits
		})
	}
	slices.SortFunc(idle, func(a, b api.Worker) int { return strings.Compare(a.Identity, b.Identity) })
	return idle
}

// foundWorkers are the idle workers that were found last.
func (p *Process) foundWorkers() []api.Worker {
	if idle := p.idlers.Load(); idle != nil {
		return *idle
	}
	return nil
}
