package core

import (
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// drain is the way out. Once on, it stays on.
type drain struct {
	on        bool
	stopped   bool      // what runs was told to stop
	hasty     bool      // by request: then no verdict is waited for either
	until     time.Time // then what runs is stopped; later, then the worker leaves whatever is left
	verdictBy time.Time // set once nothing runs
	goodbye   bool
}

// startDrain hands back what has not begun. A second request can only hasten the first.
func (c *Core) startDrain(stopRunning bool) {
	d := &c.drain
	if !d.on {
		d.on = true
		d.until = c.now.Add(c.cfg.DrainGrace)
		c.session.beaten = time.Time{} // the leader should know before it sees slots free
		for slot := range c.slots {
			if c.slots[slot].chunk != nil {
				c.cut(slot)
				c.collect(slot)
			}
		}
		c.ledger.all(func(r ref) {
			if r.state() == queued {
				c.giveBack(r)
			}
		})
	}
	if stopRunning {
		d.hasty = true
		c.preempt()
	}
}

// preempt stops what runs; it is reported as PREEMPTED, which is no fault of the task's.
func (c *Core) preempt() {
	d := &c.drain
	if d.stopped {
		return
	}
	d.stopped = true
	d.until = c.now.Add(KillMax)
	for slot := range c.slots {
		if c.slots[slot].chunk != nil {
			c.stop(slot)
		}
	}
}

func (c *Core) advanceDrain() {
	if c.drain.on && !c.drain.stopped && !c.now.Before(c.drain.until) {
		c.preempt()
	}
}

// advanceLeave says goodbye once nothing is held, and leaves once that is sent.
func (c *Core) advanceLeave() {
	d := &c.drain
	if !d.on {
		return
	}
	if d.goodbye {
		if c.session.phase != sessionUp || c.session.onWire == 0 {
			c.exit()
		}
		return
	}
	if !c.idle() {
		// An attempt that does not heed its stop must not hold the process for ever.
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
		d.goodbye = true
		c.session.onWire++
		c.emit(Send{
			c.session.epoch, &wire.FromWorker{Message: &wire.FromWorker_Goodbye{Goodbye: &wire.Goodbye{}}}, false,
		})
	}
}

func (c *Core) wakeDrain() time.Time {
	switch d := &c.drain; {
	case !d.on || d.goodbye:
		return time.Time{}
	case !d.verdictBy.IsZero():
		return d.verdictBy
	default:
		return d.until
	}
}
