package core

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// errNoLeader means that no leader is known, or that it is not ready: the read must be requested again.
var errNoLeader = errors.New("no leader is known")

// step handles a message of a peer. An error means that it was refused and has changed nothing.
func (c *consensus) step(m *raftpb.Message) error {
	err := Acceptable(m, c.id)
	strange := err == nil && c.strange(m)
	if err == nil {
		err = c.acceptable(m)
	}
	switch {
	case strange && err == nil:
		c.answerStranger(m)
		return nil
	case strange:
		return nil
	case err != nil:
		return fmt.Errorf("%v of member %d: %w", m.GetType(), m.GetFrom(), err)
	}
	c.heard[m.GetFrom()] = c.ticks
	if c.superfluous(m) {
		return nil
	}
	err = c.node.Step(m)
	if err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) {
		return fmt.Errorf("message of member %d: %w", m.GetFrom(), err)
	}
	if c.fromLeader(m) {
		c.heardLead = c.ticks
	}
	return nil // a response of a member that was removed meanwhile is no error
}

// answerStranger answers the heartbeat of a leader that this member does not know, and changes nothing: the leader may have been added while this
// member was cut off. The entries that say so come only after an answer if those sent at the election were lost.
func (c *consensus) answerStranger(m *raftpb.Message) {
	if m.GetType() != raftpb.MsgHeartbeat || m.GetTerm() < c.node.BasicStatus().GetTerm() || slices.Contains(c.members().Removed, m.GetFrom()) {
		return
	}
	// Without the context, it confirms no read.
	c.peers = append(c.peers, &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: new(c.id), To: m.From, Term: m.Term})
}

// fromLeader reports whether m, which raft has stepped, proves that its sender leads now.
func (c *consensus) fromLeader(m *raftpb.Message) bool {
	if t := m.GetType(); t != raftpb.MsgApp && t != raftpb.MsgHeartbeat && t != raftpb.MsgSnap {
		return false
	}
	status := c.node.BasicStatus()
	return status.Lead == m.GetFrom() && status.GetTerm() == m.GetTerm()
}

// readIndex requests the index for a linearizable read. The answer is in work.reads, or lost. context must differ from that of every other
// read of this member, also of earlier processes.
func (c *consensus) readIndex(context []byte) error {
	if c.soft.Lead == raft.None || (c.soft.RaftState == raft.StateLeader && c.readyTerm != c.term) {
		return errNoLeader
	}
	c.node.ReadIndex(context)
	return nil
}

// reportSnapshot reports the outcome of the MsgSnap that was last sent to a member.
func (c *consensus) reportSnapshot(id uint64, ok bool) {
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
	}
	c.node.ReportSnapshot(id, status)
}

// reportUnreachable reports that messages to a member were lost.
func (c *consensus) reportUnreachable(id uint64) { c.node.ReportUnreachable(id) }

// outgoing holds back entries that are not on this leader's disk yet, while there are at most two voters.
//
// With one voter, the entry that adds a second one is committed by the first alone. If power failed soon after, and the first lost the
// end of its log, which the second had received already, neither could be elected: the second does not vote for a log shorter than its
// own, and does not campaign, because the log on its disk does not make it a voter. With three or more voters one can always be
// elected, so entries are sent while they are being persisted.
func (c *consensus) outgoing(messages []*raftpb.Message) []*raftpb.Message {
	if c.soft.RaftState != raft.StateLeader {
		c.held = nil // of an earlier term
		return messages
	}
	if len(c.held) > 0 {
		messages, c.held = append(c.held, messages...), nil
	}
	if len(c.members().voters()) > 2 {
		return messages
	}
	waits := func(m *raftpb.Message) bool {
		n := len(m.GetEntries())
		if n == 0 {
			return false
		}
		last := m.GetEntries()[n-1]
		term, err := c.log.Term(last.GetIndex())
		return !errors.Is(err, raft.ErrCompacted) && (err != nil || term != last.GetTerm())
	}
	blocked := map[uint64]bool{} // keep the order per member
	return slices.DeleteFunc(messages, func(m *raftpb.Message) bool {
		if m.GetType() != raftpb.MsgApp || (!blocked[m.GetTo()] && !waits(m)) {
			return false
		}
		blocked[m.GetTo()] = true
		c.held = append(c.held, m)
		return true
	})
}
