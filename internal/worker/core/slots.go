package core

import (
	"fmt"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// schedule starts chunks in idle slots while there is room for their results, in the order of their leases.
func (c *Core) schedule() {
	if c.drain.on || c.stalled() {
		return
	}
	room := c.room()
	size := func(g *grant) int {
		if !room.fits(g.info.job) || !c.ids.has(g.info.job.GetResources()) {
			return 0
		}
		return c.chunkLen(g)
	}
	for slot := range c.slots {
		if c.slots[slot].chunk != nil {
			continue
		}
		run, ok := c.queue.pop(size)
		if !ok {
			return
		}
		room.take(run.g.info.job)
		c.start(slot, run)
	}
}

// room is what attempts may take. The leader leases no more than there is, but an attempt that it has taken back keeps its share until
// nothing of it is left.
type room struct {
	slots, slotsMax   uint64
	memory, memoryMax uint64 // memoryMax 0: not limited
}

func (c *Core) room() room {
	r := room{slotsMax: uint64(len(c.slots)), memoryMax: c.cfg.Hello.GetMemory()}
	for i := range c.slots {
		if ch := c.slots[i].chunk; ch != nil {
			r.take(ch.Job)
		}
	}
	return r
}

func (r *room) take(job *wire.Job) {
	r.slots += uint64(max(1, job.GetSlots()))
	r.memory += job.GetMemory()
}

// fits reports whether there is room for an attempt of a job. A job that is larger than the worker gets all of it.
func (r *room) fits(job *wire.Job) bool {
	if r.slots == 0 {
		return true
	}
	with := *r
	with.take(job)
	return with.slots <= r.slotsMax && (r.memoryMax == 0 || with.memory <= r.memoryMax)
}

// chunkLen is the number of leases that a slot gets: as many as take chunkTime, and few enough to leave the other slots a
// share. A stage without an estimate gets one.
func (c *Core) chunkLen(g *grant) int {
	nanos := g.info.estimate(g.stage)
	if nanos == 0 {
		return 1
	}
	share := c.ledger.counts[queued] / (2 * len(c.slots))
	return max(1, min(share, int(chunkTime.Nanoseconds()/nanos), chunkMax))
}

// returnQueued returns leases to the leader when they have waited too long for a slot: other workers may be idle.
func (c *Core) returnQueued() {
	if at := c.wakeReturnQueued(); !at.IsZero() && !c.now.Before(at) {
		c.returnAllQueued()
	}
}

func (c *Core) returnAllQueued() {
	c.ledger.all(func(r ref) {
		if r.state() == queued {
			c.returnLease(r)
		}
	})
}

// wakeReturnQueued is the zero time while there is nothing to return, or no leader to return it to.
func (c *Core) wakeReturnQueued() time.Time {
	if c.ledger.counts[queued] == 0 || c.session.phase != sessionUp || c.stalled() {
		return time.Time{}
	}
	return c.fedAt.Add(queueAge)
}

func (c *Core) start(slot int, run span) {
	c.fedAt = c.now
	g, n := run.g, run.to-run.from
	if g.results == nil {
		g.results = make([]Result, len(g.index))
	}
	ch := &Chunk{
		Job: g.info.job, Stage: g.stage, FirstLease: g.first + uint64(run.from), Index: g.index[run.from:run.to],
		Action: g.action, Resources: c.ids.take(g.info.job.GetResources()), grant: g, from: run.from, results: g.results[run.from:run.to],
	}
	if g.attempt != nil {
		ch.Attempt = g.attempt[run.from:run.to]
	}
	if g.splits != nil {
		ch.Splits = g.splits[run.from:run.to]
	}
	ch.cursor.Store(uint64(n))
	c.ledger.moveAll(g, run.from, run.to, queued, inSlot)
	// A chunk of one has nothing to cut: its age does not matter.
	c.slots[slot] = slotState{chunk: ch, since: c.now, cut: n == 1}
	c.emit(Start{slot, ch})
}

// cutOldChunks collects the results of chunks older than chunkAge and queues their unstarted rest again: an attempt must not
// wait behind a long one while another slot or worker could run it.
func (c *Core) cutOldChunks() {
	for slot := range c.slots {
		s := &c.slots[slot]
		if s.chunk != nil && !s.cut && !c.now.Before(s.since.Add(chunkAge)) {
			c.cut(slot)
			c.collect(slot)
		}
	}
}

// cut keeps a slot from starting more of its chunk, and queues the rest again.
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

// stop cancels the attempt that a slot runs.
func (c *Core) stop(slot int) {
	c.cut(slot)
	if s := &c.slots[slot]; !s.stopped {
		s.stopped = true
		c.emit(Stop{slot})
	}
}

// collect handles the results that a slot has published.
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
	now := c.now.UnixMilli()
	for i := from; i < to; i++ {
		r := ref{g, s.chunk.from + i}
		nanos += r.result().Nanos
		r.result().ended = now
		c.endedIn[slot] = r.result().SlotStatus()
		c.ended(r)
	}
	g.info.updateEstimate(g.stage, nanos/int64(to-from))
}

