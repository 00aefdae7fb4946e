package sim

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/peer"
	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/replica/core"
	"github.com/bridgefour/bridgefour/internal/state"
)

// visit has a leader receive messages of raft that must change nothing: those of a node that is no member, but has a certificate of role leader,
// and from members those that no member sends.
func (l *simLeader) visit(f Fault) {
	rng := stream(uint64(f.Size), "stranger", uint64(f.At))
	members := l.core.Members()
	if len(members.List) == 0 {
		return // it does not know yet who is a stranger
	}
	for range 1 + rng.IntN(10) {
		if !l.up {
			return
		}
		hs, ok := l.handshake(rng, members)
		if !ok {
			continue
		}
		d := &door{l: l}
		d.open(hs, l.strangeMessage(rng, hs.GetFrom()), l.strangeMessage(rng, hs.GetFrom()))
		for _, m := range d.received {
			l.unmoved(m)
		}
		if other := pick(rng, members.List...); other.ID != uint64(l.addr) {
			l.unmoved(l.damagedMessage(rng, other.ID))
		}
	}
}

// handshake is that of a stranger: of a new id, of a removed member, or of a member with another data directory. It is false if this leader cannot
// tell such a one yet.
func (l *simLeader) handshake(rng *rand.Rand, members *core.Members) (*peerpb.Handshake, bool) {
	const unknown = 999
	hs := &peerpb.Handshake{
		ClusterId: clusterID, From: unknown, To: uint64(l.addr), Address: "10.9.9.9:1", Directory: "stranger", Version: "hostile", Protocol: peer.Protocol,
		ProtocolMin: peer.ProtocolMin, Lane: peerpb.Lane_LANE_BULK, Incarnation: "x", FeatureLevel: state.FeatureLevel,
		Committed: pick(rng, 0, l.core.Status().Applied, math.MaxUint64),
	}
	switch rng.IntN(3) {
	case 0:
		if len(members.Removed) > 0 {
			hs.From = pick(rng, members.Removed...)
			hs.Directory = dirOf(addr(hs.GetFrom()))
		}
	case 1:
		m := pick(rng, members.List...)
		hs.From = m.ID
		return hs, m.Directory != ""
	}
	return hs, true
}

// strangeMessage is any message of raft. It does not claim a longer log: whoever has a leader's certificate may have been added there.
func (l *simLeader) strangeMessage(rng *rand.Rand, from uint64) *raftpb.Message {
	now := l.core.Status()
	term := pick(rng, 0, now.Term, now.Term+1, now.Term+1000, core.TermMax, math.MaxUint64)
	index := now.Applied - min(now.Applied, rng.Uint64N(5))
	m := &raftpb.Message{
		Type: raftpb.MessageType(rng.IntN(len(raftpb.MessageType_name))).Enum(), From: &from, To: new(uint64(l.addr)), Term: &term, Index: &index,
		LogTerm: new(min(term, now.Term)), Commit: new(pick(rng, 0, index)),
	}
	if oneIn(rng, 8) {
		m.From = new(uint64(rng.IntN(4))) // another one's
	}
	if m.GetType() == raftpb.MsgApp && oneIn(rng, 2) {
		m.Entries = []*raftpb.Entry{{Index: new(index + 1), Term: new(term), Data: []byte("hostile")}}
	}
	if t := m.GetType(); (t == raftpb.MsgVote || t == raftpb.MsgPreVote) && oneIn(rng, 2) {
		m.Context = []byte("CampaignTransfer") // raft then ignores that it has a leader
	}
	return m
}

// damagedMessage is one that no member sends, from a member.
func (l *simLeader) damagedMessage(rng *rand.Rand, from uint64) *raftpb.Message {
	now := l.core.Status()
	m := &raftpb.Message{From: &from, To: new(uint64(l.addr)), Term: new(now.Term), Index: new(now.Last), LogTerm: new(now.Term), Commit: new(uint64(0))}
	kinds := []raftpb.MessageType{raftpb.MsgHeartbeat, raftpb.MsgVote, raftpb.MsgAppResp, raftpb.MsgApp, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow}
	const far = 1 << 20 // terms
	switch m.Type = pick(rng, kinds...).Enum(); rng.IntN(4) {
	case 0:
		m.Term = new(pick(rng, now.Term+far+1, core.TermMax, core.TermMax+1, math.MaxUint64))
	case 1:
		m.Type, m.Term, m.Commit = raftpb.MsgHeartbeat.Enum(), new(now.Term+uint64(rng.IntN(3))), new(now.Last+1+uint64(rng.IntN(1000)))
	case 2:
		m.Type, m.Term, m.Entries = raftpb.MsgApp.Enum(), new(now.Term+1), []*raftpb.Entry{{Index: new(now.Last + 2), Term: new(now.Term)}}
	default:
		m.Type, m.Term = pick(rng, raftpb.MsgHup, raftpb.MsgProp, raftpb.MsgBeat, raftpb.MsgCheckQuorum, raftpb.MsgTransferLeader).Enum(), new(uint64(rng.IntN(2)))
	}
	return m
}

