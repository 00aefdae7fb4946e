package core

import (
	"math/rand/v2"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// Bounds of the core. None is a setting: they trade memory for round trips, and were chosen by measurement.
const (
	chunkMax        = 512                    // leases of one chunk
	chunkTime       = 5 * time.Millisecond   // target duration of a chunk
	chunkAge        = 10 * time.Millisecond  // then the unstarted rest of a chunk returns to the queue
	queueAge        = 100 * time.Millisecond // then queued leases return to the leader, if no slot becomes free
	reportItems     = 4096                   // of one report; a full report is sent at once
	tailsHeldMax    = 32                     // see Core.tailsHeld: later ones are dropped
	failureBytes    = 1 << 20                // of one report
	reportDelay     = 10 * time.Millisecond  // of a result before its report is sent
	idleReportDelay = time.Millisecond       // the same while a slot is idle
	unsentMax       = 4 * reportItems        // with more the slots pause: the leader is slow
	unackedMax      = 64 << 10               // with more the slots pause: there is no leader, or no verdicts come
	verdictMax      = 2 * time.Second        // a drain's wait for the verdicts on the last reports
)

// Bounds that the driver shares.
const (
	ReportsInFlight = 4                // messages handed to the sender and not sent yet
	WelcomeTimeout  = 10 * time.Second // from dialing to the Welcome
	KillTimeout     = 5 * time.Second  // a drain's wait for an attempt after its Stop
)

// Config configures a core.
type Config struct {
	Hello      *wire.Hello // without held leases, cluster id and time, which the core fills in
	Leaders    []string    // by configuration
	Known      []string    // leaders of the worker's cluster, from its membership
	ClusterID  string      // the worker's cluster; empty: none yet
	Waits      bool        // it was removed from a cluster, and waits for an invitation
	Discovers  bool        // [Discover] may find more leaders
	DrainGrace time.Duration
	Resources  map[string][]string // by name, the ids that attempts get; Hello has their numbers
	Seed       uint64              // of the back-off's jitter
}

// Core decides. It is not safe for concurrent use: its driver owns it.
type Core struct {
	cfg     Config
	rng     *rand.Rand
	now     time.Time
	overdue time.Duration // of this step: how long ago the last one has asked for it
	effects Effects

	ledger ledger
	queue  queue
	ids    ids
	fedAt  time.Time // when a slot last got a chunk, or the first lease was queued
	slots  []slotState
	// endedIn is how the last attempt of each slot has ended.
	endedIn []wire.SlotStatus
	files   files

	session   session
	contact   contact
	search    search
	clusterID string // empty: none yet
	claim     uint64 // of the Hello, of an invitation, or as the cluster knows it
	out       outbox
	// tailsHeld counts failures with a tail that were added while there was no session.
	tailsHeld int

	drain  drain
	exited bool
}

// slotState is the core's view of a slot. chunk is nil exactly while the slot is idle.
type slotState struct {
	chunk     *Chunk
	since     time.Time
	collected int  // entries of chunk whose results were collected
	cut       bool // no more of its entries can be claimed
	stopped   bool // Stop was emitted
}

// files is the work for the disk.
type files struct {
	toSync  []ref
	syncing []ref // under way; empty: none is
	removed []AttemptRef
}

// New returns a core that dials at its first step.
func New(cfg Config) *Core {
	slots := max(1, int(cfg.Hello.GetSlots()))
	return &Core{
		cfg:    cfg,
		rng:    rand.New(rand.NewPCG(cfg.Seed, cfg.Seed)),
		search: newSearch(cfg), clusterID: cfg.ClusterID, claim: cfg.Hello.GetClaim(),
		ledger: newLedger(), ids: newIDs(cfg.Resources),
		slots: make([]slotState, slots), endedIn: make([]wire.SlotStatus, slots),
	}
}

// Step handles inputs, and whatever the time allows. The effects are valid until the next step.
func (c *Core) Step(now time.Time, inputs ...Input) *Effects {
	c.now, c.overdue = now, 0
	if wake := c.effects.Wake; !wake.IsZero() {
		c.overdue = max(0, now.Sub(wake))
	}
	clear(c.effects.List)
	c.effects = Effects{List: c.effects.List[:0]}
	if c.exited {
		return &c.effects
	}
	for _, in := range inputs {
		c.handle(in)
	}
	c.advance()
	if !c.exited {
		c.effects.Wake = c.wake()
	}
	return &c.effects
}

func (c *Core) handle(in Input) {
	switch in := in.(type) {
	case Received:
		if c.session.open(in.Epoch) {
			c.session.receivedAt = c.now
			c.receive(in.Message)
			if c.session.phase == sessionUp {
				c.contact.confirm(in.Message.GetHeard(), c.now)
			}
		}
	case Sent:
		if c.session.open(in.Epoch) {
			c.session.inFlight--
		}
	case SessionEnded:
		switch {
		case !c.session.open(in.Epoch):
		case in.Removed:
			c.removed(in.Err)
		default:
			c.sessionEnded(in.Err, in.Refused)
		}
	case SlotIdle:
		c.collect(in.Slot)
		if ch := c.slots[in.Slot].chunk; ch != nil {
			c.ids.release(ch.Resources)
		}
		c.slots[in.Slot] = slotState{}
	case Synced:
		c.synced(in.Errs)
	case Discovered:
		c.discovered(in)
	case Invite:
		c.emit(InviteAnswered{c.invite(in)})
	case Drain:
		c.startDrain(in.StopRunning)
	}
}

// advance does whatever the present state and time allow. The order matters: results first, so that slots and the report
// see them; slots before the report, because only a worker with idle slots reports at once.
func (c *Core) advance() {
	c.stopUnled()
	c.cutOldChunks()
	c.advanceDrain()
	c.schedule()
	c.returnQueued()
	c.startSync()
	c.advanceSession()
	c.report()
	if len(c.files.removed) > 0 {
		c.emit(Remove{c.files.removed})
		c.files.removed = nil
	}
	c.advanceExit()
}

func (c *Core) emit(e Effect) { c.effects.List = append(c.effects.List, e) }

// wake is [Effects.Wake].
func (c *Core) wake() time.Time {
	var wake time.Time
	at := func(t time.Time) {
		if !t.IsZero() && (wake.IsZero() || t.Before(wake)) {
			wake = t
		}
	}
	for i := range c.slots {
		if s := &c.slots[i]; s.chunk != nil && !s.cut {
			at(s.since.Add(chunkAge))
		}
	}
	at(c.wakeReturnQueued())
	at(c.wakeUnled())
	c.wakeSession(at)
	at(c.wakeReport())
	at(c.wakeDrain())
	return wake
}

func (c *Core) exit() {
	c.exited = true
	c.emit(Exit{})
}
