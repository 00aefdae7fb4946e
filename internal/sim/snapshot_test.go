package sim

import (
	"bytes"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// linkBytes is the bandwidth of a connection between leaders, in bytes a second.
const linkBytes = 50 << 20

// snapshot saves the state, and drops the log before it.
func (l *simLeader) snapshot() {
	l.step() // applies what was delivered
	index := l.controller.Machine().Index()
	l.ask(func(ref core.Ref) core.Input { return core.BeginSnapshot{Ref: ref, Index: index} }, func(a core.Answer) {
		if a.Err != nil {
			return // there is one, or one is being saved
		}
		var body bytes.Buffer
		if _, err := l.controller.Machine().Snapshot().WriteTo(&body); err != nil {
			l.w.fail("leader %d: snapshot: %v", l.addr, err)
			return
		}
		l.w.oracle.snapshot(l.addr, index, body.Bytes())
		l.since = 0
		l.written = savedSnapshot{a.Position, body.Bytes()}
		l.disk.save(write{bytes: body.Len(), apply: func() {}, done: func(error) { l.recordSnapshot() }})
	})
}

func (l *simLeader) recordSnapshot() {
	at := l.written.at
	l.ask(func(ref core.Ref) core.Input { return core.RecordSnapshot{Ref: ref, Position: at} }, func(a core.Answer) {
		if len(a.Snapshots) > 0 {
			l.w.trace("snapshot", uint64(l.addr), at.Index, uint64(len(l.written.body)))
			l.w.stats.Snapshots++
		}
		l.drive(core.EndSnapshot{})
	})
}

// postSnapshot sends a snapshot with its body, and reports the outcome to raft.
func (l *simLeader) postSnapshot(to *simLeader, m *raftpb.Message) {
	var body []byte
	for _, s := range l.image.snaps {
		if s.at.Index == m.GetSnapshot().GetMetadata().GetIndex() {
			body = s.body
		}
	}
	if body == nil {
		l.after(0, func() { l.snapshotSent(m.GetTo(), false) })
		return
	}
	takes := l.w.net.latency(l.addr, to.addr) + time.Duration(len(body))*time.Second/linkBytes
	l.w.after(takes, func() {
		ok := to.up && !l.w.net.blocked(l.addr, to.addr) && l.w.net.luck(l.addr, to.addr) > 0
		if ok {
			to.exec(func() { to.install(proto.Clone(m).(*raftpb.Message), body) })
		}
		l.exec(func() { l.snapshotSent(m.GetTo(), ok) })
	})
}

func (l *simLeader) snapshotSent(to uint64, ok bool) { l.drive(core.ReportSnapshot{To: to, OK: ok}) }

// install writes a snapshot's body to the disk, and then delivers its message to raft.
func (l *simLeader) install(m *raftpb.Message, body []byte) {
	index := m.GetSnapshot().GetMetadata().GetIndex()
	l.disk.save(write{
		bytes: len(body),
		apply: func() {},
		done: func(error) {
			l.bodies[index] = body
			l.drive(core.Receive{Message: m})
		},
	})
}
