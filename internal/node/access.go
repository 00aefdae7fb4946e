package node

import (
	"context"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Access returns the access tables as this node knows them. A follower that is cut off from the leader may not know the latest changes.
func (n *Node) Access() *state.Access { return n.access.Load() }

// publishAccess publishes the access tables if they have changed.
func (n *Node) publishAccess() {
	if now := n.loop.controller.Machine().Access(); now != n.access.Load() {
		n.access.Store(now)
	}
}

// PutToken adds a token. Its id must be new. This node, and all others as far as they follow, accept it when PutToken returns.
func (n *Node) PutToken(ctx context.Context, t *state.Token) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.PutToken(key, t) })
}

// RevokeToken removes a token.
func (n *Node) RevokeToken(ctx context.Context, id string) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.RevokeToken(key, id) })
}

// Enroll adds a machine by its key, or records that it has renewed its certificate. It is refused for a revoked key, and for one of
// another role.
func (n *Node) Enroll(ctx context.Context, machine *state.Enrolment) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.Enroll(key, machine) })
}

// RevokeMachine revokes the key of a machine for good.
func (n *Node) RevokeMachine(ctx context.Context, fingerprint string) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.RevokeMachine(key, fingerprint) })
}

// PutAuthority adds the next certificate authority, whose number is that after the newest one's.
func (n *Node) PutAuthority(ctx context.Context, a *state.Authority) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.PutAuthority(key, a) })
}

// DropAuthority removes a certificate authority that is not the newest.
func (n *Node) DropAuthority(ctx context.Context, number uint64) error {
	return n.changeAccess(ctx, func(e *state.Entry, key string) { e.DropAuthority(key, number) })
}

func (n *Node) changeAccess(ctx context.Context, add func(e *state.Entry, key string)) error {
	if err := n.acceptsWrites(ctx); err != nil {
		return err
	}
	if err := n.awaitLevel(ctx, "a change of who may use the cluster", 2); err != nil {
		return err
	}
	key := newID()
	_, err := n.execute(ctx, key, func(e *state.Entry) { add(e, key) })
	return err
}
