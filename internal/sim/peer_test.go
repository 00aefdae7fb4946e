package sim

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// post sends a message to another leader, a snapshot with its body.
func (l *simLeader) post(m *raftpb.Message) {
	to := l.w.leaders[addr(m.GetTo())]
	reached := to != nil && to.address() == l.addressOfMember(m.GetTo()) // otherwise it has moved, and has not announced its address
	l.w.trace("raft", uint64(l.addr), m.GetTo(), uint64(m.GetType()), m.GetTerm(), m.GetIndex(), m.GetCommit(), uint64(len(m.GetEntries())))
	switch {
	case m.GetType() == raftpb.MsgSnap && reached:
		l.postSnapshot(to, m)
		return
	case m.GetType() == raftpb.MsgSnap:
		l.after(0, func() { l.snapshotSent(m.GetTo(), false) })
		return
	case !reached:
		return
	}
	if slices.ContainsFunc(m.GetEntries(), func(e *raftpb.Entry) bool { return len(e.GetData()) > leader.EntryBytesMax }) {
		return // the limit of messages
	}
	if l.w.cfg.Plant == ForgedQuorum && m.GetType() == raftpb.MsgApp && len(m.GetEntries()) > 0 && oneIn(l.w.net.rng, 3) {
		l.forge(to, m)
		return
	}
	address := l.address()
	l.w.net.post(l.addr, &to.process, func() {
		to.book[m.GetFrom()] = address
		to.drive(core.Receive{Message: proto.Clone(m).(*raftpb.Message)})
	})
}

// forge acknowledges entries for a follower that has not received them.
func (l *simLeader) forge(to *simLeader, m *raftpb.Message) {
	l.w.net.post(to.addr, &l.process, func() {
		l.drive(core.Receive{Message: &raftpb.Message{
			Type: raftpb.MsgAppResp.Enum(), From: m.To, To: m.From, Term: m.Term,
			Index: new(m.GetIndex() + uint64(len(m.GetEntries()))),
		}})
	})
}
