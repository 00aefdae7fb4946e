package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	worker "github.com/bridgefour/bridgefour/internal/worker/core"
)

// FaultKind is a kind of fault.
type FaultKind uint8

// The faults. Who is the leader or worker that has the fault, Other the second one.
const (
	KillLeader    FaultKind = iota // kill -9, and a start after For
	PowerLoss                      // of all machines at once
	PauseLeader                    // SIGSTOP
	RestartLeader                  // SIGTERM: it hands over first
	CutLeaders                     // Who and Other do not reach each other
	CutOneWay                      // Other receives nothing from Who
	CutOff                         // Who neither sends nor receives
	CutMute                        // Who sends nothing
	CutDeaf                        // Who receives nothing
	SplitNetwork                   // into two halves
	BadNetwork                     // messages are late, lost, duplicated
	SlowDisk                       // of a leader
	HungDisk
	FullDisk
	ClockJump  // of a leader, forward by Size milliseconds
	ClockDrift // of a leader, by Size parts in a million
	ReplaceLeader
	MoveLeader // kill -9, and a start at another address
	KillWorker // its process
	LoseWorker // its machine: its connections do not end
	PauseWorker
	BreakSession // of a worker
	CutOffWorker
	WorkerDiskFull
	WorkerClockWrong // by ten minutes: it is refused meanwhile
	DrainWorker      // SIGTERM; Size 1: without waiting for running attempts; 2: by a user
	RemoveWorker     // by the user
	LoseOutput       // a file of a done task is gone, and a worker that wants to read it reports that; Size chooses the file
	LeaveProcess     // the attempts of a worker leave processes behind when they end
	ChangeInput      // a file that a job reads is another one now; Size chooses the file
	LargeRequest     // a submit that no log entry can hold, sent to a leader
	ForgeReports     // a worker reports on leases that it does not hold; Size chooses how they ended
	TurnHostile      // a worker's process is replaced by a malicious one; Size is its seed
	StrangerCalls    // a node that is no member sends a leader messages of raft; Size is the seed of them
	faultKinds
)

// faultKind is what a kind of fault is and does: it cuts links, or happens to a leader or to a worker.
type faultKind struct {
	name     string
	pair     bool                 // of two leaders
	lasts    bool                 // for a while
	size     func(*rand.Rand) int // nil: it has none
	cut      func(f Fault, who, other addr) *cut
	onLeader func(l *simLeader, f Fault)
	onWorker func(s *simWorker, f Fault)
}

