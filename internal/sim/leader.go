package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
)

// simLeader is one leader: the real consensus, state machine and leader's core, and a driver over a simulated disk and
// network.
type simLeader struct {
	process

	rng   *rand.Rand
	disk  *disk
	image image // what is on its disk

	core       *replica.Core
	controller *leader.Controller
	told       *replica.Members // to the node
	applied    uint64           // log position that the state machine has come to, raft's own entries counted
	queue      []replica.Delivery
	handing    bool     // an event will hand over the next delivery
	stuck      [][]byte // entries that the log has not taken yet
	full       bool     // the log has no room
	saving     bool     // a snapshot
	since      uint64   // entries delivered since the last one
	term       uint64
	leading    bool
	leaderID   uint64

	sessions map[leader.SessionID]*session
	waiting  map[string][]func(reply) // clients, by the key of their request
	reads    []*pendingRead
	nextRead uint64

	ticked  time.Time     // by its clock
	stepDue bool          // an event will step the node
	wakeAt  time.Duration // when the node wants to be stepped

	port   int
	book   map[uint64]string // addresses of other leaders that have said where they are
	bodies map[uint64][]byte // snapshots of others that were received, by log position
	gone   bool              // removed from the cluster
}

// boot starts the leader's process from what its disk holds.
func (l *simLeader) boot() {
	l.start()
	l.applied, l.queue, l.handing, l.saving, l.stuck, l.full = 0, nil, false, false, nil, false
	l.term, l.leading, l.leaderID, l.reads, l.stepDue, l.wakeAt, l.told = 0, false, 0, nil, false, 0, nil
	l.sessions, l.waiting = map[leader.SessionID]*session{}, map[string][]func(reply){}
	l.bodies, l.book = map[uint64][]byte{}, map[uint64]string{}
	core, err := replica.NewCore(replica.CoreConfig{
		ID: uint64(l.addr), Address: l.address(), Directory: dirOf(l.addr), ElectionTicks: electionTicks,
		HeartbeatTicks: heartbeatTicks, Start: l.image.start(), State: l.image.state, Entries: slices.Clone(l.image.entries),
		Logger: silent{},
	})
	if err != nil {
		l.w.fail("leader %d does not start: %v", l.addr, err)
		return
	}
	l.core, l.since = core, 0
	l.controller = leader.NewController(leader.ControllerConfig{Cluster: clusterName, Seed: l.rng.Uint64})
	if len(l.image.snaps) > 0 {
		s := l.image.snaps[0]
		l.log(replica.Event{Snapshot: io.NopCloser(bytes.NewReader(s.body)), SnapshotIndex: s.at.Index})
		l.applied = s.at.Index
	}
	l.ticked = l.now()
	l.tick()
	l.pump()
	l.step()
}

// kill ends the process; what it had not fsynced may be lost. With its machine, nobody is told.
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

// Units of raft's time, as the real program has them.
const (
	tickEvery      = 10 * time.Millisecond
	electionTicks  = 50
	heartbeatTicks = 5
	hungAfter      = 500 * time.Millisecond // a save has been under way for so long
)

// tick passes raft's time. After a gap the process knows that it was stopped.
func (l *simLeader) tick() {
	now := l.now()
	if now.Sub(l.ticked) > electionTicks*tickEvery {
		l.core.CatchUp()
	}
	l.ticked = now
	l.core.SetDisk(len(l.disk.busy) > 0 && l.w.now-l.disk.begun > hungAfter, l.full)
	l.core.Tick()
	l.pump()
	l.after(l.world(tickEvery), l.tick)
}

// pump carries out what the consensus wants.
func (l *simLeader) pump() {
	w, err := l.core.Ready()
	if err != nil {
		l.w.fail("leader %d: %v", l.addr, err)
		return
	}
	for _, m := range w.Saves {
		l.save(m, nil)
	}
	for _, m := range w.Messages {
		l.post(m)
	}
	l.queue = append(l.queue, w.Deliveries...)
	l.hand()
	for _, r := range w.Reads {
		for _, p := range l.reads {
			if p.context == string(r.Context) {
				p.index = r.Index
			}
		}
	}
	l.serveReads()
	if l.core.WantsSnapshot() {
		l.snapshot()
	}
	if m := l.core.Members(); m != l.told {
		l.told = m
		l.controller.SetMembers(node.Members(*m))
		l.soon()
	}
	if l.core.Removed() && !l.gone {
		l.gone = true
		l.w.trace("removed", uint64(l.addr))
		l.kill(false)
	}
}

func (l *simLeader) save(m *raftpb.Message, body []byte) {
	bytes := 64
	for _, e := range m.GetEntries() {
		bytes += len(e.GetData()) + 32
	}
	if s := m.GetSnapshot(); s != nil {
		body = l.received(s.GetMetadata().GetIndex())
	}
	l.disk.save(write{
		bytes: bytes,
		apply: func() { l.image.save(m, body, -1) },
		tear: func(rng *rand.Rand) {
			if n := len(m.GetEntries()); n > 0 {
				l.image.save(m, nil, rng.IntN(n))
			}
		},
		done: func(error) {
			l.must(l.core.Saved([]*raftpb.Message{m}))
			l.pump()
		},
	})
}

