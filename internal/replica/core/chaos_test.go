package core

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// chaos is a group over a network that loses, doubles, delays and reorders messages, with members that stop and start, come
// and go. Every choice comes from one seed.
type chaos struct {
	*group
	rnd   *mathrand.Rand
	net   []*raftpb.Message
	acked []string // what a leader's consumer has got back
	next  int
	ids   uint64 // the newest member's
}

// chaosSeeds names the environment variable that says which seeds to run, like 7-7 or 1-1000.
const chaosSeeds = "REPLICA_TEST_SEEDS"

func TestMembersAgreeWhateverTheNetworkDoes(t *testing.T) {
	first, last := uint64(1), uint64(40)
	if s := os.Getenv(chaosSeeds); s != "" {
		if _, err := fmt.Sscanf(s, "%d-%d", &first, &last); err != nil {
			t.Fatalf("%s=%s: %v", chaosSeeds, s, err)
		}
	}
	total := 0
	reader := rand.Reader // raft draws its election times from it
	t.Cleanup(func() { rand.Reader = reader })
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			var key [32]byte
			key[0], key[1] = byte(seed), byte(seed>>8)
			rand.Reader = mathrand.NewChaCha8(key)
			size := []int{1, 3, 3, 5}[seed%4]
			ids := []uint64{1, 2, 3, 4, 5}[:size]
			c := &chaos{group: newGroup(t, ids...), rnd: mathrand.New(mathrand.NewPCG(seed, seed)), ids: uint64(size)}
			for range 12_000 {
				c.act()
			}
			total += c.heal()
		})
	}
	if total < 100*int(last-first+1) {
		t.Errorf("only %d entries went through in all: this tests little", total)
	}
}

// any picks one of the members.
func (c *chaos) any() *rig { return c.rigs[c.group.ids[c.rnd.IntN(len(c.group.ids))]] }

// act does one thing by chance.
func (c *chaos) act() {
	g := c.any()
	switch n := c.rnd.IntN(1000); {
	case n < 350:
		c.carry()
	case n < 550:
		g.core.tick()
		g.must(nil)
	case n < 700:
		if len(g.saves) > 0 {
			g.save()
		}
	case n < 850:
		if len(g.deliveries) > 0 {
			c.deliver(g)
		}
	case n < 950:
		for _, id := range c.group.ids {
			if c.rigs[id].core.role.Leader {
				g = c.rigs[id] // the highest, most likely the only one
			}
		}
		c.next++
		err := g.core.propose([][]byte{[]byte(fmt.Sprint(c.next))})
		if errors.Is(err, ErrNotLeader) {
			err = nil
		}
		g.must(err)
	case n < 953:
		// Power is lost: with it what was not saved.
		c.check(g)
		g.boot()
		g.must(nil)
	case n < 960:
		_ = g.snapshot(uint64(c.rnd.IntN(5))) // there may be one
	case n < 962:
		g.core.catchUp()
		g.must(nil)
	case n < 968:
		g.core.setDisk(c.rnd.IntN(3) == 0, c.rnd.IntN(3) == 0)
	case n < 975:
		c.changeMembers(g)
	case n < 980:
		c.cut[g.id] = c.rnd.IntN(5) == 0
	default:
		c.carry()
	}
	c.collect(g)
}

// collect takes what a member sends.
func (c *chaos) collect(g *rig) {
	if g.core.wantsSnapshot() {
		_ = g.snapshot(uint64(c.rnd.IntN(5)))
	}
	c.net = append(c.net, g.messages...)
	g.messages = nil
}

// carry passes one message of any age on, or loses it, or keeps it to pass it on again.
func (c *chaos) carry() {
	if len(c.net) == 0 {
		return
	}
	i := c.rnd.IntN(min(len(c.net), 20))
	m := c.net[i]
	if m.GetType() == raftpb.MsgSnap || c.rnd.IntN(20) > 0 {
		c.net = slices.Delete(c.net, i, i+1)
	}
	if c.rnd.IntN(20) == 0 {
		if m.GetType() == raftpb.MsgSnap {
			from := c.rigs[m.GetFrom()]
			from.core.reportSnapshot(m.GetTo(), false)
			from.must(nil)
		}
		return
	}
	c.pass(proto.Clone(m).(*raftpb.Message))
	if to, ok := c.rigs[m.GetTo()]; ok {
		c.collect(to)
	}
}

// deliver has g deliver one event, and holds it against what others were told.
func (c *chaos) deliver(g *rig) {
	leads := g.core.role.Leader
	before := len(g.data)
	g.deliver()
	c.check(g)
	if leads && len(g.data) > before {
		c.acked = append(c.acked, g.data[before:]...)
	}
}

// check compares what g holds with what all others do.
func (c *chaos) check(g *rig) {
	c.t.Helper()
	for _, id := range c.group.ids {
		o := c.rigs[id].data
		if n := min(len(o), len(g.data)); !slices.Equal(o[:n], g.data[:n]) {
			c.t.Fatalf("member %d holds %q, member %d %q", g.id, g.data, id, o)
		}
	}
}

// changeMembers requests a change of g; most are refused, which is fine.
func (c *chaos) changeMembers(g *rig) {
	ch := Change{Op: OpRemove, Member: Member{ID: c.any().id}}
	joins := len(g.core.members().List) < 5 && c.rnd.IntN(2) == 0
	if joins {
		ch = Change{Op: OpAdd, Member: Member{ID: c.ids + 1, Address: fmt.Sprint("a", c.ids+1), Directory: fmt.Sprint("d", c.ids+1)}}
	} else if len(g.core.members().voters()) <= 3 {
		return
	}
	_, index, err := g.core.proposeMember(ch, false)
	g.must(nil)
	if err == nil && index > 0 && joins {
		c.ids++
		c.start(c.ids, NewMember("c"))
	}
}

// heal ends all faults, and looks for what was promised. It gives how many entries there are.
func (c *chaos) heal() int {
	c.t.Helper()
	clear(c.cut)
	for _, id := range c.group.ids {
		c.rigs[id].core.setDisk(false, false)
		c.collect(c.rigs[id])
	}
	for len(c.net) > 0 {
		m := c.net[0]
		c.net = c.net[1:]
		c.pass(m)
	}
	c.settle()
	c.tick(5 * rigElection)
	leader := c.leader()
	leader.propose("end")
	c.settle()
	c.until("a common end", func() bool {
		for _, m := range leader.core.members().List {
			g, ok := c.rigs[m.ID]
			if !ok || !m.Voter || len(g.data) != len(leader.data) {
				return false
			}
		}
		return true
	})
	for _, id := range c.group.ids {
		c.check(c.rigs[id])
	}
	seen := map[string]bool{}
	for _, d := range leader.data {
		if seen[d] {
			c.t.Errorf("%q is there twice", d)
		}
		seen[d] = true
	}
	for _, d := range c.acked {
		if !seen[d] {
			c.t.Errorf("%q was acknowledged and is not there", d)
		}
	}
	return len(leader.data)
}
