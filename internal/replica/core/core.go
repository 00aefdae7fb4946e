package core

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// ErrNotLeader means that this node does not lead, not yet or no longer. What was proposed is not in the log.
var ErrNotLeader = errors.New("this node does not lead")

// InvariantError is what raft panics with, through Config.Logger, when an invariant is broken: going on could lose acknowledged entries.
// Step and New return it.
type InvariantError string

func (e InvariantError) Error() string { return string(e) }

// Config is what a core starts from: its identity, and what the disk holds.
type Config struct {
	ID uint64
	// Address and Directory are published in the member list while this core leads. Empty ones are left alone.
	Address, Directory string
	// Tick is the unit of ElectionTicks and HeartbeatTicks.
	Tick                          time.Duration
	ElectionTicks, HeartbeatTicks int
	// Nonce is random, and distinguishes the reads of this process from those of earlier ones.
	Nonce [8]byte
	// Logger panics with an InvariantError on Fatal and Panic. Defaults to one that drops everything else.
	Logger raft.Logger

	Start Position // what Entries follow: the newest snapshot, or without one Beginning or NewMember
	// Snapshots are the snapshots on disk, newest first, at most two. The newest is the first delivery.
	Snapshots []Position
	// Overruled: the members are those of Start, whatever entries up to this index say (see replica.Recover).
	Overruled uint64
	State     *raftpb.HardState // nil: nothing was ever persisted
	Entries   []*raftpb.Entry
	// LogBytes is the size of the log since the newest snapshot, and SnapshotBytes the growth after which another one is requested.
	LogBytes, SnapshotBytes int64
}

// Core is one member as a step function. Its methods must not be called concurrently.
type Core struct {
	con *consensus
	cfg Config // without Entries
	clock
	requests

	members    *Members   // as last announced
	deliveries []Delivery // not acknowledged yet
	emitted    int        // how many of them the caller has
	persist    persistence
	snapshots  snapshots

	campaigned time.Time
	peers      []PeerStatus // as of the last tick
	status     Status
	fx         *Effects // of the step under way
}

// clock turns the time of the steps into ticks.
type clock struct {
	started bool
	ticked  time.Time // last tick, or last detection of missed ticks
	tickAt  time.Time // next tick
}

// persistence is what goes to the disk: one batch at a time, while the next one gathers.
type persistence struct {
	next    Batch
	urgent  bool      // something waits for next; a new commit index alone rides with the next batch
	since   time.Time // when the batch under way was handed out; zero: none is
	batch   Batch     // under way
	logFull error     // why there is no room for the log; nil: there is
	removal bool      // the save of this member's removal was requested
}

// New starts a member. An error means that what cfg holds cannot come from an intact log.
func New(cfg Config) (*Core, error) {
	con, err := newConsensus(cfg)
	if err != nil {
		return nil, err
	}
	cfg.Entries = nil
	c := &Core{
		con: con, cfg: cfg, requests: requests{canceled: map[Ref]bool{}},
		snapshots: snapshots{list: cfg.Snapshots, growth: cfg.LogBytes, requestAt: cfg.SnapshotBytes},
	}
	if len(cfg.Snapshots) > 0 {
		c.deliveries = append(c.deliveries, Delivery{Snapshot: &cfg.Start})
	}
	c.status = con.status()
	return c, nil
}

// Step advances the clock to now, handles the inputs in order and returns what is to be done. After an error the core must not be used
// again.
func (c *Core) Step(now time.Time, inputs ...Input) (_ *Effects, err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case InvariantError:
			err = v
		default:
			panic(v)
		}
	}()
	c.fx = &Effects{}
	if err := c.advance(now); err != nil {
		return nil, err
	}
	for _, in := range inputs {
		if err := c.handle(in); err != nil {
			return nil, err
		}
	}
	if err := c.settle(now); err != nil {
		return nil, err
	}
	for _, d := range c.deliveries[c.emitted:] {
		if !d.silent() {
			c.fx.Deliveries = append(c.fx.Deliveries, d)
		}
	}
	c.emitted = len(c.deliveries)
	c.fx.Wake, c.fx.Room = c.tickAt, c.persist.logFull != nil || c.con.room()
	c.publish(now)
	return c.fx, nil
}

