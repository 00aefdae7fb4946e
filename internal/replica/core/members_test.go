package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

func (g *rig) members() []string {
	var s []string
	for _, m := range g.core.members().List {
		text := fmt.Sprint(m.ID)
		if !m.Voter {
			text += "?"
		}
		s = append(s, text)
	}
	return s
}

func (c *group) wantMembers(want ...string) {
	c.t.Helper()
	for _, id := range c.ids {
		if g := c.rigs[id]; !c.cut[id] && !g.core.removed() && !slices.Equal(g.members(), want) {
			c.t.Errorf("member %d knows the members %v, want %v", id, g.members(), want)
		}
	}
}

func TestOneGrowsToThreeAndShrinks(t *testing.T) {
	c := newGroup(t, 1)
	c.leader().propose("a")
	c.settle()
	for id := range uint64(2) {
		g := c.join(id + 2)
		c.until("promotion", func() bool { m, ok := g.core.members().Get(id + 2); return ok && m.Voter })
		c.leader().propose(fmt.Sprint("with ", id+2))
		c.settle()
	}
	c.tick(2)
	c.wantMembers("1", "2", "3")
	c.wantData("a", "with 2", "with 3")

	// The leader goes, then another.
	for _, left := range [][]string{{"2", "3"}, {"3"}} {
		leader := c.leader()
		gone := leader.id
		if _, _, err := leader.core.proposeMember(Change{Op: OpRemove, Member: Member{ID: gone}}, false); !errors.Is(err, ErrSelf) {
			t.Fatalf("remove the leader = %v, want a refusal", err)
		}
		for tries := 0; c.leader().id == gone; tries++ {
			leader.must(leader.core.transferLeadership(tries))
			c.settle()
		}
		c.change(Change{Op: OpRemove, Member: Member{ID: gone}})
		c.tick(2)
		if !c.rigs[gone].core.removed() {
			t.Errorf("member %d does not know that it was removed", gone)
		}
		if len(left) == 2 { // who is left does not depend on who leads
			left = slices.DeleteFunc([]string{"1", "2", "3"}, func(s string) bool { return s == fmt.Sprint(gone) })
		} else {
			left = []string{fmt.Sprint(c.leader().id)}
		}
		c.wantMembers(left...)
	}
	last := c.leader()
	if !last.core.lone() {
		t.Error("the last one is not lone")
	}
	last.propose("z")
	c.settle()
	c.wantData("a", "with 2", "with 3", "z")
	if _, _, err := last.core.proposeMember(Change{Op: OpRemove, Member: Member{ID: last.id}}, true); !errors.Is(err, ErrQuorum) {
		t.Errorf("remove the last member by force = %v, want ErrQuorum", err)
	}
	last.boot()
	if last.core.removed() || !last.core.sole() && len(last.core.members().List) == 1 {
		t.Errorf("after a restart the members are %v", last.members())
	}
	c.leader()
}

func TestDeadMemberIsReplaced(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	c.leader().propose("a")
	c.settle()
	dead := c.leader().id
	c.cut[dead] = true
	c.leader().propose("b")
	c.settle()
	c.tick(2 * rigElection) // until it is noticed
	c.change(Change{Op: OpRemove, Member: Member{ID: dead}})
	m := c.change(Change{Op: OpAdd, Member: Member{Address: "elsewhere", Directory: "new"}})
	if m.ID != 4 || m.Voter {
		t.Fatalf("the new member is %+v, want a learner with the id 4", m)
	}
	g := c.start(4, NewMember("c"))
	c.until("promotion", func() bool { m, ok := g.core.members().Get(4); return ok && m.Voter })
	c.tick(2)
	c.wantData("a", "b")

	// It does as a voter: with another one gone, the two left go on.
	for _, id := range c.ids {
		if id != 4 && !c.cut[id] {
			c.cut[id] = true
			break
		}
	}
	c.leader().propose("c")
	c.settle()
	c.tick(2)
	c.wantData("a", "b", "c")

	// The dead one comes back, and disturbs none.
	leader := c.leader()
	term := leader.core.term
	c.cut[dead] = false
	c.tick(10 * rigElection)
	if c.leader() != leader || leader.core.term != term {
		t.Errorf("a removed member has made %d lead in term %d, before it was %d in %d", c.leader().id, c.leader().core.term, leader.id, term)
	}
}

