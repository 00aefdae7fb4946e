package replica

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	// inFlightBytesMax bounds the entries that this leader has proposed and that are not delivered yet.
	inFlightBytesMax = 32 << 20
	// entryOverheadBytes is what an entry costs in memory beside its data, roughly.
	entryOverheadBytes = 128
	// deliverBytesMax bounds one delivery, and with it what waits for the consumer of the events beyond the channel.
	deliverBytesMax = 4 << 20
	// appendBytesMax bounds one message of entries to a peer.
	appendBytesMax = 1 << 20
	// trimBytes is how much of the log a lone voter keeps in memory for nobody before it drops it: dropping copies the
	// rest, so it is not done for each entry.
	trimBytes = 4 << 20
)

// coreConfig is what a core starts from: the newest snapshot's position and what the log holds beyond it.
type coreConfig struct {
	id             uint64
	electionTicks  int
	heartbeatTicks int
	snap           snapMeta          // index 0: none; its conf is then the first members
	state          *raftpb.HardState // nil: nothing was ever saved
	entries        []*raftpb.Entry   // those after snap
	logger         raft.Logger
}

// core is the consensus of one member as a step function. Its methods must not be called concurrently. After any of them,
// the caller takes what is to do from ready.
type core struct {
	id   uint64
	node *raft.RawNode
	log  *raft.MemoryStorage // the entries that are on disk and still needed in memory

	soft      raft.SoftState
	term      uint64
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
	// snapshot. They answer what a snapshot at some index must say.
	marks []snapMeta

	keptBytes int // of entries in log
	peers     []*raftpb.Message
}

// work is what the core wants done. saves must be made durable in order and handed back to saved; deliveries must be
// carried out in order and handed back to delivered; messages go to peers and may be lost.
type work struct {
	saves      []*raftpb.Message
	deliveries []delivery
	messages   []*raftpb.Message
}

// delivery is one event for the consumer, or none: then it is handed back in its turn all the same.
type delivery struct {
	event     Event
	silent    bool
	index     uint64 // applied once delivered; 0: unchanged
	responses []*raftpb.Message
}

func newCore(cfg coreConfig) (*core, error) {
	log := raft.NewMemoryStorage()
	if err := log.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(cfg.snap.index), Term: new(cfg.snap.term), ConfState: cfg.snap.conf,
	}}); err != nil {
		return nil, fmt.Errorf("start at snapshot %d: %w", cfg.snap.index, err)
	}
	if err := log.Append(cfg.entries); err != nil {
		return nil, fmt.Errorf("start at snapshot %d with %d entries: %w", cfg.snap.index, len(cfg.entries), err)
	}
	if err := log.SetHardState(cfg.state); err != nil {
		return nil, fmt.Errorf("start at snapshot %d: %w", cfg.snap.index, err)
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID:                        cfg.id,
		ElectionTick:              cfg.electionTicks,
		HeartbeatTick:             cfg.heartbeatTicks,
		Storage:                   log,
		Applied:                   cfg.snap.index,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             appendBytesMax,
		MaxCommittedSizePerReady:  deliverBytesMax,
		MaxInflightMsgs:           64,
		CheckQuorum:               true,
		PreVote:                   true,
		StepDownOnRemoval:         true,
		DisableProposalForwarding: true, // a leader's commands rest on its own state: nobody else may propose them for it
		Logger:                    cfg.logger,
	})
	if err != nil {
		return nil, fmt.Errorf("start raft as member %d: %w", cfg.id, err)
	}
	c := &core{
		id:        cfg.id,
		node:      node,
		log:       log,
		term:      cfg.state.GetTerm(),
		committed: max(cfg.state.GetCommit(), cfg.snap.index),
		last:      cfg.snap.index + uint64(len(cfg.entries)),
		applied:   cfg.snap.index,
		marks:     []snapMeta{cfg.snap},
	}
	for _, e := range cfg.entries {
		c.keptBytes += len(e.GetData()) + entryOverheadBytes
	}
	return c, nil
}

// lone says that this node is all there is: it needs nobody's vote and keeps entries for nobody.
func (c *core) lone() bool {
	voters := c.conf().GetVoters()
	return len(voters) == 1 && voters[0] == c.id && len(c.conf().GetVotersOutgoing()) == 0 &&
		len(c.conf().GetLearners()) == 0
}

// conf is the members as of the last committed entry taken from raft.
func (c *core) conf() *raftpb.ConfState { return c.marks[len(c.marks)-1].conf }

func (c *core) tick() { c.node.Tick() }

// campaign stands for election now.
func (c *core) campaign() error {
	if err := c.node.Campaign(); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	return nil
}

// step takes a message of a peer.
func (c *core) step(m *raftpb.Message) error {
	err := c.node.Step(m)
	if err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) {
		return fmt.Errorf("message of member %d: %w", m.GetFrom(), err)
	}
	return nil // an answer of a member that was removed meanwhile is no error
}

// room says whether propose may be called: what is in flight is below its bound.
func (c *core) room() bool { return c.flightBytes < inFlightBytesMax }

// propose appends the batch to the log, in order, one entry each, all or none. Only a leader that has announced itself takes
// proposals; others get ErrNotLeader.
func (c *core) propose(batch [][]byte) error {
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
	c.flightBytes += bytes
	return nil
}

