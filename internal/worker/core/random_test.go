package core

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// randomWorld is a leader, slots and a disk that do as a seed says, in virtual time, and check the core at each step.
type randomWorld struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand
	core *Core
	now  time.Time
	wake time.Time

	leaders randomLeaders
	epoch   uint64
	up      bool
	onWire  int
	next    uint64 // lease
	jobs    uint64
	told    map[uint64]bool
	ended   map[uint64]bool
	leases  map[uint64]*randomLease
	slots   []*Chunk
	stopped []bool
	atDisk  []AttemptRef
	goodbye bool
	exited  bool
	trace   hash.Hash64 // of all effects
}

// randomLease is what the world knows of one lease.
type randomLease struct {
	job      uint64
	claimed  bool
	file     bool
	result   string // what the leader heard, in the present session if it was finished
	finished bool   // heard in any session
	verdict  string // committed, stale or ended: said by the leader
	revoked  bool
	removed  bool
}

func (w *randomWorld) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *randomWorld) step(inputs ...Input) {
	effects := w.core.Step(w.now, inputs...)
	w.wake = effects.Wake
	for _, e := range effects.List {
		if w.exited {
			w.fatalf("%T after Exit", e)
		}
		w.take(e)
	}
	for state, n := range w.core.ledger.counts {
		if n < 0 {
			w.fatalf("%d leases in state %d", n, state)
		}
	}
}

func (w *randomWorld) take(e Effect) {
	w.note(e)
	switch e := e.(type) {
	case Connect:
		w.epoch, w.up, w.onWire = e.Epoch, false, 0
		w.dials(e.Leader)
		held := map[uint64]bool{}
		for _, h := range e.Hello.GetHeld() {
			if held[h.GetLease()] {
				w.fatalf("lease %d is held twice", h.GetLease())
			}
			held[h.GetLease()] = true
			if l := w.leases[h.GetLease()]; l.verdict == "committed" || l.verdict == "stale" && l.result == "finished" {
				w.fatalf("lease %d is held after its verdict %q", h.GetLease(), l.verdict)
			}
		}
		for lease, l := range w.leases {
			if l.result == "finished" && l.verdict == "" && !held[lease] {
				w.fatalf("lease %d finished, has no verdict, and is not held", lease)
			}
			if l.result == "finished" {
				l.result = "" // to be told again
			}
			// What the leader does not find in the Hello it takes for free.
			if !held[lease] && l.result == "" {
				l.result = "absent"
			}
		}
	case Disconnect:
		w.up = false
	case Send:
		w.sent(e)
	case Start:
		if w.slots[e.Slot] != nil {
			w.fatalf("start of slot %d, which is busy", e.Slot)
		}
		w.slots[e.Slot], w.stopped[e.Slot] = e.Chunk, false
	case Stop:
		w.stopped[e.Slot] = true
	case Sync:
		if w.atDisk != nil {
			w.fatalf("two syncs at once")
		}
		w.atDisk = e.Files
	case Remove:
		for _, f := range e.Files {
			l := w.leases[f.Lease]
			if l.verdict == "committed" {
				w.fatalf("the file of the winner %d is removed", f.Lease)
			}
			l.removed = true
		}
	case Exit:
		w.exited = true
	case Discover:
		if w.leaders.looking {
			w.fatalf("two looks at once")
		}
		w.leaders.looking = true
	case SendLog, Welcomed, SaveMembership, LeaderLost, NoLeader, StaleLeader, DiscoveryFailed, Refused, InviteAnswered:
	case BadMessage:
		w.fatalf("misled: %+v", e)
	}
}

// note adds an effect to the trace.
func (w *randomWorld) note(e Effect) {
	var m proto.Message
	switch e := e.(type) {
	case Connect:
		m = e.Hello
	case Send:
		m = e.Message
	case Start:
		_, _ = fmt.Fprint(w.trace, e.Slot, e.Chunk.FirstLease, e.Chunk.Len())
	case Sync:
		_, _ = fmt.Fprint(w.trace, len(e.Files))
	case Remove:
		_, _ = fmt.Fprint(w.trace, len(e.Files))
	case Stop, Disconnect, Welcomed, SendLog, BadMessage, Exit, SaveMembership, LeaderLost, NoLeader, Discover, StaleLeader, DiscoveryFailed, Refused, InviteAnswered:
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		w.fatalf("marshal: %v", err)
	}
	_, _ = fmt.Fprintf(w.trace, "%T%x", e, raw)
}