// TestNewLeaderRemovesTheOneBefore: the new leader has not heard from it yet, and so does not know what it holds.
func TestNewLeaderRemovesTheOneBefore(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	old := c.leader()
	old.propose("a")
	c.settle()
	c.drop = func(m *raftpb.Message) bool { return m.GetFrom() == old.id && m.GetType() == raftpb.MsgAppResp }
	old.must(old.core.transferLeadership(0))
	c.until("another leads", func() bool { return c.leader() != old })
	c.change(Change{Op: OpRemove, Member: Member{ID: old.id}})
	if !old.core.removed() {
		t.Error("the leader of before does not know that it was removed")
	}
}

func TestChangesOfMembersAreChecked(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	leader := c.leader()
	c.tick(2)
	propose := func(ch Change) (Member, uint64, error) {
		m, index, err := leader.core.proposeMember(ch, false)
		leader.must(nil)
		c.settle()
		c.tick(1)
		return m, index, err
	}
	first, index, err := propose(Change{Op: OpAdd, Member: Member{Address: "x", Directory: "dx"}})
	if err != nil || index == 0 || first.ID != 4 {
		t.Fatalf("add = %+v, %d, %v", first, index, err)
	}
	// The same directory again is the same member, wherever it is now.
	if m, index, err := propose(Change{Op: OpAdd, Member: Member{Address: "x", Directory: "dx"}}); err != nil || index != 0 || m != first {
		t.Errorf("add the same = %+v, %d, %v, want nothing to do", m, index, err)
	}
	if m, index, err := propose(Change{Op: OpAdd, Member: Member{Address: "y", Directory: "dx"}}); err != nil || index == 0 || m.ID != 4 || m.Address != "y" {
		t.Errorf("add the same elsewhere = %+v, %d, %v, want member 4 at y", m, index, err)
	}
	if _, _, err := propose(Change{Op: OpRemove, Member: Member{ID: 4}}); err != nil {
		t.Fatal(err)
	}
	if _, index, err := propose(Change{Op: OpRemove, Member: Member{ID: 4}}); err != nil || index != 0 {
		t.Errorf("remove again = %d, %v, want nothing to do", index, err)
	}
	for _, tt := range []struct {
		change Change
		want   string
	}{
		{Change{Op: OpAdd, Member: Member{ID: 4, Address: "z"}}, "leader 4 was removed"},
		{Change{Op: OpAdd, Member: Member{ID: 3, Address: "z", Directory: "d3"}}, "leader 3 exists already"}, // it was expected elsewhere
		{Change{Op: OpAdd, Member: Member{ID: 2, Address: "z", Directory: "dz"}}, "leader 2 exists already"},
		{Change{Op: OpAdd, Member: Member{Address: "a2", Directory: "dz"}}, "leader 2 has the address a2 already"},
		{Change{Op: OpUpdate, Member: Member{ID: 9, Address: "z"}}, "there is no leader 9: the leaders are 1, 2, 3"},
		{Change{Op: OpUpdate, Member: Member{ID: 3, Address: "a1"}}, "leader 1 has the address a1 already"},
		{Change{Op: OpRemove, Member: Member{ID: 9}}, "there is no leader 9"},
		{Change{Op: "dance", Member: Member{ID: 1}}, `"dance"`},
	} {
		if _, _, err := propose(tt.change); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v = %v, want %q", tt.change, err, tt.want)
		}
	}
	if m, _, err := propose(Change{Op: OpAdd, Member: Member{Address: "z", Directory: "dz"}}); err != nil || m.ID != 5 {
		t.Errorf("add = %+v, %v, want an id that was never used", m, err)
	}
	if _, _, err := propose(Change{Op: OpUpdate, Member: Member{ID: 3, Directory: "d3"}}); err != nil {
		t.Error(err)
	}
	if _, _, err := propose(Change{Op: OpUpdate, Member: Member{ID: 3, Directory: "other"}}); err == nil || !strings.Contains(err.Error(), "its log is lost") {
		t.Errorf("another directory of leader 3 = %v", err)
	}
	if _, _, err := c.rigs[leader.id%3+1].core.proposeMember(Change{Op: OpRemove, Member: Member{ID: 5}}, false); !errors.Is(err, ErrNotLeader) {
		t.Errorf("change by a follower = %v, want ErrNotLeader", err)
	}
}

