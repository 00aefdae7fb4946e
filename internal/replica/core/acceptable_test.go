package core

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// message makes a message of member 2 to member 1.
func message(kind raftpb.MessageType, term, index, logTerm, commit uint64, entries ...*raftpb.Entry) *raftpb.Message {
	return &raftpb.Message{
		Type: kind.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(term), Index: new(index), LogTerm: new(logTerm),
		Commit: new(commit), Entries: entries,
	}
}

func entry(index, term uint64) *raftpb.Entry {
	return &raftpb.Entry{Index: new(index), Term: new(term), Data: []byte("x")}
}

// withSnapshot is a MsgSnap of the term, at the position.
func withSnapshot(tb testing.TB, term uint64, p Position) *raftpb.Message {
	tb.Helper()
	s, err := p.Snapshot()
	if err != nil {
		tb.Fatal(err)
	}
	m := message(raftpb.MsgSnap, term, 0, 0, 0)
	m.Snapshot = s
	return m
}

func changeEntry(tb testing.TB, index, term uint64, c Change, forge func(*raftpb.ConfChangeV2)) *raftpb.Entry {
	tb.Helper()
	cc, err := c.entry()
	if err != nil {
		tb.Fatal(err)
	}
	forge(cc)
	raw, err := proto.Marshal(cc)
	if err != nil {
		tb.Fatal(err)
	}
	return &raftpb.Entry{Index: new(index), Term: new(term), Type: raftpb.EntryConfChangeV2.Enum(), Data: raw}
}

