package sim

import (
	"bytes"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// linkBytes is what a connection between leaders carries in a second.
const linkBytes = 50 << 20

// snapshot saves the state and lets go of the log before it.
func (l *simLeader) snapshot() {
	if l.saving {
		return
	}
	l.step() // what has been delivered is in the state
	at, err := l.core.SnapshotAt(l.controller.Machine().Index())
	if err != nil {
		return // there is one, or an entry is on its way
	}
	var body bytes.Buffer
	if _, err := l.controller.Machine().Snapshot().WriteTo(&body); err != nil {
		l.w.fail("leader %d: snapshot: %v", l.addr, err)
		return
	}
	l.w.check.snapshot(l.addr, l.controller.Machine().Index(), body.Bytes())
	l.saving, l.since = true, 0
	s := savedSnapshot{at, body.Bytes()}
	l.disk.save(write{
		bytes: body.Len(),
		apply: func() { l.image.keep(s) },
		done: func(error) {
			l.saving = false
			if l.core.Overtaken(s.at) {
				return
			}
			keep := s.at.Index
			if len(l.image.snaps) > 1 {
				keep = l.image.snaps[1].at.Index
			}
			l.w.trace("snapshot", uint64(l.addr), s.at.Index, uint64(len(s.body)))
			l.w.stats.Snapshots++
			l.must(l.core.Snapshotted(s.at, keep))
			l.pump()
		},
	})
}

// postSnapshot sends a snapshot with its body, and tells raft what became of it.
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

// snapshotSent tells raft what became of a snapshot on its way.
func (l *simLeader) snapshotSent(to uint64, ok bool) {
	l.core.ReportSnapshot(to, ok)
	l.pump()
}

// install writes a snapshot's body to the disk, and only then tells raft of it.
func (l *simLeader) install(m *raftpb.Message, body []byte) {
	index := m.GetSnapshot().GetMetadata().GetIndex()
	l.disk.save(write{
		bytes: len(body),
		apply: func() {},
		done: func(error) {
			l.bodies[index] = body
			l.receive(m)
		},
	})
}

// received is the body of a snapshot that was received.
func (l *simLeader) received(index uint64) []byte { return l.bodies[index] }
