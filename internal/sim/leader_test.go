package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/replica/core"
	"github.com/bridgefour/bridgefour/internal/state"
)

// simLeader is one leader: the real consensus, state machine and leader's core, and a driver over a simulated disk and
// network.
type simLeader struct {
	process

	rng   *rand.Rand
	disk  *disk
	image image // what is on its disk

	core       *core.Core
	controller *leader.Controller
	bug        *leaderBug // nil: none
	applied    uint64     // index that the state machine has applied, with raft's own entries
	since      uint64     // entries delivered since the last snapshot
	term       uint64
	leading    bool
	leaderID   uint64
	logDriver

	sessions  map[leader.SessionID]*session
	waiting   map[string][]func(reply) // clients, by the key of their request
	lockCalls map[state.LockID][]func()
	reads     []*pendingRead

	stepDue bool          // an event will step the controller
	wakeAt  time.Duration // of the controller

	port int
	book map[uint64]string // addresses that other leaders have announced
	gone bool              // removed from the cluster
}

// logDriver is the state of the core's driver.
type logDriver struct {
	deliveries []core.Delivery
	handing    bool     // an event will deliver the queue
	proposals  [][]byte // not accepted by the log yet
	full       bool     // the log has no room
	room       bool     // the core accepts proposals
	lastRef    core.Ref
	pending    map[core.Ref]func(core.Answer)
	wake       time.Time         // of the core; zero: no event will step it
	written    savedSnapshot     // its own snapshot that is being recorded
	bodies     map[uint64][]byte // snapshots of others that were received, by index
}

// boot starts the leader's process from its disk.
func (l *simLeader) boot() {
	l.start()
	l.applied, l.since, l.term, l.leading, l.leaderID, l.reads, l.stepDue, l.wakeAt = 0, 0, 0, false, 0, nil, false, 0
	l.logDriver = logDriver{pending: map[core.Ref]func(core.Answer){}, bodies: map[uint64][]byte{}}
	l.sessions, l.waiting, l.book = map[leader.SessionID]*session{}, map[string][]func(reply){}, map[uint64]string{}
	l.lockCalls = map[state.LockID][]func(){}
	cfg := core.Config{
		ID: uint64(l.addr), Address: l.address(), Directory: dirOf(l.addr),
		Tick: tickEvery, ElectionTicks: electionTicks, HeartbeatTicks: heartbeatTicks,
		Start: l.image.start(), State: l.image.state, Entries: slices.Clone(l.image.entries), SnapshotBytes: 1 << 40,
	}
	binary.BigEndian.PutUint32(cfg.Nonce[:], uint32(l.life))
	for _, snap := range l.image.snaps {
		cfg.Snapshots = append(cfg.Snapshots, snap.at)
		l.bodies[snap.at.Index] = snap.body
	}
	var err error
	l.core, err = core.New(cfg)
	if err != nil {
		l.w.fail("leader %d does not start: %v", l.addr, err)
		return
	}
	l.controller = leader.NewController(leader.ControllerConfig{Cluster: clusterName, Seed: l.rng.Uint64, Unled: l.w.cfg.unled()})
	l.bug = newLeaderBug(l)
	l.drive()
	l.step()
}

// kill ends the process; what was not fsynced may be lost. Quiet: of its machine, so that connections do not end.
func (l *simLeader) kill(quiet bool) {
	if !l.up {
		return
	}
	for _, id := range sortedKeys(l.sessions) {
		s := l.sessions[id]
		s.open = false
		if quiet {
			s.end.lose()
		} else {
			s.end.close()
		}
	}
	l.die(quiet)
	l.disk.stop()
}

// Raft's timing, as in the real program.
const (
	tickEvery      = 10 * time.Millisecond
	electionTicks  = 50
	heartbeatTicks = 5
)

// drive steps the core and carries out its effects.
func (l *simLeader) drive(inputs ...core.Input) {
	e, err := l.core.Step(l.now(), inputs...)
	if err != nil {
		l.w.fail("leader %d: %v", l.addr, err)
		return
	}
	for range e.Refused {
		l.w.trace("refused", uint64(l.addr))
	}
	if e.Persist != nil {
		l.save(*e.Persist)
	}
	for _, m := range append(e.LastMessages, e.Messages...) {
		l.post(m)
	}
	if e.Members != nil {
		l.controller.SetMembers(node.Members(*e.Members))
		l.soon()
	}
	l.deliveries = append(l.deliveries, e.Deliveries...)
	l.hand()
	l.room = e.Room
	for _, a := range e.Answers {
		if answer := l.pending[a.Ref]; answer != nil {
			delete(l.pending, a.Ref)
			answer(a)
		}
	}
	l.serveReads()
	if e.Removed && !l.gone {
		l.gone = true
		l.w.trace("removed", uint64(l.addr))
		l.kill(false)
		return
	}
	if l.wake.Equal(e.Wake) {
		return
	}
	l.wake = e.Wake
	l.after(max(0, l.world(e.Wake.Sub(l.now()))), func() {
		if l.wake.Equal(e.Wake) {
			l.wake = time.Time{}
			l.drive()
		}
	})
}

