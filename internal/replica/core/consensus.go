package core

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	// InFlightBytesMax bounds the entries that this leader has proposed and that are not delivered yet.
	InFlightBytesMax = 32 << 20
	// entryOverheadBytes is roughly the memory of an entry besides its data.
	entryOverheadBytes = 128
	// deliverBytesMax bounds one delivery, and so the memory of a slow consumer.
	deliverBytesMax = 4 << 20
	// appendBytesMax bounds one message of entries to a peer, and sendBytesMax those in flight to one peer, which it may have to
	// keep in memory while its disk is slow.
	appendBytesMax = 1 << 20
	sendBytesMax   = 16 << 20
	// trimBytes is how much of the log a lone member keeps in memory before it drops it: dropping copies the rest, so it is not
	// done for each entry.
	trimBytes = 4 << 20
	// keptBytesMax bounds the log in memory before the newest snapshot. Peers that need older entries are sent the snapshot.
	keptBytesMax = 32 << 20
)

// consensus is one member's raft: it wraps a RawNode, and knows the members, what is in flight and what a snapshot must say.
// After any call, ready returns the work that it caused.
type consensus struct {
	id   uint64
	cfg  Config // without Entries
	node *raft.RawNode
	log  *memoryLog

	ticks int // starts at 1, so that 0 means never
	soft  raft.SoftState
	term  uint64
	vote  uint64

	committed uint64
	last      uint64 // last index of the log, persisted or not
	applied   uint64 // delivered up to here
	// normal is the last delivered entry that the consumer knows of: those behind it are raft's own.
	normal uint64
	// marks are the positions at which the term or the members changed, ascending; the first is at or before the newest
	// snapshot, the others are raft's own entries. They give the term and the members at any index.
	marks []Position

	leadership
	contacts
	flight   flight
	transfer transferState
	disk     diskState

	// changed is the index of the newest applied change of the members, changing that of the newest proposed in this term.
	changed, changing uint64

	peers    []*raftpb.Message // to send with the next work
	held     []*raftpb.Message // to send once their entries are persisted: see outgoing
	installs []Delivery        // snapshots that were persisted, for the next work
}

// leadership is what a member has announced of its role.
type leadership struct {
	role      Role   // announced last
	readyTerm uint64 // the newest term in which this node, leading, has committed an entry of its own
	ledSince  int    // in ticks: when this node last became leader
}

// contacts is when other members were last heard from, in ticks, and how far learners have caught up.
type contacts struct {
	heard     map[uint64]int
	heardLead int // the last valid message of the leader; 0: never
	rounds    map[uint64]round
}

// flight is what was proposed in this term and is not delivered yet. It is reset with the term: proposals of an older one may
// never be delivered.
type flight struct {
	term  uint64
	bytes int
}

// work is what must be done for the consensus: saves must be persisted in order and handed back to saved, deliveries carried out in order
// and handed back to delivered. Messages may be lost, but the loss of a MsgSnap must be reported by reportSnapshot.
type work struct {
	saves      []*raftpb.Message
	deliveries []Delivery
	messages   []*raftpb.Message
	reads      []raft.ReadState
}