// TestNewLeaderHearsOfTheOthersFirst: that it has not heard of a member yet says nothing of it in the first moments.
func TestNewLeaderHearsOfTheOthersFirst(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	old := c.leader()
	next, cut := c.rigs[old.id%3+1], (old.id+1)%3+1
	c.cut[cut] = true
	c.tick(2 * rigElection)
	next.must(old.core.transferLeadership(0))
	c.until("another leads", func() bool { c.tick(1); return next.core.leading() })
	remove := func() error {
		_, _, err := next.core.proposeMember(Change{Op: OpRemove, Member: Member{ID: old.id}}, false)
		return err
	}
	if err := remove(); !errors.Is(err, ErrChanging) {
		t.Fatalf("a new leader that has not heard of all removes one = %v, want ErrChanging", err)
	}
	c.tick(2 * rigElection)
	if err := remove(); !errors.Is(err, ErrQuorum) {
		t.Errorf("the same later = %v, want ErrQuorum", err)
	}
}

func TestQuorumIsNotRemoved(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	leader := c.leader()
	live, dead := leader.id%3+1, (leader.id+1)%3+1
	c.cut[dead] = true
	c.tick(2 * rigElection)
	_, _, err := leader.core.proposeMember(Change{Op: OpRemove, Member: Member{ID: live}}, false)
	want := fmt.Sprintf("3 leaders, 2 of them answer; without leader %d there are 2, a majority is 2, and 1 answers", live)
	if !errors.Is(err, ErrQuorum) || !strings.Contains(err.Error(), want) {
		t.Fatalf("remove one of the two that live = %v, want %q", err, want)
	}
	c.change(Change{Op: OpRemove, Member: Member{ID: dead}})
	c.tick(2)
	c.wantMembers(slices.Sorted(slices.Values([]string{fmt.Sprint(leader.id), fmt.Sprint(live)}))...)
	if _, _, err := leader.core.proposeMember(Change{Op: OpRemove, Member: Member{ID: live}}, false); err != nil {
		t.Errorf("remove one of two that live = %v: one is left, and is a majority of one", err)
	}
}

func TestForcedRemovalGoesThroughAllTheSame(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	leader := c.leader()
	live, dead := leader.id%3+1, (leader.id+1)%3+1
	c.cut[dead] = true
	c.tick(2 * rigElection)
	if _, _, err := leader.core.proposeMember(Change{Op: OpRemove, Member: Member{ID: live}}, true); err != nil {
		t.Fatal(err)
	}
	leader.must(nil)
	c.settle()
	if _, ok := leader.core.members().Get(live); ok {
		t.Error("the member is still there")
	}
	c.tick(3 * rigElection) // two are left, and one of them is dead
	if leader.core.role.Leader {
		t.Error("it leads without a majority")
	}
	c.cut[dead] = false
	c.leader().propose("a")
	c.settle()
	c.tick(1)
	c.wantData("a")
}

