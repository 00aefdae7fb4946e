package core

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Raft panics on messages that no member sends, or takes them as its own (those without a term). So messages are checked here before raft sees
// them. What looks like the message of a member, such as a forged vote, is up to the authentication of the connection.
const (
	// TermMax is the highest term: fencing numbers have 24 bits for it (state.NewLease).
	TermMax = 1<<24 - 1
	// termJumpMax bounds how far the term of a message may be ahead. With pre-votes a term is an election that a majority supported, of which
	// there are at most two a second: this member would have missed six days of nothing but elections.
	termJumpMax = 1 << 20
	// indexMax bounds indexes, so that sums do not overflow.
	indexMax = 1 << 62
	// MessageEntriesMax bounds the entries of a message. One with several has about appendBytesMax at most.
	MessageEntriesMax = 1 << 18
	// contextBytesMax bounds the name of a read, and of a campaign.
	contextBytesMax = 64
)

// errTerm is the error for a term that leaves no valid one. Recover repairs it.
func errTerm(term uint64) error {
	return fmt.Errorf("term %d is above the limit of %d: a damaged message was accepted by an older version; if other leaders live, remove this "+
		"one and let it join again with an empty data directory, otherwise run \"bridgefour recover\" on it", term, TermMax)
}

// Acceptable returns why no member can have sent m to member id.
func Acceptable(m *raftpb.Message, id uint64) error {
	if m.GetTo() != id {
		return fmt.Errorf("it is for member %d, this is member %d", m.GetTo(), id)
	}
	if from := m.GetFrom(); from == id || checkID(from) != nil {
		return errors.New("no other member has that id")
	}
	entries, hasTerm := 0, true // entries: -1 stands for any number
	switch m.GetType() {        //nolint:exhaustive // the others are internal to raft, or not used
	case raftpb.MsgApp:
		entries = -1
	case raftpb.MsgReadIndex:
		entries, hasTerm = 1, false
	case raftpb.MsgReadIndexResp:
		entries = 1
	case raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgHeartbeat,
		raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow, raftpb.MsgSnap:
	default:
		return errors.New("it is not a message between members")
	}
	switch term := m.GetTerm(); {
	case hasTerm != (term > 0):
		return fmt.Errorf("its term is %d", term)
	case term > TermMax:
		return fmt.Errorf("its term %d is above the limit of %d", term, TermMax)
	case hasTerm && m.GetLogTerm() > term:
		return fmt.Errorf("its log has term %d, later than its own %d", m.GetLogTerm(), term)
	case max(m.GetIndex(), m.GetCommit(), m.GetRejectHint()) > indexMax:
		return fmt.Errorf("its index %d, commit index %d or hint %d is above the limit of %d", m.GetIndex(), m.GetCommit(), m.GetRejectHint(),
			uint64(indexMax))
	case len(m.GetContext()) > contextBytesMax:
		return fmt.Errorf("its context has %d bytes, the limit is %d", len(m.GetContext()), contextBytesMax)
	case entries >= 0 && len(m.GetEntries()) != entries, len(m.GetEntries()) > MessageEntriesMax:
		return fmt.Errorf("it has %d entries", len(m.GetEntries()))
	case len(m.GetResponses()) > 0 || m.GetVote() != 0 || (m.GetSnapshot() != nil) != (m.GetType() == raftpb.MsgSnap):
		return errors.New("it has fields of another type of message")
	}
	switch {
	case m.GetType() == raftpb.MsgApp:
		return acceptableEntries(m)
	case m.GetType() == raftpb.MsgSnap:
		return acceptableSnapshot(m)
	case entries == 1 && len(m.GetEntries()[0].GetData()) > contextBytesMax:
		return fmt.Errorf("the name of the read has %d bytes, the limit is %d", len(m.GetEntries()[0].GetData()), contextBytesMax)
	}
	return nil
}

// acceptableEntries returns why the entries of m cannot be a part of a log.
func acceptableEntries(m *raftpb.Message) error {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		index++
		switch {
		case e.GetIndex() != index:
			return fmt.Errorf("its entry %d is at the place of entry %d", e.GetIndex(), index)
		case e.GetTerm() == 0 || e.GetTerm() < term || e.GetTerm() > m.GetTerm():
			return fmt.Errorf("its entry %d has term %d, want %d to %d", index, e.GetTerm(), max(term, 1), m.GetTerm())
		}
		term = e.GetTerm()
		if e.GetType() == raftpb.EntryNormal {
			continue
		}
		if _, _, err := decodeChange(e); err != nil {
			return fmt.Errorf("its entry %d, a change of the members: %w", index, err)
		}
	}
	return nil
}

