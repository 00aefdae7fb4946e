package replica

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	// inFlightBytesMax bounds the entries that this leader has proposed and that are not delivered yet.
	inFlightBytesMax = 32 << 20
	// entryOverheadBytes is what an entry costs in memory beside its data, roughly.
	entryOverheadBytes = 128
	// deliverBytesMax bounds one delivery, and with it what waits for the consumer of the events beyond the channel.
	deliverBytesMax = 4 << 20
	// appendBytesMax bounds one message of entries to a peer, and sendBytesMax those on their way to one peer, which it may
	// have to keep in memory while its disk is slow.
	appendBytesMax = 1 << 20
	sendBytesMax   = 16 << 20
	// trimBytes is how much of the log a lone voter keeps in memory for nobody before it drops it: dropping copies the
	// rest, so it is not done for each entry.
	trimBytes = 4 << 20
	// keptBytesMax is how much of the log stays in memory, at most, for peers that are behind the newest snapshot: they
	// are sent the snapshot instead.
	keptBytesMax = 32 << 20
)

// CoreConfig is what a core starts from: the newest snapshot's position and what the log holds beyond it.
type CoreConfig struct {
	ID uint64
	// Address and Directory are what this member should be known by: a leading core has the members say so. Empty ones are
	// left alone.
	Address, Directory string
	ElectionTicks      int
	HeartbeatTicks     int
	Start              Position // of the newest snapshot; without one, Beginning or NewMember
	// Overruled: the members are those of Start, whatever entries up to this index say (see Recover).
	Overruled uint64
	State     *raftpb.HardState // nil: nothing was ever saved
	Entries   []*raftpb.Entry   // those after Start
	Logger    raft.Logger
}

// Core is the consensus of one member as a step function. Its methods must not be called concurrently. After any of them,
// the caller takes what is to do from Ready.
type Core struct {
	id   uint64
	cfg  CoreConfig // without Entries
	node *raft.RawNode
	log  *memoryLog

	ticks     int
	ledSince  int // in ticks: when this node began to lead last
	soft      raft.SoftState
	term      uint64
	vote      uint64
	committed uint64
	last      uint64 // last index of the log, saved or not
	applied   uint64 // delivered up to here

	role      Role   // what was announced last
	readyTerm uint64 // the newest term in which this node, leading, has committed an entry of its own

	// flightTerm and flightBytes: what was proposed in this term and not delivered yet. Reset with the term: what was
	// proposed in an older one may never be delivered.
	flightTerm  uint64
	flightBytes int

	// marks are the positions where the term or the members changed, ascending; the first is at or before the newest
	// snapshot, the others are entries of raft's own. They answer what a snapshot at some index must say.
	marks []Position
	// normal is the last entry delivered that the consumer knows of: those behind it are raft's own.
	normal uint64
	// changed is the entry of the newest change of members taken, changing that of the newest proposed in this term.
	changed, changing uint64

	heard     map[uint64]int // ticks when a member's last message came
	heardLead int            // ticks when the leader's last valid message came; 0: never
	rounds    map[uint64]round
	disk      disk
	handOver  handOver
	handing   bool // leadership was being handed over when it was last looked at

	peers    []*raftpb.Message // to send with the next work
	held     []*raftpb.Message // to send when their entries are saved: see outgoing
	installs []Delivery        // snapshots that were saved, for the next work
}

// Work is what the core wants done. Saves must be made durable in order and handed back to Saved; deliveries must be
// carried out in order and handed back to Delivered; messages go to peers and may be lost, but for the loss of a MsgSnap, which
// is reported by ReportSnapshot. Entries and messages must not be changed.
type Work struct {
	Saves      []*raftpb.Message
	Deliveries []Delivery
	Messages   []*raftpb.Message
	Reads      []Read
}

// Delivery is one event for the consumer, or none (Silent): then it is handed back in its turn all the same.
type Delivery struct {
	Event  Event
	Silent bool
	// Snapshot: an installed snapshot is delivered; Event.SnapshotIndex is set, its body is for the caller to add.
	Snapshot *Position

	index     uint64 // applied once delivered; 0: unchanged
	responses []*raftpb.Message
}

// Read answers ReadIndex(Context): who has applied the entry at Index may read.
type Read struct {
	Index   uint64
	Context []byte
}