func TestNewMemberCatchesUpFromASnapshotWhileEntriesFlow(t *testing.T) {
	c := newGroup(t, 1)
	leader := c.leader()
	var want []string
	flow := func() {
		want = append(want, fmt.Sprint(len(want)))
		leader.propose(want[len(want)-1])
		c.settle()
	}
	for range 50 {
		flow()
	}
	if err := leader.snapshot(0); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		flow()
	}
	g := c.join(2)
	lost := 0
	c.drop = func(m *raftpb.Message) bool { // twice the snapshot is lost on its way
		if m.GetType() == raftpb.MsgSnap && lost < 2 {
			lost++
			return true
		}
		return false
	}
	c.until("promotion", func() bool {
		flow()
		m, ok := g.core.members().Get(2)
		return ok && m.Voter
	})
	c.tick(2)
	c.wantData(want...)
	if lost < 2 {
		t.Errorf("%d snapshots were lost, want 2", lost)
	}
	installs := 0
	for _, e := range g.events {
		if e.Snapshot != nil {
			installs++
		}
	}
	if installs != 1 {
		t.Errorf("%d snapshots were installed, want 1", installs)
	}
	g.boot()
	c.tick(1)
	c.wantData(want...)
}

func TestFollowerWhoseEntriesAreGoneGetsASnapshot(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	leader := c.leader()
	behind := leader.id%3 + 1
	var want []string
	add := func(s string) {
		want = append(want, s)
		leader.propose(s)
		c.settle()
	}
	add("a")
	c.tick(1)
	c.cut[behind] = true
	add("b")
	add("c")
	if err := leader.snapshot(0); err != nil { // nothing before it is left in memory
		t.Fatal(err)
	}
	add("d")
	c.cut[behind] = false
	c.tick(5)
	c.wantData(want...)
	if got := c.rigs[behind].start.Index; got < 5 {
		t.Errorf("member %d starts from %d: it got entries that the leader did not have any more", behind, got)
	}
	// It may lead now, and give others what they need.
	for tries := 0; c.leader().id != behind; tries++ {
		c.leader().must(c.leader().core.transferLeadership(tries))
		c.settle()
	}
	leader = c.leader()
	add("e")
	c.tick(2)
	c.wantData(want...)
}

// The entry that makes a second voter is committed by the first alone. Whatever both lose with their power afterwards, a member can be
// elected: the second, which may not know yet that it is a voter, has no entry that the first has not.
func TestSecondVoterDoesNotKnowMoreThanTheFirst(t *testing.T) {
	c := newGroup(t, 1)
	g := c.leader()
	g.propose("a")
	c.settle()
	second := c.join(2)
	c.until("promotion", func() bool { m, _ := g.core.members().Get(2); return m.Voter })
	promoted := g.core.changed
	g.stuck = true
	g.propose("lost")
	c.settle()
	second.state.Commit = new(promoted - 1) // it is written with what comes later
	second.boot()
	g.boot()
	c.leader().propose("b")
	c.settle()
	c.tick(2)
	c.wantMembers("1", "2")
	c.wantData("a", "b")
}

func TestPausedLeaderLosesItsLeadership(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	old := c.leader()
	old.core.catchUp()
	old.must(nil)
	if err := old.core.propose([][]byte{{1}}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("Propose after a pause = %v, want ErrNotLeader", err)
	}
	c.leader().propose("a")
	c.settle()
	c.tick(2)
	c.wantData("a")

	lone := newLoneRig(t)
	lone.core.catchUp()
	lone.must(nil)
	lone.propose("a") // no other member can lead
}