// newConsensus starts a member. An error means that what cfg holds cannot come from an intact log.
func newConsensus(cfg Config) (_ *consensus, err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case InvariantError:
			err = fmt.Errorf("start as member %d: %w", cfg.ID, v)
		default:
			panic(v)
		}
	}()
	if cfg.State.GetCommit() < cfg.Start.Index && cfg.State != nil {
		// The entries of a snapshot are committed, even if the persisted commit index is older.
		cfg.State = &raftpb.HardState{Term: cfg.State.Term, Vote: cfg.State.Vote, Commit: new(cfg.Start.Index)}
	}
	if cfg.Logger == nil {
		cfg.Logger = silent{}
	}
	if term := cfg.State.GetTerm(); term > TermMax {
		return nil, fmt.Errorf("start as member %d: %w", cfg.ID, errTerm(term))
	}
	log, err := newMemoryLog(cfg.Start, cfg.State, cfg.Entries)
	if err != nil {
		return nil, fmt.Errorf("start at entry %d with %d entries: %w", cfg.Start.Index, len(cfg.Entries), err)
	}
	if cfg.Start.Index > cfg.Overruled {
		log.newest = cfg.Start
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID:                        cfg.ID,
		ElectionTick:              cfg.ElectionTicks,
		HeartbeatTick:             cfg.HeartbeatTicks,
		Storage:                   log,
		Applied:                   cfg.Start.Index,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             appendBytesMax,
		MaxCommittedSizePerReady:  deliverBytesMax,
		MaxInflightMsgs:           64,
		MaxInflightBytes:          sendBytesMax,
		CheckQuorum:               true,
		PreVote:                   true,
		StepDownOnRemoval:         true,
		DisableProposalForwarding: true, // commands depend on the proposing leader's state: no other node may propose them
		Logger:                    cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("start raft as member %d: %w", cfg.ID, err)
	}
	c := &consensus{
		id:        cfg.ID,
		node:      node,
		log:       log,
		ticks:     1, // 0 means never
		term:      cfg.State.GetTerm(),
		vote:      cfg.State.GetVote(),
		committed: max(cfg.State.GetCommit(), cfg.Start.Index),
		last:      cfg.Start.Index + uint64(len(cfg.Entries)),
		applied:   cfg.Start.Index,
		marks:     []Position{cfg.Start},
		contacts:  contacts{heard: map[uint64]int{}, rounds: map[uint64]round{}},
	}
	cfg.Entries = nil
	c.cfg = cfg
	return c, nil
}

// members are the members as of the last committed entry that raft has handed out. They must not be changed.
func (c *consensus) members() *Members { return c.marks[len(c.marks)-1].Members }

// sole reports whether this node is the only voter.
func (c *consensus) sole() bool {
	voters := c.members().voters()
	return len(voters) == 1 && voters[0] == c.id
}

// lone reports whether this node is the only member: no other needs entries.
func (c *consensus) lone() bool { return c.sole() && len(c.members().List) == 1 }

// removed reports whether this member was removed.
func (c *consensus) removed() bool { return slices.Contains(c.members().Removed, c.id) }

// tick advances raft's time by one unit.
func (c *consensus) tick() {
	c.ticks++
	leading := c.soft.RaftState == raft.StateLeader
	if c.disk.hung && !leading {
		return // it could win an election by the others' votes, but not commit anything
	}
	c.node.Tick()
	switch {
	case leading:
		c.duties()
	case c.soft.RaftState == raft.StateFollower && c.sole():
		// No other member can lead. Raft ignores this while changes of the members are not delivered yet.
		_ = c.node.Campaign() // the next tick tries again
	}
}

// catchUp is called after a gap of at least an election time: the others may have elected another leader meanwhile, so a leader must
// hear from a quorum before it acts. Raft checks the quorum once per election time, for the time since the check before; so it takes
// two checks.
func (c *consensus) catchUp() {
	if c.sole() {
		return
	}
	c.ticks += 2 * c.cfg.ElectionTicks
	for range 2 * c.cfg.ElectionTicks {
		if c.node.BasicStatus().RaftState != raft.StateLeader {
			return
		}
		c.node.Tick()
	}
}

// campaign starts an election.
func (c *consensus) campaign() error {
	if err := c.node.Campaign(); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	return nil
}

// room reports whether propose may be called: the bytes in flight are below their bound, and no transfer is under way. A transfer may
// fail, and then this node goes on leading: until then proposals must wait, not be refused.
func (c *consensus) room() bool { return c.flight.bytes < InFlightBytesMax && !c.transferring() }

