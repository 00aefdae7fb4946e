package worker

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/wire"
)

type sessionPhase uint8

const (
	sessionDown    sessionPhase = iota // until retryAt
	sessionDialing                     // until the Welcome, or giveUpAt
	sessionUp
)

// session is the tie to a leader. Epochs tell its messages from those of the sessions before.
type session struct {
	epoch     uint64
	phase     sessionPhase
	leader    int // of the list: the one dialed last
	failures  int // in a row
	retryAt   time.Time
	giveUpAt  time.Time
	upSince   time.Time
	onWire    int // messages handed to the sender
	heartbeat time.Duration
	beatAt    time.Time
}

func (c *Core) advanceSession() {
	s := &c.session
	switch s.phase {
	case sessionDown:
		if !c.now.Before(s.retryAt) {
			c.connect()
		}
	case sessionDialing:
		if !c.now.Before(s.giveUpAt) {
			c.emit(Disconnect{s.epoch})
			c.sessionEnded(SessionEnded{Epoch: s.epoch})
		}
	case sessionUp:
		if !c.now.Before(s.beatAt) {
			s.beatAt = c.now.Add(s.heartbeat)
			c.emit(Send{s.epoch, fromWorker(&wire.Report{
				Heartbeat: true, Running: c.running(), Draining: c.drain.on,
			}), true})
		}
	}
}

func (c *Core) wakeSession() time.Time {
	switch c.session.phase {
	case sessionDown:
		return c.session.retryAt
	case sessionDialing:
		return c.session.giveUpAt
	case sessionUp:
	}
	return c.session.beatAt
}

func (c *Core) connect() {
	s := &c.session
	s.epoch++
	s.phase = sessionDialing
	s.giveUpAt = c.now.Add(welcomeMax)
	s.onWire = 0
	hello := proto.CloneOf(c.cfg.Hello)
	hello.Held = c.heldNow()
	c.emit(Connect{Epoch: s.epoch, Leader: c.cfg.Leaders[s.leader], Hello: hello})
}

// heldNow is every lease that the worker would go on with.
func (c *Core) heldNow() []*wire.Held {
	for slot := range c.slots {
		c.collect(slot)
	}
	held := make([]*wire.Held, 0, c.ledger.held())
	c.ledger.all(func(r ref) {
		if r.state() == stopping {
			return
		}
		held = append(held, &wire.Held{
			Job: r.g.info.job.GetId(), Stage: r.g.stage, Index: r.index(), Lease: r.lease(), Attempt: r.g.number(r.i),
			Started: r.state() != queued && !c.unbegun(r),
		})
	})
	return held
}

// unbegun says whether a lease lies in a slot's chunk and is not claimed yet. It may be claimed the moment after: then the
// leader learns of it with the next heartbeat.
func (c *Core) unbegun(r ref) bool {
	if r.state() != inSlot {
		return false
	}
	for i := range c.slots {
		ch := c.slots[i].chunk
		if ch != nil && ch.has(r) {
			return r.i-ch.from >= int(ch.cursor.Load()>>32)
		}
	}
	return false
}

// running is the leases in a slot now.
func (c *Core) running() []uint64 {
	var leases []uint64
	for i := range c.slots {
		if ch := c.slots[i].chunk; ch != nil {
			if at, ok := ch.Running(); ok && at < ch.Len() {
				leases = append(leases, ch.Lease(at))
			}
		}
	}
	return leases
}

func (c *Core) sessionEnded(in SessionEnded) {
	s := &c.session
	if in.Refused {
		c.exit(in.Err)
		return
	}
	if s.phase == sessionUp && c.now.Sub(s.upSince) >= settledAfter {
		s.failures = 0
	}
	s.phase = sessionDown
	s.retryAt = c.now.Add(c.backoff(s.failures))
	s.failures++
	s.leader = (s.leader + 1) % len(c.cfg.Leaders)
	// What was on its way may be lost. What finished is in the ledger and is reported again; a lease that was handed back
	// is known to be free by its absence from the next Hello.
	c.out.reset()
}

// backoff is 50 ms doubling up to 1 s, less up to a half by lot, so that workers do not come back all at once.
func (c *Core) backoff(failures int) time.Duration {
	d := backoffMax
	if failures < 5 {
		d = min(d, backoffMin<<failures)
	}
	return d/2 + time.Duration(c.rng.Int64N(int64(d/2)+1))
}