func TestLeaderWithAHungDiskHandsOver(t *testing.T) {
	for _, full := range []bool{false, true} {
		c := newGroup(t, 1, 2, 3)
		old := c.leader()
		old.stuck = true
		old.propose("a")
		c.settle()
		old.core.setDisk(!full, full)
		c.until("another leader", func() bool {
			for _, g := range c.rigs {
				if g != old && g.core.role.Leader {
					return true
				}
			}
			return false
		})
		// No member makes it leader again, and it does not campaign.
		old.must(old.core.step(&raftpb.Message{
			Type: raftpb.MsgTimeoutNow.Enum(), To: new(old.id), From: new(c.leader().id), Term: new(old.core.term),
		}))
		if old.core.leading() || old.core.soft.RaftState != 0 {
			t.Errorf("full %v: it stands for election when asked to", full)
		}
		c.tick(1)
		for _, id := range c.ids {
			if g := c.rigs[id]; g != old && !slices.Equal(g.data, []string{"a"}) {
				t.Errorf("member %d holds %q, want a: two had it", id, g.data)
			}
		}
		if full {
			continue
		}
		for range 10 * rigElection {
			old.core.tick()
			old.must(nil)
		}
		if old.core.soft.RaftState != 0 {
			t.Error("it stands for election with a hung disk")
		}
	}
	// A transfer that comes to nothing leaves it leading, and no member sees another leader.
	d := newGroup(t, 1, 2, 3)
	old := d.leader()
	for id, g := range d.rigs {
		g.core.setDisk(false, id != old.id)
	}
	roles := len(old.events)
	old.must(old.core.transferLeadership(0))
	if old.core.room() {
		t.Error("room for proposals while leadership is handed over")
	}
	d.tick(rigElection + 1)
	if !old.core.room() || !old.core.role.Leader || len(old.events) != roles {
		t.Errorf("after a transfer that failed: room %v, role %+v", old.core.room(), old.core.role)
	}
	// Without a member to hand over to, it goes on.
	c := newGroup(t, 1, 2)
	leader := c.leader()
	leader.core.setDisk(true, false)
	c.tick(rigElection)
	if !leader.core.leading() {
		t.Error("one of two gave up, though the other cannot lead alone")
	}
}

func TestReadsAreConfirmed(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	c.leader().propose("a")
	c.settle()
	c.tick(2)
	leader := c.leader()
	for i, id := range c.ids {
		g := c.rigs[id]
		name := []byte(fmt.Sprint("read ", i))
		g.must(g.core.readIndex(name))
		c.settle()
		if len(g.reads) != 1 || g.reads[0].Index != leader.core.committed || string(g.reads[0].RequestCtx) != string(name) {
			t.Errorf("member %d: reads %+v, want one at %d", id, g.reads, leader.core.committed)
		}
	}
	// A leader without followers answers nothing, and then steps down.
	c.cut[leader.id] = true
	leader.reads = nil
	leader.must(leader.core.readIndex([]byte("x")))
	next := c.leader()
	next.propose("b")
	c.settle()
	c.tick(3 * rigElection)
	if len(leader.reads) > 0 {
		t.Errorf("a leader of the past answers reads: %+v", leader.reads)
	}
	if err := leader.core.readIndex([]byte("y")); !errors.Is(err, errNoLeader) {
		t.Errorf("ReadIndex without a leader = %v, want errNoLeader", err)
	}

	// One that has just been elected does not know yet what is committed, though it is alone.
	lone := newLoneRig(t)
	lone.propose("a")
	lone.settle()
	committed := lone.core.committed
	lone.state.Commit = new(uint64(1)) // the log on disk has less than it could
	lone.boot()
	lone.must(lone.core.campaign())
	for i := 0; !lone.core.role.Leader; i++ {
		if err := lone.core.readIndex([]byte{1, byte(i)}); !errors.Is(err, errNoLeader) {
			t.Fatalf("ReadIndex before the term's first entry = %v, want errNoLeader", err)
		}
		if len(lone.saves) > 0 {
			lone.save()
		} else {
			lone.deliver()
		}
	}
	lone.must(lone.core.readIndex([]byte{2}))
	if len(lone.reads) != 1 || lone.reads[0].Index < committed {
		t.Errorf("reads %+v, want one at %d at least", lone.reads, committed)
	}
}