// Members are the members as of the newest entry that is committed and known here. They must not be changed.
func (c *Core) Members() *Members { return c.con.members() }

// Status is the state after the last step.
func (c *Core) Status() Status { return c.status }

func (c *Core) electionTime() time.Duration { return time.Duration(c.cfg.ElectionTicks) * c.cfg.Tick }

// advance ticks, at most once: ticks that were missed do not make up for messages that were not read.
func (c *Core) advance(now time.Time) error {
	if !c.started {
		c.started, c.ticked, c.tickAt = true, now, now.Add(c.cfg.Tick)
		if c.con.sole() {
			return c.con.campaign()
		}
		return nil
	}
	if now.Sub(c.ticked) > c.electionTime() {
		// The process was stopped: before this node does anything that only a leader may do, see whether it still leads.
		c.con.catchUp()
		c.ticked = now
	}
	if c.tickAt.Sub(now) > c.cfg.Tick {
		c.tickAt = now // the clock was set back
	}
	if now.Before(c.tickAt) {
		return nil
	}
	c.ticked, c.tickAt = now, c.tickAt.Add(c.cfg.Tick)
	if !c.tickAt.After(now) {
		c.tickAt = now.Add(c.cfg.Tick)
	}
	p := &c.persist
	hung := !p.since.IsZero() && now.Sub(p.since) > c.electionTime()
	if hung && !c.con.disk.hung && p.logFull == nil { // a full disk has been reported already
		c.fx.DiskHung = now.Sub(p.since)
	}
	c.con.setDisk(hung, p.logFull != nil)
	c.con.tick()
	c.dropCanceled()
	c.peers = c.con.peerStatus()
	for i, peer := range c.peers {
		if at, ok := c.con.heard[peer.ID]; ok {
			c.peers[i].Heard = c.timeOf(at)
		}
	}
	return nil
}

// settle goes on with everything that the inputs may have made possible.
func (c *Core) settle(now time.Time) error {
	c.settleChanges()
	c.settleReads()
	for {
		w, err := c.con.ready()
		if err != nil {
			return err
		}
		c.send(w.messages)
		c.save(w.saves)
		c.deliveries = append(c.deliveries, w.deliveries...)
		c.answerReads(w.reads)
		if len(c.deliveries) == 0 || !c.deliveries[0].silent() {
			break
		}
		if err := c.delivered(); err != nil {
			return err
		}
	}
	if c.con.removed() {
		c.persistRemoval()
	}
	c.settleTransfers()
	c.requestSnapshot(c.con.wantsSnapshot())
	c.startBatch(now)
	return nil
}

// persistRemoval reports that this member was removed, once its disk says so: after a restart no other member would report it. That takes
// a save of the commit index after the one of the entry: of a commit index the log keeps what was durable before.
func (c *Core) persistRemoval() {
	p := &c.persist
	if !p.removal {
		p.removal, p.urgent = true, true
		p.next.Saves = append(p.next.Saves, &raftpb.Message{Term: new(c.con.term), Vote: new(c.con.vote), Commit: new(c.con.committed)})
	}
	c.fx.Removed = !p.urgent && p.since.IsZero()
}

// send emits messages. Those for members that were just removed go out before the transport is given the new members.
func (c *Core) send(messages []*raftpb.Message) {
	if members := c.con.members(); members != c.members {
		c.members, c.fx.Members = members, members
		removed := func(m *raftpb.Message) bool {
			_, ok := members.Get(m.GetTo())
			return !ok
		}
		for _, m := range messages {
			if removed(m) {
				c.fx.LastMessages = append(c.fx.LastMessages, m)
			}
		}
		messages = slices.DeleteFunc(messages, removed)
	}
	c.fx.Messages = append(c.fx.Messages, messages...)
}

