package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
	worker "github.com/bridgefour/bridgefour/internal/worker/core"
)

// simWorker is one worker: the real core, and a driver whose attempts only take time.
type simWorker struct {
	process

	number   int
	rng      *rand.Rand
	identity string
	slots    int
	memory   uint64            // for attempts; 0: not limited
	kept     worker.Membership // in its data directory
	id       uint64            // its number in the cluster; 0: none yet

	core     *worker.Core
	link     *end   // nil: none
	epoch    uint64 // of the link
	refused  bool   // by a leader: it connects again
	running  []*run // by slot; nil: idle
	wakeAt   time.Duration
	stepping bool
	inputs   []worker.Input // for the core, while it is being stepped

	diskFull   int           // number of faults in which its disk is full
	wrongTime  int           // number of faults in which its clock is wrong
	wrongUntil time.Duration // when its clock was last wrong
	wasRemoved bool          // by a user, at some time
	givenUp    time.Duration // when the log last had it as dead, or removed
	pausedLast time.Duration // when it was last resumed

	hostile *hostile // runs instead of the core; nil: none

	leaving int      // number of faults in which its attempts leave processes behind
	left    []uint64 // by slot: the lease of an attempt of which a process lives after its end; 0: none
}

// run is the chunk that a slot runs.
type run struct {
	chunk   *worker.Chunk
	entry   int // of chunk
	attempt *attempt
	stopped bool
	begun   time.Duration
	seq     int // number of the attempt: ends of earlier ones are ignored
}

// graceDefault is that of jobs that say no other.
const graceDefault = 2 * time.Second

const (
	clusterName = "sim"
	clusterID   = "0123456789abcdef"
)

var (
	errNobody = errors.New("connection refused")
	errBroken = errors.New("connection reset")
)

// addressOf is the address of a leader: its machine's, and a port that changes when it moves.
func addressOf(leader addr, port int) string {
	return net.JoinHostPort(fmt.Sprintf("10.0.%d.%d", leader/250, leader%250), strconv.Itoa(port))
}

// leaderAt returns the leader with an address; nil if there is none.
func (w *World) leaderAt(address string) *simLeader {
	for _, l := range w.order {
		if l.address() == address {
			return l
		}
	}
	return nil
}

// boot starts the worker's process.
func (s *simWorker) boot() {
	s.start()
	s.running, s.left = make([]*run, s.slots), make([]uint64, s.slots)
	s.link, s.inputs, s.wakeAt, s.refused = nil, nil, 0, false
	s.core = worker.New(worker.Config{
		Hello: &wire.Hello{
			Identity: s.identity, Incarnation: s.identity + "-" + strconv.Itoa(s.life), Version: "sim", Host: "worker",
			Address: fmt.Sprintf("10.1.%d.%d:%d", s.number/250, s.number%250, 7000+s.life), Slots: uint32(s.slots), Memory: s.memory, ClusterName: clusterName,
			Protocol: wire.Protocol, ProtocolMin: wire.ProtocolMin,
		},
		Leaders: s.w.addresses(), Known: s.kept.Leaders, ClusterID: s.kept.ClusterID,
		DrainGrace: 2 * time.Second, Seed: s.rng.Uint64(),
	})
	s.after(between(s.rng, 0, 20*time.Millisecond), func() { s.step() })
}

// kill ends its process; quiet: its machine, so that connections do not end.
func (s *simWorker) kill(quiet bool) {
	if !s.up {
		return
	}
	for _, r := range s.running {
		if r != nil && r.attempt != nil {
			s.w.oracle.attemptEnded(r.attempt, attemptLost)
		}
	}
	if s.link != nil {
		if quiet {
			s.link.lose()
		} else {
			s.link.close()
		}
	}
	s.link = nil
	s.hostile.stop(quiet)
	s.die(quiet)
	if quiet {
		s.w.store.forgetUnsynced(s.number)
	}
}

// step steps the core and carries out the effects. Inputs that these cause are for the next step.
func (s *simWorker) step(inputs ...worker.Input) {
	if s.hostile != nil {
		return
	}
	s.inputs = append(s.inputs, inputs...)
	if s.stepping {
		return
	}
	s.stepping = true
	var wake time.Time
	for again := true; again && s.up; again = len(s.inputs) > 0 {
		inputs := s.inputs
		s.inputs = nil
		effects := s.core.Step(s.now(), inputs...)
		wake = effects.Wake
		for _, e := range effects.List {
			s.carryOut(e)
		}
	}
	s.stepping = false
	s.arm(wake)
}

// arm schedules the step at wake.
func (s *simWorker) arm(wake time.Time) {
	if wake.IsZero() || !s.up {
		return
	}
	at := s.w.now + max(0, s.world(wake.Sub(s.now())))
	if s.wakeAt > s.w.now && s.wakeAt <= at {
		return // it will be stepped before
	}
	s.wakeAt = at
	s.after(at-s.w.now, func() {
		if s.wakeAt == at {
			s.wakeAt = 0
		}
		s.step()
	})
}

