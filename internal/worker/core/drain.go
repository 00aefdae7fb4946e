package core

import (
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// drain is the shutdown. Once on, it stays on.
type drain struct {
	on        bool
	stopped   bool      // running attempts were stopped
	hasty     bool      // by request: do not wait for verdicts either
	until     time.Time // then running attempts are stopped; once they are: then the worker exits regardless
	verdictBy time.Time // set once nothing runs
	drained   bool      // reported to the leader
	removed   bool      // from the cluster: no leader is dialed any more
}

// startDrain returns the leases that have not started. A second call can only hasten the first.
func (c *Core) startDrain(stopRunning bool) {
	d := &c.drain
	if !d.on {
		d.on = true
		d.until = c.now.Add(c.cfg.DrainGrace)
		c.session.heartbeatAt = time.Time{} // the leader must learn of the drain before it sees free slots
		for slot := range c.slots {
			if c.slots[slot].chunk != nil {
				c.cut(slot)
				c.collect(slot)
			}
		}
		c.returnAllQueued()
	}
	if stopRunning {
		d.hasty = true
		c.preempt()
	}
}

// preempt stops running attempts. They are reported as PREEMPTED, which does not count against the task.
func (c *Core) preempt() {
	d := &c.drain
	if d.stopped {
		return
	}
	d.stopped = true
	var grace time.Duration
	for slot := range c.slots {
		if chunk := c.slots[slot].chunk; chunk != nil {
			grace = max(grace, time.Duration(chunk.Job.GetGraceMs())*time.Millisecond)
			c.stop(slot)
		}
	}
	d.until = c.now.Add(KillTimeout + grace)
}

// removed stops everything: the leaders void the leases of a worker whose key they have revoked, and accept nothing from it.
func (c *Core) removed(err error) {
	c.session.phase = sessionDown
	c.out.reset()
	c.drain.removed = true
	c.emit(Removed{err})
	c.startDrain(true)
}

func (c *Core) advanceDrain() {
	if c.drain.on && !c.drain.stopped && !c.now.Before(c.drain.until) {
		c.preempt()
	}
}

// advanceExit reports the drain to the leader once nothing is held, and exits once that is sent.
func (c *Core) advanceExit() {
	d := &c.drain
	if !d.on {
		return
	}
	if d.drained {
		if c.session.phase != sessionUp || c.session.inFlight == 0 {
			c.exit()
		}
		return
	}
	if !c.idle() {
		// An attempt that ignores its Stop must not keep the process alive.
		if d.stopped && !c.now.Before(d.until) {
			c.exit()
		}
		return
	}
	up := c.session.phase == sessionUp
	held := c.ledger.held() > 0 || up && c.out.unsent() > 0
	if d.verdictBy.IsZero() {
		d.verdictBy = c.now.Add(verdictMax)
	}
	late := d.hasty || !c.now.Before(d.verdictBy)
	switch {
	case held && !late:
	case !up:
		c.exit()
	default:
		d.drained = true
		c.session.inFlight++
		c.emit(Send{
			c.session.epoch, &wire.FromWorker{Message: &wire.FromWorker_Goodbye{Goodbye: &wire.Goodbye{}}}, false,
		})
	}
}

func (c *Core) wakeDrain() time.Time {
	switch d := &c.drain; {
	case !d.on || d.drained:
		return time.Time{}
	case !d.verdictBy.IsZero():
		return d.verdictBy
	default:
		return d.until
	}
}