// save adds saves to the next batch.
func (c *Core) save(saves []*raftpb.Message) {
	p := &c.persist
	p.next.Saves = append(p.next.Saves, saves...)
	for _, m := range saves {
		p.urgent = p.urgent || len(m.GetEntries()) > 0 || len(m.GetResponses()) > 0 || m.GetSnapshot() != nil
		for _, e := range m.GetEntries() {
			p.next.Bytes += int64(len(e.GetData()))
		}
		if s := m.GetSnapshot(); !raft.IsEmptySnap(s) {
			at := Position{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm()}
			p.next.Installed = &at
			c.fx.Accepted = append(c.fx.Accepted, at)
			c.dropOwnSnapshot()
		}
	}
}

// startBatch hands out the next batch when something waits for it and none is under way.
func (c *Core) startBatch(now time.Time) {
	p := &c.persist
	if !p.urgent || !p.since.IsZero() {
		return
	}
	p.batch, p.next, p.urgent, p.since = p.next, Batch{}, false, now
	c.fx.Persist = new(p.batch)
}

func (c *Core) persisted() error {
	b := c.persist.batch
	c.persist.batch, c.persist.since = Batch{}, time.Time{}
	if err := c.con.saved(b.Saves); err != nil {
		return err
	}
	return c.snapshotsPersisted(b)
}

// delivered goes on after the first delivery has reached the consumer.
func (c *Core) delivered() error {
	d := c.deliveries[0]
	c.deliveries[0] = Delivery{} // release its entries
	c.deliveries, c.emitted = c.deliveries[1:], max(0, c.emitted-1)
	return c.con.delivered(d)
}

// publish makes the status what it is now.
func (c *Core) publish(now time.Time) {
	s := c.con.status()
	if s.Term != c.status.Term || (s.Role == RoleCandidate && c.status.Role != RoleCandidate) {
		c.campaigned = now
	}
	s.LogFull, s.Writing, s.Campaigned = c.persist.logFull, c.persist.since, c.campaigned
	if s.Role == RoleLeader {
		s.Peers = c.peers
	}
	if c.con.heardLead > 0 {
		s.Heard = c.timeOf(c.con.heardLead)
	}
	c.status = s
}

// timeOf is the time of a tick.
func (c *Core) timeOf(tick int) time.Time {
	return c.ticked.Add(-time.Duration(c.con.ticks-tick) * c.cfg.Tick)
}

func (c *Core) handle(in Input) error {
	switch in := in.(type) {
	case Receive:
		if err := c.con.step(in.Message); err != nil {
			c.fx.Refused = append(c.fx.Refused, err)
		}
	case Propose:
		err := c.persist.logFull
		if err == nil || !c.con.role.Leader {
			err = c.con.propose(in.Data)
		}
		c.answer(Answer{Ref: in.Ref, Err: err})
	case Persisted:
		return c.persisted()
	case Delivered:
		return c.delivered()
	case DiskRoom:
		c.persist.logFull = in.Full
		c.deliveries = append(c.deliveries, Delivery{LogFull: in.Full, LogRoom: in.Full == nil})
	case ReadIndex:
		c.reads.waiting = append(c.reads.waiting, in.Ref)
	case ChangeMembers:
		c.changes = append(c.changes, &memberChange{ChangeMembers: in})
	case Transfer:
		c.transferLeadership(transfer{ref: in.Ref})
	case Cancel:
		c.canceled[in.Ref] = true
	case ReportSnapshot:
		c.con.reportSnapshot(in.To, in.OK)
	case ReportUnreachable:
		c.con.reportUnreachable(in.To)
	case BeginSnapshot:
		c.beginSnapshot(in)
	case RecordSnapshot:
		c.recordSnapshot(in)
	case EndSnapshot:
		c.endSnapshot(in.Failed)
	default:
		return fmt.Errorf("input %T is unknown", in)
	}
	return nil
}

func (c *Core) answer(a Answer) { c.fx.Answers = append(c.fx.Answers, a) }