// propose appends the batch to the log, in order, one entry each, all or none. Only a leader that has announced itself takes
// proposals; others get ErrNotLeader.
func (c *consensus) propose(batch [][]byte) error {
	if !c.role.Leader {
		return ErrNotLeader
	}
	entries := make([]*raftpb.Entry, len(batch))
	bytes := 0
	for i, data := range batch {
		entries[i] = &raftpb.Entry{Data: data}
		bytes += len(data) + entryOverheadBytes
	}
	err := c.node.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(c.id), Entries: entries})
	if errors.Is(err, raft.ErrProposalDropped) {
		return ErrNotLeader
	}
	if err != nil {
		return fmt.Errorf("propose: %w", err)
	}
	c.last += uint64(len(batch))
	c.flight.bytes += bytes
	return nil
}

// ready returns the work that has accumulated.
func (c *consensus) ready() (work, error) {
	w := work{deliveries: c.installs}
	c.installs = nil
	for c.node.HasReady() {
		rd := c.node.Ready()
		if rd.SoftState != nil {
			c.soft = *rd.SoftState
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			c.term, c.vote, c.committed = rd.GetTerm(), rd.GetVote(), rd.GetCommit()
			if c.term > TermMax { // leases of that term would have old fencing numbers
				return work{}, errTerm(c.term)
			}
		}
		if s := rd.Snapshot; !raft.IsEmptySnap(s) {
			c.last = s.GetMetadata().GetIndex()
		}
		if n := len(rd.Entries); n > 0 {
			c.last = rd.Entries[n-1].GetIndex()
		}
		w.reads = append(w.reads, rd.ReadStates...)
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				w.saves = append(w.saves, m)
			case raft.LocalApplyThread:
				d, err := c.deliver(m)
				if err != nil {
					return work{}, err
				}
				w.deliveries = append(w.deliveries, d)
			default:
				w.messages = append(w.messages, m)
			}
		}
		if role, changed := c.newRole(); changed {
			w.deliveries = append(w.deliveries, Delivery{Role: &role})
		}
	}
	w.messages = c.outgoing(append(w.messages, c.peers...))
	c.peers = nil
	return w, nil
}

// newRole returns the role if it differs from the announced one. A leader is announced once it has committed an entry of its own
// term: only then does it know everything that is committed.
func (c *consensus) newRole() (Role, bool) {
	now := Role{Term: c.term, LeaderID: c.soft.Lead}
	if c.soft.RaftState == raft.StateLeader {
		now.Leader = c.readyTerm == c.term
		if !now.Leader {
			now.LeaderID = raft.None
		}
	}
	if now.Leader == c.role.Leader && now.LeaderID == c.role.LeaderID && (now.Term == c.role.Term || !now.Leader) {
		return Role{}, false // a new term without a leader is no change
	}
	c.role = now
	if now.Leader {
		c.ledSince = c.ticks
	}
	if c.flight.term != now.Term {
		c.flight = flight{term: now.Term}
	}
	return now, true
}

// deliver makes a delivery of committed entries. Changes of the members take effect here.
func (c *consensus) deliver(m *raftpb.Message) (Delivery, error) {
	d := Delivery{responses: m.GetResponses()}
	for _, e := range m.GetEntries() {
		members := c.members()
		switch {
		case e.GetType() == raftpb.EntryNormal:
			if len(e.GetData()) > 0 {
				d.Entries = append(d.Entries, Entry{Index: e.GetIndex(), Term: e.GetTerm(), Data: e.GetData()})
			}
		case e.GetIndex() > c.cfg.Overruled:
			var err error
			if members, err = c.changeMembers(e); err != nil {
				return Delivery{}, fmt.Errorf("change of the members in entry %d: %w", e.GetIndex(), err)
			}
			c.changed = e.GetIndex()
		}
		if prev := c.marks[len(c.marks)-1]; prev.Term != e.GetTerm() || prev.Members != members {
			c.marks = append(c.marks, Position{Index: e.GetIndex(), Term: e.GetTerm(), Members: members})
			c.log.now = members
		}
		if c.soft.RaftState == raft.StateLeader && e.GetTerm() == c.term && c.readyTerm != c.term {
			c.readyTerm = c.term
			c.changing = e.GetIndex() // raft takes no change before what older terms left is applied
		}
		d.index = e.GetIndex()
	}
	return d, nil
}