// forgeries are messages that no member sends to one whose log has term and ends at last.
func forgeries(tb testing.TB, term, last uint64) map[string]*raftpb.Message {
	tb.Helper()
	next := last + 1
	app := func(entries ...*raftpb.Entry) *raftpb.Message {
		return message(raftpb.MsgApp, term+1, last, term, 0, entries...)
	}
	add := Change{Op: OpAdd, Member: Member{ID: 7, Address: "a7"}}
	foreign := voters(1, 2, 3)
	foreign.Cluster = "other"
	far := func(members Members) Position { return Position{Index: next + 10, Term: term, Members: &members} }
	list := map[string]*raftpb.Message{
		"a term far ahead":          message(raftpb.MsgHeartbeat, term+termJumpMax+1, 0, 0, 0),
		"a vote far ahead":          message(raftpb.MsgVote, term+termJumpMax+1, next, term, 0),
		"a response far ahead":      message(raftpb.MsgAppResp, term+termJumpMax+1, 0, 0, 0),
		"the last term":             message(raftpb.MsgVote, math.MaxUint64, next, term, 0),
		"no term":                   message(raftpb.MsgHeartbeat, 0, 0, 0, 0),
		"a read with a term":        message(raftpb.MsgReadIndex, term, 0, 0, 0, &raftpb.Entry{}),
		"a commit index too high":   message(raftpb.MsgHeartbeat, term+1, 0, 0, next),
		"the last commit index":     message(raftpb.MsgHeartbeat, term+1, 0, 0, math.MaxUint64),
		"the last index":            message(raftpb.MsgApp, term+1, math.MaxUint64, term, 0),
		"a gap between entries":     app(entry(next, term), entry(next+2, term)),
		"entries in reverse":        app(entry(next+1, term), entry(next, term)),
		"an entry of a later term":  app(entry(next, term+2)),
		"an entry of an older term": app(entry(next, term+1), entry(next+1, term)),
		"an entry without a term":   message(raftpb.MsgApp, term+1, 0, 0, 0, entry(1, 0)),
		"entries in a heartbeat":    message(raftpb.MsgHeartbeat, term+1, 0, 0, 0, entry(next, term)),
		"a log later than its term": message(raftpb.MsgVote, term+1, next, term+2, 0),
		"no change of the members":  app(&raftpb.Entry{Index: new(next), Term: new(term), Type: raftpb.EntryConfChangeV2.Enum(), Data: []byte{0xff}}),
		"an old change":             app(&raftpb.Entry{Index: new(next), Term: new(term), Type: raftpb.EntryConfChange.Enum()}),
		"a change without a kind":   app(changeEntry(tb, next, term, Change{Op: "more", Member: add.Member}, func(*raftpb.ConfChangeV2) {})),
		"a change of member 0":      app(changeEntry(tb, next, term, Change{Op: OpAdd}, func(*raftpb.ConfChangeV2) {})),
		"two changes in one": app(changeEntry(tb, next, term, add, func(cc *raftpb.ConfChangeV2) {
			cc.Changes = append(cc.Changes, Change{Op: OpRemove, Member: Member{ID: 1}}.confChange())
		})),
		"another change for raft": app(changeEntry(tb, next, term, add, func(cc *raftpb.ConfChangeV2) { cc.Changes[0].NodeId = new(uint64(math.MaxUint64)) })),
		"a long address": app(changeEntry(tb, next, term, Change{
			Op: OpAdd, Member: Member{ID: 7, Address: string(make([]byte, AddressBytesMax+1))},
		}, func(*raftpb.ConfChangeV2) {})),
		"a snapshot of nobody":           withSnapshot(tb, term+1, far(Members{Cluster: "c"})),
		"a snapshot of another cluster":  withSnapshot(tb, term+1, far(foreign)),
		"a snapshot of a later term":     withSnapshot(tb, term+1, Position{Index: next, Term: term + 2, Members: new(voters(1, 2, 3))}),
		"a snapshot at the last index":   withSnapshot(tb, term+1, Position{Index: math.MaxUint64, Term: term, Members: new(voters(1, 2, 3))}),
		"a snapshot with raft's threads": withSnapshot(tb, term+1, far(voters(1, 2, 3, math.MaxUint64))),
		"no snapshot":                    message(raftpb.MsgSnap, term+1, 0, 0, 0),
		"of itself":                      {Type: raftpb.MsgVote.Enum(), From: new(uint64(1)), To: new(uint64(1)), Term: new(term + 1)},
		"of raft's threads":              {Type: raftpb.MsgVote.Enum(), From: new(uint64(math.MaxUint64)), To: new(uint64(1)), Term: new(term + 1)},
		"to another":                     {Type: raftpb.MsgVote.Enum(), From: new(uint64(2)), To: new(uint64(3)), Term: new(term + 1)},
	}
	for kind := range raftpb.MessageType_name {
		switch t := raftpb.MessageType(kind); t { //nolint:exhaustive // those of members
		case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
			raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow, raftpb.MsgReadIndex, raftpb.MsgReadIndexResp, raftpb.MsgSnap:
		default:
			list["internal "+t.String()] = message(t, term, last, term, last)
		}
	}
	long := message(raftpb.MsgHeartbeat, term+1, 0, 0, 0)
	long.Context = make([]byte, contextBytesMax+1)
	list["a long context"] = long
	nested := message(raftpb.MsgVote, term+1, 0, 0, 0)
	nested.Responses = []*raftpb.Message{long}
	list["responses"] = nested
	return list
}

// persistent is what a member has on disk, or is going to have.
func (g *rig) persistent() []uint64 {
	b := g.core.node.BasicStatus()
	return []uint64{b.GetTerm(), b.GetVote(), b.GetCommit(), g.core.last, uint64(len(g.entries))}
}

func TestForgedMessagesAreRefused(t *testing.T) {
	for _, size := range []int{1, 3} {
		for _, leads := range []bool{true, false} {
			if size == 1 && !leads {
				continue
			}
			c := newGroup(t, []uint64{1, 2, 3}[:size]...)
			lead := uint64(1)
			if !leads {
				lead = 3
			}
			c.rigs[lead].must(c.rigs[lead].core.campaign())
			c.settle()
			c.until("elected", func() bool { return c.rigs[lead].core.role.Leader })
			c.rigs[lead].propose("a")
			c.settle()
			g := c.rigs[1]
			list := forgeries(t, g.core.term, g.core.last)
			if leads {
				list["a second leader"] = message(raftpb.MsgApp, g.core.term, 0, 0, 0)
				list["more than was sent"] = message(raftpb.MsgAppResp, g.core.term, g.core.last+1, 0, 0)
			}
			for what, m := range list {
				before := g.persistent()
				if err := g.core.step(m); err == nil && size > 1 {
					t.Errorf("%d members, leading %v: %s is accepted", size, leads, what)
				}
				g.must(nil)
				if after := g.persistent(); !slices.Equal(after, before) {
					t.Fatalf("%d members, leading %v: %s: term, vote, commit, last, entries = %v, want %v", size, leads, what, after, before)
				}
			}
			c.rigs[lead].propose("b")
			c.settle()
			c.tick(2)
			c.wantData("a", "b")
		}
	}
}

