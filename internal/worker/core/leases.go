package core

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// jobsMax bounds the jobs that a worker knows at once. A leader describes a job before its first lease, and says when it has ended.
const jobsMax = 64 << 10

// jobBytesMax bounds the sum of their descriptions: 512 of the largest that a leader accepts.
const jobBytesMax = 512 << 20

// work handles verdicts before new leases: one message may end a job and grant leases.
func (c *Core) work(w *wire.Work) {
	for _, lease := range w.GetCommitted() {
		if r, ok := c.ledger.find(lease); ok && r.state() == finished {
			c.ledger.move(r, gone)
		}
	}
	for _, lease := range w.GetStale() {
		c.drop(lease)
	}
	for _, files := range w.GetUnneeded() {
		if info := c.ledger.jobs[files.GetJob()]; info != nil {
			if stage := wire.StageOf(info.job, files.GetStage()); stage.GetName() != "" {
				c.emit(RemoveStage{info.job, stage.GetName(), files.GetLease()})
			}
		}
	}
	for _, job := range w.GetEnded() {
		c.jobEnded(job)
	}
	for _, job := range w.GetJobs() {
		if info := c.ledger.jobs[job.GetId()]; info != nil {
			// Repeated in a new session. Keep the first description: runners identify jobs by its pointer.
			info.ended = false
			continue
		}
		if err := job.Check(); err != nil {
			c.emit(BadMessage{Job: job.GetId(), Reason: "invalid job: " + err.Error()})
			continue
		}
		info := &jobInfo{job: job, bytes: proto.Size(job)}
		if len(c.ledger.jobs) >= jobsMax || c.ledger.jobBytes+info.bytes > jobBytesMax {
			c.emit(BadMessage{Job: job.GetId(), Reason: fmt.Sprintf("more than %d jobs, or %d MiB of their descriptions", jobsMax, jobBytesMax>>20)})
			continue
		}
		c.ledger.know(info)
	}
	for _, leases := range w.GetLeases() {
		c.grant(leases)
	}
}

// grant queues leases. A draining worker returns them.
func (c *Core) grant(w *wire.Leases) {
	info := c.ledger.jobs[w.GetJob()]
	why := ""
	if most := wire.HeldMax(c.cfg.Hello.GetSlots()); info == nil {
		why = "leases of an unknown job; returned"
	} else if len(w.GetIndex())+c.ledger.held() > most {
		why = fmt.Sprintf("more than %d leases; returned", most)
	}
	if why != "" || c.drain.on {
		for i := range w.GetIndex() {
			c.out.addReturned(w.GetFirstLease()+uint64(i), c.now)
		}
		if why != "" {
			c.emit(BadMessage{Job: w.GetJob(), Lease: w.GetFirstLease(), Reason: why})
		}
		return
	}
	if c.ledger.counts[queued] == 0 {
		c.fedAt = c.now
	}
	g := c.ledger.add(info, w)
	if g == nil {
		c.emit(BadMessage{Job: w.GetJob(), Lease: w.GetFirstLease(), Reason: "leases with no entries, with columns of different lengths, or known already"})
		return
	}
	c.queue.push(span{g, 0, len(g.index)})
}

// drop drops a lease that the leader has taken back.
func (c *Core) drop(lease uint64) {
	if r, ok := c.ledger.find(lease); ok {
		c.dropRef(r, false)
	}
}

// dropRef drops a lease in any state. jobEnded: a finished attempt is kept until its verdict, because it may be the winner, and
// the winner's file is the job's output.
func (c *Core) dropRef(r ref, jobEnded bool) {
	switch r.state() {
	case queued:
		c.returnLease(r)
	case inSlot:
		c.dropInSlot(r, jobEnded)
	case syncing:
		c.ledger.move(r, stopping)
	case finished:
		if jobEnded {
			return
		}
		c.removeFile(r)
		c.dropResult(r)
	case failed:
		c.dropResult(r)
	case gone, stopping:
	}
}

// dropResult drops the lease of an attempt that has ended. The leader must learn that it has: if it was not reported in this session, the lease is returned.
func (c *Core) dropResult(r ref) {
	if c.session.phase == sessionUp {
		c.ledger.move(r, gone)
		return
	}
	c.returnLease(r)
}

// dropInSlot stops the lease if it runs, and removes it from its chunk if it has not started.
func (c *Core) dropInSlot(r ref, jobEnded bool) {
	for slot := range c.slots {
		ch := c.slots[slot].chunk
		if ch == nil || !ch.has(r) {
			continue
		}
		c.cut(slot)
		c.collect(slot)
		switch r.state() {
		case inSlot: // claimed, not done
			c.ledger.move(r, stopping)
			c.stop(slot)
		case gone, queued, stopping, syncing, finished, failed:
			c.dropRef(r, jobEnded)
		}
		return
	}
}

// jobEnded drops the leases of a job.
func (c *Core) jobEnded(id uint64) {
	info := c.ledger.jobs[id]
	if info == nil {
		return
	}
	info.ended = true
	c.ledger.all(func(r ref) {
		if r.g.info == info {
			c.dropRef(r, true)
		}
	})
	c.ledger.dropEnded(info)
}
