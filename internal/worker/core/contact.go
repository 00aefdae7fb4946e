package core

import "time"

// contact is when the cluster has last heard of this worker for certain: when it sent the last heartbeat, or the Hello, that its leader has confirmed. That is
// before the leader received it, so attempts that end a time after it (wire.Job.unled_ms) end within that time of when any leader has last heard of the worker.
type contact struct {
	at     time.Time // zero: never
	number uint64    // of the last heartbeat of this session; that of the Hello is 1
	sent   []beat    // not confirmed, oldest first
}

// beat is a heartbeat, or a Hello.
type beat struct {
	number uint64
	at     time.Time
}

// beatsMax bounds those that are waited for. Without the later ones, a confirmation counts from an earlier one.
const beatsMax = 64

// begin starts a session by its Hello.
func (c *contact) begin(now time.Time) {
	c.number, c.sent = 0, c.sent[:0]
	c.send(now)
}

// send returns the number of the next heartbeat.
func (c *contact) send(now time.Time) uint64 {
	c.number++
	if len(c.sent) < beatsMax {
		c.sent = append(c.sent, beat{c.number, now})
	}
	return c.number
}

// confirm notes that the leader has received a heartbeat. An older leader confirms none: then its messages count.
func (c *contact) confirm(number uint64, now time.Time) {
	if number == 0 {
		c.at = now
		return
	}
	n := 0
	for n < len(c.sent) && c.sent[n].number <= number {
		c.at = c.sent[n].at
		n++
	}
	c.sent = append(c.sent[:0], c.sent[n:]...)
}

// expired reports whether no leader has heard of the worker for so long.
func (c *contact) expired(now time.Time, unled time.Duration) bool {
	return !now.Before(c.at.Add(unled))
}

// stopUnled takes back the leases of jobs whose attempts may not run without a leader, once there has been none for too long. They hold locks, which
// the cluster then gives to others.
func (c *Core) stopUnled() {
	unled := c.ledger.unled
	if unled == 0 || !c.contact.expired(c.now, unled) {
		return
	}
	for slot := range c.slots {
		c.collect(slot) // what has ended is kept
	}
	stopped := 0
	c.ledger.all(func(r ref) {
		if s := r.state(); r.g.info.job.GetUnledMs() > 0 && (s == queued || s == inSlot) {
			c.dropRef(r, true)
			stopped++
		}
	})
	if stopped > 0 {
		c.emit(Unled{stopped, unled})
	}
}

// wakeUnled is the zero time if nothing would be stopped.
func (c *Core) wakeUnled() time.Time {
	if unled := c.ledger.unled; unled > 0 && !c.contact.expired(c.now, unled) {
		return c.contact.at.Add(unled)
	}
	return time.Time{}
}
