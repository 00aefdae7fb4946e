package core

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// leaseState is the state of a lease. gone is final; the transitions of the others are:
//
//	queued → inSlot → stopping → gone (returned)
//	queued → gone (returned)
//	inSlot → queued (its chunk was cut) | syncing | finished | failed | gone (returned)
//	syncing → stopping | finished | failed
//	finished → gone (the leader's verdict)
//	failed → gone (reported)
type leaseState uint8

const (
	gone leaseState = iota
	queued
	inSlot
	stopping // its result is discarded, and the lease returned
	syncing  // its file is being fsynced
	finished // prepared; kept until the leader's verdict
	failed   // kept until reported
)

// jobInfo is a job. It is dropped when the job has ended and none of its leases is held.
type jobInfo struct {
	job   *wire.Job
	bytes int // of the message
	live  int // leases held
	ended bool
	// nanos is the duration of an attempt, by stage; 0: unknown.
	nanos []int64
}

// grant is one Leases message: the leases first, first+1, … of one stage.
type grant struct {
	info    *jobInfo
	stage   uint32
	first   uint64
	index   []uint64
	attempt []uint32
	splits  []*wire.Split
	action  wire.CommitAction
	state   []leaseState
	results []Result // nil until the first entry goes to a slot
	live    int      // entries not gone; at 0 only info, stage, first and state remain
}

func (g *grant) number(i int) uint32 {
	if g.attempt == nil {
		return 1
	}
	return g.attempt[i]
}

// ref is one lease.
type ref struct {
	g *grant
	i int
}

func (r ref) lease() uint64     { return r.g.first + uint64(r.i) }
func (r ref) index() uint64     { return r.g.index[r.i] }
func (r ref) state() leaseState { return r.g.state[r.i] }
func (r ref) set(s leaseState)  { r.g.state[r.i] = s }
func (r ref) result() *Result   { return &r.g.results[r.i] }
func (r ref) failure() *wire.Failure {
	return r.result().Failure
}

// ledger holds every lease that is not gone. Leases are found without an index entry each: grants are sorted, leaders grant
// increasing numbers, so that adding is an append and a lookup mostly hits the grant found last.
type ledger struct {
	jobs     map[uint64]*jobInfo
	jobBytes int      // of all descriptions
	grants   []*grant // by first; some may be dead (live 0)
	dead     int
	last     *grant
	counts   [failed + 1]int
	// unled is the smallest wire.Job.unled_ms of the jobs, for which all count that have one; 0: none has.
	unled     time.Duration
	unledJobs int
}

func newLedger() ledger { return ledger{jobs: map[uint64]*jobInfo{}} }

// add adds a grant with all entries queued. It returns nil if the columns contradict each other or one of the leases is
// known already.
func (l *ledger) add(info *jobInfo, w *wire.Leases) *grant {
	n := len(w.GetIndex())
	if n == 0 || w.GetFirstLease()+uint64(n) < w.GetFirstLease() || !wire.ColumnFits(w.GetAttempt(), n) || !wire.ColumnFits(w.GetSplits(), n) {
		return nil
	}
	at := len(l.grants)
	if at > 0 && l.grants[at-1].first >= w.GetFirstLease() {
		at = sort.Search(at, func(i int) bool { return l.grants[i].first > w.GetFirstLease() })
	}
	if at > 0 {
		before := l.grants[at-1]
		if before.first+uint64(len(before.index)) > w.GetFirstLease() {
			return nil
		}
	}
	if at < len(l.grants) && w.GetFirstLease()+uint64(n) > l.grants[at].first {
		return nil
	}
	g := &grant{
		info: info, stage: w.GetStage(), first: w.GetFirstLease(), index: w.GetIndex(), attempt: w.GetAttempt(),
		splits: w.GetSplits(), action: w.GetAction(), state: make([]leaseState, n), live: n,
	}
	if len(g.attempt) == 0 {
		g.attempt = nil
	}
	if len(g.splits) == 0 {
		g.splits = nil
	}
	for i := range g.state {
		g.state[i] = queued
	}
	l.grants = slices.Insert(l.grants, at, g)
	l.counts[queued] += n
	info.live += n
	return g
}

func (l *ledger) find(lease uint64) (ref, bool) {
	g := l.last
	if g == nil || lease < g.first || lease-g.first >= uint64(len(g.index)) {
		i := sort.Search(len(l.grants), func(i int) bool { return l.grants[i].first > lease })
		if i == 0 {
			return ref{}, false
		}
		g = l.grants[i-1]
		if lease-g.first >= uint64(len(g.index)) {
			return ref{}, false
		}
		l.last = g
	}
	r := ref{g, int(lease - g.first)}
	return r, r.state() != gone
}

// move changes a state and updates the counts; moving to gone drops the lease.
func (l *ledger) move(r ref, to leaseState) {
	l.counts[r.state()]--
	r.set(to)
	if to != gone {
		l.counts[to]++
		return
	}
	r.g.info.live--
	r.g.live--
	l.dropEnded(r.g.info)
	if r.g.live == 0 {
		r.g.index, r.g.attempt, r.g.splits, r.g.results = nil, nil, nil, nil
		l.dead++
		l.compact()
	}
}

// moveAll moves entries [from, to) of a grant, all of which are in state was.
func (l *ledger) moveAll(g *grant, from, to int, was, state leaseState) {
	for i := from; i < to; i++ {
		g.state[i] = state
	}
	l.counts[was] -= to - from
	l.counts[state] += to - from
}

func (l *ledger) dropEnded(info *jobInfo) {
	if info.ended && info.live == 0 {
		l.forget(info)
	}
}

// know adds a job.
func (l *ledger) know(info *jobInfo) {
	l.jobs[info.job.GetId()] = info
	l.jobBytes += info.bytes
	if unled := time.Duration(min(info.job.GetUnledMs(), unledMillisMax)) * time.Millisecond; unled > 0 { //nolint:gosec // bounded
		l.unledJobs++
		l.unled = min(cmp.Or(l.unled, unled), unled)
	}
}

// unledMillisMax bounds wire.Job.unled_ms.
const unledMillisMax = 24 * 60 * 60 * 1000

func (l *ledger) forget(info *jobInfo) {
	if info.job.GetUnledMs() > 0 {
		if l.unledJobs--; l.unledJobs == 0 {
			l.unled = 0
		}
	}
	l.jobBytes -= info.bytes
	delete(l.jobs, info.job.GetId())
}

// compact drops dead grants once they are the majority, so that the cost per grant stays constant.
func (l *ledger) compact() {
	if l.dead*2 <= len(l.grants) {
		return
	}
	l.grants = slices.DeleteFunc(l.grants, func(g *grant) bool { return g.live == 0 })
	l.dead, l.last = 0, nil
}

// held counts the leases not gone.
func (l *ledger) held() int {
	n := 0
	for _, c := range l.counts[queued:] {
		n += c
	}
	return n
}

// all calls f for each lease held, in order of lease numbers. f may move it.
func (l *ledger) all(f func(ref)) {
	for _, g := range slices.Clone(l.grants) {
		for i := range g.state {
			if g.state[i] != gone {
				f(ref{g, i})
			}
		}
	}
}
