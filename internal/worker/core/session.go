package core

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/wire"
)

const (
	backoffMin   = 50 * time.Millisecond
	backoffMax   = time.Second
	settledAfter = time.Second // a session of that length resets the back-off
)

type sessionPhase uint8

const (
	sessionDown    sessionPhase = iota // until retryAt
	sessionDialing                     // until the Welcome, or giveUpAt
	sessionUp
)

// session is the stream to a leader. Epochs distinguish its messages from those of earlier sessions.
type session struct {
	epoch    uint64
	phase    sessionPhase
	inFlight int    // messages handed to the sender and not sent yet
	term     uint64 // the highest of a leader followed: leaders of lower terms are stale
	told     uint64 // the claim of the last hello

	losses   int       // of sessions that did not last, in a row
	retryAt  time.Time // zero: as soon as there is a candidate
	dialedAt time.Time
	giveUpAt time.Time
	pinged   bool   // by the node that is dialed
	noLeader string // the last reason of NoLeader

	upAt        time.Time
	heartbeatAt time.Time // the last one sent
	receivedAt  time.Time // the last message
	busy, idle  intervals // with and without leases
}

// intervals bound the silence of worker and leader.
type intervals struct {
	heartbeat  time.Duration
	silenceMax time.Duration // of the leader; 0: not bounded
}

// Limits of the intervals of a leader: of the load of this worker, and of the time until it finds another leader.
const (
	intervalMin = 10 * time.Millisecond
	intervalMax = time.Minute
)

func newIntervals(heartbeatMillis, silenceMillis uint32) intervals {
	v := intervals{heartbeat: min(max(time.Duration(heartbeatMillis)*time.Millisecond, intervalMin), intervalMax)}
	if silenceMillis > 0 {
		v.silenceMax = min(max(time.Duration(silenceMillis)*time.Millisecond, intervalMin), intervalMax)
	}
	return v
}

// open reports whether the session of that epoch has not ended.
func (s *session) open(epoch uint64) bool { return s.epoch == epoch && s.phase != sessionDown }

func (c *Core) intervals() intervals {
	if c.ledger.held() == 0 {
		return c.session.idle
	}
	return c.session.busy
}

func (c *Core) advanceSession() {
	s := &c.session
	switch s.phase {
	case sessionDown:
		if c.drain.removed {
			return
		}
		c.discover()
		if c.now.Before(s.retryAt) {
			return
		}
		d := c.search.next(c.now)
		if d == nil {
			c.search.begin(c.now)
			d = c.search.next(c.now)
		}
		if d != nil {
			c.connect(d)
			return
		}
		// Wait until a leader that has refused may be asked again, or an address becomes known.
		s.retryAt = time.Time{}
		if by := c.search.refused(c.now); by != nil {
			s.retryAt = by.askAgain
		}
		c.reportNoLeader()
	case sessionDialing:
		if !c.now.Before(s.giveUpAt) {
			if !s.pinged {
				c.search.last.timeouts++
			}
			c.leave(errors.New("answer timed out"))
		}
	case sessionUp:
		if c.leaderSilent() {
			c.leave(fmt.Errorf("no message of the leader for %v", c.intervals().silenceMax))
			return
		}
		if !c.now.Before(s.heartbeatAt.Add(c.intervals().heartbeat)) {
			s.heartbeatAt = c.now
			c.emit(Send{s.epoch, reportMessage(&wire.Report{
				Heartbeat: true, Number: c.contact.send(c.now), Running: c.running(), Draining: c.drain.on, Slots: c.slotStatuses(),
			}), true})
		}
	}
}

// leaderSilent reports whether the leader has been silent for too long. If this step comes late, because the process was stopped or starved, the
// leader's messages have not been read yet: that time does not count, and there is time to read them.
func (c *Core) leaderSilent() bool {
	s, silence := &c.session, c.intervals().silenceMax
	if silence == 0 {
		return false
	}
	silent := c.now.Sub(s.receivedAt)
	if c.overdue > silence/4 {
		silent = max(0, min(silent-c.overdue, silence/2))
		s.receivedAt = c.now.Add(-silent)
	}
	return silent >= silence
}