var faultTable = [faultKinds]faultKind{
	KillLeader: {name: "kill leader", lasts: true, onLeader: func(l *simLeader, f Fault) {
		l.kill(false)
		l.w.until(f.For, l.revive)
	}},
	PowerLoss: {name: "power loss", lasts: true, onLeader: func(l *simLeader, f Fault) { l.w.powerLoss(f.For) }},
	PauseLeader: {name: "pause leader", lasts: true, onLeader: func(l *simLeader, f Fault) {
		l.pause()
		l.w.until(f.For, l.resume)
	}},
	RestartLeader: {name: "restart leader", lasts: true, onLeader: func(l *simLeader, f Fault) { l.w.restart(l, f.For) }},
	CutLeaders:    {name: "cut leaders", lasts: true, pair: true, cut: func(_ Fault, who, other addr) *cut { return &cut{is(who), is(other), true} }},
	CutOneWay:     {name: "cut one way", lasts: true, pair: true, cut: func(_ Fault, who, other addr) *cut { return &cut{is(who), is(other), false} }},
	CutOff:        {name: "cut off leader", lasts: true, cut: func(_ Fault, who, _ addr) *cut { return &cut{is(who), anyone, true} }},
	CutMute:       {name: "mute leader", lasts: true, cut: func(_ Fault, who, _ addr) *cut { return &cut{is(who), anyone, false} }},
	CutDeaf:       {name: "deafen leader", lasts: true, cut: func(_ Fault, who, _ addr) *cut { return &cut{anyone, is(who), false} }},
	SplitNetwork: {name: "split network", lasts: true, size: upTo(1 << 16), cut: func(f Fault, _, _ addr) *cut {
		side := func(x addr) bool { return lot(uint64(f.Size), uint64(x))%2 == 0 }
		return &cut{side, func(x addr) bool { return !side(x) }, true}
	}},
	BadNetwork: {
		name: "bad network", lasts: true, size: func(rng *rand.Rand) int { return 1 + rng.IntN(400) },
		onLeader: func(l *simLeader, f Fault) { l.w.badNetwork(f, l.addr) },
	},
	SlowDisk: {name: "slow disk", lasts: true, onLeader: func(l *simLeader, f Fault) { l.w.during(f.For, &l.disk.slow) }},
	HungDisk: {name: "hung disk", lasts: true, onLeader: func(l *simLeader, f Fault) { l.w.during(f.For, &l.disk.hung) }},
	FullDisk: {name: "full disk", lasts: true, onLeader: func(l *simLeader, f Fault) {
		l.w.during(f.For, &l.disk.full)
		l.exec(l.diskRoom)
		l.w.until(f.For, func() { l.exec(l.diskRoom) })
	}},
	ClockJump: {name: "clock jump", size: upTo(60_000), onLeader: func(l *simLeader, f Fault) {
		const most = 3 * time.Minute // beyond clockMax of the leader workers are refused
		if l.local(l.w.now)-l.w.now < most {
			l.skew += time.Duration(f.Size) * time.Millisecond
			l.w.jumped = l.w.now
		}
	}},
	ClockDrift: {
		name: "clock drift", lasts: true, size: func(rng *rand.Rand) int { return rng.IntN(40_000) - 20_000 },
		onLeader: func(l *simLeader, f Fault) {
			l.setDrift(int64(f.Size))
			l.w.until(f.For, func() { l.setDrift(0) })
		},
	},
	ReplaceLeader: {name: "replace leader", pair: true, onLeader: func(l *simLeader, _ Fault) { l.w.replace(l) }},
	MoveLeader:    {name: "move leader", lasts: true, pair: true, onLeader: func(l *simLeader, f Fault) { l.w.move(l, f.For) }},
	KillWorker: {name: "kill worker", lasts: true, onWorker: func(s *simWorker, f Fault) {
		s.kill(false)
		s.w.until(f.For, s.revive)
	}},
	LoseWorker: {name: "lose worker", lasts: true, onWorker: func(s *simWorker, f Fault) {
		s.kill(true)
		s.w.until(f.For, s.revive)
	}},
	PauseWorker: {name: "pause worker", lasts: true, onWorker: func(s *simWorker, f Fault) {
		s.pause()
		s.w.until(f.For, func() {
			s.resume()
			s.pausedLast = s.w.now
		})
	}},
	BreakSession: {name: "break session", onWorker: func(s *simWorker, _ Fault) {
		if s.link != nil {
			s.link.conn.snap()
		}
	}},
	CutOffWorker:   {name: "cut off worker", lasts: true, onWorker: func(s *simWorker, f Fault) { s.w.cut(f.For, &cut{is(s.addr), anyone, true}) }},
	WorkerDiskFull: {name: "worker disk full", lasts: true, onWorker: func(s *simWorker, f Fault) { s.w.during(f.For, &s.diskFull) }},
	WorkerClockWrong: {name: "worker clock wrong", lasts: true, onWorker: func(s *simWorker, f Fault) {
		s.w.during(f.For, &s.wrongTime)
		s.w.until(f.For, func() { s.wrongUntil = s.w.now })
	}},
	DrainWorker: {name: "drain worker", size: upTo(3), onWorker: func(s *simWorker, f Fault) {
		if f.Size == 2 {
			s.w.setWorker(s, state.WorkerDraining)
			return
		}
		s.exec(func() { s.step(worker.Drain{StopRunning: f.Size == 1}) })
	}},
	RemoveWorker: {name: "remove worker", onWorker: func(s *simWorker, _ Fault) {
		s.wasRemoved = s.w.setWorker(s, state.WorkerRemoved) || s.wasRemoved
	}},
	LoseOutput: {name: "lose output", size: upTo(1 << 16), onWorker: func(s *simWorker, f Fault) {
		if lease := s.w.store.lose(f.Size); lease != 0 {
			s.exec(func() { s.reportLost(lease) })
		}
	}},
	LeaveProcess:  {name: "leave process", lasts: true, onWorker: func(s *simWorker, f Fault) { s.w.during(f.For, &s.leaving) }},
	ChangeInput:   {name: "change input", size: upTo(1 << 16), onWorker: func(s *simWorker, f Fault) { s.w.inputs.change(s.w, f.Size) }},
	LargeRequest:  {name: "large request", onLeader: func(l *simLeader, _ Fault) { l.exec(l.largeRequest) }},
	TurnHostile:   {name: "turn hostile", lasts: true, size: upTo(1 << 16), onWorker: (*simWorker).turnHostile},
	StrangerCalls: {name: "stranger calls", size: upTo(1 << 16), onLeader: func(l *simLeader, f Fault) { l.exec(func() { l.visit(f) }) }},
	ForgeReports:  {name: "forge reports", size: upTo(3), onWorker: func(s *simWorker, f Fault) { s.exec(func() { s.forge(f.Size) }) }},
}

