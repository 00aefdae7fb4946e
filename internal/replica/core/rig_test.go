package core

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Ticks of the cores in tests.
const (
	rigElection  = 10
	rigHeartbeat = 1
)

// entryID names one version of an entry.
type entryID struct{ index, term uint64 }

func idOf(p Position) entryID { return entryID{p.Index, p.Term} }

// rig is a core with a disk and a consumer that act only on command.
type rig struct {
	t     testing.TB
	id    uint64
	core  *consensus
	shelf map[entryID][]string // bodies of snapshots; shared by a group, as if messages carried them

	stuck      bool              // settle saves nothing
	saves      []*raftpb.Message // wanted, not carried out
	deliveries []Delivery
	messages   []*raftpb.Message
	reads      []raft.ReadState

	// On disk.
	start   Position
	state   *raftpb.HardState
	entries []*raftpb.Entry

	events []Delivery // delivered
	data   []string   // the consumer's state: all that was proposed and committed
	index  uint64     // the last entry that it knows of
}

func voters(ids ...uint64) Members {
	members := Members{Cluster: "c"}
	for _, id := range ids {
		members.List = append(members.List, Member{ID: id, Address: fmt.Sprint("a", id), Voter: true})
	}
	return members
}

func newRig(tb testing.TB, id uint64, start Position) *rig {
	tb.Helper()
	g := &rig{t: tb, id: id, start: start, shelf: map[entryID][]string{}}
	g.boot()
	return g
}

