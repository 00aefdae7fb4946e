package leader

import (
	"fmt"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Limits of the group commit. Measured with three nodes on one disk and fsync: entries of 1,000 transitions, 4 to 16 in flight, make 1 to
// 2.7 million transitions a second durable; beyond 4,000 transitions or 256 KiB an entry costs latency and gains nothing.
const (
	entryItems  = 4000      // transitions in one log entry
	entryBytes  = 256 << 10 // size at which an entry is full
	inFlightMax = 16        // entries proposed and not applied
	// inFlightBytesMax bounds them in bytes, except for a single larger entry. The log blocks at 32 MiB.
	inFlightBytesMax = 15 << 20
	// entryAge is how long an entry that is waited for stays open while others are in flight, so that it can grow.
	entryAge = time.Millisecond
	// entryAgeIdle is the same for an entry of completions alone, whose jobs have other tasks running. Nothing waits for it, and
	// fewer fsyncs leave the machine to the tasks.
	entryAgeIdle = 5 * time.Millisecond
	// uncommittedMax is how many reports wait for the log before no more leases are granted: a slow disk slows down the workers, and
	// memory stays bounded (the leases, about 100 bytes each, are kept until the log has decided).
	uncommittedMax = 1 << 17
)

// pipeline is the group commit. It collects commands in log entries, decides when an entry is proposed, and holds what must be
// done once it is applied. An entry is open (being filled), then sealed (complete, not proposed), then in flight (proposed, not
// applied); the log applies the entries of a term in the order in which they were proposed.
type pipeline struct {
	level    uint32       // the feature level of entries that are opened
	raised   bool         // an entry of this term raises the level
	entry    *state.Entry // the open entry; nil: none
	opened   time.Time
	urgent   bool     // a client, a worker or the progress of a job waits for the open entry
	sealed   [][]byte // oldest first
	inFlight int      // at most inFlightMax
	bytes    int      // of the entries in flight
	// progress is when the log last applied an entry, or was given the first of those in flight. The time in which the leader was stopped or starved does not
	// count: what the log has done meanwhile has not been handled yet.
	progress time.Time
	// settlements has one element for each entry in flight, sealed and open: the oldest first.
	settlements []settlement
	fences      map[state.JobID]int // jobs that these entries will fence: in how many of them
	uncommitted int                 // reports in these entries
}

// settlement is what must be done when an entry is applied, whatever the state makes of its commands.
type settlement struct {
	bytes int // of the entry, once it is in flight
	// failures are the failed leases. No verdict comes for a failure that was reported too late, and its lease must end all the same.
	failures []failedLease
	fenced   []state.JobID
}

// failedLease is a lease whose attempt has failed.
type failedLease struct {
	worker state.WorkerID
	lease  state.Lease
}

func newPipeline(level uint32) pipeline { return pipeline{level: level, fences: map[state.JobID]int{}} }

// open returns the open entry, for commands without a waiting client. A full one is sealed first, so entries are bounded.
func (p *pipeline) open(now time.Time) *state.Entry {
	if p.entry != nil && p.full() {
		p.seal()
	}
	if p.entry == nil {
		p.entry, p.opened = state.NewEntry(now.UnixMilli(), p.level), now
		p.settlements = append(p.settlements, settlement{})
	}
	return p.entry
}

// openUrgent returns the open entry, for commands that are waited for. Fence is the last lease that was granted.
func (p *pipeline) openUrgent(now time.Time, fence state.Lease) *state.Entry {
	e := p.open(now)
	e.Fence = fence
	p.urgent = true
	return e
}

// raiseLevel adds an entry that raises the feature level, once in a term. Commands that were added before are proposed before it.
func (p *pipeline) raiseLevel(now time.Time, needs string) {
	if p.raised {
		return
	}
	p.raised = true
	if p.entry != nil {
		p.seal()
	}
	p.entry = state.RaiseLevel(now.UnixMilli(), state.FeatureLevel, needs)
	p.settlements = append(p.settlements, settlement{})
	p.seal()
}

// setLevel sets the feature level of entries that are opened from now on, and reports whether that raises it.
func (p *pipeline) setLevel(level uint32) (raised bool) {
	if level == p.level {
		return false
	}
	if p.entry != nil {
		p.seal()
	}
	p.level = level
	return true
}

// urge makes the open entry, if there is one, urgent.
func (p *pipeline) urge() { p.urgent = p.entry != nil }

// freeze notes that the open entry fences jobs. No lease of them may be granted until it is applied: the fence would not cover it.
func (p *pipeline) freeze(jobs []state.JobID) {
	s := &p.settlements[len(p.settlements)-1]
	for _, id := range jobs {
		s.fenced = append(s.fenced, id)
		p.fences[id]++
	}
}

// addFailure notes that the open entry has the failure of a lease.
func (p *pipeline) addFailure(f failedLease) {
	s := &p.settlements[len(p.settlements)-1]
	s.failures = append(s.failures, f)
	p.uncommitted++
}

// addCompletions notes that the open entry has n more completions.
func (p *pipeline) addCompletions(n int) { p.uncommitted += n }

// decided notes that the log has decided on a completion.
func (p *pipeline) decided() { p.uncommitted-- }

// behind reports whether so many reports wait for the log that no lease may be granted.
func (p *pipeline) behind() bool { return p.uncommitted >= uncommittedMax }

// applied settles the oldest entry. It returns the leases that end with it, and the jobs that are no longer frozen.
func (p *pipeline) applied(now time.Time) (failures []failedLease, thawed []state.JobID) {
	s := p.settlements[0]
	p.settlements = p.settlements[1:]
	p.inFlight--
	p.bytes -= s.bytes
	p.progress = now
	p.uncommitted -= len(s.failures)
	for _, id := range s.fenced {
		if p.fences[id]--; p.fences[id] == 0 {
			delete(p.fences, id)
			thawed = append(thawed, id)
		}
	}
	return s.failures, thawed
}

// shift adds a time in which the leader was stopped or starved.
func (p *pipeline) shift(by time.Duration, now time.Time) {
	p.progress = earlier(p.progress.Add(by), now)
}

func (p *pipeline) full() bool { return p.entry.Items >= entryItems || p.entry.Size() >= entryBytes }

func (p *pipeline) seal() {
	p.sealed = append(p.sealed, p.entry.Data())
	p.entry, p.urgent = nil, false
}

// flush appends the entries to be proposed now to list.
func (p *pipeline) flush(now time.Time, list [][]byte) [][]byte {
	if p.entry != nil && p.inFlight+len(p.sealed) < inFlightMax && (p.full() || !now.Before(p.due())) {
		p.seal()
	}
	if p.inFlight == 0 {
		p.progress = now
	}
	for len(p.sealed) > 0 && p.room() {
		size := len(p.sealed[0])
		p.settlements[p.inFlight].bytes = size
		p.inFlight, p.bytes = p.inFlight+1, p.bytes+size
		list, p.sealed = append(list, p.sealed[0]), slices.Delete(p.sealed, 0, 1)
	}
	return list
}

// room reports whether another entry may be proposed.
func (p *pipeline) room() bool {
	return p.inFlight < inFlightMax && p.bytes < inFlightBytesMax
}

// due is when the open entry should be proposed.
func (p *pipeline) due() time.Time {
	switch {
	case !p.urgent:
		return p.opened.Add(entryAgeIdle)
	case p.inFlight+len(p.sealed) == 0:
		return p.opened
	}
	return p.opened.Add(entryAge)
}

// wake is when flush should be called; ok is false while there is nothing to propose, or no room in flight.
func (p *pipeline) wake() (at time.Time, ok bool) {
	if p.entry == nil || !p.room() {
		return at, false
	}
	return p.due(), true
}

// idle reports whether every entry is applied.
func (p *pipeline) idle() bool { return p.inFlight == 0 && p.entry == nil && len(p.sealed) == 0 }

// check returns an error if an invariant is broken.
func (p *pipeline) check() error {
	entries := p.inFlight + len(p.sealed)
	if p.entry != nil {
		entries++
	}
	switch {
	case p.uncommitted < 0 || p.inFlight < 0 || p.inFlight > inFlightMax:
		return fmt.Errorf("%d reports wait for the log, %d entries are in flight", p.uncommitted, p.inFlight)
	case len(p.settlements) != entries:
		return fmt.Errorf("%d settlements for %d entries", len(p.settlements), entries)
	case p.idle() && (p.uncommitted != 0 || len(p.fences) != 0 || p.bytes != 0):
		return fmt.Errorf("the log is idle: %d reports wait for it, the jobs %v are frozen, %d bytes are in flight", p.uncommitted, p.fences, p.bytes)
	}
	return nil
}
