package core

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
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
	epoch    uint64
	phase    sessionPhase
	losses   int       // of sessions that did not last, in a row
	retryAt  time.Time // zero: as soon as there is somebody to dial
	dialedAt time.Time
	giveUpAt time.Time
	heard    bool // the node that is dialed has said something
	upSince  time.Time
	onWire   int       // messages handed to the sender
	beaten   time.Time // the last heartbeat
	busy     rhythm    // while it holds leases
	idle     rhythm    // while it does not
	heardAt  time.Time
	term     uint64 // the highest of a leader followed: those of lower terms are over
	alone    string // what was told last about having no leader
}

// rhythm is how often worker and leader hear of each other.
type rhythm struct {
	heartbeat time.Duration
	silence   time.Duration // 0: the leader may be silent for any time
}

func (c *Core) rhythm() rhythm {
	if c.ledger.held() == 0 {
		return c.session.idle
	}
	return c.session.busy
}

func (c *Core) advanceSession() {
	s := &c.session
	switch s.phase {
	case sessionDown:
		c.look()
		if c.now.Before(s.retryAt) {
			return
		}
		if !c.search.more(c.now) {
			c.search.begin(c.now)
		}
		if c.search.more(c.now) {
			c.connect()
		} else {
			c.waitForLeader()
		}
	case sessionDialing:
		if !c.now.Before(s.giveUpAt) {
			if !s.heard {
				c.search.silent()
			}
			c.leave(errors.New("it does not answer"))
		}
	case sessionUp:
		if c.silent() {
			c.leave(fmt.Errorf("the leader has said nothing for %v", c.rhythm().silence))
			return
		}
		if !c.now.Before(s.beaten.Add(c.rhythm().heartbeat)) {
			s.beaten = c.now
			c.emit(Send{s.epoch, fromWorker(&wire.Report{
				Heartbeat: true, Running: c.running(), Draining: c.drain.on,
			}), true})
		}
	}
}

func rhythmOf(heartbeatMillis, silenceMillis uint32) rhythm {
	return rhythm{time.Duration(heartbeatMillis) * time.Millisecond, time.Duration(silenceMillis) * time.Millisecond}
}

// silent says whether the leader has been silent for too long. Where the core itself was not run for so long, because its
// process was stopped, what the leader said meanwhile has not been read yet.
func (c *Core) silent() bool {
	s, silence := &c.session, c.rhythm().silence
	if silence == 0 {
		return false
	}
	late := c.now.Sub(s.heardAt) - silence
	if late > silence/2 {
		s.heardAt = c.now.Add(-silence / 2)
		return false
	}
	return late >= 0
}

func (c *Core) wakeSession() time.Time {
	s := &c.session
	switch s.phase {
	case sessionDown:
		at, looks := c.search.wantsLook(c.now)
		if !looks || !s.retryAt.IsZero() && s.retryAt.Before(at) {
			return s.retryAt
		}
		return later(at, c.now)
	case sessionDialing:
		return s.giveUpAt
	case sessionUp:
	}
	r := c.rhythm()
	beat := s.beaten.Add(r.heartbeat)
	if r.silence > 0 {
		return earlier(beat, s.heardAt.Add(r.silence))
	}
	return beat
}

func (c *Core) connect() {
	s := &c.session
	leader := c.search.next(c.now)
	s.epoch++
	s.phase = sessionDialing
	s.dialedAt, s.giveUpAt = c.now, c.now.Add(c.search.patience(leader, c.now))
	s.heard = false
	s.onWire = 0
	hello := proto.CloneOf(c.cfg.Hello)
	hello.Held = c.heldNow()
	hello.UnixMs = c.now.UnixMilli()
	hello.ClusterId = c.clusterID
	if c.clusterID == "" && slices.Contains(c.search.invited, leader) {
		hello.ClusterId = c.search.invitedTo // whoever listens there by now
	}
	c.emit(Connect{Epoch: s.epoch, Leader: leader, Hello: hello})
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

// leave ends the session from this side.
func (c *Core) leave(why error) {
	c.emit(Disconnect{c.session.epoch})
	c.sessionEnded(why, false)
}

func (c *Core) sessionEnded(err error, refused bool) {
	s := &c.session
	wasUp := s.phase == sessionUp
	s.phase = sessionDown
	// What was on its way may be lost. What finished is in the ledger and is reported again; a lease that was handed back
	// is known to be free by its absence from the next Hello.
	c.out.reset()
	if err != nil {
		c.search.failure = fmt.Sprintf("%s: %v", c.search.last, err)
	}
	if refused {
		c.search.answered()
		if c.search.refuse(reasonOf(err), c.now) {
			c.emit(Refusal{err})
		}
	}
	switch {
	case wasUp:
		if c.now.Sub(s.upSince) >= settledAfter {
			s.losses = 0
		}
		s.retryAt = c.now.Add(c.backoff(s.losses, backoffMax))
		s.losses++
		c.search.begin(c.now)
		c.emit(Lost{err})
	case c.search.more(c.now):
		s.retryAt = c.now
	default:
		most := backoffMax
		if c.search.alive {
			most = electionWait
		}
		s.retryAt = c.now.Add(c.backoff(s.losses+c.search.rounds, most))
		c.search.rounds++
		c.tellAlone()
	}
}

// backoff is 50 ms doubling up to most, less up to a half by lot, so that workers do not come back all at once.
func (c *Core) backoff(failures int, most time.Duration) time.Duration {
	d := min(most, backoffMin<<min(failures, 8))
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
		c.emit(SentAway{m.Drain.GetReason()})
		c.startDrain(m.Drain.GetStopRunning())
	case *wire.ToWorker_Elsewhere:
		c.search.elsewhere(m.Elsewhere, c.now)
		c.leave(errors.New("it does not lead"))
	case *wire.ToWorker_Leaders:
		if c.session.phase == sessionUp {
			c.search.learn(m.Leaders.GetAddresses())
			c.keep()
		}
	case *wire.ToWorker_Ping:
		s := &c.session
		switch {
		case s.phase == sessionUp && c.now.Sub(s.beaten) >= c.rhythm().heartbeat/2:
			// The heartbeat goes with the ping: the leader pings many workers at once, and has their answers together, which
			// costs it far less than hearing of each at a time of its own.
			s.beaten = time.Time{}
		case s.phase == sessionDialing:
			s.heard = true
			c.search.answered()
			s.giveUpAt = earlier(c.now.Add(wordNear), s.dialedAt.Add(WelcomeMax)) // the log may be slow to have the registration
		}
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
	if !c.follows(w) {
		return
	}
	leader := c.search.last
	c.search.arrived(w.GetLeaders())
	c.keep() // first: whom it belongs to, the worker must know before it works for him
	c.emit(Welcomed{leader, w})
	// While the session is not up yet: what dropping brings to light is reported below, with the rest of the ledger.
	for _, lease := range w.GetRevoked() {
		c.drop(lease)
	}
	s.phase = sessionUp
	s.upSince = c.now
	s.beaten = c.now
	s.busy = rhythmOf(max(1, w.GetHeartbeatMs()), w.GetSilenceMs())
	s.idle = rhythmOf(cmp.Or(w.GetIdleHeartbeatMs(), max(1, w.GetHeartbeatMs())), cmp.Or(w.GetIdleSilenceMs(), w.GetSilenceMs()))
	s.alone = ""
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