func TestStrangeMessagesAreRefused(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	g := c.leader()
	other := Members{Cluster: "other", List: []Member{{ID: g.id, Voter: true}}}
	stranger, err := (Position{Index: 100, Term: 1, Members: &other}).Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*raftpb.Message{
		{},
		{Type: raftpb.MsgHeartbeat.Enum(), From: new(g.id), To: new(g.id)},
		{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(9))},
		{Type: raftpb.MsgHup.Enum(), From: new(g.id%3 + 1), To: new(g.id)},
		{Type: raftpb.MsgProp.Enum(), From: new(g.id%3 + 1), To: new(g.id)},
		{Type: raftpb.MsgTransferLeader.Enum(), From: new(g.id%3 + 1), To: new(g.id)},
		{Type: raftpb.MsgStorageAppendResp.Enum(), From: new(^uint64(0)), To: new(g.id)},
		{Type: raftpb.MsgReadIndex.Enum(), From: new(g.id%3 + 1), To: new(g.id)},
		{Type: raftpb.MsgSnap.Enum(), From: new(g.id%3 + 1), To: new(g.id), Term: new(uint64(9))},
		{Type: raftpb.MsgSnap.Enum(), From: new(g.id%3 + 1), To: new(g.id), Term: new(uint64(9)), Snapshot: stranger},
	} {
		if err := g.core.step(m); err == nil {
			t.Errorf("taken: %v", m)
		}
	}
	g.must(nil)
	if !g.core.role.Leader {
		t.Error("they changed something")
	}
}

func TestLeaderSaysWhereItIs(t *testing.T) {
	g := newLoneRig(t)
	g.core.cfg.Address, g.core.cfg.Directory = "b:2", "d"
	g.core.tick()
	g.settle()
	if m, _ := g.core.members().Get(1); m.Address != "b:2" || m.Directory != "d" {
		t.Errorf("member = %+v", m)
	}
	last := g.core.last
	g.core.tick()
	g.settle()
	if g.core.last != last {
		t.Error("it reports so again")
	}
}

// A member that was cut off while another one was added and became the leader does not know it. It catches up all the same, also if all that the
// leader has sent at its election was lost: raft sends a member no entries until that answers a heartbeat.
func TestMemberCatchesUpFromAnUnknownLeader(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	c.leader()
	absent := c.rigs[1]
	c.cut[1] = true
	fresh := c.join(4)
	c.until("the new member votes", func() bool {
		m, _ := fresh.core.members().Get(4)
		return m.Voter
	})
	c.until("the new member leads", func() bool {
		if leader := c.leader(); leader != fresh {
			leader.core.node.TransferLeader(4)
			leader.must(nil)
			c.settle()
		}
		return fresh.core.role.Leader
	})
	c.tick(2 * rigElection)
	c.cut[1] = false
	fresh.propose("a")
	c.until("the absent member has the entry", func() bool { return len(absent.data) > 0 })
	if _, known := absent.core.members().Get(4); !known || !fresh.core.role.Leader {
		t.Errorf("member 1 knows %v; member 4 leads: %v", absent.core.members(), fresh.core.role.Leader)
	}
}

// TestAFirstMemberJoins: one that does not know the list of the first members enters at its place in it, once.
func TestAFirstMemberJoins(t *testing.T) {
	m := &Members{List: []Member{{ID: 1, Address: "a1", Directory: "d1", Voter: true}, {ID: 3, Address: "a3", Voter: true}}}
	want := Member{ID: 3, Address: "a3", Directory: "d3", Voter: true}
	if c, needed, err := m.plan(Change{Op: OpAdd, Member: Member{ID: 3, Address: "a3", Directory: "d3"}}); err != nil || !needed || c.Op != OpUpdate || c.Member != want {
		t.Errorf("plan = %+v, %v, %v; want an update to %+v", c, needed, err, want)
	}
	m.List[1].Directory = "d3"
	if _, _, err := m.plan(Change{Op: OpAdd, Member: Member{ID: 3, Address: "a3", Directory: "other"}}); err == nil {
		t.Error("a second data directory was accepted")
	}
}
