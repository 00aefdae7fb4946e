package core

import (
	"math/rand/v2"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// Bounds of the core. None is a setting: they trade memory for round trips, and were chosen by measurement.
const (
	chunkMax      = 512                    // leases handed to a slot at once
	chunkTime     = time.Millisecond       // what a chunk should take
	chunkAge      = 2 * time.Millisecond   // after it, what a slot has not begun goes back to the queue
	queueAge      = 100 * time.Millisecond // after it, what no slot has had time for goes back to the leader
	reportItems   = 4096                   // of one Report; as many waiting are sent at once
	failureBytes  = 1 << 20                // of one Report
	reportDelay   = 5 * time.Millisecond   // a result waits for company no longer than this
	starvedDelay  = time.Millisecond       // the same while a slot has nothing to run
	ReportsOnWire = 4                      // handed to the sender and not sent yet
	unsentMax     = 4 * reportItems        // with more the slots stall: the leader is slow
	unackedMax    = 64 << 10               // with more the slots stall: there is no leader, or it gives no verdicts
	wordMin       = 400 * time.Millisecond // from dialing to a node's first word, the first time and with others to dial
	wordNear      = time.Second            // the same at most, while other nodes do answer; from there on, from word to word
	WelcomeMax    = 10 * time.Second       // from dialing to the Welcome at most
	backoffMin    = 50 * time.Millisecond
	backoffMax    = time.Second
	settledAfter  = time.Second     // a session that lasted so long starts the back-off anew
	verdictMax    = 2 * time.Second // a drain waits so long for verdicts on the last reports
	KillMax       = 5 * time.Second // a drain waits so long for an attempt it has stopped
)

// Config is what the core has to know.
type Config struct {
	Hello      *wire.Hello // but for what the core fills in: held, the cluster's id, and the time
	Leaders    []string    // by configuration
	Known      []string    // leaders of the worker's cluster, kept from before
	ClusterID  string      // the cluster that the worker belongs to; empty: none yet
	Looks      bool        // [Look] finds leaders that nobody has told of
	DrainGrace time.Duration
	Seed       uint64 // of the back-off's jitter
}

// Input is something that happened to the worker.
type Input interface{ input() }

// Tick says that the time given by [Core.Wake] has come; an early one does no harm.
type Tick struct{}

// Received is a message of the session of that epoch.
type Received struct {
	Epoch   uint64
	Message *wire.ToWorker
}

// Sent says that one message of a [Send] that was not urgent has left.
type Sent struct{ Epoch uint64 }

// SessionEnded says that a session could not be opened or has ended. Refused: the leader will not have this worker as it
// is; Err then says why, in words that do not change from try to try.
type SessionEnded struct {
	Epoch   uint64
	Err     error
	Refused bool
}

// SlotIdle says that a slot has run its chunk to the end.
type SlotIdle struct{ Slot int }

// Synced answers a [Sync]: Errs is nil, or one entry for each file asked for, in that order.
type Synced struct{ Errs []error }

// Candidates answers a [Look]: addresses of leaders, and why there may be more.
type Candidates struct {
	Leaders []string
	Err     error
}

// Invited says that a leader asks this worker to join its cluster. It is answered at once, with [Answered].
type Invited struct {
	Leaders     []string
	ClusterID   string
	ClusterName string
}

// DrainRequest asks for the end: hand back, finish, leave.
type DrainRequest struct{ StopRunning bool }

func (Tick) input()         {}
func (Received) input()     {}
func (Sent) input()         {}
func (SessionEnded) input() {}
func (SlotIdle) input()     {}
func (Synced) input()       {}
func (Candidates) input()   {}
func (Invited) input()      {}
func (DrainRequest) input() {}

// Effect is something the driver has to do for the core.
type Effect interface{ effect() }

// Connect asks to dial Leader and open a session with Hello as its first message. It replaces any session before.
type Connect struct {
	Epoch  uint64
	Leader string
	Hello  *wire.Hello
}

// Disconnect asks to end the session of that epoch; no SessionEnded need follow.
type Disconnect struct{ Epoch uint64 }

// Send asks to send a message. An urgent one overtakes those that are not, and is not answered with [Sent].
type Send struct {
	Epoch   uint64
	Message *wire.FromWorker
	Urgent  bool
}

// Start gives a chunk to an idle slot.
type Start struct {
	Slot  int
	Chunk *Chunk
}

// Stop cancels what a slot runs. Its chunk is cut already.
type Stop struct{ Slot int }

// AttemptRef names an attempt's file.
type AttemptRef struct {
	Job   *wire.Job
	Stage string
	Index uint64
	Lease uint64
}

// Sync asks to make files durable. At most one is under way.
type Sync struct{ Files []AttemptRef }

// Remove asks to remove the files of attempts that lost; one that is not there is fine.
type Remove struct{ Files []AttemptRef }

// SendLog asks to answer a leader's request for logs.
type SendLog struct{ Request *wire.LogRequest }

// Look asks to look around for leaders, of that cluster if it is not empty. At most one is under way.
type Look struct{ ClusterID string }

// Welcomed tells that the leader at that address has accepted the worker.
type Welcomed struct {
	Leader  string
	Welcome *wire.Welcome
}

// Keep asks to note durably, in its time, which cluster the worker belongs to and where its leaders are.
type Keep struct{ Membership Membership }

// Membership is what a worker keeps of its cluster.
type Membership struct {
	ClusterID string
	Leaders   []string
}

// Lost tells that the session with the worker's leader has ended.
type Lost struct{ Err error }

// Alone tells, whenever it changes, why there is no leader. Refused: a leader will not have this worker as it is.
type Alone struct {
	Reason  string
	Refused bool
}

// Refusal tells that a leader will not have this worker, each reason once.
type Refusal struct{ Err error }

// Outdated tells of a leader that was left because its term is over.
type Outdated struct {
	Leader    string
	Term, Now uint64
}

// Blind tells, whenever it changes, why a [Look] found less than it might.
type Blind struct{ Err error }

// Answered is the answer to an [Invited]: nil: the worker goes there.
type Answered struct{ Err error }

// SentAway tells that the leader has the worker leave: it drains.
type SentAway struct{ Reason string }

// Misled tells of a leader's message that makes no sense and was passed over.
type Misled struct {
	Job, Lease uint64
	What       string
}

// Exit is the last effect: the worker has left.
type Exit struct{}

func (Connect) effect()    {}
func (Disconnect) effect() {}
func (Send) effect()       {}
func (Start) effect()      {}
func (Stop) effect()       {}
func (Sync) effect()       {}
func (Remove) effect()     {}
func (SendLog) effect()    {}
func (Look) effect()       {}
func (Welcomed) effect()   {}
func (Keep) effect()       {}
func (Lost) effect()       {}
func (Alone) effect()      {}
func (Refusal) effect()    {}
func (Outdated) effect()   {}
func (Blind) effect()      {}
func (Answered) effect()   {}
func (SentAway) effect()   {}
func (Misled) effect()     {}
func (Exit) effect()       {}

// Core decides. It is not safe for concurrent use: its driver owns it.
type Core struct {
	cfg     Config
	rng     *rand.Rand
	now     time.Time
	effects []Effect

	ledger ledger
	queue  queue
	fed    time.Time // when a slot was last given something, or there was something to give
	slots  []slotState

	session   session
	search    search
	clusterID string // empty: the worker belongs to none yet
	out       outbox

	toSync  []ref
	inSync  []ref // under way; empty: none is
	removed []AttemptRef

	drain  drain
	exited bool
}

// slotState is what the core knows of a slot. chunk is nil exactly while the slot is idle.
type slotState struct {
	chunk     *Chunk
	since     time.Time
	collected int  // entries of chunk whose results are taken
	cut       bool // nothing more of it will be claimed
	stopped   bool // a Stop has been given
}

// New makes a core that dials at its first step.
func New(cfg Config) *Core {
	return &Core{
		cfg:    cfg,
		rng:    rand.New(rand.NewPCG(cfg.Seed, cfg.Seed)),
		search: newSearch(cfg), clusterID: cfg.ClusterID,
		ledger: newLedger(),
		slots:  make([]slotState, max(1, int(cfg.Hello.GetSlots()))),
	}
}

// Step takes in what happened and gives what has to be done, in order. The slice is reused by the next step.
func (c *Core) Step(now time.Time, in Input) []Effect {
	c.now = now
	clear(c.effects)
	c.effects = c.effects[:0]
	if c.exited {
		return nil
	}
	switch in := in.(type) {
	case Tick:
	case Received:
		if in.Epoch == c.session.epoch && c.session.phase != sessionDown {
			c.session.heardAt = now
			c.receive(in.Message)
		}
	case Sent:
		if in.Epoch == c.session.epoch && c.session.phase != sessionDown {
			c.session.onWire--
		}
	case SessionEnded:
		if in.Epoch == c.session.epoch && c.session.phase != sessionDown {
			c.sessionEnded(in.Err, in.Refused)
		}
	case SlotIdle:
		c.collect(in.Slot)
		c.slots[in.Slot] = slotState{}
	case Synced:
		c.synced(in.Errs)
	case Candidates:
		c.looked(in)
	case Invited:
		c.emit(Answered{c.invite(in)})
	case DrainRequest:
		c.startDrain(in.StopRunning)
	}
	c.advance()
	return c.effects
}

// advance does whatever the present state and time allow. Its order matters: results first, so that slots and the report
// see them; slots before the report, because only a worker that has run dry reports at once.
func (c *Core) advance() {
	if c.exited {
		return
	}
	c.collectLate()
	c.advanceDrain()
	c.schedule()
	c.handBack()
	c.startSync()
	c.advanceSession()
	c.report()
	if len(c.removed) > 0 {
		c.emit(Remove{c.removed})
		c.removed = nil
	}
	c.advanceLeave()
}

func (c *Core) emit(e Effect) { c.effects = append(c.effects, e) }

// Wake is when the core wants a [Tick] at the latest; the zero time: never.
func (c *Core) Wake() time.Time {
	if c.exited {
		return time.Time{}
	}
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
	at(c.wakeHandBack())
	at(c.wakeSession())
	at(c.wakeReport())
	at(c.wakeDrain())
	return wake
}

func (c *Core) exit() {
	c.exited = true
	c.emit(Exit{})
}