// boot starts the core from what is on disk.
func (g *rig) boot() {
	g.t.Helper()
	c, err := newConsensus(Config{
		ID: g.id, ElectionTicks: rigElection, HeartbeatTicks: rigHeartbeat, Start: g.start, State: g.state, Entries: slices.Clone(g.entries),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	*g = rig{
		t: g.t, id: g.id, core: c, shelf: g.shelf, start: g.start, state: g.state, entries: g.entries,
		data: slices.Clone(g.shelf[idOf(g.start)]), index: g.start.Index,
	}
}

func (g *rig) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	w, err := g.core.ready()
	if err != nil {
		g.t.Fatal(err)
	}
	g.saves = append(g.saves, w.saves...)
	g.deliveries = append(g.deliveries, w.deliveries...)
	g.messages = append(g.messages, w.messages...)
	g.reads = append(g.reads, w.reads...)
}

// save carries out the first wanted save.
func (g *rig) save() {
	g.t.Helper()
	m := g.saves[0]
	g.saves = g.saves[1:]
	if s := m.GetSnapshot(); !raft.IsEmptySnap(s) {
		p, err := PositionOf(s)
		if err != nil {
			g.t.Fatal(err)
		}
		g.start, g.entries = p, nil
	}
	if m.Term != nil {
		g.state = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	}
	for _, e := range m.GetEntries() {
		g.entries = append(slices.Clone(g.entries[:e.GetIndex()-1-g.start.Index]), e)
	}
	g.must(g.core.saved([]*raftpb.Message{m}))
}

// deliver carries out the first wanted delivery.
func (g *rig) deliver() {
	g.t.Helper()
	d := g.deliveries[0]
	g.deliveries = g.deliveries[1:]
	if !d.silent() {
		g.events = append(g.events, d)
	}
	if d.Snapshot != nil {
		body, ok := g.shelf[idOf(*d.Snapshot)]
		if !ok {
			g.t.Fatalf("member %d installs a snapshot at %d that no member made", g.id, d.Snapshot.Index)
		}
		if d.Snapshot.Index <= g.index {
			g.t.Fatalf("member %d is told to start from %d, it is at %d", g.id, d.Snapshot.Index, g.index)
		}
		g.data, g.index = slices.Clone(body), d.Snapshot.Index
	}
	for _, e := range d.Entries {
		if e.Index <= g.index {
			g.t.Fatalf("member %d got entry %d after %d", g.id, e.Index, g.index)
		}
		g.data, g.index = append(g.data, string(e.Data)), e.Index
	}
	g.must(g.core.delivered(d))
}

// snapshot saves one of the consumer's state; keep is how many entries before it stay in memory.
func (g *rig) snapshot(keep uint64) error {
	g.t.Helper()
	p, err := g.core.snapshotAt(g.index)
	if err != nil {
		return err
	}
	g.shelf[idOf(p)] = slices.Clone(g.data)
	g.entries = slices.Clone(g.entries[p.Index-g.start.Index:])
	g.start = p
	g.must(g.core.snapshotted(p, p.Index-min(keep, p.Index)))
	return nil
}

// settle carries out all that does not need others.
func (g *rig) settle() {
	g.t.Helper()
	for g.must(nil); (len(g.saves) > 0 && !g.stuck) || len(g.deliveries) > 0; {
		if len(g.saves) > 0 && !g.stuck {
			g.save()
		} else {
			g.deliver()
		}
	}
}

func (g *rig) propose(data ...string) {
	g.t.Helper()
	var batch [][]byte
	for _, d := range data {
		batch = append(batch, []byte(d))
	}
	g.must(g.core.propose(batch))
}

// delivered is the events in short: data of entries, and roles.
func (g *rig) delivered() []string {
	var s []string
	for _, e := range g.events {
		for _, e := range e.Entries {
			s = append(s, string(e.Data))
		}
		if r := e.Role; r != nil && r.Leader {
			s = append(s, "lead")
		} else if r != nil {
			s = append(s, fmt.Sprintf("follow %d", r.LeaderID))
		}
	}
	return s
}

func (g *rig) wantDelivered(want ...string) {
	g.t.Helper()
	if got := g.delivered(); !slices.Equal(got, want) {
		g.t.Fatalf("delivered %q, want %q", got, want)
	}
}

func newLoneRig(tb testing.TB) *rig {
	tb.Helper()
	g := newRig(tb, 1, Beginning(voters(1)))
	g.must(g.core.campaign())
	g.settle()
	g.wantDelivered("lead")
	return g
}

// change proposes a change of the members, which needs no other member, and carries it out.
func (g *rig) change(c Change) Member {
	g.t.Helper()
	m, _, err := g.core.proposeMember(c, false)
	g.must(err)
	g.settle()
	return m
}

// group is several cores with a network that may lose what goes to or from a member.
type group struct {
	t    testing.TB
	rigs map[uint64]*rig
	ids  []uint64 // ascending
	cut  map[uint64]bool
	drop func(*raftpb.Message) bool // nil: nothing
}

func newGroup(tb testing.TB, ids ...uint64) *group {
	tb.Helper()
	c := &group{t: tb, rigs: map[uint64]*rig{}, cut: map[uint64]bool{}}
	for _, id := range ids {
		c.start(id, Beginning(voters(ids...)))
	}
	return c
}

// start adds a core.
func (c *group) start(id uint64, at Position) *rig {
	c.t.Helper()
	g := newRig(c.t, id, at)
	for _, other := range c.rigs {
		g.shelf = other.shelf
	}
	c.rigs[id] = g
	c.ids = append(c.ids, id)
	slices.Sort(c.ids)
	return g
}

// join has the leader take a new member.
func (c *group) join(id uint64) *rig {
	c.t.Helper()
	c.change(Change{Op: OpAdd, Member: Member{ID: id, Address: fmt.Sprint("a", id), Directory: fmt.Sprint("d", id)}})
	return c.start(id, NewMember("c"))
}

// change carries a change of the members out.
func (c *group) change(ch Change) Member {
	c.t.Helper()
	for range 1000 {
		leader := c.leader()
		m, index, err := leader.core.proposeMember(ch, false)
		if errors.Is(err, ErrChanging) {
			c.tick(1)
			continue
		}
		if err != nil {
			c.t.Fatalf("%s leader %d: %v", ch.Op, ch.Member.ID, err)
		}
		leader.must(nil)
		c.settle()
		if leader.core.changed >= index {
			return m
		}
	}
	c.t.Fatalf("%s leader %d came to nothing", ch.Op, ch.Member.ID)
	return Member{}
}

// settle passes messages until there are none.
func (c *group) settle() {
	c.t.Helper()
	for busy := true; busy; {
		busy = false
		for _, id := range c.ids {
			g := c.rigs[id]
			g.settle()
			if g.core.wantsSnapshot() {
				_ = g.snapshot(0) // there may be one already, and the one who needs it not be there yet
			}
			messages := g.messages
			g.messages = nil
			for _, m := range messages {
				busy = c.pass(m) || busy
			}
		}
	}
}

// pass hands one message over, if the network lets it through.
func (c *group) pass(m *raftpb.Message) bool {
	c.t.Helper()
	to, ok := c.rigs[m.GetTo()]
	lost := !ok || c.cut[m.GetFrom()] || c.cut[m.GetTo()] || to.core.removed() || (c.drop != nil && c.drop(m))
	if m.GetType() == raftpb.MsgSnap {
		from := c.rigs[m.GetFrom()]
		from.core.reportSnapshot(m.GetTo(), !lost)
		from.must(nil)
	}
	if lost {
		return false
	}
	to.must(to.core.step(proto.Clone(m).(*raftpb.Message)))
	return true
}

// leader ticks until a member that is not cut off leads.
func (c *group) leader() *rig {
	c.t.Helper()
	for range 10_000 {
		for _, id := range c.ids {
			if g := c.rigs[id]; !c.cut[id] && g.core.role.Leader {
				return g
			}
		}
		c.tick(1)
	}
	c.t.Fatal("no leader")
	return nil
}

func (c *group) tick(n int) {
	c.t.Helper()
	for range n {
		for _, id := range c.ids {
			c.rigs[id].core.tick()
			c.settle()
		}
	}
}

// until ticks until cond holds.
func (c *group) until(what string, cond func() bool) {
	c.t.Helper()
	for range 10_000 {
		if cond() {
			return
		}
		c.tick(1)
	}
	c.t.Fatalf("never: %s", what)
}

// wantData checks what all members that are not cut off or removed hold.
func (c *group) wantData(want ...string) {
	c.t.Helper()
	for _, id := range c.ids {
		g := c.rigs[id]
		if !c.cut[id] && !g.core.removed() && !slices.Equal(g.data, want) {
			c.t.Errorf("member %d holds %q, want %q", id, g.data, want)
		}
	}
}