func upTo(n int) func(*rand.Rand) int { return func(rng *rand.Rand) int { return rng.IntN(n) } }

func (k FaultKind) String() string {
	if k < faultKinds {
		return faultTable[k].name
	}
	return fmt.Sprintf("fault %d", uint8(k))
}

// Fault is one fault. It is drawn before the world starts, so that it can be left out.
type Fault struct {
	At, For    time.Duration
	Kind       FaultKind
	Who, Other int // numbers of leaders or workers, from 0
	Size       int
}

func (f Fault) String() string {
	s := fmt.Sprintf("%9.3fs %s %d", f.At.Seconds(), f.Kind, f.Who)
	if faultTable[f.Kind].pair {
		s += fmt.Sprintf(", %d", f.Other)
	}
	if f.For > 0 {
		s += fmt.Sprintf(" for %.3fs", f.For.Seconds())
	}
	if f.Size != 0 {
		s += fmt.Sprintf(" (%d)", f.Size)
	}
	return s
}

// OfLeaders returns the faults of leaders alone, in which no attempt is run again.
func OfLeaders() []FaultKind {
	return []FaultKind{KillLeader, PauseLeader, RestartLeader, HungDisk, SlowDisk, ClockDrift}
}

// plan draws the faults of a world from some kinds.
func plan(rng *rand.Rand, c *Config, kinds []FaultKind) []Fault {
	var list []Fault
	if len(kinds) == 0 {
		return nil
	}
	for at := between(rng, 0, 2*c.Pace); at < c.Span; at += between(rng, 0, 2*c.Pace) {
		f := Fault{At: at, Kind: kinds[rng.IntN(len(kinds))]}
		k := &faultTable[f.Kind]
		long := between(rng, 10*time.Millisecond, []time.Duration{time.Second, 3 * time.Second, 8 * time.Second}[rng.IntN(3)])
		if k.lasts {
			f.For = long
		}
		f.Who = rng.IntN(c.Leaders)
		if k.onWorker != nil {
			f.Who = rng.IntN(c.Workers)
		}
		if k.pair {
			f.Other = (f.Who + 1 + rng.IntN(max(1, c.Leaders-1))) % c.Leaders
		}
		if k.size != nil {
			f.Size = k.size(rng)
		}
		if !k.pair || c.Leaders > 1 {
			list = append(list, f)
		}
	}
	return list
}

func allFaults() []FaultKind {
	list := make([]FaultKind, faultKinds)
	for i := range list {
		list[i] = FaultKind(i)
	}
	return list
}

// someFaults draws the kinds of fault of a world: few kinds that often coincide find more than many that seldom do.
func someFaults(rng *rand.Rand) []FaultKind {
	all := allFaults()
	switch rng.IntN(6) {
	case 0:
		return all
	case 1:
		return OfLeaders()
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	kinds := all[:1+rng.IntN(6)]
	slices.Sort(kinds)
	return kinds
}