// wakeSession calls at with the times at which the session needs a step.
func (c *Core) wakeSession(at func(time.Time)) {
	s := &c.session
	switch s.phase {
	case sessionDown:
		if c.drain.removed {
			return
		}
		at(s.retryAt)
		if t, ok := c.search.discoverAt(c.now); ok && t.After(c.now) {
			at(t)
		} else if ok {
			at(c.now)
		}
	case sessionDialing:
		at(s.giveUpAt)
	case sessionUp:
		v := c.intervals()
		at(s.heartbeatAt.Add(v.heartbeat))
		if v.silenceMax > 0 {
			at(s.receivedAt.Add(v.silenceMax))
		}
	}
}

func (c *Core) connect(d *candidate) {
	s := &c.session
	c.search.dial(d)
	s.epoch++
	s.phase = sessionDialing
	s.dialedAt, s.giveUpAt = c.now, c.now.Add(c.search.answerTimeout(c.now))
	s.pinged = false
	s.inFlight = 0
	hello := proto.CloneOf(c.cfg.Hello)
	hello.Held, hello.Stopping = c.held()
	hello.Ends = true
	c.contact.begin(c.now)
	hello.UnixMs = c.now.UnixMilli()
	hello.ClusterId, hello.Claim, s.told = c.clusterID, c.claim, c.claim
	if c.clusterID == "" && d.rank[fromInvite] > 0 {
		hello.ClusterId = c.search.invitedTo // another cluster may have the address by now
	}
	c.emit(Connect{Epoch: s.epoch, Leader: d.address, Hello: hello})
}

// held is every lease that the worker would continue, and those whose attempts are being stopped.
func (c *Core) held() (held, stopped []*wire.Held) {
	for slot := range c.slots {
		c.collect(slot)
	}
	held = make([]*wire.Held, 0, c.ledger.held())
	c.ledger.all(func(r ref) {
		h := &wire.Held{
			Job: r.g.info.job.GetId(), Stage: r.g.stage, Index: r.index(), Lease: r.lease(), Attempt: r.g.number(r.i),
			Started: r.state() != queued && !c.unclaimed(r),
		}
		if r.state() == stopping {
			stopped = append(stopped, h)
		} else {
			held = append(held, h)
		}
	})
	return held, stopped
}

// unclaimed reports whether a lease is in a slot's chunk and not claimed yet. It may be claimed right after: then the leader
// learns of it with the next heartbeat.
func (c *Core) unclaimed(r ref) bool {
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

// running is the leases that the slots run.
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
	// Messages in flight may be lost. Finished attempts are in the ledger and are reported again; the leader takes a lease
	// that is absent from the next Hello for returned.
	c.out.reset()
	if err != nil {
		c.search.failure = fmt.Sprintf("%s: %v", c.search.last.address, err)
	}
	if refused {
		c.search.answered()
		if c.search.refuse(refusalReason(err), c.now) && !c.drain.hasty { // then it was ordered to end
			c.emit(Refused{err})
		}
	}
	switch {
	case wasUp:
		if c.now.Sub(s.upAt) >= settledAfter {
			s.losses = 0
		}
		s.retryAt = c.now.Add(c.backoff(s.losses, backoffMax))
		s.losses++
		c.search.begin(c.now)
		c.emit(LeaderLost{err})
	case c.search.next(c.now) != nil:
		s.retryAt = c.now
	default:
		most := backoffMax
		if c.search.round.alive {
			most = electionWait
		}
		s.retryAt = c.now.Add(c.backoff(s.losses+c.search.failed, most))
		c.search.failed++
		c.reportNoLeader()
	}
}

