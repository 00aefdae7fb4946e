package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
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

// faultKind is the properties of a kind of fault.
type faultKind struct {
	name   string
	worker bool                 // of a worker
	pair   bool                 // of two leaders
	lasts  bool                 // for a while
	size   func(*rand.Rand) int // nil: it has none
	cut    func(f Fault, who, other addr) *cut
}

//nolint:gochecknoglobals // a table
var faultTable = [faultKinds]faultKind{
	KillLeader:    {name: "kill leader", lasts: true},
	PowerLoss:     {name: "power loss", lasts: true},
	PauseLeader:   {name: "pause leader", lasts: true},
	RestartLeader: {name: "restart leader", lasts: true},
	CutLeaders:    {name: "cut leaders", lasts: true, pair: true, cut: func(_ Fault, who, other addr) *cut { return &cut{is(who), is(other), true} }},
	CutOneWay:     {name: "cut one way", lasts: true, pair: true, cut: func(_ Fault, who, other addr) *cut { return &cut{is(who), is(other), false} }},
	CutOff:        {name: "cut off leader", lasts: true, cut: func(_ Fault, who, _ addr) *cut { return &cut{is(who), anyone, true} }},
	CutMute:       {name: "mute leader", lasts: true, cut: func(_ Fault, who, _ addr) *cut { return &cut{is(who), anyone, false} }},
	CutDeaf:       {name: "deafen leader", lasts: true, cut: func(_ Fault, who, _ addr) *cut { return &cut{anyone, is(who), false} }},
	SplitNetwork: {name: "split network", lasts: true, size: upTo(1 << 16), cut: func(f Fault, _, _ addr) *cut {
		side := func(x addr) bool { return lot(uint64(f.Size), uint64(x))%2 == 0 }
		return &cut{side, func(x addr) bool { return !side(x) }, true}
	}},
	BadNetwork:       {name: "bad network", lasts: true, size: func(rng *rand.Rand) int { return 1 + rng.IntN(400) }},
	SlowDisk:         {name: "slow disk", lasts: true},
	HungDisk:         {name: "hung disk", lasts: true},
	FullDisk:         {name: "full disk", lasts: true},
	ClockJump:        {name: "clock jump", size: upTo(60_000)},
	ClockDrift:       {name: "clock drift", lasts: true, size: func(rng *rand.Rand) int { return rng.IntN(40_000) - 20_000 }},
	ReplaceLeader:    {name: "replace leader", pair: true},
	MoveLeader:       {name: "move leader", lasts: true, pair: true},
	KillWorker:       {name: "kill worker", lasts: true, worker: true},
	LoseWorker:       {name: "lose worker", lasts: true, worker: true},
	PauseWorker:      {name: "pause worker", lasts: true, worker: true},
	BreakSession:     {name: "break session", worker: true},
	CutOffWorker:     {name: "cut off worker", lasts: true, worker: true},
	WorkerDiskFull:   {name: "worker disk full", lasts: true, worker: true},
	WorkerClockWrong: {name: "worker clock wrong", lasts: true, worker: true},
	DrainWorker:      {name: "drain worker", worker: true, size: upTo(3)},
	RemoveWorker:     {name: "remove worker", worker: true},
	LoseOutput:       {name: "lose output", worker: true, size: upTo(1 << 16)},
	LeaveProcess:     {name: "leave process", worker: true, lasts: true},
	ChangeInput:      {name: "change input", worker: true, size: upTo(1 << 16)},
	LargeRequest:     {name: "large request"},
	TurnHostile:      {name: "turn hostile", worker: true, lasts: true, size: upTo(1 << 16)},
	StrangerCalls:    {name: "stranger calls", size: upTo(1 << 16)},
	ForgeReports:     {name: "forge reports", worker: true, size: upTo(3)},
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
		if k.worker {
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