// ask steps the core with a request; answer is called with its answer.
func (l *simLeader) ask(input func(core.Ref) core.Input, answer func(core.Answer)) core.Ref {
	l.lastRef++
	ref := l.lastRef
	l.pending[ref] = answer
	l.drive(input(ref))
	return ref
}

// save makes a batch durable.
func (l *simLeader) save(b core.Batch) {
	bytes := int(b.Bytes) + 64*len(b.Saves)
	l.disk.save(write{
		bytes: bytes,
		apply: func() {
			for _, m := range b.Saves {
				l.image.save(m, l.bodies[m.GetSnapshot().GetMetadata().GetIndex()], -1)
			}
			if b.Snapshot != nil {
				l.image.keep(l.written)
			}
		},
		tear: func(rng *rand.Rand) {
			for _, m := range b.Saves {
				n := len(m.GetEntries())
				if m.GetSnapshot().GetMetadata().GetIndex() > 0 || n == 0 {
					return
				}
				kept := rng.IntN(n + 1)
				if l.image.save(m, nil, kept); kept < n {
					return
				}
			}
		},
		done: func(error) { l.drive(core.Persisted{}) },
	})
}

func (l *simLeader) must(err error) {
	if err != nil {
		l.w.fail("leader %d: %v", l.addr, err)
	}
}

// hand delivers the queue to the state machine, a moment later.
func (l *simLeader) hand() {
	if l.handing || len(l.deliveries) == 0 {
		return
	}
	l.handing = true
	l.after(between(l.rng, 0, 200*time.Microsecond), func() {
		l.handing = false
		batch := l.deliveries
		l.deliveries = nil
		for _, d := range batch {
			if !l.up {
				return
			}
			l.deliver(d)
		}
		l.step()
	})
}

func (l *simLeader) deliver(d core.Delivery) {
	e := replica.Event{Entries: d.Entries, Role: d.Role, WantSnapshot: d.WantSnapshot, LogFull: d.LogFull, LogRoom: d.LogRoom}
	if d.Snapshot != nil {
		e.SnapshotIndex = d.Snapshot.Index
		e.Snapshot = io.NopCloser(bytes.NewReader(l.bodies[d.Snapshot.Index]))
		if l.applied > 0 {
			l.w.trace("installed", uint64(l.addr), d.Snapshot.Index)
			l.w.stats.Installed++
		}
	}
	for _, entry := range d.Entries {
		l.w.oracle.delivered(l.addr, entry)
		l.since++
	}
	l.log(e)
	l.drive(core.Delivered{})
	l.applied = l.core.Status().Applied
	if d.Role != nil {
		l.role(d.Role)
	}
	if d.WantSnapshot || l.since >= l.w.cfg.SnapshotEvery {
		l.snapshot()
	}
}

func (l *simLeader) log(e replica.Event) { l.must(node.HandleLog(l.controller, l.now(), l.bug.log(e))) }

// role starts or ends a term.
func (l *simLeader) role(r *replica.Role) {
	l.w.trace("role", uint64(l.addr), r.Term, r.LeaderID, boolNumber(r.Leader))
	l.leaderID = r.LeaderID
	if l.leading {
		l.endTerm("this node no longer leads")
	}
	l.leading, l.term = r.Leader, r.Term
	if r.Leader {
		l.w.oracle.leads(l, r.Term)
	}
}

func (l *simLeader) endTerm(why string) {
	l.step()
	for _, id := range sortedKeys(l.sessions) {
		l.closeSession(l.sessions[id], endOfSession{reason: why})
	}
	for _, key := range sortedKeys(l.waiting) {
		for _, answer := range l.waiting[key] {
			answer(reply{unknown: true})
		}
	}
	clear(l.waiting)
	l.wakeLockCalls(sortedKeys(l.lockCalls))
	l.proposals = nil
}