func (w *randomWorld) sent(s Send) {
	if s.Epoch != w.epoch || !w.up {
		w.fatalf("send without a session")
	}
	if s.Urgent {
		return
	}
	if w.onWire++; w.onWire > ReportsInFlight+1 {
		w.fatalf("%d messages on the wire", w.onWire)
	}
	if s.Message.GetGoodbye() != nil {
		w.goodbye = true
		return
	}
	heard := func(lease uint64, what string) {
		l := w.leases[lease]
		if l == nil {
			w.fatalf("%s of lease %d, which was never granted", what, lease)
		}
		if l.result != "" && l.result != "absent" {
			w.fatalf("lease %d is %s after it was %s", lease, what, l.result)
		}
		l.result = what
		l.finished = l.finished || what == "finished"
	}
	r := s.Message.GetReport()
	for _, f := range r.GetFinished() {
		for _, lease := range f.GetLease() {
			if !w.leases[lease].claimed {
				w.fatalf("lease %d finished and was never run", lease)
			}
			heard(lease, "finished")
		}
	}
	for _, f := range r.GetFailed() {
		heard(f.GetLease(), "failed")
	}
	for _, lease := range r.GetReturned() {
		heard(lease, "returned")
	}
}

func (w *randomWorld) work(m *wire.Work) {
	w.step(Received{w.epoch, &wire.ToWorker{Message: &wire.ToWorker_Work{Work: m}}})
}

func (w *randomWorld) grant() {
	if !w.talks() || w.goodbye {
		return
	}
	m := &wire.Work{}
	job := 1 + w.rng.Uint64N(w.jobs+1)
	w.jobs = max(w.jobs, job)
	if w.ended[job] {
		return
	}
	if !w.told[job] {
		w.told[job] = true
		m.Jobs = []*wire.Job{jobMessage(job)}
	}
	leases := &wire.Leases{Job: job, FirstLease: w.next}
	for range 1 + w.rng.IntN(20) {
		w.leases[w.next] = &randomLease{job: job}
		leases.Index = append(leases.Index, w.next)
		w.next++
	}
	w.next += w.rng.Uint64N(3)
	m.Leases = []*wire.Leases{leases}
	w.work(m)
}

// runSlot lets a slot do one step of what it has.
func (w *randomWorld) runSlot() {
	slot := w.rng.IntN(len(w.slots))
	ch := w.slots[slot]
	if ch == nil {
		return
	}
	if i, running := ch.Running(); running {
		r := Result{Nanos: w.rng.Int64N(2000), File: w.rng.IntN(3) == 0}
		switch {
		case w.stopped[slot] && w.rng.IntN(2) == 0:
			r = Result{Canceled: true}
		case w.rng.IntN(10) == 0:
			r = Result{Failure: &wire.Failure{Kind: wire.FailureKind_PROGRAM_ERROR}}
		}
		w.leases[ch.Lease(i)].file = r.File
		ch.Finish(i, r)
		return
	}
	i, ok := ch.Claim()
	if !ok {
		w.slots[slot] = nil
		w.step(SlotIdle{slot})
		return
	}
	l := w.leases[ch.Lease(i)]
	if l == nil {
		w.fatalf("lease %d is run, which came in a session that is over", ch.Lease(i))
	}
	if l.claimed {
		w.fatalf("lease %d is run twice", ch.Lease(i))
	}
	if l.verdict == "stale" {
		w.fatalf("lease %d is run after it was called stale", ch.Lease(i))
	}
	l.claimed = true
}

// judge gives some verdicts.
func (w *randomWorld) judge() {
	if !w.talks() {
		return
	}
	m := &wire.Work{}
	for _, lease := range slices.Sorted(maps.Keys(w.leases)) {
		l := w.leases[lease]
		if l.verdict != "" || w.rng.IntN(4) > 0 {
			continue
		}
		switch {
		case l.result == "finished" && w.rng.IntN(3) > 0:
			l.verdict = "committed"
			m.Committed = append(m.Committed, lease)
		case l.result == "finished" || l.result == "" && w.rng.IntN(20) == 0:
			l.verdict = "stale"
			m.Stale = append(m.Stale, lease)
		}
	}
	w.work(m)
}

