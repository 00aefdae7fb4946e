package replica

import (
	"context"
	"errors"
	"fmt"
)

// errAgain: what was asked for did not come about, and may when it is asked for again.
var errAgain = errors.New("not yet")

// AddMember makes m a member, which follows and becomes a voter by itself once it has caught up. This node must lead. With ID 0 it is given
// one that was never used. It gives the member as it is then. A data directory that is a member's already stays that member, with
// the address that m gives. ErrNotLeader also when leadership was lost before the outcome was known: ask the next leader.
func (r *Replica) AddMember(ctx context.Context, m Member) (Member, error) {
	return r.change(ctx, Change{Op: OpAdd, Member: m}, false)
}

// UpdateMember changes a member's address, or says the name of its directory where that was not known. This node must lead.
func (r *Replica) UpdateMember(ctx context.Context, m Member) error {
	_, err := r.change(ctx, Change{Op: OpUpdate, Member: m}, false)
	return err
}

// RemoveMember removes a member for good. This node must lead. What would leave too few that answer is refused (ErrQuorum),
// unless forced. A leader that is to remove itself hands leadership over and returns ErrNotLeader: ask the next leader.
func (r *Replica) RemoveMember(ctx context.Context, id uint64, force bool) error {
	_, err := r.change(ctx, Change{Op: OpRemove, Member: Member{ID: id}}, force)
	if !errors.Is(err, errSelf) {
		return err
	}
	if err := r.TransferLeadership(ctx); err != nil {
		return fmt.Errorf("leader %d leads, and hands leadership over before it is removed: %w", id, err)
	}
	return ErrNotLeader
}

// change carries a change of the members out.
func (r *Replica) change(ctx context.Context, c Change, force bool) (Member, error) {
	done, err := awaitUntil(ctx, r, func(l *loop, out chan<- changed) {
		l.changes = append(l.changes, &memberChange{change: c, force: force, gone: ctx.Done(), out: out})
	})
	return done.member, errors.Join(err, done.err)
}

// TransferLeadership hands leadership to the most up-to-date voter that answers. It returns nil when this node does not lead,
// and an error when nobody can take over.
func (r *Replica) TransferLeadership(ctx context.Context) error {
	for tries := 0; ; tries++ {
		verdict, err := awaitUntil(ctx, r, func(l *loop, out chan<- error) { l.transfer(tries, out) })
		if err != nil {
			return err
		}
		if !errors.Is(verdict, errAgain) {
			return verdict
		}
	}
}

// ReadIndex gives the index that must have been applied before a read is linearizable: a majority has confirmed, after the call, who
// leads. It works on every member, and goes on trying until ctx ends. Reads that come together share one round.
func (r *Replica) ReadIndex(ctx context.Context) (uint64, error) {
	q := read{gone: ctx.Done(), out: make(chan uint64, 1)}
	select {
	case r.reads <- q:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-r.done:
		return 0, ErrClosed
	}
	select {
	case index := <-q.out:
		return index, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-r.done:
		return 0, ErrClosed
	}
}

// memberChange is a change of the members that somebody waits for.
type memberChange struct {
	change Change
	force  bool
	gone   <-chan struct{} // closed when nobody waits any more
	out    chan<- changed

	proposed uint64 // the entry after which it holds; 0: it was not taken yet
	term     uint64 // of the entry
	member   Member
}

// changed is what became of a memberChange.
type changed struct {
	member Member
	err    error
}

// settleChanges goes on with the changes that wait, one after the other.
func (l *loop) settleChanges() {
	for len(l.changes) > 0 {
		done, err := l.settleChange(l.changes[0])
		if errors.Is(err, errAgain) {
			return
		}
		l.changes[0].out <- changed{member: done, err: err}
		l.changes = l.changes[1:]
	}
}

// settleChange gives errAgain while the outcome is open.
func (l *loop) settleChange(m *memberChange) (Member, error) {
	select {
	case <-m.gone:
		return Member{}, context.Canceled // nobody looks
	default:
	}
	c := l.core
	switch {
	case m.proposed == 0:
	case c.term != m.term || !c.role.Leader:
		return Member{}, fmt.Errorf("whether the change took effect is not known: %w", ErrNotLeader)
	case c.changed >= m.proposed:
		return m.member, nil
	case c.applied < m.proposed:
		return Member{}, errAgain
	}
	member, index, err := c.ProposeMember(m.change, m.force)
	if errors.Is(err, ErrChanging) {
		return Member{}, errAgain
	}
	if err != nil || index == 0 {
		return member, err
	}
	m.proposed, m.term, m.member = index, c.term, member
	return Member{}, errAgain
}

// handing is a transfer of leadership that somebody waits for.
type handing struct {
	until int // ticks when it has failed
	out   chan<- error
}

// transfer begins to hand leadership over and sends what comes of it: nil when this node does not lead any more.
func (l *loop) transfer(tries int, out chan<- error) {
	err := l.core.Transfer(tries)
	switch {
	case errors.Is(err, ErrNotLeader):
		out <- nil
	case err != nil:
		out <- err
	default:
		l.handings = append(l.handings, handing{until: l.core.ticks + electionTicks, out: out})
	}
}

func (l *loop) settleHandings() {
	leads, open := l.core.Leading(), l.handings[:0]
	for _, h := range l.handings {
		switch {
		case !leads:
			h.out <- nil
		case l.core.ticks > h.until:
			h.out <- errAgain
		default:
			open = append(open, h)
		}
	}
	l.handings = open
}
