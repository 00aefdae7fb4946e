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

// randomWorld is leaders, slots and a disk that act randomly, by a seed, in virtual time, and check the core at each step.
type randomWorld struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	core    *Core
	now     time.Time
	wake    time.Time
	waiting []Input // for the next step

	leaders   randomLeaders
	epoch     uint64
	up        bool
	inFlight  int
	next      uint64 // lease
	jobs      uint64
	described map[uint64]bool // jobs in this session
	ended     map[uint64]bool
	leases    map[uint64]*randomLease
	slots     []*Chunk
	stopped   []bool
	atDisk    []ToSync
	drained   bool
	exited    bool
	trace     hash.Hash64 // of all effects
}

// randomLease is the state of one lease.
type randomLease struct {
	job      uint64
	claimed  bool
	file     bool
	result   string // reported: if finished, in this session
	finished bool   // reported in any session
	verdict  string // of the leader: committed, stale or ended
	revoked  bool
	removed  bool
}

func (w *randomWorld) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *randomWorld) step(inputs ...Input) {
	inputs = append(w.waiting, inputs...)
	w.waiting = nil
	effects := w.core.Step(w.now, inputs...)
	w.wake = effects.Wake
	for _, e := range effects.List {
		if w.exited {
			w.fatalf("%T after Exit", e)
		}
		w.carryOut(e)
	}
	for state, n := range w.core.ledger.counts {
		if n < 0 {
			w.fatalf("%d leases in state %d", n, state)
		}
	}
}

// stepLater passes an input to the core alone, or together with the next ones.
func (w *randomWorld) stepLater(in Input) {
	if w.rng.IntN(3) > 0 {
		w.step(in)
		return
	}
	w.waiting = append(w.waiting, in)
}

func (w *randomWorld) carryOut(e Effect) {
	w.record(e)
	switch e := e.(type) {
	case Connect:
		w.epoch, w.up, w.inFlight = e.Epoch, false, 0
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
				l.result = "" // to be reported again
			}
			// The leader takes a lease that is absent from the Hello for returned.
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
			w.fatalf("start of busy slot %d", e.Slot)
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
		if w.leaders.discovering {
			w.fatalf("two discoveries at once")
		}
		w.leaders.discovering = true
	case SendLog, Welcomed, SaveMembership, LeaderLost, Unled, NoLeader, StaleLeader, DiscoveryFailed, Refused, InviteAnswered:
	case BadMessage:
		w.fatalf("bad message: %+v", e)
	}
}

// record adds an effect to the trace.
func (w *randomWorld) record(e Effect) {
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
	case Stop, Disconnect, Welcomed, SendLog, BadMessage, Exit, SaveMembership, LeaderLost, Unled, NoLeader, Discover, StaleLeader, DiscoveryFailed, Refused, InviteAnswered:
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
	if w.inFlight++; w.inFlight > ReportsInFlight+1 {
		w.fatalf("%d messages in flight", w.inFlight)
	}
	if s.Message.GetGoodbye() != nil {
		w.drained = true
		return
	}
	reported := func(lease uint64, what string) {
		l := w.leases[lease]
		if l == nil {
			w.fatalf("%s of lease %d, which was not granted", what, lease)
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
				w.fatalf("lease %d finished without having run", lease)
			}
			reported(lease, "finished")
		}
	}
	for _, f := range r.GetFailed() {
		reported(f.GetLease(), "failed")
	}
	for _, lease := range r.GetReturned() {
		reported(lease, "returned")
	}
}

func (w *randomWorld) work(m *wire.Work) {
	w.step(Received{w.epoch, &wire.ToWorker{Message: &wire.ToWorker_Work{Work: m}}})
}

func (w *randomWorld) grant() {
	if !w.talks() || w.drained {
		return
	}
	m := &wire.Work{}
	job := 1 + w.rng.Uint64N(w.jobs+1)
	w.jobs = max(w.jobs, job)
	if w.ended[job] {
		return
	}
	if !w.described[job] {
		w.described[job] = true
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

// runSlot starts or ends one attempt of a slot.
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
		w.stepLater(SlotIdle{slot})
		return
	}
	l := w.leases[ch.Lease(i)]
	if l == nil {
		w.fatalf("lease %d of an ended session is run", ch.Lease(i))
	}
	if l.claimed {
		w.fatalf("lease %d is run twice", ch.Lease(i))
	}
	if l.verdict == "stale" {
		w.fatalf("lease %d is run after it was called stale", ch.Lease(i))
	}
	l.claimed = true
}

// sendVerdicts sends some verdicts.
func (w *randomWorld) sendVerdicts() {
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
	if w.described[job] && !w.ended[job] {
		w.ended[job] = true
		w.work(&wire.Work{Ended: []uint64{job}})
	}
}

func (w *randomWorld) welcome() {
	w.up = true
	clear(w.described)
	m := w.welcomeOf(w.leaders.dialed)
	for _, lease := range slices.Sorted(maps.Keys(w.leases)) {
		l := w.leases[lease]
		// A winner is never revoked.
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
	w.stepLater(Synced{errs})
}

func (w *randomWorld) sender() {
	if w.up && w.inFlight > 0 {
		w.inFlight--
		w.stepLater(Sent{w.epoch})
	}
}

func (w *randomWorld) tick() {
	answers := w.core.session.phase == sessionDialing && (w.leaders.dialed == nil || !w.leaders.dialed.stopped) // before that
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

// TestRandom checks the contract of the package in random worlds, and that a drain then ends with no lease held.
func TestRandom(t *testing.T) {
	for seed := range uint64(100) {
		first := runRandomWorld(t, seed)
		if seed%10 == 0 && runRandomWorld(t, seed) != first {
			t.Errorf("seed %d: two runs differ", seed)
		}
	}
}

// runRandomWorld returns the trace of one seed.
func runRandomWorld(t *testing.T, seed uint64) uint64 {
	t.Helper()
	w := &randomWorld{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0), next: 1000,
		trace: fnv.New64a(), described: map[uint64]bool{}, ended: map[uint64]bool{}, leases: map[uint64]*randomLease{},
	}
	slots := 1 + w.rng.IntN(4)
	w.slots, w.stopped = make([]*Chunk, slots), make([]bool, slots)
	w.openLeaders()
	w.core = New(Config{
		Hello: &wire.Hello{Slots: uint32(slots)}, Leaders: w.addresses(), Discovers: w.leaders.discovers, DrainGrace: time.Second, Seed: seed,
	})
	w.step()
	actions := []func(){w.grant, w.runSlot, w.sendVerdicts, w.endJob, w.session, w.disk, w.sender, w.tick, w.changeLeaders, w.late, w.discovered}
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

// finish ends all faults and drains the worker.
func (w *randomWorld) finish() {
	w.attach()
	w.step(Drain{})
	for i := 0; !w.exited; i++ {
		if i > 200_000 {
			w.fatalf("the drain has no end")
		}
		w.runSlot()
		w.disk()
		w.sendVerdicts()
		w.sender()
		w.tick()
	}
	if !w.drained {
		w.fatalf("exited without reporting the drain")
	}
	for lease, l := range w.leases {
		if l.result == "" && !l.revoked {
			w.fatalf("lease %d was never reported (%+v)", lease, *l)
		}
		// Stale, and its file not removed: a leak.
		if l.file && !l.removed && l.verdict == "stale" {
			w.fatalf("the file of the stale lease %d is left (%+v)", lease, *l)
		}
	}
}