// NewCore starts a member. An error means that what cfg holds cannot have come from a log that is whole.
func NewCore(cfg CoreConfig) (_ *Core, err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case raftPanic:
			err = fmt.Errorf("start as member %d: %s", cfg.ID, string(v))
		default:
			panic(v)
		}
	}()
	if cfg.State.GetCommit() < cfg.Start.Index && cfg.State != nil {
		// What is in a snapshot is committed, whatever was saved of it.
		cfg.State = &raftpb.HardState{Term: cfg.State.Term, Vote: cfg.State.Vote, Commit: new(cfg.Start.Index)}
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
		DisableProposalForwarding: true, // a leader's commands rest on its own state: nobody else may propose them for it
		Logger:                    cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("start raft as member %d: %w", cfg.ID, err)
	}
	c := &Core{
		id:        cfg.ID,
		node:      node,
		log:       log,
		ticks:     1, // so that 0 is never
		term:      cfg.State.GetTerm(),
		vote:      cfg.State.GetVote(),
		committed: max(cfg.State.GetCommit(), cfg.Start.Index),
		last:      cfg.Start.Index + uint64(len(cfg.Entries)),
		applied:   cfg.Start.Index,
		marks:     []Position{cfg.Start},
		heard:     map[uint64]int{},
		rounds:    map[uint64]round{},
	}
	cfg.Entries = nil
	c.cfg = cfg
	return c, nil
}

// Members are the members as of the last committed entry taken from raft. Nobody changes them.
func (c *Core) Members() *Members { return c.marks[len(c.marks)-1].Members }

// sole says that this node is the only voter: it needs nobody's vote.
func (c *Core) sole() bool {
	voters := c.Members().voters()
	return len(voters) == 1 && voters[0] == c.id
}

// lone says that this node is all there is: it also keeps entries for nobody.
func (c *Core) lone() bool { return c.sole() && len(c.Members().List) == 1 }

// Removed says that this member was removed for good.
func (c *Core) Removed() bool { return slices.Contains(c.Members().Removed, c.id) }

// Tick tells that one unit of time has passed.
func (c *Core) Tick() {
	c.ticks++
	leading := c.soft.RaftState == raft.StateLeader
	if c.disk.hung && !leading {
		return // it could win an election by the others' votes, and then acknowledge nothing
	}
	c.node.Tick()
	switch {
	case leading:
		c.keepHouse()
	case c.soft.RaftState == raft.StateFollower && c.sole():
		// Nobody else can lead. Raft ignores it while changes of the members wait to be delivered.
		_ = c.node.Campaign() // the next tick tries again
	}
}

// CatchUp is for when ticks were missed, at least those of an election: others may have elected another leader meanwhile, so one that
// leads must not act before it has heard of a quorum. Raft looks once in an election time whether it has since it looked last; so
// it takes two looks to find that it has not.
func (c *Core) CatchUp() {
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

// Campaign stands for election now.
func (c *Core) Campaign() error {
	if err := c.node.Campaign(); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	return nil
}

// Room says whether Propose may be called: what is in flight is below its bound, and leadership is not being handed over, which may fail:
// then this node goes on leading, and its consumer must not have been told otherwise.
func (c *Core) Room() bool { return c.flightBytes < inFlightBytesMax && !c.transferring() }

// Propose appends the batch to the log, in order, one entry each, all or none. Only a leader that has announced itself takes
// proposals; others get ErrNotLeader.
func (c *Core) Propose(batch [][]byte) error {
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
	c.flightBytes += bytes
	return nil
}

// Ready takes all work that the steps so far have caused.
func (c *Core) Ready() (Work, error) {
	w := Work{Deliveries: c.installs}
	c.installs = nil
	for c.node.HasReady() {
		rd := c.node.Ready()
		if rd.SoftState != nil {
			c.soft = *rd.SoftState
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			c.term, c.vote, c.committed = rd.GetTerm(), rd.GetVote(), rd.GetCommit()
		}
		if s := rd.Snapshot; !raft.IsEmptySnap(s) {
			c.last = s.GetMetadata().GetIndex()
		}
		if n := len(rd.Entries); n > 0 {
			c.last = rd.Entries[n-1].GetIndex()
		}
		for _, s := range rd.ReadStates {
			w.Reads = append(w.Reads, Read{Index: s.Index, Context: s.RequestCtx})
		}
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				w.Saves = append(w.Saves, m)
			case raft.LocalApplyThread:
				d, err := c.take(m)
				if err != nil {
					return Work{}, err
				}
				w.Deliveries = append(w.Deliveries, d)
			default:
				w.Messages = append(w.Messages, m)
			}
		}
		if role, changed := c.newRole(); changed {
			w.Deliveries = append(w.Deliveries, Delivery{Event: Event{Role: &role}})
		}
	}
	w.Messages = c.outgoing(append(w.Messages, c.peers...))
	c.peers = nil
	return w, nil
}