func (c *Core) receive(m *wire.ToWorker) {
	switch m := m.GetMessage().(type) {
	case *wire.ToWorker_Welcome:
		c.welcomed(m.Welcome)
	case *wire.ToWorker_Work:
		if c.session.phase == sessionUp {
			c.work(m.Work)
		}
	case *wire.ToWorker_Log:
		c.emit(SendLog{m.Log})
	case *wire.ToWorker_Drain:
		c.startDrain(m.Drain.GetStopRunning())
	default:
		// A message of a newer leader. It does not count on an answer from workers that do not know it.
		c.emit(Misled{What: "unknown message"})
	}
}

func (c *Core) welcomed(w *wire.Welcome) {
	s := &c.session
	if s.phase != sessionDialing {
		c.emit(Misled{What: "second welcome in a session"})
		return
	}
	c.emit(Welcomed{w})
	// While the session is not up yet: what dropping brings to light is reported below, with the rest of the ledger.
	for _, lease := range w.GetRevoked() {
		c.drop(lease)
	}
	s.phase = sessionUp
	s.upSince = c.now
	s.heartbeat = time.Duration(max(1, w.GetHeartbeatMs())) * time.Millisecond
	s.beatAt = c.now.Add(s.heartbeat)
	// Jobs that ended while there was no leader are never named again; those that live are, before their next lease.
	for id, info := range c.ledger.jobs {
		if info.live == 0 {
			delete(c.ledger.jobs, id)
		}
	}
	c.ledger.all(func(r ref) {
		switch r.state() {
		case finished:
			c.out.finish(r, c.now)
		case failed:
			c.out.fail(r, c.now)
		case gone, queued, inSlot, stopping, syncing:
		}
	})
	if w.GetDrain() {
		c.startDrain(false)
	}
}

// work takes verdicts before new leases: a job may end and its number of leases shrink in one message.
func (c *Core) work(w *wire.Work) {
	for _, lease := range w.GetCommitted() {
		if r, ok := c.ledger.find(lease); ok && r.state() == finished {
			c.ledger.move(r, gone)
		}
	}
	for _, lease := range w.GetStale() {
		c.drop(lease)
	}
	for _, job := range w.GetEnded() {
		c.jobEnded(job)
	}
	for _, job := range w.GetJobs() {
		if info := c.ledger.jobs[job.GetId()]; info != nil {
			// Told again in a new session. What is running goes by the first description: runners tell jobs by it.
			info.ended = false
			continue
		}
		c.ledger.jobs[job.GetId()] = &jobInfo{job: job}
	}
	for _, leases := range w.GetLeases() {
		c.granted(leases)
	}
}

func (c *Core) granted(w *wire.Leases) {
	info := c.ledger.jobs[w.GetJob()]
	if info == nil || c.drain.on {
		for i := range w.GetIndex() {
			c.out.giveBack(w.GetFirstLease()+uint64(i), c.now)
		}
		if info == nil {
			c.emit(Misled{Job: w.GetJob(), Lease: w.GetFirstLease(), What: "leases of a job that was never described; handed back"})
		}
		return
	}
	if c.ledger.counts[queued] == 0 {
		c.fed = c.now
	}
	g := c.ledger.add(info, w)
	if g == nil {
		c.emit(Misled{Job: w.GetJob(), Lease: w.GetFirstLease(), What: "leases that are empty, ragged or known already"})
		return
	}
	c.queue.push(span{g, 0, len(g.index)})
}

// drop ends the worker's interest in a lease that is no longer its own.
func (c *Core) drop(lease uint64) {
	if r, ok := c.ledger.find(lease); ok {
		c.dropRef(r, false)
	}
}

// dropRef drops a lease in any state. jobEnded: what has finished is kept for its verdict, because it may be the winner,
// and the winner's file is the job's output.
func (c *Core) dropRef(r ref, jobEnded bool) {
	switch r.state() {
	case queued:
		c.giveBack(r)
	case inSlot:
		c.dropInSlot(r, jobEnded)
	case syncing:
		c.ledger.move(r, stopping)
	case finished:
		if jobEnded {
			return
		}
		c.removeFile(r)
		c.ledger.move(r, gone)
	case failed:
		c.ledger.move(r, gone)
	case gone, stopping:
	}
}

// dropInSlot stops the lease if it runs, and takes it out of its chunk if it has not begun.
func (c *Core) dropInSlot(r ref, jobEnded bool) {
	for slot := range c.slots {
		ch := c.slots[slot].chunk
		if ch == nil || !ch.has(r) {
			continue
		}
		c.cut(slot)
		c.collect(slot)
		switch r.state() {
		case inSlot: // claimed, and not done
			c.ledger.move(r, stopping)
			c.stop(slot)
		case gone, queued, stopping, syncing, finished, failed:
			c.dropRef(r, jobEnded)
		}
		return
	}
}

// jobEnded stops what is left of a job.
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
	c.ledger.dropIfOver(info)
}