// ended handles the end of an attempt.
func (c *Core) ended(r ref) {
	res := r.result()
	switch {
	case r.state() == stopping:
		c.discard(r)
	case res.Failure != nil:
		c.fail(r, res.Failure)
	case res.Canceled && c.drain.stopped:
		c.fail(r, &wire.Failure{Kind: wire.FailureKind_PREEMPTED, Message: "stopped: its worker is shutting down"})
	case len(res.Lost) > 0:
		for _, lost := range res.Lost {
			c.out.addLost(lost, c.now)
		}
		c.discard(r)
	case res.Canceled:
		// A Stop meant for the attempt before it hit this one, which had hardly started.
		c.discard(r)
	case res.File && !res.Segment:
		c.ledger.move(r, syncing)
		c.files.toSync = append(c.files.toSync, r)
	default:
		c.prepared(r)
	}
}

// discard removes an attempt's file and returns its lease. An attempt without a file is included: it may have created the
// job's folder again after the job ended.
func (c *Core) discard(r ref) {
	c.files.removed = append(c.files.removed, r.file())
	c.returnLease(r)
}

func (c *Core) returnLease(r ref) {
	c.out.addReturned(r.lease(), c.now)
	c.ledger.move(r, gone)
}

func (c *Core) removeFile(r ref) {
	if r.g.results != nil && r.result().File {
		c.files.removed = append(c.files.removed, r.file())
	}
}

func (r ref) file() AttemptRef {
	return AttemptRef{Job: r.g.info.job, Stage: wire.StageOf(r.g.info.job, r.g.stage).GetName(), Index: r.index(), Lease: r.lease()}
}

func (c *Core) fail(r ref, f *wire.Failure) {
	f.Job, f.Stage, f.Index, f.Lease = r.g.info.job.GetId(), r.g.stage, r.index(), r.lease()
	f.Micros = uint64(r.result().Nanos) / 1000
	r.result().Failure = f
	c.removeFile(r)
	c.ledger.move(r, failed)
	switch {
	case c.session.phase == sessionUp:
		c.out.addFailed(r, c.now)
		c.tailsHeld = 0
	case f.GetTail() != nil && c.tailsHeld == tailsHeldMax:
		f.Tail = nil
	case f.GetTail() != nil:
		c.tailsHeld++
	}
}

// prepared keeps a result until its verdict, and reports it if there is a session. If not, the next one starts with it.
func (c *Core) prepared(r ref) {
	c.ledger.move(r, finished)
	if c.session.phase == sessionUp {
		c.out.addFinished(r, c.now)
	}
}

func (c *Core) startSync() {
	f := &c.files
	if len(f.syncing) > 0 || len(f.toSync) == 0 {
		return
	}
	f.syncing, f.toSync = f.toSync, nil
	files := make([]ToSync, len(f.syncing))
	for i, r := range f.syncing {
		files[i] = ToSync{r.file(), wire.StageOf(r.g.info.job, r.g.stage).GetTasks() * r.result().Size}
	}
	c.emit(Sync{files})
}

func (c *Core) synced(errs []error) {
	for i, r := range c.files.syncing {
		switch {
		case r.state() == stopping:
			c.discard(r)
		case errs != nil && errs[i] != nil:
			c.fail(r, &wire.Failure{
				Kind:    wire.FailureKind_OUTPUT_ERROR,
				Message: wire.FailureMessage(fmt.Sprintf("fsync of the output: %v", errs[i])),
			})
		default:
			c.prepared(r)
		}
	}
	c.files.syncing = nil
}

// estimate is the duration of an attempt of a stage, in nanoseconds; 0: unknown.
func (j *jobInfo) estimate(stage uint32) int64 {
	if int(stage) >= len(j.nanos) {
		return 0
	}
	return j.nanos[stage]
}

// updateEstimate follows a rise at once and a fall slowly: a chunk too long delays others, a chunk too short costs little.
func (j *jobInfo) updateEstimate(stage uint32, nanos int64) {
	for len(j.nanos) <= int(stage) {
		j.nanos = append(j.nanos, 0)
	}
	nanos = max(nanos, 1)
	if old := j.nanos[stage]; old > nanos {
		nanos = (3*old + nanos) / 4
	}
	j.nanos[stage] = nanos
}
