package core

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// round measures whether a learner has caught up, as in section 4.2.1 of the Raft thesis: in a round it is sent what the log held when the
// round began. When a round takes less than an election time, it has caught up.
type round struct {
	target uint64 // index
	began  int    // ticks
}

// diskState is the condition of this node's disk.
type diskState struct {
	hung bool // a write has not finished within an election time
	full bool // there is no room for the log
}

// transferState is a transfer of leadership that is under way or, when the disk is hung or full, repeated with back-off.
type transferState struct {
	active bool // when last checked
	tries  int
	next   int // tick of the next try
}

// setDisk sets the condition of the disk. If it is hung or full, a leader hands leadership over, with retries, and refuses to become
// leader by a transfer; with a hung disk it does not campaign either.
func (c *consensus) setDisk(hung, full bool) {
	if !hung && !full {
		c.transfer.tries, c.transfer.next = 0, 0
	}
	c.disk = diskState{hung: hung, full: full}
}

// answers reports whether a member was heard from within an election time.
func (c *consensus) answers(id uint64) bool {
	at, ok := c.heard[id]
	return id == c.id || (ok && c.ticks-at <= c.cfg.ElectionTicks)
}

// progress returns what raft, leading, knows of the others.
func (c *consensus) progress() map[uint64]tracker.Progress {
	all := map[uint64]tracker.Progress{}
	c.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) { all[id] = pr })
	return all
}

// successors returns the voters that could lead, the most up-to-date first.
func (c *consensus) successors() []uint64 {
	all := c.progress()
	ids := slices.DeleteFunc(c.members().voters(), func(id uint64) bool { return id == c.id || !c.answers(id) })
	slices.SortStableFunc(ids, func(a, b uint64) int { return cmp.Compare(all[b].Match, all[a].Match) })
	return ids
}

// ErrNoSuccessor means that no other voter could lead.
var ErrNoSuccessor = errors.New("no other leader that could take over answers")

// transferLeadership begins to hand leadership to the most up-to-date voter that answers, or after failed tries to the next. It succeeds or
// fails within an election time.
func (c *consensus) transferLeadership(tries int) error {
	if c.soft.RaftState != raft.StateLeader {
		return ErrNotLeader
	}
	ids := c.successors()
	if len(ids) == 0 {
		return ErrNoSuccessor
	}
	c.node.TransferLeader(ids[tries%len(ids)])
	c.transfer.active = true
	return nil
}

// transferring reports whether a transfer of leadership is under way.
func (c *consensus) transferring() bool {
	c.transfer.active = c.transfer.active && c.node.BasicStatus().LeadTransferee != raft.None
	return c.transfer.active
}

// ErrSelf means that this node, leading, was to remove itself: another leader must do it.
var ErrSelf = errors.New("a leader does not remove itself")

// duties are done by a leader in each tick.
func (c *consensus) duties() {
	if c.disk.hung || c.disk.full {
		c.stepAside()
		return
	}
	if !c.role.Leader || c.pending() {
		return
	}
	c.publishAddress()
	if !c.pending() {
		c.promote()
	}
}

// stepAside hands leadership over, if the others have a quorum without this node.
func (c *consensus) stepAside() {
	if c.ticks < c.transfer.next {
		return
	}
	voters := c.members().voters()
	if len(c.successors()) < len(voters)/2+1 {
		return
	}
	if c.transferLeadership(c.transfer.tries) == nil {
		c.transfer.next = c.ticks + c.cfg.ElectionTicks<<min(c.transfer.tries, 4)
		c.transfer.tries++
	}
}

// publishAddress corrects this node's entry in the member list. The change may be refused, for instance if another member has the address;
// then the list stays as it is.
func (c *consensus) publishAddress() {
	self, ok := c.members().Get(c.id)
	if !ok {
		return
	}
	want := self
	want.Address = cmp.Or(c.cfg.Address, self.Address)
	want.Directory = cmp.Or(self.Directory, c.cfg.Directory)
	if want != self {
		_, _, _ = c.proposeMember(Change{Op: OpUpdate, Member: want}, false)
	}
}

// promote makes learners that have caught up voters, one at a time.
func (c *consensus) promote() {
	var all map[uint64]tracker.Progress
	for _, m := range c.members().List {
		if m.Voter {
			delete(c.rounds, m.ID)
			continue
		}
		if all == nil {
			all = c.progress()
		}
		pr, r := all[m.ID], c.rounds[m.ID]
		if r.target == 0 || !c.answers(m.ID) {
			c.rounds[m.ID] = round{target: c.last, began: c.ticks}
			continue
		}
		if pr.State != tracker.StateReplicate || pr.Match < r.target {
			continue
		}
		if c.ticks-r.began > c.cfg.ElectionTicks {
			c.rounds[m.ID] = round{target: c.last, began: c.ticks}
			continue
		}
		if _, _, err := c.proposeMember(Change{Op: OpPromote, Member: m}, false); err == nil {
			return
		}
	}
}

// pending reports whether raft would drop a change of the members now, because an older one is not applied yet.
func (c *consensus) pending() bool { return c.changing > c.node.BasicStatus().Applied }

