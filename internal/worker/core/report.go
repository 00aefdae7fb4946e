package core

import (
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// outbox collects results into reports, in columns. It is cleared when a session ends: the ledger can rebuild it.
type outbox struct {
	sealed []*wire.Report // complete, oldest first
	items  int            // of sealed
	open   *wire.Report
	count  int            // items of open
	bytes  int            // of open's failures and warnings
	last   *wire.Finished // columns of open that were appended to last
	since  time.Time      // when the oldest unsent item was added
	failed []ref          // of open and sealed: dropped from the ledger once handed to the sender
}

func (o *outbox) reset() { *o = outbox{} }

func (o *outbox) unsent() int { return o.items + o.count }

// grow returns the open report, with room for one more item.
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

func (o *outbox) addReturned(lease uint64, now time.Time) {
	r := o.grow(now)
	r.Returned = append(r.Returned, lease)
}

func (o *outbox) addLost(lost *wire.OutputLost, now time.Time) {
	r := o.grow(now)
	r.Lost = append(r.Lost, lost)
}

func (o *outbox) addFailed(r ref, now time.Time) {
	rep := o.grow(now)
	rep.Failed = append(rep.Failed, r.failure())
	tail := r.failure().GetTail()
	o.bytes += len(r.failure().GetMessage()) + len(tail.GetLog()) + len(tail.GetOutput())
	o.failed = append(o.failed, r)
}

func (o *outbox) addFinished(r ref, now time.Time) {
	rep := o.grow(now)
	f := o.columns(rep, r.g.info.job.GetId(), r.g.stage)
	n := len(f.Index)
	f.Index = append(f.Index, r.index())
	f.Lease = append(f.Lease, r.lease())
	res := r.result()
	f.Size = appendColumn(f.Size, n, res.Size)
	f.Records = appendColumn(f.Records, n, res.Records)
	f.Checksum = appendColumn(f.Checksum, n, res.Checksum)
	f.Micros = appendColumn(f.Micros, n, uint64(res.Nanos)/1000)
	f.InputBytes = appendColumn(f.InputBytes, n, res.Input)
	f.PeakKib = appendColumn(f.PeakKib, n, res.Peak>>10)
	if res.Warning != "" {
		f.Warnings = append(f.Warnings, &wire.Warning{Entry: uint32(n), Text: res.Warning})
		o.bytes += len(res.Warning)
	}
	f.AgeMs = appendColumn(f.AgeMs, n, uint64(max(0, now.UnixMilli()-res.ended)))
}

// columns returns a report's columns of a stage, and adds them if they are not there.
func (o *outbox) columns(rep *wire.Report, job uint64, stage uint32) *wire.Finished {
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

// appendColumn appends entry n to a column, which is absent as long as it is all zero.
func appendColumn(col []uint64, n int, v uint64) []uint64 {
	if v == 0 && len(col) == 0 {
		return col
	}
	if len(col) == 0 && n > 0 {
		col = make([]uint64, n, max(2*n, 64))
	}
	return append(col, v)
}

// idle reports that no result is about to come: a report has nothing to wait for.
func (c *Core) idle() bool {
	for i := range c.slots {
		if c.slots[i].chunk != nil {
			return false
		}
	}
	return len(c.files.syncing) == 0 && len(c.files.toSync) == 0
}

// stalled reports that results come faster than the leader takes them. Nothing more is started then, which bounds the
// memory; running attempts continue.
func (c *Core) stalled() bool {
	return c.out.unsent() > unsentMax || c.ledger.counts[finished]+c.ledger.counts[failed] > unackedMax
}

// report hands the reports that are due to the sender.
func (c *Core) report() {
	o := &c.out
	if c.session.phase != sessionUp || o.unsent() == 0 {
		return
	}
	if o.count >= reportItems || c.idle() || !c.now.Before(c.reportDue()) {
		if c.session.inFlight+len(o.sealed) < ReportsInFlight {
			o.seal()
		}
	}
	n := 0
	for ; n < len(o.sealed) && c.session.inFlight < ReportsInFlight; n++ {
		o.sealed[n].Draining, o.sealed[n].Slots = c.drain.on, c.slotStatuses()
		c.emit(Send{c.session.epoch, reportMessage(o.sealed[n]), false})
		o.items -= reportLen(o.sealed[n])
		for range o.sealed[n].GetFailed() {
			if r := o.failed[0]; r.state() == failed { // else it was dropped meanwhile
				c.ledger.move(r, gone)
			}
			o.failed = o.failed[1:]
		}
		c.session.inFlight++
	}
	o.sealed = o.sealed[n:]
	if n > 0 {
		o.since = c.now
	}
}

// slotStatuses is what each slot does, or how its last attempt has ended.
func (c *Core) slotStatuses() []wire.SlotStatus {
	list := slices.Clone(c.endedIn)
	for i := range c.slots {
		if ch := c.slots[i].chunk; ch != nil {
			if _, ok := ch.Running(); ok {
				list[i] = wire.SlotStatus_SLOT_RUNNING
			}
		}
	}
	return list
}

func reportLen(r *wire.Report) int {
	n := len(r.GetFailed()) + len(r.GetReturned()) + len(r.GetLost())
	for _, f := range r.GetFinished() {
		n += len(f.GetIndex())
	}
	return n
}

// wakeReport is the zero time while the sender is full: its [Sent] continues.
func (c *Core) wakeReport() time.Time {
	if c.session.phase != sessionUp || c.out.unsent() == 0 || c.session.inFlight >= ReportsInFlight {
		return time.Time{}
	}
	return c.reportDue()
}

// reportDue is when the unsent items are sent even if they are few. An idle slot waits for the leases that the report
// makes room for; while all are busy, fewer reports leave the CPU to the tasks.
func (c *Core) reportDue() time.Time {
	for i := range c.slots {
		if c.slots[i].chunk == nil {
			return c.out.since.Add(idleReportDelay)
		}
	}
	return c.out.since.Add(reportDelay)
}

func reportMessage(r *wire.Report) *wire.FromWorker {
	return &wire.FromWorker{Message: &wire.FromWorker_Report{Report: r}}
}