// saved acknowledges that these saves, the oldest ones not acknowledged yet, are durable.
func (c *consensus) saved(saves []*raftpb.Message) error {
	for _, m := range saves {
		if s := m.GetSnapshot(); !raft.IsEmptySnap(s) {
			if err := c.install(s); err != nil {
				return err
			}
		}
		// Before its responses are stepped: they make raft forget its own copy of the entries.
		if err := c.log.append(m.GetEntries()); err != nil {
			return fmt.Errorf("append persisted entries: %w", err)
		}
		for _, resp := range m.GetResponses() {
			if resp.GetTo() != c.id {
				c.peers = append(c.peers, resp)
				continue
			}
			if err := c.node.Step(resp); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) { // removed meanwhile
				return fmt.Errorf("persisted: %w", err)
			}
		}
	}
	return nil
}

// install continues the log behind a durable snapshot of a peer.
func (c *consensus) install(s *raftpb.Snapshot) error {
	p, err := PositionOf(s)
	if err != nil {
		return err
	}
	if err := c.log.restart(p); err != nil {
		return err
	}
	c.marks, c.log.newest, c.log.now = []Position{p}, p, p.Members
	c.installs = append(c.installs, Delivery{Snapshot: &p, index: p.Index})
	return nil
}

// delivered acknowledges the oldest delivery that is not acknowledged yet.
func (c *consensus) delivered(d Delivery) error {
	c.applied = max(c.applied, d.index)
	if d.Snapshot != nil {
		c.normal = d.Snapshot.Index
	}
	for _, e := range d.Entries {
		c.normal = e.Index
		if e.Term == c.flight.term {
			c.flight.bytes = max(0, c.flight.bytes-len(e.Data)-entryOverheadBytes)
		}
	}
	for _, resp := range d.responses {
		if err := c.node.Step(resp); err != nil {
			return fmt.Errorf("applied: %w", err)
		}
	}
	if d.index > 0 && c.log.bytes > trimBytes && c.lone() {
		return c.log.trim(c.applied)
	}
	return nil
}

// snapshotAt returns the position of a snapshot of the state after the entry at index. It is that of a later entry if only raft's own
// lie between: a snapshot for a new member must lie behind the entry that added it.
func (c *consensus) snapshotAt(index uint64) (Position, error) {
	if index > c.applied {
		return Position{}, fmt.Errorf("snapshot at entry %d: only %d are delivered", index, c.applied)
	}
	if index >= c.normal {
		index = c.applied
	}
	for _, m := range c.marks[1:] { // each is an entry of raft's own
		if m.Index == index+1 && m.Index <= c.applied {
			index = m.Index
		}
	}
	if index <= c.marks[0].Index || index <= c.log.newest.Index {
		return Position{}, fmt.Errorf("snapshot at entry %d: there is one at %d", index, max(c.log.newest.Index, c.marks[0].Index))
	}
	i := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].Index > index })
	p := c.marks[i-1]
	p.Index = index
	return p, nil
}

// overtaken reports whether a snapshot newer than p was installed.
func (c *consensus) overtaken(p Position) bool { return p.Index <= c.log.newest.Index }

// snapshotted records that the snapshot at p is durable and that the log before keep is not needed.
func (c *consensus) snapshotted(p Position, keep uint64) error {
	i := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].Index > p.Index })
	c.marks = slices.Insert(slices.Clone(c.marks[i:]), 0, p)
	c.log.newest = p
	if err := c.log.trim(keep); err != nil {
		return err
	}
	return c.log.trimTo(keptBytesMax, p.Index)
}

// wantsSnapshot reports, once each time, that a member needs a snapshot that does not exist.
func (c *consensus) wantsSnapshot() bool {
	wanted := c.log.wanted
	c.log.wanted = false
	return wanted
}