// acceptableSnapshot returns why no log can continue behind the snapshot of m.
func acceptableSnapshot(m *raftpb.Message) error {
	p, err := PositionOf(m.GetSnapshot())
	switch {
	case err != nil:
		return err
	case p.Index == 0 || p.Index > indexMax:
		return fmt.Errorf("its snapshot is at entry %d, want 1 to %d", p.Index, uint64(indexMax))
	case p.Term == 0 || p.Term > m.GetTerm():
		return fmt.Errorf("its snapshot has term %d, want 1 to %d", p.Term, m.GetTerm())
	}
	if err := p.Members.Check(); err != nil {
		return fmt.Errorf("its snapshot: %w", err)
	}
	return nil
}

// acceptable returns why the sender of m, which is Acceptable, cannot have sent it in the present state.
func (c *consensus) acceptable(m *raftpb.Message) error {
	members, now, from := c.members(), c.node.BasicStatus(), m.GetFrom()
	term, ours := m.GetTerm(), now.GetTerm()
	fresh := len(members.List) == 0 // a new member knows nothing yet
	fromLead := now.Lead == from && term == ours
	switch {
	case term > ours && term-ours > termJumpMax && !fresh:
		return fmt.Errorf("its term %d is more than %d ahead of this member's %d: if that is right, start this member with an empty data "+
			"directory and --join", term, termJumpMax, ours)
	case now.Lead != raft.None && term == ours && !fromLead && leads(m.GetType()):
		return fmt.Errorf("member %d leads in term %d", now.Lead, term)
	case m.GetType() == raftpb.MsgHeartbeat && term >= ours && m.GetCommit() > c.last:
		return fmt.Errorf("its commit index %d is behind the end of this log, %d", m.GetCommit(), c.last)
	case m.GetType() == raftpb.MsgAppResp && now.RaftState == raft.StateLeader && term == ours && max(m.GetIndex(), m.GetRejectHint()) > c.last:
		return fmt.Errorf("its index %d or hint %d is behind the end of this log, %d", m.GetIndex(), m.GetRejectHint(), c.last)
	}
	if m.GetType() == raftpb.MsgSnap {
		p, err := PositionOf(m.GetSnapshot())
		if err == nil && p.Members.Cluster != members.Cluster {
			err = fmt.Errorf("its snapshot belongs to cluster %s, not %s", p.Members.Cluster, members.Cluster)
		}
		return err
	}
	return nil
}

// strange reports whether m is of a member that was removed, or is none as far as this one knows. Such messages are ignored: the transport
// refuses the sender, and a late message is not an error. A sender that has a longer log than this member has applied may have been added there.
func (c *consensus) strange(m *raftpb.Message) bool {
	members, now := c.members(), c.node.BasicStatus()
	if slices.Contains(members.Removed, m.GetFrom()) {
		return true
	}
	if _, known := members.Get(m.GetFrom()); known || len(members.List) == 0 {
		return false
	}
	switch m.GetType() { //nolint:exhaustive // the others prove nothing
	case raftpb.MsgApp:
		return m.GetCommit() <= c.applied
	case raftpb.MsgSnap:
		return m.GetSnapshot().GetMetadata().GetIndex() <= c.applied
	case raftpb.MsgVote, raftpb.MsgPreVote:
		return m.GetIndex() <= c.applied
	}
	return now.Lead != m.GetFrom() || now.GetTerm() != m.GetTerm()
}

// leads reports whether only the leader of a term sends messages of that type.
func leads(t raftpb.MessageType) bool {
	return t == raftpb.MsgApp || t == raftpb.MsgHeartbeat || t == raftpb.MsgSnap || t == raftpb.MsgTimeoutNow || t == raftpb.MsgReadIndexResp
}

// superfluous reports whether raft need not, or must not, see m.
func (c *consensus) superfluous(m *raftpb.Message) bool {
	now := c.node.BasicStatus()
	switch m.GetType() { //nolint:exhaustive // the others are for raft
	case raftpb.MsgTimeoutNow:
		// With a bad disk the leader will try another member. Without a leader this member was restarted meanwhile.
		return c.disk.hung || c.disk.full || now.Lead != m.GetFrom()
	case raftpb.MsgPreVote:
		// Raft cannot reject it without a term, which a member has as soon as its cluster has a leader.
		return now.GetTerm() == 0 && (m.GetLogTerm() < c.cfg.Start.Term || m.GetIndex() < c.cfg.Start.Index)
	case raftpb.MsgReadIndex:
		// Raft would forward it. A leader that is not ready may have an outdated commit index, which raft checks only with several voters.
		return now.RaftState != raft.StateLeader || c.readyTerm != c.term
	}
	return false
}
