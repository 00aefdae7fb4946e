package core

import "fmt"

// snapshots is when a snapshot is requested, and what becomes of it.
type snapshots struct {
	list      []Position // on disk, newest first, at most two
	growth    int64      // of the log, in bytes, since the last snapshot
	requestAt int64      // growth at which a snapshot is requested
	covered   int64      // part of growth that the snapshot being written covers
	requested bool       // one was requested, or is being written
	writing   bool       // one is being written
	retryAt   int        // tick before which none is requested for a member: one has just failed
	recording Ref        // the request whose record is in a batch; 0: none
}

// requestSnapshot requests a snapshot once, when there is something to put into it: because the log has grown, or a member needs one.
func (c *Core) requestSnapshot(needed bool) {
	s := &c.snapshots
	due := s.growth >= s.requestAt || (needed && c.con.ticks >= s.retryAt)
	if !s.requested && due && c.con.applied > c.con.log.newest.Index {
		s.requested = true
		c.deliveries = append(c.deliveries, Delivery{WantSnapshot: true})
	}
}

func (c *Core) beginSnapshot(in BeginSnapshot) {
	s := &c.snapshots
	if s.writing {
		c.answer(Answer{Ref: in.Ref, Err: fmt.Errorf("snapshot at entry %d: another one is being saved", in.Index)})
		return
	}
	s.writing, s.requested, s.covered = true, true, s.growth
	p, err := c.con.snapshotAt(in.Index)
	if err != nil {
		c.endSnapshot(true)
	}
	c.answer(Answer{Ref: in.Ref, Position: p, Err: err})
}

// endSnapshot lets another one begin. After a failure the next one is requested only when the log has grown by another quarter: it
// would most likely fail again now.
func (c *Core) endSnapshot(failed bool) {
	s := &c.snapshots
	s.writing, s.requested = false, false
	if failed {
		s.requestAt = s.growth + c.cfg.SnapshotBytes/4
		s.retryAt = c.con.ticks + c.cfg.ElectionTicks
	}
}

func (c *Core) recordSnapshot(in RecordSnapshot) {
	p := &c.persist
	if c.con.overtaken(in.Position) || p.next.Installed != nil || p.batch.Installed != nil {
		c.answer(Answer{Ref: in.Ref})
		return
	}
	p.next.Snapshot, p.urgent = &in.Position, true
	if len(c.snapshots.list) > 0 {
		p.next.Keep = c.snapshots.list[0].Index
	}
	c.snapshots.recording = in.Ref
}

// dropOwnSnapshot drops the record of this node's snapshot from the next batch, which has a newer one of the leader.
func (c *Core) dropOwnSnapshot() {
	if p := &c.persist; p.next.Snapshot != nil {
		p.next.Snapshot, p.next.Keep = nil, 0
		c.answer(Answer{Ref: c.snapshots.recording})
		c.snapshots.recording = 0
	}
}

// snapshotsPersisted goes on after a batch has become durable.
func (c *Core) snapshotsPersisted(b Batch) error {
	s := &c.snapshots
	s.growth += b.Bytes
	if b.Installed != nil {
		s.list, s.growth, s.covered = []Position{*b.Installed}, 0, 0
	}
	if b.Snapshot == nil {
		return nil
	}
	s.list = append([]Position{*b.Snapshot}, s.list[:min(1, len(s.list))]...)
	s.growth, s.requestAt = s.growth-s.covered, c.cfg.SnapshotBytes
	c.answer(Answer{Ref: s.recording, Snapshots: s.list})
	s.recording = 0
	return c.con.snapshotted(*b.Snapshot, b.Keep)
}