func (l *simLeader) handle(in leader.Input) bool {
	if !l.controller.Handle(l.bug.input(in)) {
		return false
	}
	l.soon()
	return true
}

// soon steps the controller a moment later, with the inputs until then.
func (l *simLeader) soon() {
	if l.stepDue {
		return
	}
	l.stepDue = true
	l.after(l.w.cfg.StepEvery, func() {
		l.stepDue = false
		l.step()
	})
}

// step steps the controller and carries out its effects.
func (l *simLeader) step() {
	if !l.up {
		return
	}
	if l.w.now >= l.w.cfg.raises() {
		l.controller.Handle(leader.RaiseLevel{Needs: "simulated"})
	}
	e, err := l.controller.Step(l.now())
	if err != nil {
		l.w.fail("leader %d: %v", l.addr, err)
		return
	}
	if l.controller.Leading() && l.bug == nil && !l.w.cfg.Plain {
		l.must(l.controller.Core().Check())
	}
	l.w.oracle.quotas(l, e)
	l.bug.effects(e)
	l.proposals = append(l.proposals, e.Propose...)
	l.propose()
	if book := l.w.oracle.book(l.term); l.leading {
		book.floor = book.last
	}
	for i := range e.Send {
		if m := e.Send[i].Message.GetWelcome(); m != nil {
			l.w.oracle.welcomed(l, e.Send[i:])
		}
		l.send(e.Send[i].Session, e.Send[i].Message)
	}
	for _, q := range e.Quarantines {
		if q.Cause == leader.Slow && uint64(q.Worker) == l.w.workers[0].id {
			l.w.stats.Slow++
		} else if q.Cause == leader.Slow {
			l.w.stats.SlowOther++
		}
	}
	for _, c := range e.Close {
		if s := l.sessions[c.Session]; s != nil {
			l.closeSession(s, endOfSession{c.Refused, c.Reason})
			l.controller.Handle(leader.Closed{Session: c.Session})
		}
	}
	for i := range e.Replies {
		l.reply(&e.Replies[i])
	}
	l.wakeLockCalls(slices.Clone(e.Locks))
	l.serveReads()
	l.arm(e.Wake)
}

// arm schedules the step at wake.
func (l *simLeader) arm(wake time.Time) {
	at := l.w.now + max(tickEvery/100, l.world(wake.Sub(l.now())))
	if l.wakeAt > l.w.now && l.wakeAt <= at {
		return
	}
	l.wakeAt = at
	l.after(at-l.w.now, func() {
		if l.wakeAt == at {
			l.wakeAt = 0
		}
		l.step()
	})
}

func (l *simLeader) propose() {
	if len(l.proposals) == 0 || l.full || !l.room {
		return
	}
	batch := l.proposals
	l.proposals = nil
	l.ask(func(ref core.Ref) core.Input { return core.Propose{Ref: ref, Data: batch} }, func(a core.Answer) {
		if errors.Is(a.Err, core.ErrNotLeader) {
			l.proposals = batch // until the role changes
		} else if a.Err != nil {
			l.w.fail("leader %d: %v", l.addr, a.Err)
		}
	})
}

// write adds a client's command to the log and answers with its outcome.
func (l *simLeader) write(key string, add func(*state.Entry), answer func(reply)) {
	if l.full || !l.handle(leader.Command{Key: key, Add: add}) {
		answer(reply{again: true, leader: l.leaderHint()})
		return
	}
	if l.w.cfg.Plant == EarlyAck && !strings.HasPrefix(key, jobKey) {
		answer(reply{leader: l.addr})
		return
	}
	l.waiting[key] = append(l.waiting[key], answer)
}

// leaderHint returns the leader that this node knows of; 0 if there is none, or itself.
func (l *simLeader) leaderHint() addr {
	if l.leaderID == uint64(l.addr) {
		return 0
	}
	return addr(l.leaderID)
}

func (l *simLeader) reply(e *state.Event) {
	list := l.waiting[e.Key]
	if len(list) == 0 {
		return // of another node's client, or of another term
	}
	l.w.oracle.acknowledged(l, e)
	list[0](reply{event: *e, index: l.controller.Machine().Index(), leader: l.addr})
	if l.waiting[e.Key] = list[1:]; len(list) == 1 {
		delete(l.waiting, e.Key)
	}
}

// dirOf is the name of a leader's data directory.
func dirOf(a addr) string { return fmt.Sprint("dir", a) }
