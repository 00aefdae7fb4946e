package core

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

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
	g.wantDelivered("lead", "a", "b")
	g.settle()
	g.wantDelivered("lead", "a", "b", "c")
}

func TestLeaderIsToldWithTheFirstEntryOfItsTerm(t *testing.T) {
	g := newRig(t, 1, Beginning(voters(1)))
	g.must(g.core.campaign())
	for len(g.entries) == 0 {
		if err := g.core.propose([][]byte{{1}}); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("propose before the first entry of the term is saved = %v, want ErrNotLeader", err)
		}
		if got := g.delivered(); len(got) > 0 {
			t.Fatalf("delivered %q before an entry is saved", got)
		}
		g.save()
	}
	g.settle()
	g.wantDelivered("lead")

	g.propose("a")
	g.settle()
	g.propose("lost") // not saved: never acknowledged
	g.boot()
	g.must(g.core.campaign())
	g.settle()
	g.wantDelivered("a", "lead")
}

func TestInFlightIsBounded(t *testing.T) {
	g := newLoneRig(t)
	big := make([]byte, 1<<20)
	count := 0
	for g.core.room() {
		g.must(g.core.propose([][]byte{big}))
		count++
	}
	if want := InFlightBytesMax / len(big); count != want {
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
	if g.core.flight.bytes != 0 {
		t.Errorf("%d bytes in flight after all was delivered, want 0", g.core.flight.bytes)
	}
}

func TestLoneVoterForgetsWhatIsApplied(t *testing.T) {
	g := newLoneRig(t)
	for range 100 {
		g.must(g.core.propose([][]byte{make([]byte, 1<<20)}))
		g.settle()
	}
	if g.core.log.bytes > 2*trimBytes {
		t.Errorf("%d bytes of the log kept in memory, want at most %d", g.core.log.bytes, 2*trimBytes)
	}
}

func TestSnapshotAtKnowsTermAndMembers(t *testing.T) {
	g := newLoneRig(t) // entry 2, term 1
	g.propose("a")     // 3
	g.settle()
	g.boot()
	g.must(g.core.campaign())
	g.settle()     // entry 4, term 2
	g.propose("b") // 5
	g.settle()
	if !g.core.lone() {
		t.Error("not lone before there is a learner")
	}
	g.change(Change{Op: OpAdd, Member: Member{ID: 9, Address: "nine"}}) // 6
	if g.core.lone() {
		t.Error("lone with a learner")
	}
	g.propose("c") // 7
	g.settle()
	for _, tt := range []struct {
		index, term uint64
		members     int
	}{{3, 2, 1}, {4, 2, 1}, {5, 2, 2}, {6, 2, 2}, {7, 2, 2}} {
		// Of raft's own entries, 4 and 6, the state is that before them, and the position theirs.
		want := map[uint64]uint64{3: 4, 4: 4, 5: 6, 6: 6, 7: 7}[tt.index]
		p, err := g.core.snapshotAt(tt.index)
		if err != nil || p.Index != want || p.Term != tt.term || len(p.Members.List) != tt.members {
			t.Errorf("SnapshotAt(%d) = %v, %v, want term %d and %d members", tt.index, p, err, tt.term, tt.members)
		}
	}
	if _, err := g.core.snapshotAt(8); err == nil {
		t.Error("snapshot of an entry that is not delivered")
	}
	p, err := g.core.snapshotAt(5)
	if err != nil {
		t.Fatal(err)
	}
	g.must(g.core.snapshotted(p, 3))
	for _, index := range []uint64{5, 6} {
		if _, err := g.core.snapshotAt(index); err == nil {
			t.Errorf("second snapshot at entry %d", index)
		}
	}
	if first, err := g.core.log.FirstIndex(); err != nil || first != 4 {
		t.Errorf("log in memory begins at %d, %v, want 4", first, err)
	}
	// Behind what the consumer knows of, raft's own entries do not change the state.
	g.change(Change{Op: OpAdd, Member: Member{ID: 10, Address: "ten"}}) // 8
	if p, err := g.core.snapshotAt(7); err != nil || p.Index != 8 || len(p.Members.List) != 3 {
		t.Errorf("SnapshotAt(7) = %v, %v, want the position of entry 8", p, err)
	}
}

func TestThreeMembersAgreeAcrossALostLeader(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	old := c.leader()
	old.propose("a")
	c.settle()
	c.tick(2)
	for id, g := range c.rigs {
		if got := g.data; !slices.Equal(got, []string{"a"}) {
			t.Fatalf("member %d got %q, want a", id, got)
		}
	}

	c.cut[old.id] = true
	old.propose("never") // reaches no other member
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
	if got := old.data; !slices.Equal(got, []string{"a"}) {
		t.Errorf("cut off member got %q, want a", got)
	}

	c.cut[old.id] = false
	c.tick(30)
	c.leader().propose("c")
	c.settle()
	c.tick(2)
	for id, g := range c.rigs {
		if got := g.data; !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("member %d got %q, want a b c", id, got)
		}
	}
}

func TestThreeMembersSurviveRestarts(t *testing.T) {
	c := newGroup(t, 1, 2, 3)
	want := []string{}
	for i := range 9 {
		id := uint64(i%3) + 1
		c.leader().propose(fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
		c.settle()
		c.rigs[id].boot() // from its disk; it delivers all again
		c.tick(30)
		c.leader()
	}
	c.tick(5)
	for id, g := range c.rigs {
		if got := g.data; !slices.Equal(got, want) {
			t.Errorf("member %d got %q, want %q", id, got, want)
		}
	}
}
