package state

import (
	"fmt"
	"slices"
)

// specLocks is the fields of a spec about locks.
func (c *codec) specLocks(s *Spec) {
	records(c, 56, &s.Locks, (*codec).lockName)
	records(c, 57, &s.Data, (*codec).lockName)
	c.bool(58, &s.FailOnConflict)
	c.check(func() bool { return len(s.Locks) <= LockNamesMax && len(s.Data) <= LockDataMax })
}

func (c *codec) lockName(n *LockName) {
	c.string(1, &n.Name)
	c.bool(2, &n.Shared)
	c.end("the name of a lock")
}

// lockedName is a name of a request: that of a job may be one of data.
func (c *codec) lockedName(n *LockName) {
	c.string(1, &n.Name)
	c.bool(2, &n.Shared)
	c.bool(3, &n.Data)
	c.end("the name of a lock")
}

func (c *codec) lockOp(op *LockOp) {
	c.bool(1, &op.Release)
	c.string(2, &op.User)
	c.string(3, &op.Holder)
	records(c, 4, &op.Names, (*codec).lockName)
	number(c, 5, &op.Max)
	number(c, 6, &op.TTLMS)
	c.bool(7, &op.NoWait)
	c.string(8, &op.Note)
	c.end("an operation on locks")
}

// lockRecord is a request in a snapshot. Its Lock is shared with the machine: only what never changes is read of it.
type lockRecord struct {
	*Lock

	names []LockName // read; of a client, or of one that is over, whose job may be forgotten
	over  bool
	fence uint64
	since int64
}

// records returns the requests as they are.
func (t *lockTable) records() []lockRecord {
	list := make([]lockRecord, 0, len(t.byID))
	for l := t.first; l != nil; l = l.next {
		list = append(list, lockRecord{Lock: l, fence: l.Fence, since: l.Since, over: l.Over})
	}
	return list
}

// lockTable is the requests in their order, and what numbers them.
func (c *codec) lockTable(m *Machine, list *[]lockRecord) {
	number(c, 1, &m.locks.lastID)
	number(c, 2, &m.locks.fence)
	records(c, 3, list, (*codec).lockRecord)
	c.end("the locks")
}

func (c *codec) lockRecord(r *lockRecord) {
	l := made(&r.Lock)
	number(c, 1, &l.ID)
	number(c, 2, &l.Job)
	user := ""
	if l.Job == 0 || r.over {
		user = l.User
	}
	c.string(3, &user)
	if c.d != nil {
		l.User = user
	}
	c.string(4, &l.Holder)
	names := r.names
	if c.d == nil && (l.Job == 0 || r.over) {
		names = l.Names()
	}
	records(c, 5, &names, (*codec).lockedName)
	r.names = names
	number(c, 6, &l.Max)
	number(c, 7, &l.TTLMS)
	c.string(8, &l.Note)
	number(c, 9, &r.fence)
	c.int(10, &r.since)
	c.bool(11, &l.cleanup)
	c.bool(12, &r.over)
	c.end("a request for locks")
}

// readLocks reads the requests of a snapshot, in which jobs come before.
func (r *recordReader) readLocks(m *Machine) error {
	var locks []lockRecord
	if err := r.read("locks", func(c *codec) { c.lockTable(m, &locks) }); err != nil {
		return err
	}
	return m.restoreLocks(locks)
}

// restoreLocks adds the requests of a snapshot. What waits in it has a conflict.
func (m *Machine) restoreLocks(list []lockRecord) error {
	last := LockID(0)
	for i := range list {
		r := &list[i]
		job := m.jobs[r.Job]
		if r.ID <= last || r.ID > m.locks.lastID || r.fence > m.locks.fence || r.Max == 0 || (r.Job == 0 || r.over) == (len(r.names) == 0) || r.over && (r.Job == 0 || r.fence == 0) ||
			r.Job == 0 && slices.ContainsFunc(r.names, func(n LockName) bool { return n.Data }) ||
			r.Job != 0 && !r.over && (job == nil || job.Status.Ended() || m.locks.byJob[r.Job] != nil) {
			return fmt.Errorf("snapshot: request %d for locks: %w", r.ID, errShort)
		}
		l := r.Lock
		last, l.Fence, l.Since, l.Over = l.ID, r.fence, r.since, r.over
		if job != nil && !r.over {
			m.addJobLock(l, job)
		} else {
			m.locks.add(l, r.names)
		}
		if l.free() != l.Held() {
			return fmt.Errorf("snapshot: request %d for locks is held: %v, free: %v: %w", l.ID, l.Held(), l.free(), errShort)
		}
	}
	m.locks.inherit(func(JobID) {})
	return nil
}
