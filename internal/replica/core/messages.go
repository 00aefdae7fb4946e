package core

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// errNoLeader: no leader is known, or it is not ready yet, so a read must be requested again.
var errNoLeader = errors.New("no leader is known")

// step takes a message of a peer. An error means that the message was refused; it changes nothing.
func (c *consensus) step(m *raftpb.Message) error {
	err := Acceptable(m, c.id)
	if err == nil && m.GetType() == raftpb.MsgSnap {
		err = c.acceptableSnapshot(m)
	}
	if err != nil {
		return fmt.Errorf("message of member %d: %w", m.GetFrom(), err)
	}
	c.heard[m.GetFrom()] = c.ticks
	if m.GetType() == raftpb.MsgTimeoutNow && (c.disk.hung || c.disk.full) {
		return nil // whoever asks will look for another
	}
	if m.GetType() == raftpb.MsgReadIndex && c.soft.RaftState == raft.StateLeader && c.readyTerm != c.term {
		return nil // not known yet what is committed; raft itself looks only when there are several voters
	}
	err = c.node.Step(m)
	if err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) {
		return fmt.Errorf("message of member %d: %w", m.GetFrom(), err)
	}
	if c.fromLeader(m) {
		c.heardLead = c.ticks
	}
	return nil // an answer of a member that was removed meanwhile is no error
}

// Acceptable says whether a peer may send m to member id.
func Acceptable(m *raftpb.Message, id uint64) error {
	if m.GetTo() != id {
		return fmt.Errorf("it is for member %d, this is member %d", m.GetTo(), id)
	}
	if from := m.GetFrom(); from == raft.None || from == id || raft.IsLocalMsgTarget(from) {
		return errors.New("no other member has that number")
	}
	switch m.GetType() { //nolint:exhaustive // all others are of raft's own, or not used here
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
		raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow, raftpb.MsgReadIndexResp, raftpb.MsgSnap:
		return nil
	case raftpb.MsgReadIndex:
		if len(m.GetEntries()) != 1 {
			return errors.New("a read without a name")
		}
		return nil
	default:
		return fmt.Errorf("%v is not for peers to say", m.GetType())
	}
}

// acceptableSnapshot says whether the snapshot of m can be one of this cluster.
func (c *consensus) acceptableSnapshot(m *raftpb.Message) error {
	p, err := PositionOf(m.GetSnapshot())
	if err == nil && p.Members.Cluster != c.members().Cluster {
		err = fmt.Errorf("its snapshot belongs to cluster %s, not %s", p.Members.Cluster, c.members().Cluster)
	}
	return err
}

// fromLeader says whether m, which was stepped, shows that its sender leads now.
func (c *consensus) fromLeader(m *raftpb.Message) bool {
	if t := m.GetType(); t != raftpb.MsgApp && t != raftpb.MsgHeartbeat && t != raftpb.MsgSnap {
		return false
	}
	status := c.node.BasicStatus()
	return status.Lead == m.GetFrom() && status.GetTerm() == m.GetTerm()
}

// readIndex asks for the index that a linearizable read must wait for; Work.Reads answers it, or nothing does, and then it is
// to be asked again. context must be unlike any that this member ever used in another read, also before it was started again.
func (c *consensus) readIndex(context []byte) error {
	if c.soft.Lead == raft.None || (c.soft.RaftState == raft.StateLeader && c.readyTerm != c.term) {
		return errNoLeader
	}
	c.node.ReadIndex(context)
	return nil
}

// reportSnapshot tells what became of the MsgSnap that was last sent to that member.
func (c *consensus) reportSnapshot(id uint64, ok bool) {
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
	}
	c.node.ReportSnapshot(id, status)
}

// reportUnreachable tells that messages to that member were lost.
func (c *consensus) reportUnreachable(id uint64) { c.node.ReportUnreachable(id) }

// outgoing holds back entries that this leader has not on its own disk yet, while there are no more than two voters.
//
// With one voter, the entry that makes a second one is committed by the first alone. If power failed soon after, and the first lost the
// end of its log, which the second had been sent already, nobody could be elected: the second does not vote for a log that is
// shorter than its own, and does not stand for election itself, as what it has on disk does not say that it is a voter. With
// three voters or more there is always one that can be elected, and entries go out while they are being saved.
func (c *consensus) outgoing(messages []*raftpb.Message) []*raftpb.Message {
	if c.soft.RaftState != raft.StateLeader {
		c.held = nil // of a term that is over
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
	blocked := map[uint64]bool{} // they keep their order
	return slices.DeleteFunc(messages, func(m *raftpb.Message) bool {
		if m.GetType() != raftpb.MsgApp || (!blocked[m.GetTo()] && !waits(m)) {
			return false
		}
		blocked[m.GetTo()] = true
		c.held = append(c.held, m)
		return true
	})
}