// proposeMember proposes one change of the members. It returns the resulting member and the index of the entry, 0 if nothing needs to be
// changed. Errors: ErrNotLeader, ErrChanging, ErrSelf, ErrQuorum (with force only for the last voter), or why the change is invalid.
func (c *consensus) proposeMember(change Change, force bool) (Member, uint64, error) {
	if !c.role.Leader {
		return Member{}, 0, ErrNotLeader
	}
	if c.pending() {
		return Member{}, 0, ErrChanging
	}
	change, needed, err := c.members().plan(change)
	if err != nil || !needed {
		return change.Member, 0, err
	}
	if err := change.Member.Check(); err != nil {
		return Member{}, 0, err
	}
	if n := len(c.members().List); change.Op == OpAdd && n >= MembersMax {
		return Member{}, 0, fmt.Errorf("the cluster has %d leaders, which is the limit: remove one first", n)
	}
	if change.Op == OpRemove && !force {
		err := c.quorumWithout(change.Member)
		if err != nil && c.ticks-c.ledSince <= c.cfg.ElectionTicks {
			return Member{}, 0, fmt.Errorf("this leader has just been elected, and has not heard from all others yet: %w", ErrChanging)
		}
		if err != nil {
			return Member{}, 0, err
		}
	}
	if change.Op == OpRemove && change.Member.ID == c.id {
		return Member{}, 0, ErrSelf
	}
	cc, err := change.entry()
	if err != nil {
		return Member{}, 0, err
	}
	err = c.node.ProposeConfChange(cc)
	if errors.Is(err, raft.ErrProposalDropped) {
		return Member{}, 0, ErrNotLeader
	}
	if err != nil {
		return Member{}, 0, fmt.Errorf("propose a change of the members: %w", err)
	}
	c.last++
	c.changing = c.last
	return change.Member, c.last, nil
}

// quorumWithout returns an error if the members that answer have no quorum without m.
func (c *consensus) quorumWithout(m Member) error {
	if !m.Voter {
		return nil
	}
	voters := c.members().voters()
	answer := 0
	for _, id := range voters {
		if c.answers(id) {
			answer++
		}
	}
	left, majority := len(voters)-1, (len(voters)-1)/2+1
	then := answer
	if c.answers(m.ID) {
		then--
	}
	if then >= majority {
		return nil
	}
	return fmt.Errorf("%d leaders, %d of them answer; without leader %d there are %d, a majority is %d, and %d answers: "+
		"bring back one that does not answer or remove that one first, or force it: %w", len(voters), answer, m.ID, left, majority, then, ErrQuorum)
}

// changeMembers applies a committed change of the members.
func (c *consensus) changeMembers(e *raftpb.Entry) (*Members, error) {
	change, cc, err := decodeChange(e)
	if err != nil {
		return nil, err
	}
	members, applied := c.members().apply(change)
	if !applied {
		return members, nil
	}
	var notice []*raftpb.Message
	if change.Op == OpRemove && change.Member.ID != c.id && c.soft.RaftState == raft.StateLeader {
		notice = c.removalNotice(change.Member.ID, e)
	}
	conf := c.node.ApplyConfChange(cc)
	if err := conf.Equivalent(members.ConfState()); err != nil {
		return nil, fmt.Errorf("raft and this program disagree about the members: %w", err)
	}
	c.peers = append(c.peers, notice...)
	return members, nil
}

// removalNotice returns the messages that inform a member that the committed entry e has removed it; none if the member is too far behind.
// Raft itself stops sending to it at once, so that it would not learn of its removal. Each message has one entry: a member ignores one that
// begins before its commit index, and that may be ahead of what it has acknowledged.
func (c *consensus) removalNotice(id uint64, e *raftpb.Entry) []*raftpb.Message {
	pr := c.progress()[id]
	prev := min(cmp.Or(pr.Match, pr.Next-1), e.GetIndex()-1) // a new leader has no answer yet, and guesses what the member has
	term, err := c.log.Term(prev)
	if err != nil {
		return nil
	}
	entries, err := c.log.Entries(prev+1, e.GetIndex()+1, appendBytesMax)
	if err != nil || len(entries) < int(e.GetIndex()-prev) {
		return nil
	}
	var notice []*raftpb.Message
	for _, entry := range entries {
		notice = append(notice, &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), From: new(c.id), To: new(id), Term: new(c.term),
			Index: new(prev), LogTerm: new(term), Entries: []*raftpb.Entry{entry}, Commit: new(e.GetIndex()),
		})
		prev, term = entry.GetIndex(), entry.GetTerm()
	}
	return notice
}

// peerStatus returns what this node, leading, knows of the other members.
func (c *consensus) peerStatus() []PeerStatus {
	if c.soft.RaftState != raft.StateLeader || len(c.members().List) < 2 {
		return nil
	}
	all := c.progress()
	var peers []PeerStatus
	for _, m := range c.members().List {
		if m.ID != c.id {
			peers = append(peers, PeerStatus{ID: m.ID, Match: all[m.ID].Match, Active: c.answers(m.ID)})
		}
	}
	return peers
}

// leading reports whether raft considers this node the leader, announced or not.
func (c *consensus) leading() bool { return c.soft.RaftState == raft.StateLeader }

// status leaves out Peers, which cost more, and times.
func (c *consensus) status() Status {
	s := Status{
		ID: c.id, Term: c.term, Leader: c.role.Leader, LeaderID: c.role.LeaderID, VotedFor: c.vote,
		Committed: c.committed, Applied: c.applied, Last: c.last,
	}
	switch c.soft.RaftState {
	case raft.StateLeader:
		s.Role = RoleLeader
	case raft.StateCandidate, raft.StatePreCandidate:
		s.Role = RoleCandidate
	case raft.StateFollower:
		s.Role = RoleFollower
	}
	return s
}
