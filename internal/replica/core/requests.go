package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
)

// errPending: the outcome of a request is still open.
var errPending = errors.New("not yet")

// requests are those that wait for their outcome.
type requests struct {
	changes   []*memberChange
	transfers []transfer
	reads     reads
	canceled  map[Ref]bool // to be dropped with the next tick
}

// memberChange is a change of the members that has been requested.
type memberChange struct {
	ChangeMembers

	proposed uint64 // the entry that makes it effective; 0: not proposed yet
	term     uint64 // of the entry
	member   Member
}

// settleChanges goes on with the requested changes, one after the other.
func (c *Core) settleChanges() {
	for len(c.changes) > 0 {
		m, err := c.settleChange(c.changes[0])
		if errors.Is(err, errPending) {
			return
		}
		c.answer(Answer{Ref: c.changes[0].Ref, Member: m, Err: err})
		c.changes = c.changes[1:]
	}
}

// settleChange returns errPending while the outcome is open.
func (c *Core) settleChange(m *memberChange) (Member, error) {
	switch {
	case m.proposed == 0:
	case c.con.term != m.term || !c.con.role.Leader:
		return Member{}, fmt.Errorf("it is unknown whether the change took effect: %w", ErrNotLeader)
	case c.con.changed >= m.proposed:
		return m.member, nil
	case c.con.applied < m.proposed:
		return Member{}, errPending
	}
	member, index, err := c.con.proposeMember(m.Change, m.Force)
	if errors.Is(err, ErrChanging) {
		return Member{}, errPending
	}
	if err != nil || index == 0 {
		return member, err
	}
	m.proposed, m.term, m.member = index, c.con.term, member
	return Member{}, errPending
}

// transfer is a requested transfer of leadership. It is retried with the next voter until this node does not lead.
type transfer struct {
	ref   Ref
	tries int
	until int // tick at which this try has failed
}

func (c *Core) transferLeadership(t transfer) {
	switch err := c.con.transferLeadership(t.tries); {
	case errors.Is(err, ErrNotLeader):
		c.answer(Answer{Ref: t.ref})
	case err != nil:
		c.answer(Answer{Ref: t.ref, Err: err})
	default:
		t.tries, t.until = t.tries+1, c.con.ticks+c.cfg.ElectionTicks
		c.transfers = append(c.transfers, t)
	}
}

func (c *Core) settleTransfers() {
	open := c.transfers
	c.transfers = nil
	for _, t := range open {
		switch {
		case !c.con.leading():
			c.answer(Answer{Ref: t.ref})
		case c.con.ticks > t.until:
			c.transferLeadership(t)
		default:
			c.transfers = append(c.transfers, t)
		}
	}
}

// reads are the linearizable reads. All that are requested while a round is under way share the next one: only a round that
// began after a request may answer it.
type reads struct {
	waiting []Ref
	round   []Ref  // of the round under way
	number  uint64 // of that round
	asked   bool   // raft was asked
	at      int    // tick at which it was
}

// readContext is raft's name for the round; no other read of this member, in this process or an earlier one, has it.
func (c *Core) readContext() []byte {
	return binary.BigEndian.AppendUint64(c.cfg.Nonce[:], c.reads.number)
}

// settleReads begins a round when there is none, and repeats its question when the answer takes long: messages may be lost.
func (c *Core) settleReads() {
	q := &c.reads
	if len(q.round) == 0 {
		if len(q.waiting) == 0 {
			return
		}
		q.round, q.waiting = q.waiting, nil
		q.number++
		q.asked = false
	}
	if q.asked && c.con.ticks-q.at < 4*c.cfg.HeartbeatTicks {
		return
	}
	if c.con.readIndex(c.readContext()) == nil {
		q.asked, q.at = true, c.con.ticks
	}
}

// answerReads answers the round under way, unless the answers are to an earlier one, whose question was repeated.
func (c *Core) answerReads(answers []raft.ReadState) {
	q := &c.reads
	for _, a := range answers {
		if len(q.round) == 0 || !slices.Equal(a.RequestCtx, c.readContext()) {
			continue
		}
		for _, ref := range q.round {
			c.answer(Answer{Ref: ref, Index: a.Index})
		}
		q.round = nil
	}
}

// dropCanceled drops canceled requests. A change that was proposed already may still take effect.
func (c *Core) dropCanceled() {
	if len(c.canceled) == 0 {
		return
	}
	is := func(ref Ref) bool { return c.canceled[ref] }
	c.reads.waiting = slices.DeleteFunc(c.reads.waiting, is)
	c.reads.round = slices.DeleteFunc(c.reads.round, is)
	c.changes = slices.DeleteFunc(c.changes, func(m *memberChange) bool { return is(m.Ref) })
	c.transfers = slices.DeleteFunc(c.transfers, func(t transfer) bool { return is(t.ref) })
	clear(c.canceled)
}
