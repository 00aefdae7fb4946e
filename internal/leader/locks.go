package leader

import (
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
)

// lockBook is when the requests for locks of clients expire. Renewals are in no log entry: they only move the time. A new leader gives each
// request its full time to live from its first moment, so an election takes no lock away.
type lockBook struct {
	byID  map[state.LockID]*lockTerm
	queue sched.Ordered[*lockTerm] // those in byID that are not ending
}

// lockTerm is the time of one request.
type lockTerm struct {
	id      state.LockID
	expires time.Time
	due     time.Time // when it is looked at, no later than it expires
	ttl     time.Duration
	calls   int  // that wait for it: it does not expire meanwhile
	ending  bool // its expiry is on its way into the log: it can be renewed no more
	at      int  // in the queue
}

// Place and Before order lockBook.queue.
func (t *lockTerm) Place() *int                 { return &t.at }
func (t *lockTerm) Before(other *lockTerm) bool { return t.due.Before(other.due) }

func (b *lockBook) start(l *state.Lock, now time.Time) {
	if t := b.byID[l.ID]; t != nil { // it waited, and is granted now
		t.expires = now.Add(t.ttl)
		return
	}
	ttl := time.Duration(l.TTLMS) * time.Millisecond //nolint:gosec // bounded
	t := &lockTerm{id: l.ID, ttl: ttl, expires: now.Add(ttl), due: now.Add(ttl)}
	b.byID[l.ID] = t
	b.queue.Put(t)
}

func (b *lockBook) end(id state.LockID) {
	t := b.byID[id]
	if t == nil {
		return
	}
	delete(b.byID, id)
	if !t.ending {
		b.queue.Remove(t)
	}
}

// expired returns the requests that have expired.
func (b *lockBook) expired(now time.Time) (ids []state.LockID) {
	for len(b.queue) > 0 && !b.queue[0].due.After(now) {
		t := b.queue[0]
		if t.calls > 0 {
			t.expires = now.Add(t.ttl)
		}
		if t.expires.After(now) {
			t.due = t.expires
			b.queue.Put(t)
			continue
		}
		b.queue.Remove(t)
		t.ending = true
		ids = append(ids, t.id)
	}
	return ids
}

func (b *lockBook) wake() (at time.Time, ok bool) {
	if len(b.queue) == 0 {
		return at, false
	}
	return b.queue[0].due, true
}

// startLocks starts the times of all requests in a new term. In a cluster that was recovered, fencing numbers go on behind all that were given by
// entries that it may have lost.
func (c *Core) startLocks() {
	for l := range c.machine.Locks() {
		if l.Job == 0 {
			c.locks.start(l, c.now)
		}
	}
	if floor := uint64(len(c.members.Former)) << fencesPerRecovery; c.machine.Fence() < floor {
		c.open().RaiseFence(floor)
	}
}

// fencesPerRecovery leaves 2^40 fencing numbers between two recoveries of a cluster.
const fencesPerRecovery = 40

// handleLock follows the request of a client, and the priority that a job has from those that wait for it.
func (c *Core) handleLock(e *state.Event) {
	if e.Kind == state.PriorityChanged {
		c.setPriority(e.Job)
	}
	if e.Job != 0 {
		return
	}
	if l := c.machine.Lock(e.Lock); l != nil {
		c.locks.start(l, c.now)
	} else { // the same entry may have granted and ended it
		c.locks.end(e.Lock)
	}
	if e.Kind != state.LockWaiting {
		c.effects.Locks = append(c.effects.Locks, e.Lock)
	}
	if e.Message != "" {
		c.addFact(e)
	}
}

// expiryMax bounds the requests that one command ends.
const expiryMax = 1000

// expireLocks ends the requests that were not renewed in time.
func (c *Core) expireLocks() {
	for ids := c.locks.expired(c.now); len(ids) > 0; {
		n := min(len(ids), expiryMax)
		c.open().Expire("", ids[:n]...)
		ids = ids[n:]
	}
}

// RenewLock gives a request its full time to live, and reports false if it is gone, or its expiry is on its way into the log.
func (c *Core) RenewLock(now time.Time, id state.LockID) bool {
	t := c.locks.byID[id]
	if t == nil || t.ending {
		return false
	}
	t.expires = now.Add(t.ttl)
	return true
}

// AwaitLock notes that a call waits for a request, which does not expire until ReturnLock.
func (c *Core) AwaitLock(id state.LockID) {
	if t := c.locks.byID[id]; t != nil {
		t.calls++
	}
}

// ReturnLock notes that a call does not wait for a request any more.
func (c *Core) ReturnLock(now time.Time, id state.LockID) {
	if t := c.locks.byID[id]; t != nil && t.calls > 0 {
		t.calls--
		t.expires = now.Add(t.ttl)
	}
}

// LockExpires is the time after which a request is lost unless it is renewed; 0: it is not known, or has passed.
func (c *Core) LockExpires(now time.Time, id state.LockID) time.Duration {
	if t := c.locks.byID[id]; t != nil {
		return max(0, t.expires.Sub(now))
	}
	return 0
}
