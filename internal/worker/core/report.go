package core

import (
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// outbox gathers what the leader has to hear into reports, in columns. It is emptied when a session ends: all that matters
// in it can be made again from the ledger.
type outbox struct {
	sealed []*wire.Report // full ones, oldest first
	items  int            // of sealed
	open   *wire.Report
	count  int // items of open
	bytes  int // of open's failures
	since  time.Time
	failed []ref // of open and sealed: forgotten once handed to the sender
	last   *wire.Finished
}

func (o *outbox) reset() { *o = outbox{} }

func (o *outbox) unsent() int { return o.items + o.count }

// grow makes room for one more item.
func (o *outbox) grow(now time.Time) *wire.Report {
	if o.count >= reportItems || o.bytes >= failureBytes {
		o.seal()
	}
	if o.open == nil {
		o.open = &wire.Report{}
		if len(o.sealed) == 0 {
			o.since = now
		}
	}
	o.count++
	return o.open
}

func (o *outbox) seal() {
	if o.open == nil {
		return
	}
	o.sealed = append(o.sealed, o.open)
	o.items += o.count
	o.open, o.last, o.count, o.bytes = nil, nil, 0, 0
}

func (o *outbox) giveBack(lease uint64, now time.Time) {
	r := o.grow(now)
	r.Returned = append(r.Returned, lease)
}

func (o *outbox) fail(r ref, now time.Time) {
	rep := o.grow(now)
	rep.Failed = append(rep.Failed, r.failure())
	o.bytes += len(r.failure().GetMessage())
	o.failed = append(o.failed, r)
}

func (o *outbox) finish(r ref, now time.Time) {
	rep := o.grow(now)
	f := o.columns(rep, r)
	n := len(f.Index)
	f.Index = append(f.Index, r.index())
	f.Lease = append(f.Lease, r.lease())
	res := r.result()
	f.Size = appendColumn(f.Size, n, res.Size)
	f.Records = appendColumn(f.Records, n, res.Records)
	f.Checksum = appendColumn(f.Checksum, n, res.Checksum)
	f.Micros = appendColumn(f.Micros, n, uint64(res.Nanos)/1000)
	f.InputBytes = appendColumn(f.InputBytes, n, res.Input)
}

// columns finds the columns of the lease's stage in a report, or adds them.
func (o *outbox) columns(rep *wire.Report, r ref) *wire.Finished {
	job, stage := r.g.info.job.GetId(), r.g.stage
	if o.last != nil && o.last.Job == job && o.last.Stage == stage {
		return o.last
	}
	for _, f := range rep.Finished {
		if f.Job == job && f.Stage == stage {
			o.last = f
			return f
		}
	}
	o.last = &wire.Finished{Job: job, Stage: stage}
	rep.Finished = append(rep.Finished, o.last)
	return o.last
}

// appendColumn adds entry n to a column that is left out as long as all of it is zero.
func appendColumn(col []uint64, n int, v uint64) []uint64 {
	if v == 0 && len(col) == 0 {
		return col
	}
	if len(col) == 0 && n > 0 {
		col = make([]uint64, n, max(2*n, 64))
	}
	return append(col, v)
}

// idle says that no result is about to come: what is there need not wait for company.
func (c *Core) idle() bool {
	for i := range c.slots {
		if c.slots[i].chunk != nil {
			return false
		}
	}
	return len(c.inSync) == 0 && len(c.toSync) == 0
}

// stalled says that results come faster than the leader takes them. Nothing more is begun then, so that memory stays
// bounded; what runs goes on.
func (c *Core) stalled() bool {
	return c.out.unsent() > unsentMax || c.ledger.counts[finished]+c.ledger.counts[failed] > unackedMax
}

// report hands what is due to the sender.
func (c *Core) report() {
	o := &c.out
	if c.session.phase != sessionUp || o.unsent() == 0 {
		return
	}
	if o.count >= reportItems || c.idle() || !c.now.Before(c.reportDue()) {
		if c.session.onWire+len(o.sealed) < ReportsOnWire {
			o.seal()
		}
	}
	n := 0
	for ; n < len(o.sealed) && c.session.onWire < ReportsOnWire; n++ {
		o.sealed[n].Draining = c.drain.on
		c.emit(Send{c.session.epoch, fromWorker(o.sealed[n]), false})
		o.items -= reportLen(o.sealed[n])
		for range o.sealed[n].GetFailed() {
			if r := o.failed[0]; r.state() == failed { // and not dropped meanwhile
				c.ledger.move(r, gone)
			}
			o.failed = o.failed[1:]
		}
		c.session.onWire++
	}
	o.sealed = o.sealed[n:]
	if n > 0 {
		o.since = c.now
	}
}

func reportLen(r *wire.Report) int {
	n := len(r.GetFailed()) + len(r.GetReturned())
	for _, f := range r.GetFinished() {
		n += len(f.GetIndex())
	}
	return n
}

// wakeReport is the zero time while the sender is full: its [Sent] is what goes on then.
func (c *Core) wakeReport() time.Time {
	if c.session.phase != sessionUp || c.out.unsent() == 0 || c.session.onWire >= ReportsOnWire {
		return time.Time{}
	}
	return c.reportDue()
}

// reportDue is when what waits is sent though little. A slot that has nothing to run waits for the leases that the report
// frees; while all are busy, fewer reports leave the machine to the tasks.
func (c *Core) reportDue() time.Time {
	for i := range c.slots {
		if c.slots[i].chunk == nil {
			return c.out.since.Add(starvedDelay)
		}
	}
	return c.out.since.Add(reportDelay)
}

func fromWorker(r *wire.Report) *wire.FromWorker {
	return &wire.FromWorker{Message: &wire.FromWorker_Report{Report: r}}
}