func (l *simLeader) must(err error) {
	if err != nil {
		l.w.fail("leader %d: %v", l.addr, err)
	}
}

// hand gives the state machine the next delivery, a moment later.
func (l *simLeader) hand() {
	if l.handing || len(l.queue) == 0 {
		return
	}
	l.handing = true
	l.after(between(l.rng, 0, 200*time.Microsecond), func() {
		l.handing = false
		batch := l.queue
		l.queue = nil
		for _, d := range batch {
			if !l.up {
				return
			}
			l.deliver(d)
		}
		l.pump()
		l.step()
	})
}

func (l *simLeader) deliver(d replica.Delivery) {
	if d.Snapshot != nil {
		body := l.received(d.Snapshot.Index)
		d.Event.Snapshot = io.NopCloser(bytes.NewReader(body))
		l.w.trace("installed", uint64(l.addr), d.Snapshot.Index)
		l.w.stats.Installed++
	}
	for _, e := range d.Event.Entries {
		l.w.check.delivered(l.addr, e)
		l.since++
	}
	if !d.Silent {
		l.log(d.Event)
	}
	l.must(l.core.Delivered(d))
	l.applied = l.core.Status().Applied
	if r := d.Event.Role; r != nil {
		l.role(r)
	}
	if l.since >= l.w.cfg.SnapshotEvery {
		l.snapshot()
	}
}

func (l *simLeader) log(e replica.Event) { l.must(node.HandleLog(l.controller, l.now(), e)) }

// role begins or ends what belongs to a term.
func (l *simLeader) role(r *replica.Role) {
	l.w.trace("role", uint64(l.addr), r.Term, r.LeaderID, boolNumber(r.Leader))
	l.leaderID = r.LeaderID
	if l.leading {
		l.endTerm("this node no longer leads")
	}
	l.leading, l.term = r.Leader, r.Term
	if r.Leader {
		l.w.check.leads(l, r.Term)
	}
}

func (l *simLeader) endTerm(why string) {
	l.step()
	for _, id := range sortedKeys(l.sessions) {
		l.closeSession(l.sessions[id], goodbye{reason: why})
	}
	for _, key := range sortedKeys(l.waiting) {
		for _, answer := range l.waiting[key] {
			answer(reply{unknown: true})
		}
	}
	clear(l.waiting)
	l.stuck = nil
}

func (l *simLeader) take(in leader.Input) bool {
	if !l.controller.Handle(in) {
		return false
	}
	l.soon()
	return true
}

// soon steps the node a moment later, with whatever has come until then.
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

// step lets the node act, and carries out its effects.
func (l *simLeader) step() {
	if !l.up {
		return
	}
	e, err := l.controller.Step(l.now())
	if err != nil {
		l.w.fail("leader %d: %v", l.addr, err)
		return
	}
	l.stuck = append(l.stuck, e.Propose...)
	l.propose()
	if book := l.w.check.book(l.term); l.leading {
		book.floor = book.last
	}
	for i := range e.Send {
		if m := e.Send[i].Message.GetWelcome(); m != nil {
			l.w.check.welcomed(l, e.Send[i:])
		}
		l.tell(e.Send[i].Session, e.Send[i].Message)
	}
	for _, c := range e.Close {
		if s := l.sessions[c.Session]; s != nil {
			l.closeSession(s, goodbye{c.Refused, c.Reason})
			l.controller.Handle(leader.Closed{Session: c.Session})
		}
	}
	for i := range e.Replies {
		l.reply(&e.Replies[i])
	}
	l.serveReads()
	l.arm(e.Wake)
}

// arm has the node stepped when it wants to be.
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
	if len(l.stuck) == 0 || l.full || !l.core.Room() {
		return
	}
	if err := l.core.Propose(l.stuck); err == nil {
		l.stuck = nil
		l.pump()
	} else if !errors.Is(err, replica.ErrNotLeader) { // the role will tell
		l.w.fail("leader %d: %v", l.addr, err)
	}
}

// write puts a client's command into the log and answers with what became of it.
func (l *simLeader) write(key string, add func(*state.Entry), answer func(reply)) {
	if l.full || !l.take(leader.Command{Key: key, Add: add}) {
		answer(reply{again: true, leader: l.elsewhere()})
		return
	}
	if l.w.cfg.Plant == EarlyAck && !strings.HasPrefix(key, jobKey) {
		answer(reply{leader: l.addr})
		return
	}
	l.waiting[key] = append(l.waiting[key], answer)
}

// elsewhere is who leads, as far as this node knows.
func (l *simLeader) elsewhere() addr {
	if l.leaderID == uint64(l.addr) {
		return 0
	}
	return addr(l.leaderID)
}

func (l *simLeader) reply(e *state.Event) {
	list := l.waiting[e.Key]
	if len(list) == 0 {
		return // of another node's client, or of one that asked in another term
	}
	l.w.check.acknowledged(l, e)
	list[0](reply{event: *e, index: l.controller.Machine().Index(), leader: l.addr})
	if l.waiting[e.Key] = list[1:]; len(list) == 1 {
		delete(l.waiting, e.Key)
	}
}

// dirOf is the name of a leader's data directory.
func dirOf(a addr) string { return fmt.Sprint("dir", a) }