func TestNewMemberAcceptsTheTermOfItsCluster(t *testing.T) {
	g := newRig(t, 9, NewMember("c"))
	if err := g.core.step(&raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(9)), Term: new(uint64(3 * termJumpMax)),
	}); err != nil {
		t.Error(err)
	}
	g.settle()
	if g.core.term != 3*termJumpMax {
		t.Errorf("the new member is in term %d", g.core.term)
	}
}

func TestStartWithAnImpossibleTerm(t *testing.T) {
	_, err := New(Config{
		ID: 1, ElectionTicks: rigElection, HeartbeatTicks: rigHeartbeat, Start: Beginning(voters(1)),
		State: &raftpb.HardState{Term: new(uint64(math.MaxUint64)), Vote: new(uint64(0)), Commit: new(uint64(1))},
	})
	if err == nil {
		t.Error("a member starts with the last term, and cannot be elected")
	}
}

// FuzzMessages gives a member any messages: it goes on, or refuses them, and starts again from what is on its disk.
func FuzzMessages(f *testing.F) {
	add := func(messages ...*raftpb.Message) {
		var in []byte
		for _, m := range messages {
			raw, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			in = append(binary.BigEndian.AppendUint16(in, uint16(len(raw))), raw...)
		}
		for role := range byte(4) {
			f.Add(role, in)
		}
	}
	var all []*raftpb.Message
	for _, m := range forgeries(f, 2, 3) {
		add(m)
		all = append(all, m)
	}
	add(all...)
	// What members do send.
	c := newGroup(f, 1, 2, 3)
	var sent []*raftpb.Message
	c.drop = func(m *raftpb.Message) bool {
		if m = proto.Clone(m).(*raftpb.Message); m.GetTo() == 1 {
			sent = append(sent, m)
		}
		return false
	}
	c.leader()
	c.join(4)
	for range 3 {
		c.leader().propose("a", "b")
		c.tick(rigElection)
	}
	c.cut[c.leader().id] = true
	c.leader()
	for n := 0; n < len(sent); n += 9 {
		add(sent[:n+1]...)
		add(sent[n])
	}
	reader := rand.Reader // raft draws its election times from it
	f.Cleanup(func() { rand.Reader = reader })
	f.Fuzz(func(t *testing.T, role byte, in []byte) {
		rand.Reader = mathrand.NewChaCha8([32]byte{})
		role %= 4
		first := voters(1, 2, 3)
		if role == 0 {
			first = voters(1)
		}
		g := newRig(t, 1, Beginning(first))
		if role == 3 {
			g = newRig(t, 1, NewMember("c"))
		}
		if role < 2 {
			g.must(g.core.campaign())
			g.settle()
		}
		if role == 1 { // it leads
			g.must(g.core.step(message(raftpb.MsgPreVoteResp, g.core.term+1, 0, 0, 0)))
			g.settle()
			g.must(g.core.step(message(raftpb.MsgVoteResp, g.core.term, 0, 0, 0)))
			g.settle()
		}
		for len(in) > 2 {
			n := min(int(binary.BigEndian.Uint16(in)), len(in)-2)
			m := &raftpb.Message{}
			if proto.Unmarshal(in[2:2+n], m) != nil {
				return
			}
			in = in[2+n:]
			if m.GetType() == raftpb.MsgSnap {
				if p, err := PositionOf(m.GetSnapshot()); err == nil {
					g.shelf[idOf(p)] = nil
				}
			}
			_ = g.core.step(m) // an error is a refusal
			g.settle()
			g.messages = nil
			g.core.tick()
			g.settle()
		}
		g.boot()
		g.settle()
	})
}
