package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// AddMember makes m a learner, which becomes a voter once it has caught up, and returns it as it is then. This node must lead. ID 0 stands
// for one that was never used. The data directory of a member stays that member, with m's address. ErrNotLeader is also returned when
// leadership is lost before the outcome is known: ask the next leader.
func (r *Replica) AddMember(ctx context.Context, m Member) (Member, error) {
	return r.change(ctx, core.Change{Op: core.OpAdd, Member: m}, false)
}

// UpdateMember changes a member's address, or sets the name of its directory if it was not known. This node must lead.
func (r *Replica) UpdateMember(ctx context.Context, m Member) error {
	_, err := r.change(ctx, core.Change{Op: core.OpUpdate, Member: m}, false)
	return err
}

// RemoveMember removes a member for good. This node must lead. Unless forced, it refuses (ErrQuorum) if the remaining members that answer
// have no quorum. A leader that is to remove itself hands leadership over and returns ErrNotLeader: ask the next leader.
func (r *Replica) RemoveMember(ctx context.Context, id uint64, force bool) error {
	_, err := r.change(ctx, core.Change{Op: core.OpRemove, Member: Member{ID: id}}, force)
	if !errors.Is(err, core.ErrSelf) {
		return err
	}
	if err := r.TransferLeadership(ctx); err != nil {
		return fmt.Errorf("leader %d leads, and hands leadership over before it is removed: %w", id, err)
	}
	return ErrNotLeader
}

// change carries out a change of the members.
func (r *Replica) change(ctx context.Context, c core.Change, force bool) (Member, error) {
	a, err := r.await(ctx, func(ref core.Ref) core.Input { return core.ChangeMembers{Ref: ref, Change: c, Force: force} })
	return a.Member, err
}

// TransferLeadership hands leadership to the most up-to-date voter that answers. It returns nil when this node does not lead,
// and an error when no other node can take over.
func (r *Replica) TransferLeadership(ctx context.Context) error {
	_, err := r.await(ctx, func(ref core.Ref) core.Input { return core.Transfer{Ref: ref} })
	return err
}

// ReadIndex returns the index that must have been applied before a read is linearizable: a majority has confirmed, after the call, which
// node leads. It works on every member, and retries until ctx ends. Concurrent reads share one round.
func (r *Replica) ReadIndex(ctx context.Context) (uint64, error) {
	a, err := r.await(ctx, func(ref core.Ref) core.Input { return core.ReadIndex{Ref: ref} })
	return a.Index, err
}