// ready takes all work that the steps so far have caused.
func (c *core) ready() (work, error) {
	var w work
	for c.node.HasReady() {
		rd := c.node.Ready()
		if rd.SoftState != nil {
			c.soft = *rd.SoftState
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			c.term, c.committed = rd.GetTerm(), rd.GetCommit()
		}
		if n := len(rd.Entries); n > 0 {
			c.last = rd.Entries[n-1].GetIndex()
		}
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				w.saves = append(w.saves, m)
			case raft.LocalApplyThread:
				d, err := c.take(m)
				if err != nil {
					return work{}, err
				}
				w.deliveries = append(w.deliveries, d)
			default:
				w.messages = append(w.messages, m)
			}
		}
		if role, changed := c.newRole(); changed {
			w.deliveries = append(w.deliveries, delivery{event: Event{Role: &role}})
		}
	}
	w.messages = append(w.messages, c.peers...)
	c.peers = nil
	return w, nil
}

// newRole compares what this node is with what it has announced. A leader is announced when it has committed an entry of
// its own term, for only then does it know all that is committed.
func (c *core) newRole() (Role, bool) {
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
	if c.flightTerm != now.Term {
		c.flightTerm, c.flightBytes = now.Term, 0
	}
	return now, true
}

// take turns committed entries into a delivery. Changes of the members take effect here.
func (c *core) take(m *raftpb.Message) (delivery, error) {
	d := delivery{responses: m.GetResponses()}
	for _, e := range m.GetEntries() {
		conf := c.conf()
		switch e.GetType() {
		case raftpb.EntryNormal:
			if len(e.GetData()) > 0 {
				d.event.Entries = append(d.event.Entries, Entry{Index: e.GetIndex(), Term: e.GetTerm(), Data: e.GetData()})
			}
		case raftpb.EntryConfChange, raftpb.EntryConfChangeV2:
			var err error
			if conf, err = c.changeMembers(e); err != nil {
				return delivery{}, err
			}
		}
		if prev := c.marks[len(c.marks)-1]; prev.term != e.GetTerm() || prev.conf != conf {
			c.marks = append(c.marks, snapMeta{index: e.GetIndex(), term: e.GetTerm(), conf: conf})
		}
		if c.soft.RaftState == raft.StateLeader && e.GetTerm() == c.term {
			c.readyTerm = c.term
		}
		d.index = e.GetIndex()
	}
	d.silent = len(d.event.Entries) == 0
	return d, nil
}

func (c *core) changeMembers(e *raftpb.Entry) (*raftpb.ConfState, error) {
	var change raftpb.ConfChangeI
	var err error
	if e.GetType() == raftpb.EntryConfChange {
		cc := &raftpb.ConfChange{}
		err, change = proto.Unmarshal(e.GetData(), cc), cc
	} else {
		cc := &raftpb.ConfChangeV2{}
		err, change = proto.Unmarshal(e.GetData(), cc), cc
	}
	if err != nil {
		return nil, fmt.Errorf("change of members in entry %d: %w", e.GetIndex(), err)
	}
	return c.node.ApplyConfChange(change), nil
}

// saved tells that these saves, the oldest not reported yet, are durable.
func (c *core) saved(saves []*raftpb.Message) error {
	for _, m := range saves {
		// Before its responses are stepped: they make raft forget its own copy of the entries.
		if err := c.log.Append(m.GetEntries()); err != nil {
			return fmt.Errorf("keep saved entries: %w", err)
		}
		for _, e := range m.GetEntries() {
			c.keptBytes += len(e.GetData()) + entryOverheadBytes
		}
		for _, resp := range m.GetResponses() {
			if resp.GetTo() != c.id {
				c.peers = append(c.peers, resp)
				continue
			}
			if err := c.node.Step(resp); err != nil {
				return fmt.Errorf("answer of the log: %w", err)
			}
		}
	}
	return nil
}

// delivered tells that the oldest delivery not reported yet has reached the consumer.
func (c *core) delivered(d delivery) error {
	c.applied = max(c.applied, d.index)
	for _, e := range d.event.Entries {
		if e.Term == c.flightTerm {
			c.flightBytes = max(0, c.flightBytes-len(e.Data)-entryOverheadBytes)
		}
	}
	for _, resp := range d.responses {
		if err := c.node.Step(resp); err != nil {
			return fmt.Errorf("answer of the state: %w", err)
		}
	}
	if d.index > 0 && c.keptBytes > trimBytes && c.lone() {
		return c.trim(c.applied)
	}
	return nil
}

// snapshotAt gives what a snapshot of the state after the entry at index must say of the log.
func (c *core) snapshotAt(index uint64) (snapMeta, error) {
	if index > c.applied {
		return snapMeta{}, fmt.Errorf("snapshot at entry %d: only %d are delivered", index, c.applied)
	}
	if index <= c.marks[0].index {
		return snapMeta{}, fmt.Errorf("snapshot at entry %d: there is one at %d", index, c.marks[0].index)
	}
	i := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].index > index })
	meta := c.marks[i-1]
	meta.index = index
	return meta, nil
}

// snapshotted tells that the snapshot meta is durable and that the log is wanted from keep on only.
func (c *core) snapshotted(meta snapMeta, keep uint64) error {
	i := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].index > meta.index })
	c.marks = slices.Insert(slices.Clone(c.marks[i:]), 0, meta)
	return c.trim(keep)
}

// trim drops the entries up to index from memory.
func (c *core) trim(index uint64) error {
	first, err := c.log.FirstIndex()
	if err != nil {
		return fmt.Errorf("drop entries up to %d: %w", index, err)
	}
	if index < first {
		return nil
	}
	dropped, err := c.log.Entries(first, index+1, ^uint64(0))
	if err != nil {
		return fmt.Errorf("drop entries up to %d: %w", index, err)
	}
	for _, e := range dropped {
		c.keptBytes -= len(e.GetData()) + entryOverheadBytes
	}
	if err := c.log.Compact(index); err != nil {
		return fmt.Errorf("drop entries up to %d: %w", index, err)
	}
	return nil
}
