package cli

import (
	"context"

	"github.com/bridgefour/bridgefour/internal/discover"
	"github.com/bridgefour/bridgefour/internal/worker"
)

// announcer has a worker be found by leaders while it waits for one.
func announcer(cfg *worker.Config) func(ctx context.Context, identity, clusterID string) {
	return func(ctx context.Context, identity, clusterID string) {
		discover.Announce(ctx, discover.Announcement{
			Role: discover.Worker, ID: identity, Address: cfg.Address, ClusterID: clusterID, ClusterName: cfg.ClusterName,
			Version: cfg.Version, Slots: embeddedSlots(cfg.Slots, 1),
		}, cfg.Logger)
	}
}