// moved is what a message changes in a member: its term, its vote, its log, and the leader that it follows.
type moved struct {
	term, vote, last, committed, leader uint64
	role                                string
}

// unmoved has the core receive a message, which must change nothing.
func (l *simLeader) unmoved(m *raftpb.Message) {
	picture := func() moved {
		s := l.core.Status()
		return moved{s.Term, s.VotedFor, s.Last, s.Committed, s.LeaderID, s.Role}
	}
	l.drive() // what is due by now is no effect of the message
	before := picture()
	l.drive(core.Receive{Message: proto.Clone(m).(*raftpb.Message)})
	if after := picture(); after != before {
		l.w.fail("leader %d was %+v; after %v it is %+v", l.addr, before, m, after)
	}
}

// door is the real transport of a leader, over a call that a stranger makes. It passes on the messages that the real one would.
type door struct {
	l        *simLeader
	received []*raftpb.Message
	service  peerpb.PeerServer
}

// open makes the call.
func (d *door) open(hs *peerpb.Handshake, messages ...*raftpb.Message) {
	t := peer.New(peer.Config{
		Self: replica.Member{Address: d.l.address()}, Version: "sim", Level: state.FeatureLevel, Certified: func(context.Context) string { return hs.GetDirectory() },
	})
	t.Attach(d)
	t.Register(d)
	call := &strangeCall{batches: []*peerpb.Batch{{Handshake: hs}}}
	for _, m := range messages {
		raw, err := proto.Marshal(m)
		d.l.must(err)
		call.batches = append(call.batches, &peerpb.Batch{Messages: [][]byte{raw}})
	}
	err := d.service.Raft(call)
	d.l.w.trace("stranger", uint64(d.l.addr), hs.GetFrom(), boolNumber(err != nil), uint64(len(d.received)))
}

// RegisterService implements grpc.ServiceRegistrar.
func (d *door) RegisterService(_ *grpc.ServiceDesc, impl any) { d.service = impl.(peerpb.PeerServer) }

// strangeCall is a call of which all messages have arrived.
type strangeCall struct {
	grpc.ServerStream

	batches []*peerpb.Batch
}

// Context implements grpc.ServerStream.
func (c *strangeCall) Context() context.Context { return context.Background() }

// Send implements grpc.BidiStreamingServer.
func (c *strangeCall) Send(*peerpb.Reply) error { return nil }

// Recv implements grpc.BidiStreamingServer.
func (c *strangeCall) Recv() (*peerpb.Batch, error) {
	if len(c.batches) == 0 {
		return nil, io.EOF
	}
	b := c.batches[0]
	c.batches = c.batches[1:]
	return b, nil
}

var errStranger = errors.New("a stranger")

// ID implements peer.Replica.
func (d *door) ID() uint64 { return uint64(d.l.addr) }

// Directory implements peer.Replica.
func (d *door) Directory() string { return dirOf(d.l.addr) }

// Members implements peer.Replica.
func (d *door) Members() replica.Members { return *d.l.core.Members() }

// Status implements peer.Replica.
func (d *door) Status() replica.Status { return d.l.core.Status() }

// Receive implements peer.Replica. A snapshot needs another call.
func (d *door) Receive(_ context.Context, messages ...*raftpb.Message) error {
	d.received = append(d.received, slices.DeleteFunc(messages, func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgSnap })...)
	return nil
}

// ReceiveSnapshot implements peer.Replica.
func (d *door) ReceiveSnapshot(context.Context, *raftpb.Message, io.Reader) error { return errStranger }

// OpenSnapshot implements peer.Replica.
func (d *door) OpenSnapshot(*raftpb.Message) (io.ReadCloser, error) { return nil, errStranger }

// ReportSnapshot implements peer.Replica.
func (d *door) ReportSnapshot(uint64, bool) {}

// ReportUnreachable implements peer.Replica.
func (d *door) ReportUnreachable(uint64) {}

// AddMember implements peer.Replica.
func (d *door) AddMember(context.Context, replica.Member) (replica.Member, error) {
	return replica.Member{}, errStranger
}

// UpdateMember implements peer.Replica.
func (d *door) UpdateMember(context.Context, replica.Member) error { return errStranger }