// newRole compares what this node is with what it has announced. A leader is announced when it has committed an entry of
// its own term, for only then does it know all that is committed.
func (c *Core) newRole() (Role, bool) {
	now := Role{Term: c.term, LeaderID: c.soft.Lead}
	if c.soft.RaftState == raft.StateLeader {
		now.Leader = c.readyTerm == c.term
		if !now.Leader {
			now.LeaderID = raft.None
		}
	}
	if now.Leader == c.role.Leader && now.LeaderID == c.role.LeaderID && (now.Term == c.role.Term || !now.Leader) {
		return Role{}, false // a new term alone, with nobody elected, is nothing to act on
	}
	c.role = now
	if now.Leader {
		c.ledSince = c.ticks
	}
	if c.flightTerm != now.Term {
		c.flightTerm, c.flightBytes = now.Term, 0
	}
	return now, true
}

// take turns committed entries into a delivery. Changes of the members take effect here.
func (c *Core) take(m *raftpb.Message) (Delivery, error) {
	d := Delivery{responses: m.GetResponses()}
	for _, e := range m.GetEntries() {
		members := c.Members()
		switch {
		case e.GetType() == raftpb.EntryNormal:
			if len(e.GetData()) > 0 {
				d.Event.Entries = append(d.Event.Entries, Entry{Index: e.GetIndex(), Term: e.GetTerm(), Data: e.GetData()})
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
	d.Silent = len(d.Event.Entries) == 0
	return d, nil
}

// Saved tells that these saves, the oldest not reported yet, are durable.
func (c *Core) Saved(saves []*raftpb.Message) error {
	for _, m := range saves {
		if s := m.GetSnapshot(); !raft.IsEmptySnap(s) {
			if err := c.install(s); err != nil {
				return err
			}
		}
		// Before its responses are stepped: they make raft forget its own copy of the entries.
		if err := c.log.append(m.GetEntries()); err != nil {
			return fmt.Errorf("keep saved entries: %w", err)
		}
		for _, resp := range m.GetResponses() {
			if resp.GetTo() != c.id {
				c.peers = append(c.peers, resp)
				continue
			}
			if err := c.node.Step(resp); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) { // removed meanwhile
				return fmt.Errorf("answer of the log: %w", err)
			}
		}
	}
	return nil
}

// install goes on behind a peer's snapshot, which is durable.
func (c *Core) install(s *raftpb.Snapshot) error {
	p, err := positionOf(s)
	if err != nil {
		return err
	}
	if err := c.log.restart(p); err != nil {
		return err
	}
	c.marks, c.log.newest, c.log.now = []Position{p}, p, p.Members
	c.installs = append(c.installs, Delivery{Event: Event{SnapshotIndex: p.Index}, Snapshot: &p, index: p.Index})
	return nil
}

// Delivered tells that the oldest delivery not reported yet has reached the consumer.
func (c *Core) Delivered(d Delivery) error {
	c.applied = max(c.applied, d.index)
	if d.Snapshot != nil {
		c.normal = d.Snapshot.Index
	}
	for _, e := range d.Event.Entries {
		c.normal = e.Index
		if e.Term == c.flightTerm {
			c.flightBytes = max(0, c.flightBytes-len(e.Data)-entryOverheadBytes)
		}
	}
	for _, resp := range d.responses {
		if err := c.node.Step(resp); err != nil {
			return fmt.Errorf("answer of the state: %w", err)
		}
	}
	if d.index > 0 && c.log.bytes > trimBytes && c.lone() {
		return c.log.trim(c.applied)
	}
	return nil
}

// SnapshotAt gives what a snapshot of the state after the entry at index must say of the log. It is the position of a later entry when
// only raft's own lie between: a snapshot that a new member can use must lie behind the entry that made it one.
func (c *Core) SnapshotAt(index uint64) (Position, error) {
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

// Overtaken says whether a peer's snapshot was installed that is newer than p.
func (c *Core) Overtaken(p Position) bool { return p.Index <= c.log.newest.Index }

// Snapshotted tells that the snapshot at p is durable and that the log is wanted from keep on only.
func (c *Core) Snapshotted(p Position, keep uint64) error {
	i := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].Index > p.Index })
	c.marks = slices.Insert(slices.Clone(c.marks[i:]), 0, p)
	c.log.newest = p
	if err := c.log.trim(keep); err != nil {
		return err
	}
	return c.log.trimTo(keptBytesMax, p.Index)
}

// WantsSnapshot says, once each time, that a member needs a snapshot that there is not.
func (c *Core) WantsSnapshot() bool {
	wanted := c.log.wanted
	c.log.wanted = false
	return wanted
}