func (s *simWorker) carryOut(e worker.Effect) {
	s.w.trace("worker", uint64(s.number), kindOf(e))
	switch e := e.(type) {
	case worker.Connect:
		s.connect(e)
	case worker.Disconnect:
		if s.link != nil && s.epoch == e.Epoch {
			s.link.close()
			s.link = nil
		}
	case worker.Send:
		s.send(e)
	case worker.Start:
		s.running[e.Slot] = &run{chunk: e.Chunk}
		s.next(e.Slot)
	case worker.Stop:
		s.stop(e.Slot)
	case worker.Sync:
		s.sync(e)
	case worker.Remove:
		for _, f := range e.Files {
			s.w.store.remove(f.Lease, s.number)
		}
	case worker.RemoveStage:
		s.w.store.removeStage(e)
	case worker.Welcomed:
		s.refused, s.id = false, e.Welcome.GetWorker()
		s.w.trace("welcomed", uint64(s.number), e.Welcome.GetWorker(), e.Welcome.GetTerm())
		for _, lease := range e.Welcome.GetRevoked() {
			s.w.oracle.toldStale(s, lease)
		}
	case worker.SaveMembership:
		s.kept = e.Membership
	case worker.Refused:
		s.refused = true
		s.w.oracle.refused(s, e.Err)
	case worker.BadMessage:
		s.w.fail("worker %d got a bad message: %s (job %d, lease %d)", s.number, e.Reason, e.Job, e.Lease)
	case worker.Exit:
		s.exit()
	case worker.SendLog, worker.Discover, worker.LeaderLost, worker.Unled, worker.NoLeader, worker.StaleLeader, worker.DiscoveryFailed,
		worker.InviteAnswered, worker.DrainOrdered, worker.Released:
	}
}

// exit ends a drain. The process is started again.
func (s *simWorker) exit() {
	s.w.trace("exit", uint64(s.number))
	s.kill(false)
	s.w.after(between(s.rng, 0, 2*time.Second), func() {
		if !s.up {
			s.boot()
		}
	})
}

// connect dials a leader.
func (s *simWorker) connect(e worker.Connect) {
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
	s.epoch = e.Epoch
	ended := func(err error, refused bool) {
		s.step(worker.SessionEnded{Epoch: e.Epoch, Err: err, Refused: refused})
	}
	to := s.w.leaderAt(e.Leader)
	if to == nil {
		s.after(latencyMax, func() { ended(errNobody, false) })
		return
	}
	hello := e.Hello
	if s.wrongTime > 0 {
		hello.UnixMs -= (10 * time.Minute).Milliseconds()
	}
	s.w.trace("connect", uint64(s.number), uint64(to.addr), uint64(len(hello.GetHeld())))
	here := s.w.net.dial(&s.process, &to.process, func(there *end) { to.accept(there, hello) }, func() { ended(errNobody, false) })
	here.recv = func(m any) {
		switch m := m.(type) {
		case *wire.ToWorker:
			s.heard(m)
			s.step(worker.Received{Epoch: e.Epoch, Message: m})
		case endOfSession:
			here.close()
			ended(m.err(e.Leader), m.refused)
		}
	}
	here.broken = func() { ended(errBroken, false) }
	s.link = here
}

// heard checks the verdicts of a leader.
func (s *simWorker) heard(m *wire.ToWorker) {
	w := m.GetWork()
	for _, lease := range w.GetCommitted() {
		s.w.oracle.toldCommitted(s, lease)
	}
	for _, lease := range w.GetStale() {
		s.w.oracle.toldStale(s, lease)
	}
}

func (s *simWorker) send(e worker.Send) {
	if s.link == nil || s.epoch != e.Epoch {
		return
	}
	s.link.send(e.Message)
	switch {
	case e.Urgent:
	case s.w.cfg.Plain: // one event less
		s.inputs = append(s.inputs, worker.Sent{Epoch: e.Epoch})
	default:
		s.after(latencyMin, func() { s.step(worker.Sent{Epoch: e.Epoch}) })
	}
}

// next starts the next attempt of a slot's chunk, or reports the slot as idle.
func (s *simWorker) next(slot int) {
	r := s.running[slot]
	r.attempt = nil
	i, ok := r.chunk.Claim()
	if !ok {
		s.running[slot] = nil
		s.step(worker.SlotIdle{Slot: slot})
		return
	}
	r.entry, r.begun, r.stopped = i, s.w.now, false
	r.seq++
	r.attempt = s.w.oracle.attemptStarted(s, r.chunk, i)
	if r.attempt == nil {
		return
	}
	s.w.oracle.slotUsed(s, slot)
	s.w.oracle.roomUsed(s)
	fate := s.w.fate(r.attempt, r.chunk.AttemptNumber(i))
	if s.number == 0 {
		fate.takes *= time.Duration(max(1, s.w.cfg.Slow))
	}
	if fate.failure = s.open(r, fate.failure); fate.failure != nil {
		fate.takes = min(fate.takes, time.Millisecond)
	}
	s.ends(slot, r, fate.takes, func() { s.cleared(slot, r, func() { s.ended(slot, r, fate) }) })
}

