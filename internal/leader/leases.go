package leader

import (
	"maps"
	"slices"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
)

// taskKey is a task of the cluster.
type taskKey struct {
	sched.Key

	task uint64
}

func newTaskKey(job, stage, task uint64) taskKey {
	return taskKey{sched.Key{Job: state.JobID(job), Stage: uint32(stage)}, task}
}

// lease is the grant of an attempt to a worker.
type lease struct {
	taskKey

	cost  int64 // to give back to the scheduler
	begun int64 // when a heartbeat has first named it as running, Unix ms; 0: none has
	ended bool  // reported, and waiting for the log: it costs nothing any more
}

// held is a lease and the worker that has it.
type held struct {
	worker state.WorkerID
	number state.Lease
}

// leaseSet is the leases of one worker. The values are pointers so that the end of a lease costs no second look-up.
type leaseSet map[state.Lease]*lease

// standing returns the leases that have not ended, in the order in which they were granted.
func (s leaseSet) standing() []state.Lease {
	var list []state.Lease
	for number, l := range s {
		if !l.ended {
			list = append(list, number)
		}
	}
	slices.Sort(list)
	return list
}

// leaseBook is the leases of the term. Of the leases of a task no more than one is valid, or two of a straggler: the others were granted before
// the task's stage started again, and wait for the log.
type leaseBook struct {
	last state.Lease // granted
	sets map[state.WorkerID]leaseSet
	// started is the last lease before a stage started in this term. Leases up to it are void, whatever a worker reports that was cut
	// off.
	started map[state.JobID]map[uint32]state.Lease
	// byTask is the lease of each leased task. It is nil most of the time: built when a worker comes with leases, because thousands may
	// come with thousands each, and dropped when none has come for a tick.
	byTask     map[taskKey]state.Lease
	byTaskUsed bool // since the last tick
	// twice has the leases of tasks that got a second one, until both are gone: what ends one of them must not open the task again.
	twice map[taskKey][]held
}

func newLeaseBook(term uint64) leaseBook {
	return leaseBook{last: state.NewLease(term, 0), sets: map[state.WorkerID]leaseSet{}, started: map[state.JobID]map[uint32]state.Lease{}, twice: map[taskKey][]held{}}
}

// open returns the set of a worker, which is empty if the worker is new.
func (b *leaseBook) open(id state.WorkerID) leaseSet {
	s := b.sets[id]
	if s == nil {
		s = leaseSet{}
		b.sets[id] = s
	}
	return s
}

// remove drops the set of a worker that was removed, with the leases that wait for the log.
func (b *leaseBook) remove(id state.WorkerID) {
	delete(b.sets, id)
	b.byTask = nil
	for key := range b.twice {
		b.untwice(key, func(h held) bool { return h.worker == id })
	}
}

// grant adds a new lease, and returns its number: fencing numbers grow.
func (b *leaseBook) grant(s leaseSet, l *lease) state.Lease {
	b.last++
	b.put(s, b.last, l)
	return b.last
}

// put adds a lease under its number.
func (b *leaseBook) put(s leaseSet, number state.Lease, l *lease) {
	s[number] = l
	if b.byTask != nil {
		b.byTask[l.taskKey] = number
	}
}

// drop removes a lease.
func (b *leaseBook) drop(s leaseSet, number state.Lease) {
	l := s[number]
	if l == nil {
		return
	}
	delete(s, number)
	b.untwice(l.taskKey, func(h held) bool { return h.number == number })
	if b.byTask == nil || b.byTask[l.taskKey] != number {
		return
	}
	delete(b.byTask, l.taskKey)
	for _, h := range b.twice[l.taskKey] {
		b.byTask[l.taskKey] = h.number
	}
}

// second records that a task has two leases.
func (b *leaseBook) second(key taskKey, first, second held) { b.twice[key] = []held{first, second} }

// other returns the lease of a task that has two, beside the one that is given; false: it has one, or had two and this is the last.
func (b *leaseBook) other(key taskKey, number state.Lease) (held, bool) {
	for _, h := range b.twice[key] {
		if h.number != number {
			return h, true
		}
	}
	return held{}, false
}

// overtakes reports whether a lease is the second one of a task, whose first one stands.
func (b *leaseBook) overtakes(key taskKey, number state.Lease) bool {
	first, ok := b.other(key, number)
	return ok && first.number < number
}

// untwice forgets leases of a task that has two.
func (b *leaseBook) untwice(key taskKey, gone func(held) bool) {
	list, ok := b.twice[key]
	if !ok {
		return
	}
	if list = slices.DeleteFunc(list, gone); len(list) == 0 {
		delete(b.twice, key)
		return
	}
	b.twice[key] = list
}

// startStage voids the leases of a stage that were granted so far.
func (b *leaseBook) startStage(key sched.Key) {
	if b.started[key.Job] == nil {
		b.started[key.Job] = map[uint32]state.Lease{}
	}
	b.started[key.Job][key.Stage] = b.last
	maps.DeleteFunc(b.twice, func(k taskKey, _ []held) bool { return k.Key == key })
}

// current reports whether a lease was granted since its stage started.
func (b *leaseBook) current(number state.Lease, key sched.Key) bool {
	return number > b.started[key.Job][key.Stage]
}

// forget drops what is known of a job.
func (b *leaseBook) forget(id state.JobID) { delete(b.started, id) }

// leased reports whether a task has a lease.
func (b *leaseBook) leased(key taskKey) bool {
	b.byTaskUsed = true
	if b.byTask == nil {
		b.byTask = map[taskKey]state.Lease{}
		for _, set := range b.sets {
			for number, l := range set {
				b.byTask[l.taskKey] = max(number, b.byTask[l.taskKey])
			}
		}
	}
	_, ok := b.byTask[key]
	return ok
}

// tick drops byTask if it was not used since the last tick.
func (b *leaseBook) tick() {
	if !b.byTaskUsed {
		b.byTask = nil
	}
	b.byTaskUsed = false
}