func (w *randomWorld) endJob() {
	if !w.talks() || w.jobs == 0 {
		return
	}
	job := 1 + w.rng.Uint64N(w.jobs)
	if w.told[job] && !w.ended[job] {
		w.ended[job] = true
		w.work(&wire.Work{Ended: []uint64{job}})
	}
}

func (w *randomWorld) welcome() {
	w.up = true
	clear(w.told)
	m := w.welcomeOf(w.leaders.dialed)
	for _, lease := range slices.Sorted(maps.Keys(w.leases)) {
		l := w.leases[lease]
		// A winner is never revoked; what was told before may be.
		if l.verdict == "" && l.result == "" && (w.ended[l.job] || w.rng.IntN(10) == 0) {
			l.verdict = "stale"
			l.revoked = true
			m.Revoked = append(m.Revoked, lease)
		}
	}
	w.step(Received{w.epoch, &wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: m}}})
}

func (w *randomWorld) disk() {
	if w.atDisk == nil {
		return
	}
	var errs []error
	if w.rng.IntN(4) == 0 {
		errs = make([]error, len(w.atDisk))
		errs[w.rng.IntN(len(errs))] = errors.New("disk full")
	}
	w.atDisk = nil
	w.step(Synced{errs})
}

func (w *randomWorld) sender() {
	if w.up && w.onWire > 0 {
		w.onWire--
		w.step(Sent{w.epoch})
	}
}

func (w *randomWorld) tick() {
	answers := w.core.session.phase == sessionDialing && (w.leaders.dialed == nil || !w.leaders.dialed.stopped) // in less time
	if wake := w.wake; !wake.IsZero() && !answers && w.rng.IntN(2) == 0 && wake.After(w.now) {
		w.now = wake
	} else {
		w.now = w.now.Add(time.Duration(w.rng.Int64N(int64(3 * time.Millisecond))))
	}
	if w.talks() {
		w.step(Received{w.epoch, &wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}}})
		return
	}
	w.step()
}

// TestCoreRandom has seeds decide what happens, checks the package's promises at each step, and that a drain then ends
// with nothing held.
func TestCoreRandom(t *testing.T) {
	for seed := range uint64(100) {
		first := runRandomWorld(t, seed)
		if seed%10 == 0 && runRandomWorld(t, seed) != first {
			t.Errorf("seed %d: two runs differ", seed)
		}
	}
}

// runRandomWorld gives the trace of one seed.
func runRandomWorld(t *testing.T, seed uint64) uint64 {
	t.Helper()
	w := &randomWorld{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0), next: 1000,
		trace: fnv.New64a(), told: map[uint64]bool{}, ended: map[uint64]bool{}, leases: map[uint64]*randomLease{},
	}
	slots := 1 + w.rng.IntN(4)
	w.slots, w.stopped = make([]*Chunk, slots), make([]bool, slots)
	w.openLeaders()
	w.core = New(Config{
		Hello: &wire.Hello{Slots: uint32(slots)}, Leaders: w.addresses(), Discovers: w.leaders.looks, DrainGrace: time.Second, Seed: seed,
	})
	w.step()
	actions := []func(){w.grant, w.runSlot, w.judge, w.endJob, w.session, w.disk, w.sender, w.tick, w.changeLeaders, w.late, w.answerLook}
	weights := []int{4, 60, 6, 1, 10, 10, 10, 10, 2, 1, 5}
	var lots []int
	for i, n := range weights {
		for range n {
			lots = append(lots, i)
		}
	}
	for range 3000 {
		actions[lots[w.rng.IntN(len(lots))]]()
	}
	w.finish()
	return w.trace.Sum64()
}

// finish lets the leader stay and the worker drain.
func (w *randomWorld) finish() {
	w.attach()
	w.step(Drain{})
	for i := 0; !w.exited; i++ {
		if i > 200_000 {
			w.fatalf("the drain has no end")
		}
		w.runSlot()
		w.disk()
		w.judge()
		w.sender()
		w.tick()
	}
	if !w.goodbye {
		w.fatalf("left without a goodbye though there is a leader")
	}
	for lease, l := range w.leases {
		if l.result == "" && !l.revoked {
			w.fatalf("the leader has never heard of lease %d (%+v)", lease, *l)
		}
		// Lost by its verdict, and its file not removed: a leak.
		if l.file && !l.removed && l.verdict == "stale" {
			w.fatalf("the file of lease %d, which lost, is left (%+v)", lease, *l)
		}
	}
}