// cleared ends an attempt, whose own process has ended, once the keeper has killed the processes that it has left behind.
func (s *simWorker) cleared(slot int, r *run, end func()) {
	if s.leaving == 0 {
		end()
		return
	}
	lease := r.chunk.Lease(r.entry)
	s.left[slot] = lease
	gone := func() {
		if s.left[slot] == lease {
			s.left[slot] = 0
		}
	}
	if s.w.cfg.Plant == ReuseSlot {
		s.after(between(s.rng, 0, 2*time.Second), gone)
		end()
		return
	}
	s.ends(slot, r, between(s.rng, 0, 10*time.Millisecond), func() {
		gone()
		end()
	})
}

// open opens the input of an attempt, and returns the failure of the attempt: that of its fate, or that the file has changed.
func (s *simWorker) open(r *run, fate *wire.Failure) *wire.Failure {
	files := r.chunk.Split(r.entry).GetFiles().GetList()
	if file := r.chunk.Split(r.entry).GetFile(); file != nil {
		files = append(files, file)
	}
	r.attempt.read = nil
	for _, f := range files {
		version := s.w.inputs.version(string(f.GetPath()))
		r.attempt.read = append(r.attempt.read, version)
		if s.w.cfg.Plant != TrustInput && f.GetModifiedUnixNs() != 0 && version != f.GetModifiedUnixNs() {
			fate = &wire.Failure{Kind: wire.FailureKind_BAD_INPUT, Message: "the file has changed"}
		}
	}
	return fate
}

// ends calls do after a while, unless the attempt of the slot has ended before.
func (s *simWorker) ends(slot int, r *run, after time.Duration, do func()) {
	seq := r.seq
	s.after(after, func() {
		if s.running[slot] == r && r.seq == seq && r.attempt != nil {
			do()
		}
	})
}

// ended ends an attempt, successful or not.
func (s *simWorker) ended(slot int, r *run, f fate) {
	a := r.attempt
	res := worker.Result{Nanos: int64(s.w.now - r.begun), Size: f.size, Records: f.size / 8, Checksum: f.size * 31, Input: 8}
	why := f.failure
	if why == nil {
		why = s.open(r, nil) // it was read to its end: it must be the same still
	}
	if lost := s.w.store.lostInput(a.job, a.stage); why == nil && lost != 0 {
		s.reportLost(lost)
		why = &wire.Failure{Kind: wire.FailureKind_PREEMPTED, Message: "an input is lost"}
	}
	if why == nil && r.chunk.Action != wire.CommitAction_COMMIT_ACTION_UNSPECIFIED {
		why = s.w.store.publish(a, r.chunk)
	}
	if why != nil {
		s.w.oracle.attemptEnded(a, attemptFailed)
		r.chunk.Finish(r.entry, worker.Result{Nanos: res.Nanos, Failure: why})
	} else {
		s.w.oracle.attemptEnded(a, attemptFinished)
		a.inputs = s.w.oracle.inputs(a.job, a.stage)
		if f.size > 0 {
			res.File = true
			s.w.store.add(a, r.chunk.Lease(r.entry), s.number)
			a.size = f.size
		}
		r.chunk.Finish(r.entry, res)
	}
	s.next(slot)
}

// reportLost reports that the output of a lease cannot be read.
func (s *simWorker) reportLost(lease state.Lease) {
	if s.link == nil {
		return // the next one that wants to read it reports it
	}
	a := s.w.oracle.attempt(lease)
	s.link.send(&wire.FromWorker{Message: &wire.FromWorker_Report{Report: &wire.Report{Lost: []*wire.OutputLost{
		{Job: uint64(a.job), Stage: a.stage, Index: a.task, Lease: uint64(lease)},
	}}}})
}

// stop cancels an attempt: most end soon, some are killed after their grace, unless they have ended by then.
func (s *simWorker) stop(slot int) {
	r := s.running[slot]
	if r == nil || r.attempt == nil || r.stopped {
		return
	}
	r.stopped = true
	after := between(s.rng, 0, 30*time.Millisecond)
	if oneIn(s.rng, 5) {
		after = graceDefault
	}
	s.ends(slot, r, after, func() {
		s.cleared(slot, r, func() {
			s.w.oracle.attemptEnded(r.attempt, attemptCanceled)
			r.chunk.Finish(r.entry, worker.Result{Nanos: int64(s.w.now - r.begun), Canceled: true})
			s.next(slot)
		})
	})
}

func (s *simWorker) sync(e worker.Sync) {
	leases := make([]uint64, len(e.Files))
	for i, f := range e.Files {
		leases[i] = f.Lease
	}
	s.after(between(s.rng, syncMin, syncMax), func() {
		var errs []error
		if s.diskFull > 0 {
			errs = make([]error, len(leases))
			for i := range errs {
				errs[i] = errFull
			}
		} else {
			s.w.store.synced(leases)
		}
		s.step(worker.Synced{Errs: errs})
	})
}
