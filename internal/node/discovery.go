package node

import (
	"context"
	"strconv"
	"sync"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/discover"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// announce announces this node on the network, and finds workers that wait for an invitation, until ctx is done. It does nothing if only
// this machine can reach the node.
func (p *Process) announce(ctx context.Context) {
	if transport.IsLoopback(p.advertised) {
		return
	}
	members := p.replica.Members()
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		discover.Watch(ctx, discover.Worker, p.cfg.Logger, func(found []discover.Node) {
			p.idle.Store(new(p.joinable(found)))
		})
	})
	discover.Announce(ctx, discover.Announcement{
		Role: discover.Leader, ID: strconv.FormatUint(p.replica.ID(), 10), Address: p.advertised, ClusterID: members.Cluster,
		ClusterName: p.cfg.ClusterName, Former: members.Former, Version: p.cfg.Version,
	}, p.cfg.Logger)
}

// joinable returns the workers that wait for an invitation and could join this cluster.
func (p *Process) joinable(found []discover.Node) []api.Worker {
	var idle []api.Worker
	cluster := p.replica.Members().Cluster
	for _, w := range found {
		if w.ClusterID != "" && w.ClusterID != cluster || w.ClusterName != "" && w.ClusterName != p.cfg.ClusterName {
			continue
		}
		idle = append(idle, api.Worker{
			Identity: w.ID, Address: w.Addresses[0], Version: w.Version, Slots: uint32(w.Slots), //nolint:gosec // 16 bits
		})
	}
	return idle
}

// foundWorkers returns the idle workers that were found last.
func (p *Process) foundWorkers() []api.Worker {
	if idle := p.idle.Load(); idle != nil {
		return *idle
	}
	return nil
}
