package replica

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// rig is a core with a disk and a consumer that do what it wants only when told to.
type rig struct {
	t    testing.TB
	core *core

	saves      []*raftpb.Message // wanted, not carried out
	deliveries []delivery
	messages   []*raftpb.Message

	state   *raftpb.HardState // on disk
	entries []*raftpb.Entry
	events  []Event // delivered
}

func newRig(tb testing.TB, id uint64, voters ...uint64) *rig {
	tb.Helper()
	g := &rig{t: tb}
	g.boot(id, voters)
	return g
}

// boot starts the core from what is on disk.
func (g *rig) boot(id uint64, voters []uint64) {
	g.t.Helper()
	c, err := newCore(coreConfig{
		id: id, electionTicks: 10, heartbeatTicks: 1,
		snap: snapMeta{conf: &raftpb.ConfState{Voters: voters}}, state: g.state, entries: slices.Clone(g.entries),
		logger: raftLogger{slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	*g = rig{t: g.t, core: c, state: g.state, entries: g.entries}
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
}

// save carries out the first wanted save.
func (g *rig) save() {
	g.t.Helper()
	m := g.saves[0]
	g.saves = g.saves[1:]
	if m.Term != nil {
		g.state = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	}
	for _, e := range m.GetEntries() {
		g.entries = append(slices.Clone(g.entries[:e.GetIndex()-1]), e)
	}
	g.must(g.core.saved([]*raftpb.Message{m}))
}

// deliver carries out the first wanted delivery.
func (g *rig) deliver() {
	g.t.Helper()
	d := g.deliveries[0]
	g.deliveries = g.deliveries[1:]
	if !d.silent {
		g.events = append(g.events, d.event)
	}
	g.must(g.core.delivered(d))
}

// settle carries out all that does not need others.
func (g *rig) settle() {
	g.t.Helper()
	for g.must(nil); len(g.saves)+len(g.deliveries) > 0; {
		if len(g.saves) > 0 {
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

// told is the events in short: data of entries, and roles.
func (g *rig) told() []string {
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

func (g *rig) wantTold(want ...string) {
	g.t.Helper()
	if got := g.told(); !slices.Equal(got, want) {
		g.t.Fatalf("told %q, want %q", got, want)
	}
}

func newLoneRig(tb testing.TB) *rig {
	tb.Helper()
	g := newRig(tb, 1, 1)
	g.must(g.core.campaign())
	g.settle()
	g.wantTold("lead")
	return g
}

func TestNothingIsDeliveredBeforeItIsOnDisk(t *testing.T) {
	g := newLoneRig(t)
	g.propose("a", "b")
	g.propose("c") // several on their way
	if len(g.saves) != 2 {
		t.Fatalf("%d saves wanted, want 2", len(g.saves))
	}
	if len(g.deliveries) != 0 {
		t.Fatalf("delivery wanted before anything is saved: %+v", g.deliveries)
	}
	g.save()
	for len(g.deliveries) > 0 {
		g.deliver()
	}
	g.wantTold("lead", "a", "b")
	g.settle()
	g.wantTold("lead", "a", "b", "c")
}

func TestLeaderIsToldWithTheFirstEntryOfItsTerm(t *testing.T) {
	g := newRig(t, 1, 1)
	g.must(g.core.campaign())
	for len(g.entries) == 0 {
		if err := g.core.propose([][]byte{{1}}); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("propose before the first entry of the term is saved = %v, want ErrNotLeader", err)
		}
		if got := g.told(); len(got) > 0 {
			t.Fatalf("told %q before an entry is saved", got)
		}
		g.save()
	}
	g.settle()
	g.wantTold("lead")

	g.propose("a")
	g.settle()
	g.propose("lost") // not saved: never acknowledged
	g.boot(1, []uint64{1})
	g.must(g.core.campaign())
	g.settle()
	g.wantTold("a", "lead")
}

func TestInFlightIsBounded(t *testing.T) {
	g := newLoneRig(t)
	big := make([]byte, 1<<20)
	count := 0
	for g.core.room() {
		g.must(g.core.propose([][]byte{big}))
		count++
	}
	if want := inFlightBytesMax / len(big); count != want {
		t.Errorf("room for %d MiB, want %d", count, want)
	}
	for len(g.saves) > 0 {
		g.save()
	}
	if g.core.room() {
		t.Error("room, though nothing was delivered")
	}
	for range count {
		if len(g.deliveries) > 0 {
			g.deliver()
		}
	}
	g.settle()
	if g.core.flightBytes != 0 {
		t.Errorf("%d bytes in flight after all was delivered, want 0", g.core.flightBytes)
	}
}

func TestLoneVoterForgetsWhatIsApplied(t *testing.T) {
	g := newLoneRig(t)
	for range 100 {
		g.must(g.core.propose([][]byte{make([]byte, 1<<20)}))
		g.settle()
	}
	if g.core.keptBytes > 2*trimBytes {
		t.Errorf("%d bytes of the log kept in memory, want at most %d", g.core.keptBytes, 2*trimBytes)
	}
}

func TestSnapshotAtKnowsTermAndMembers(t *testing.T) {
	g := newLoneRig(t) // entry 1, term 1
	g.propose("a")     // 2
	g.settle()
	g.boot(1, []uint64{1})
	g.must(g.core.campaign())
	g.settle()     // entry 3, term 2
	g.propose("b") // 4
	g.settle()
	add := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(9))}}}
	if !g.core.lone() {
		t.Error("not lone before there is a learner")
	}
	g.must(g.core.node.ProposeConfChange(add)) // 5
	g.settle()
	if g.core.lone() {
		t.Error("lone with a learner")
	}
	for _, tt := range []struct{ index, term, learners uint64 }{{1, 1, 0}, {2, 1, 0}, {3, 2, 0}, {4, 2, 0}, {5, 2, 1}} {
		m, err := g.core.snapshotAt(tt.index)
		if err != nil || m.index != tt.index || m.term != tt.term || len(m.conf.GetLearners()) != int(tt.learners) {
			t.Errorf("snapshotAt(%d) = %v, %v, want term %d and %d learners", tt.index, m, err, tt.term, tt.learners)
		}
	}
	if _, err := g.core.snapshotAt(6); err == nil {
		t.Error("snapshot of an entry that is not delivered")
	}
	m, err := g.core.snapshotAt(4)
	if err != nil {
		t.Fatal(err)
	}
	g.must(g.core.snapshotted(m, 2))
	if _, err := g.core.snapshotAt(4); err == nil {
		t.Error("second snapshot at the same entry")
	}
	if m, err := g.core.snapshotAt(5); err != nil || m.term != 2 || len(m.conf.GetLearners()) != 1 {
		t.Errorf("snapshotAt(5) = %v, %v", m, err)
	}
	if first, err := g.core.log.FirstIndex(); err != nil || first != 3 {
		t.Errorf("log in memory begins at %d, %v, want 3", first, err)
	}
}

// trio is three cores with a network that may lose what goes to or from a member.
type trio struct {
	t    testing.TB
	rigs map[uint64]*rig
	cut  map[uint64]bool
}

func newTrio(tb testing.TB) *trio {
	tb.Helper()
	c := &trio{t: tb, rigs: map[uint64]*rig{}, cut: map[uint64]bool{}}
	for id := range uint64(3) {
		c.rigs[id+1] = newRig(tb, id+1, 1, 2, 3)
	}
	return c
}

// settle passes messages until there are none.
func (c *trio) settle() {
	c.t.Helper()
	for busy := true; busy; {
		busy = false
		for id := uint64(1); id <= 3; id++ {
			g := c.rigs[id]
			g.settle()
			messages := g.messages
			g.messages = nil
			for _, m := range messages {
				if c.cut[m.GetFrom()] || c.cut[m.GetTo()] {
					continue
				}
				busy = true
				to := c.rigs[m.GetTo()]
				to.must(to.core.step(proto.Clone(m).(*raftpb.Message)))
			}
		}
	}
}

// leader ticks until a member that is not cut off leads.
func (c *trio) leader() *rig {
	c.t.Helper()
	for range 10_000 {
		for id := uint64(1); id <= 3; id++ {
			if g := c.rigs[id]; !c.cut[id] && g.core.role.Leader {
				return g
			}
		}
		c.tick(1)
	}
	c.t.Fatal("no leader")
	return nil
}

func (c *trio) tick(n int) {
	c.t.Helper()
	for range n {
		for id := uint64(1); id <= 3; id++ {
			c.rigs[id].core.tick()
			c.settle()
		}
	}
}

func (g *rig) data() []string {
	var s []string
	for _, e := range g.events {
		for _, e := range e.Entries {
			s = append(s, string(e.Data))
		}
	}
	return s
}

func TestThreeMembersAgreeAcrossALostLeader(t *testing.T) {
	c := newTrio(t)
	old := c.leader()
	old.propose("a")
	c.settle()
	c.tick(2)
	for id, g := range c.rigs {
		if got := g.data(); !slices.Equal(got, []string{"a"}) {
			t.Fatalf("member %d got %q, want a", id, got)
		}
	}

	c.cut[old.core.id] = true
	old.propose("never") // nobody hears of it
	c.settle()
	next := c.leader()
	next.propose("b")
	c.settle()
	c.tick(30) // the old leader has no quorum any more, and must notice
	if old.core.role.Leader {
		t.Error("a leader without a quorum still leads")
	}
	if err := old.core.propose([][]byte{{1}}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("propose without a quorum = %v, want ErrNotLeader", err)
	}
	if got := old.data(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("cut off member got %q, want a", got)
	}

	c.cut[old.core.id] = false
	c.tick(30)
	c.leader().propose("c")
	c.settle()
	c.tick(2)
	for id, g := range c.rigs {
		if got := g.data(); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("member %d got %q, want a b c", id, got)
		}
	}
}

func TestThreeMembersSurviveRestarts(t *testing.T) {
	c := newTrio(t)
	want := []string{}
	for i := range 9 {
		id := uint64(i%3) + 1
		c.leader().propose(fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
		c.settle()
		c.rigs[id].boot(id, []uint64{1, 2, 3}) // from its disk; it delivers all again
		c.tick(30)
		c.leader()
	}
	c.tick(5)
	for id, g := range c.rigs {
		if got := g.data(); !slices.Equal(got, want) {
			t.Errorf("member %d got %q, want %q", id, got, want)
		}
	}
}

func TestSnapshotFileRefusesEveryFlippedBit(t *testing.T) {
	store := snapStore{dir: t.TempDir()}
	m := snapMeta{index: 12, term: 3, conf: &raftpb.ConfState{Voters: []uint64{1}}}
	if err := store.create(m, func(w io.Writer) error { _, err := io.WriteString(w, "the state"); return err }); err != nil {
		t.Fatal(err)
	}
	body, conf, err := store.open(m)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(body); err != nil || string(text) != "the state" || !slices.Equal(conf.GetVoters(), []uint64{1}) {
		t.Errorf("open = %q, %v, %v", text, conf, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	forEachDamage(t, store.path(m), func(what string) {
		if body, _, err := store.open(m); err == nil {
			t.Errorf("%s: opened", what)
			_ = body.Close()
		} else if !containsAll(err.Error(), store.path(m), "damaged", "move it away") {
			t.Errorf("%s: error does not name the file and the way out: %v", what, err)
		}
	})
}

func TestSnapshotThatFailsLeavesNothing(t *testing.T) {
	store := snapStore{dir: t.TempDir()}
	broken := errors.New("broken")
	m := snapMeta{index: 1, term: 1, conf: &raftpb.ConfState{}}
	if err := store.create(m, func(io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("create = %v, want %v", err, broken)
	}
	if metas, err := store.list(); err != nil || len(metas) != 0 {
		t.Errorf("list = %v, %v, want none", metas, err)
	}
}
