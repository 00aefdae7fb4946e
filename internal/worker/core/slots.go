package core

import (
	"fmt"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// schedule gives chunks to idle slots while there is room for their results.
func (c *Core) schedule() {
	if c.drain.on || c.stalled() {
		return
	}
	for slot := range c.slots {
		if c.slots[slot].chunk != nil {
			continue
		}
		run, ok := c.queue.take(c.chunkLen)
		if !ok {
			return
		}
		c.start(slot, run)
	}
}

// chunkLen is how many leases a slot should get: a millisecond's worth, and no more than leaves the other slots a share.
// A stage of which nothing is known yet gets one.
func (c *Core) chunkLen(g *grant) int {
	nanos := g.info.estimate(g.stage)
	if nanos == 0 {
		return 1
	}
	share := c.ledger.counts[queued] / (2 * len(c.slots))
	return max(1, min(share, int(chunkTime.Nanoseconds()/nanos), chunkMax))
}

// handBack gives leases that wait behind attempts which take longer than was expected back to the leader: others may be idle.
func (c *Core) handBack() {
	if at := c.wakeHandBack(); at.IsZero() || c.now.Before(at) {
		return
	}
	c.ledger.all(func(r ref) {
		if r.state() == queued {
			c.giveBack(r)
		}
	})
}

// wakeHandBack is the zero time while there is nothing to hand back, or nobody to hand it to.
func (c *Core) wakeHandBack() time.Time {
	if c.ledger.counts[queued] == 0 || c.session.phase != sessionUp || c.stalled() {
		return time.Time{}
	}
	return c.fed.Add(queueAge)
}

func (c *Core) start(slot int, run span) {
	c.fed = c.now
	g, n := run.g, run.to-run.from
	if g.results == nil {
		g.results = make([]Result, len(g.index))
	}
	ch := &Chunk{
		Job: g.info.job, Stage: g.stage, FirstLease: g.first + uint64(run.from), Index: g.index[run.from:run.to],
		Action: g.action, grant: g, from: run.from, results: g.results[run.from:run.to],
	}
	if g.attempt != nil {
		ch.Attempt = g.attempt[run.from:run.to]
	}
	if g.splits != nil {
		ch.Splits = g.splits[run.from:run.to]
	}
	ch.cursor.Store(uint64(n))
	c.ledger.moveAll(g, run.from, run.to, queued, inSlot)
	// A chunk of one has nothing to cut, and so needs no look at its age.
	c.slots[slot] = slotState{chunk: ch, since: c.now, cut: n == 1}
	c.emit(Start{slot, ch})
}

// collectLate takes the results of chunks that are long in their slot, and gives what is not begun back to the queue: an
// attempt must not wait behind a long one while it could run elsewhere.
func (c *Core) collectLate() {
	for slot := range c.slots {
		s := &c.slots[slot]
		if s.chunk != nil && !s.cut && !c.now.Before(s.since.Add(chunkAge)) {
			c.cut(slot)
			c.collect(slot)
		}
	}
}

// cut keeps the slot from beginning more of its chunk, and queues the rest again.
func (c *Core) cut(slot int) {
	s := &c.slots[slot]
	s.cut = true
	next, limit := s.chunk.cut()
	if next == limit {
		return
	}
	g, from, to := s.chunk.grant, s.chunk.from+next, s.chunk.from+limit
	c.ledger.moveAll(g, from, to, inSlot, queued)
	c.queue.pushFront(span{g, from, to})
}

// stop cancels what the slot runs.
func (c *Core) stop(slot int) {
	c.cut(slot)
	if s := &c.slots[slot]; !s.stopped {
		s.stopped = true
		c.emit(Stop{slot})
	}
}

// collect takes the results that a slot has published.
func (c *Core) collect(slot int) {
	s := &c.slots[slot]
	if s.chunk == nil {
		return
	}
	from, to := s.collected, int(s.chunk.done.Load())
	if from == to {
		return
	}
	s.collected = to
	g := s.chunk.grant
	var nanos int64
	for i := from; i < to; i++ {
		r := ref{g, s.chunk.from + i}
		nanos += r.result().Nanos
		c.ran(r)
	}
	g.info.measured(g.stage, nanos/int64(to-from))
}

// ran decides what becomes of an attempt that has come to its end.
func (c *Core) ran(r ref) {
	res := r.result()
	switch {
	case r.state() == stopping:
		c.throwAway(r)
	case res.Failure != nil:
		c.fail(r, res.Failure)
	case res.Canceled && c.drain.stopped:
		c.fail(r, &wire.Failure{Kind: wire.FailureKind_PREEMPTED, Message: "stopped because its worker was told to leave"})
	case res.Canceled:
		// It was hit by a Stop meant for the attempt before it, and had hardly begun.
		c.throwAway(r)
	case res.File:
		c.ledger.move(r, syncing)
		c.toSync = append(c.toSync, r)
	default:
		c.prepared(r)
	}
}

// throwAway removes what an attempt left, and hands its lease back. Also where it left no file: it may have made the folder again
// after the job was over.
func (c *Core) throwAway(r ref) {
	c.removed = append(c.removed, r.file())
	c.giveBack(r)
}

func (c *Core) giveBack(r ref) {
	c.out.giveBack(r.lease(), c.now)
	c.ledger.move(r, gone)
}

func (c *Core) removeFile(r ref) {
	if r.g.results != nil && r.result().File {
		c.removed = append(c.removed, r.file())
	}
}

func (r ref) file() AttemptRef {
	return AttemptRef{Job: r.g.info.job, Stage: stageName(r.g.info.job, r.g.stage), Index: r.index(), Lease: r.lease()}
}

func (c *Core) fail(r ref, f *wire.Failure) {
	f.Job, f.Stage, f.Index, f.Lease = r.g.info.job.GetId(), r.g.stage, r.index(), r.lease()
	f.Micros = uint64(r.result().Nanos) / 1000
	r.result().Failure = f
	c.removeFile(r)
	c.ledger.move(r, failed)
	if c.session.phase == sessionUp {
		c.out.fail(r, c.now)
	}
}

// prepared keeps a result for the verdict, and reports it if there is a session; if not, the next one begins with it.
func (c *Core) prepared(r ref) {
	c.ledger.move(r, finished)
	if c.session.phase == sessionUp {
		c.out.finish(r, c.now)
	}
}

func (c *Core) startSync() {
	if len(c.inSync) > 0 || len(c.toSync) == 0 {
		return
	}
	c.inSync, c.toSync = c.toSync, nil
	files := make([]AttemptRef, len(c.inSync))
	for i, r := range c.inSync {
		files[i] = r.file()
	}
	c.emit(Sync{files})
}

func (c *Core) synced(errs []error) {
	for i, r := range c.inSync {
		switch {
		case r.state() == stopping:
			c.throwAway(r)
		case errs != nil && errs[i] != nil:
			c.fail(r, &wire.Failure{
				Kind:    wire.FailureKind_OUTPUT_ERROR,
				Message: wire.FailureMessage(fmt.Sprintf("the output could not be made durable: %v", errs[i])),
			})
		default:
			c.prepared(r)
		}
	}
	c.inSync = nil
}

// estimate is how long an attempt of a stage takes, in nanoseconds; 0: not known.
func (j *jobInfo) estimate(stage uint32) int64 {
	if int(stage) >= len(j.nanos) {
		return 0
	}
	return j.nanos[stage]
}

// measured follows a rise at once and a fall slowly: a chunk too long delays others, a chunk too short costs little.
func (j *jobInfo) measured(stage uint32, nanos int64) {
	for len(j.nanos) <= int(stage) {
		j.nanos = append(j.nanos, 0)
	}
	nanos = max(nanos, 1)
	if old := j.nanos[stage]; old > nanos {
		nanos = (3*old + nanos) / 4
	}
	j.nanos[stage] = nanos
}