// refusalReason is a leader's reason without its address: leaders of one cluster give the same.
func refusalReason(err error) string {
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused.Reason
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

// backoff is 50 ms, doubled up to most, less a random part of up to a half: workers must not return all at once.
func (c *Core) backoff(failures int, most time.Duration) time.Duration {
	d := min(most, backoffMin<<min(failures, 8))
	return d/2 + time.Duration(c.rng.Int64N(int64(d/2)+1))
}

func (c *Core) reportNoLeader() {
	if reason, refused := c.search.reason(c.now); reason != c.session.noLeader {
		c.session.noLeader = reason
		c.emit(NoLeader{reason, refused})
	}
}

// discover starts a discovery when no known leader can be used.
func (c *Core) discover() {
	if at, ok := c.search.discoverAt(c.now); ok && !c.now.Before(at) {
		c.search.discovery.running = true
		c.emit(Discover{c.clusterID})
	}
}

func (c *Core) discovered(in Discovered) {
	s := &c.search
	failure := ""
	if in.Err != nil {
		failure = strings.ReplaceAll(in.Err.Error(), "\n", "; ")
	}
	if in.Err != nil && failure != s.discovery.failure {
		c.emit(DiscoveryFailed{in.Err})
	}
	added := s.discovered(in.Leaders, failure, c.now)
	// Workers that started together need not search together.
	s.discovery.at = s.discovery.at.Add(-time.Duration(c.rng.Int64N(int64(discoverMin / 2))))
	switch {
	case c.session.phase != sessionDown || s.waits:
	case added:
		c.session.retryAt = c.now
	default:
		c.reportNoLeader()
	}
}

// invite handles an invitation. Nil: it is accepted.
func (c *Core) invite(in Invite) error {
	s := &c.search
	name := c.cfg.Hello.GetClusterName()
	leaders := cleanAddresses(in.Leaders)
	up := c.session.phase == sessionUp
	switch {
	case c.drain.on:
		return errors.New("this worker is shutting down")
	case len(leaders) == 0:
		return errors.New("the invitation has no valid address of a leader: want host:port")
	case name != "" && in.ClusterName != "" && name != in.ClusterName:
		return fmt.Errorf("this worker was started for cluster %q, and is invited to %q; start it with --cluster-name %[2]s",
			name, in.ClusterName)
	case c.clusterID != "" && in.ClusterID != c.clusterID:
		return fmt.Errorf("this worker belongs to cluster %s, and is invited to %q (%s); start it with another --data-dir "+
			"to have it join there", c.clusterID, in.ClusterName, cmp.Or(in.ClusterID, "no id given"))
	case c.claim != 0 && in.Claim != 0 && in.Claim != c.claim:
		return fmt.Errorf("this worker has the id %d, and is invited as %d: invite it by its own id, or start it with WORKER_ID=%[2]d", c.claim-1, in.Claim-1)
	case up && c.clusterID == "":
		return errors.New("this worker has a leader already")
	case up && c.claim == in.Claim || up && in.Claim == 0:
		return nil // it is a member
	case up: // it tells its leader by the next hello
		c.claim = in.Claim
		c.leave(fmt.Errorf("invited as worker %d", in.Claim-1))
		return nil
	}
	c.claim = cmp.Or(c.claim, in.Claim)
	if s.waits {
		s.waits, s.discovery.on = false, c.cfg.Discovers
		s.set(fromConfig, c.cfg.Leaders)
	}
	s.set(fromInvite, leaders)
	s.invitedTo, s.failed, s.round.hint = in.ClusterID, 0, ""
	for _, a := range leaders {
		s.find(a).askAgain = time.Time{}
	}
	s.begin(c.now)
	switch {
	case c.session.phase == sessionDown:
		c.session.retryAt = c.now
	case !slices.Contains(leaders, s.last.address), c.claim != c.session.told:
		c.leave(errors.New("given up for an invitation"))
	}
	return nil
}

func (c *Core) receive(m *wire.ToWorker) {
	s := &c.session
	switch m := m.GetMessage().(type) {
	case *wire.ToWorker_Welcome:
		c.welcomed(m.Welcome)
	case *wire.ToWorker_Work:
		if s.phase == sessionUp {
			c.work(m.Work)
		}
	case *wire.ToWorker_Log:
		c.emit(SendLog{m.Log})
	case *wire.ToWorker_Drain:
		if m.Drain.GetWait() && !c.drain.on {
			c.release(m.Drain.GetReason())
			return
		}
		c.emit(DrainOrdered{m.Drain.GetReason()})
		c.startDrain(m.Drain.GetStopRunning())
	case *wire.ToWorker_Elsewhere:
		c.search.redirect(m.Elsewhere, c.now)
		c.leave(errors.New("it does not lead"))
	case *wire.ToWorker_Leaders:
		if s.phase == sessionUp {
			c.search.learn(m.Leaders.GetAddresses())
			c.saveMembership()
		}
	case *wire.ToWorker_Ping:
		switch {
		case s.phase == sessionUp && c.now.Sub(s.heartbeatAt) >= c.intervals().heartbeat/2:
			// The heartbeat answers the ping: the leader pings many workers at once and gets their answers together, which
			// costs it far less than one at a time.
			s.heartbeatAt = time.Time{}
		case s.phase == sessionDialing:
			s.pinged = true
			c.search.answered()
			// The log may need long for the registration.
			s.giveUpAt = s.dialedAt.Add(min(c.now.Sub(s.dialedAt)+answerMax, WelcomeTimeout))
		}
	default:
		// A message of a newer leader. It does not expect an answer of workers that do not know the message.
		c.emit(BadMessage{Reason: "unknown message"})
	}
}

func (c *Core) welcomed(w *wire.Welcome) {
	s := &c.session
	if s.phase != sessionDialing {
		c.emit(BadMessage{Reason: "second welcome in a session"})
		return
	}
	if err := w.Check(); err != nil {
		c.leave(fmt.Errorf("invalid welcome: %w", err))
		return
	}
	if !c.accepts(w) {
		return
	}
	c.search.welcomed(w.GetLeaders())
	c.claim = cmp.Or(w.GetClaim(), c.claim)
	// Save the membership first: after a crash the worker must not join another cluster.
	c.saveMembership()
	c.emit(Welcomed{c.search.last.address, w})
	// The session is not up yet: the results of revoked leases are reported below, with the rest of the ledger.
	for _, lease := range w.GetRevoked() {
		c.drop(lease)
	}
	s.phase = sessionUp
	s.upAt, s.heartbeatAt = c.now, c.now
	s.busy = newIntervals(w.GetHeartbeatMs(), w.GetSilenceMs())
	s.idle = newIntervals(cmp.Or(w.GetIdleHeartbeatMs(), w.GetHeartbeatMs()), cmp.Or(w.GetIdleSilenceMs(), w.GetSilenceMs()))
	s.noLeader = ""
	// Jobs that ended while there was no leader are not named again; the others are, before their next lease.
	for _, info := range c.ledger.jobs {
		if info.live == 0 {
			c.ledger.forget(info)
		}
	}
	c.ledger.all(func(r ref) {
		switch r.state() {
		case finished:
			c.out.addFinished(r, c.now)
		case failed:
			c.out.addFailed(r, c.now)
		case gone, queued, inSlot, stopping, syncing:
		}
	})
	if w.GetDrain() {
		c.startDrain(false)
	}
}

// accepts reports whether the leader is to be followed, and leaves it if not.
func (c *Core) accepts(w *wire.Welcome) bool {
	s := &c.session
	name, id := c.cfg.Hello.GetClusterName(), w.GetClusterId()
	switch {
	case name != "" && w.GetCluster() != "" && w.GetCluster() != name:
		// The leader is of a version that does not check names.
		c.emit(Disconnect{s.epoch})
		c.sessionEnded(fmt.Errorf("it leads cluster %q, and this worker was started for %q", w.GetCluster(), name), true)
		return false
	case id != "" && c.clusterID != "" && id != c.clusterID:
		s.term = 0 // the cluster was recovered under a new id, and its terms start again
	}
	if w.GetTerm() < s.term {
		c.emit(StaleLeader{c.search.last.address, w.GetTerm(), s.term})
		c.leave(fmt.Errorf("it leads in term %d, which is over: another has led in term %d", w.GetTerm(), s.term))
		return false
	}
	s.term = w.GetTerm()
	if id != "" {
		c.clusterID = id
	}
	return true
}

func (c *Core) saveMembership() {
	c.emit(SaveMembership{Membership{ClusterID: c.clusterID, Leaders: c.search.leaders, Waits: c.search.waits}})
}

// release ends the membership of this worker: it was removed. The leader has voided its leases; but what was reported may have won, and its file
// is then the job's.
func (c *Core) release(reason string) {
	s := &c.session
	c.emit(Disconnect{s.epoch})
	s.phase, s.term, s.retryAt = sessionDown, 0, time.Time{}
	c.ledger.all(func(r ref) {
		if r.state() == finished {
			c.ledger.move(r, gone)
			return
		}
		c.dropRef(r, false)
	})
	c.out.reset()
	c.clusterID, c.search = "", waitingSearch(c.search.discovery.running)
	c.saveMembership()
	c.emit(Released{reason})
	c.reportNoLeader()
}
