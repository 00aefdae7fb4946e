package node

import (
	"context"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/view"
)

// Retentions returns the retention of all jobs together, then those of users.
func (n *Node) Retentions() []api.Retention {
	set := n.Access().Retentions()
	all := set.Everyone()
	list := []api.Retention{{User: all.User, RetentionRequest: view.PublicRetention(&all)}}
	for _, r := range set.Users() {
		list = append(list, api.Retention{User: r.User, RetentionRequest: view.PublicRetention(r)})
	}
	return list
}

// SetRetention sets which ended jobs are kept, of a user or of all.
func (n *Node) SetRetention(ctx context.Context, r api.Retention) error {
	return n.change(ctx, "a change of the retention", func(e *state.Entry, key string) {
		e.SetRetention(key, state.Retention{User: r.User, Jobs: r.Jobs, ForMS: r.Seconds * 1000, Bytes: r.Bytes})
	})
}

// Pin keeps a job whatever the retention is, or ends that.
func (n *Node) Pin(ctx context.Context, id uint64, pinned bool) error {
	return n.change(ctx, "keeping a job", func(e *state.Entry, key string) { e.Pin(key, state.JobID(id), pinned) })
}
