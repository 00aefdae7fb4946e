package sim

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/replica/core"
	worker "github.com/bridgefour/bridgefour/internal/worker/core"
)

// World is a cluster in virtual time, with its clients, network and disks.
type World struct {
	cfg       Config
	now       time.Duration
	agenda    agenda
	net       *network
	store     *store
	inputs    inputs
	oracle    *oracle
	history   history
	leaders   map[addr]*simLeader
	order     []*simLeader // in the order of their addition
	workers   []*simWorker
	clients   []*client
	lockers   []*locker
	plans     map[string]*jobPlan // by uid
	lasting   []*undo
	sessions  int
	asks      int
	replacing bool          // a leader is being replaced
	replaced  bool          // one was
	moved     *simLeader    // the one that has moved
	jumped    time.Duration // when the clock of a leader has last jumped; 0: none has
	quota     int           // the smallest one of slots that a user gets; 0: none
	stats     Stats
	failure   error
	sum       uint64 // of the trace
	verbose   io.Writer
}

// Stats counts the events of a world.
type Stats struct {
	Virtual   time.Duration
	Events    int
	Faults    int
	Terms     int
	Attempts  int
	Snapshots int
	Installed int // snapshots of others
	Reads     int
	Lost      int // outputs that were lost
	Holds     int // of named locks
	Slow      int // quarantines of the first worker as slow
	SlowOther int // of others
}

// Result is the outcome of a world.
type Result struct {
	Stats

	Trace uint64 // checksum of all events, in order
	Err   error  // the first promise that was broken; nil: none
}

// First addresses of workers and clients.
const (
	firstWorker = 1 << 16
	firstClient = 1 << 20
	firstLocker = 1 << 21
)

// firstPort is the port of leaders that have not moved.
const firstPort = 6550

// epoch is the start of virtual time.
var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// undo ends a fault.
type undo struct {
	do   func()
	done bool
}

// Run runs a world with these faults. Verbose, if not nil, gets a line for each event. Only one world can run at a time: raft draws from
// the random source of the process.
func Run(cfg Config, faults []Fault, verbose io.Writer) Result {
	was := rand.Reader // raft draws its timeouts there
	rand.Reader = entropy{stream(cfg.Seed, "raft", 0)}
	defer func() { rand.Reader = was }()
	w := newWorld(cfg, verbose)
	w.play(faults)
	w.stats.Virtual = w.now
	return Result{Stats: w.stats, Trace: w.sum, Err: w.failure}
}

func newWorld(cfg Config, verbose io.Writer) *World {
	if cfg.StepEvery == 0 {
		cfg.StepEvery = 50 * time.Microsecond
	}
	w := &World{
		cfg: cfg, inputs: inputs{}, leaders: map[addr]*simLeader{}, plans: map[string]*jobPlan{}, verbose: verbose, sum: cfg.Seed,
	}
	w.net = &network{w: w, rng: stream(cfg.Seed, "network", 0)}
	w.store = newStore(w)
	w.oracle = newOracle(w)
	first := core.Members{Cluster: clusterID}
	for i := range cfg.Leaders {
		id := addr(i + 1)
		first.List = append(first.List, core.Member{ID: uint64(id), Address: addressOf(id, firstPort), Voter: true})
	}
	for i := range cfg.Leaders {
		w.addLeader(addr(i+1), core.Beginning(first))
	}
	for i := range cfg.Workers {
		rng := stream(cfg.Seed, "worker", uint64(i))
		s := &simWorker{number: i, rng: rng, identity: fmt.Sprint("worker-", i), slots: cmp.Or(cfg.Slots, 2+rng.IntN(6)), memory: uint64(rng.IntN(2)) * 100}
		s.process = process{w: w, addr: firstWorker + addr(i)}
		w.workers = append(w.workers, s)
	}
	for i := range cfg.Clients {
		c := &client{number: i, caller: caller{rng: stream(cfg.Seed, "client", uint64(i))}, seen: map[addr]servedAt{}}
		c.process = process{w: w, addr: firstClient + addr(i)}
		w.clients = append(w.clients, c)
	}
	w.planJobs()
	w.addLockers()
	return w
}

// addLeader adds a leader that is not started yet.
func (w *World) addLeader(id addr, begin core.Position) *simLeader {
	l := &simLeader{port: firstPort, rng: stream(w.cfg.Seed, "leader", uint64(id)), image: image{begin: begin}}
	l.process = process{w: w, addr: id}
	l.disk = &disk{w: w, proc: &l.process, rng: stream(w.cfg.Seed, "disk", uint64(id)), lies: w.cfg.Plant == AckUnsynced}
	w.leaders[id] = l
	w.order = append(w.order, l)
	return l
}

// addresses returns the addresses with which workers are started.
func (w *World) addresses() []string {
	var list []string
	for _, l := range w.members() {
		list = append(list, l.address())
	}
	return list
}

// members returns the leaders that were not removed.
func (w *World) members() []*simLeader {
	return slices.DeleteFunc(slices.Clone(w.order), func(l *simLeader) bool { return l.gone })
}

// play runs the world: the time of faults, and then until all jobs have ended.
func (w *World) play(faults []Fault) {
	defer func() {
		if p := recover(); p != nil {
			w.fail("panic: %v\n%s", p, debug.Stack())
		}
	}()
	for _, l := range w.order {
		w.after(between(l.rng, 0, 50*time.Millisecond), l.boot)
	}
	for _, s := range w.workers {
		w.after(between(s.rng, 0, 200*time.Millisecond), s.boot)
	}
	for _, c := range w.clients {
		c.live()
	}
	for _, k := range w.lockers {
		k.live()
	}
	w.changeQuotas(stream(w.cfg.Seed, "quotas", 0))
	for _, f := range faults {
		w.at(f.At, func() { w.inject(f) })
	}
	w.run(w.cfg.Span)
	w.heal()
	w.settle()
	if w.failure == nil {
		w.finalChecks()
	}
}

// run runs the events until end.
func (w *World) run(end time.Duration) {
	for w.failure == nil {
		e, ok := w.agenda.next(end)
		if !ok {
			w.now = end
			return
		}
		w.now = e.at
		w.stats.Events++
		e.do()
	}
}

func (w *World) at(t time.Duration, do func())    { w.agenda.add(max(t, w.now), do) }
func (w *World) after(d time.Duration, do func()) { w.agenda.add(w.now+max(0, d), do) }

// fail notes the first broken promise; it ends the world.
func (w *World) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf("at %.6fs: %s", w.now.Seconds(), fmt.Sprintf(format, args...))
	}
}

// trace adds an event to the checksum, and prints it if verbose.
func (w *World) trace(what string, of ...uint64) {
	h := w.sum ^ uint64(w.now)
	for i := range len(what) {
		h = (h ^ uint64(what[i])) * 0x100000001b3
	}
	for _, v := range of {
		h = mix(h ^ v)
	}
	w.sum = h
	if w.verbose != nil {
		_, _ = fmt.Fprintf(w.verbose, "%12.6f %s %s\n", w.now.Seconds(), what, strings.Trim(fmt.Sprint(of), "[]"))
	}
}

// heal ends all faults, and starts the processes that are down.
func (w *World) heal() {
	w.trace("heal")
	for _, u := range w.lasting {
		u.end()
	}
	for _, l := range w.order {
		if !l.up && !l.gone {
			l.boot()
		}
	}
	for _, s := range w.workers {
		if !s.up {
			s.boot()
		}
		// All leaders that it knew may have been replaced while it was cut off.
		s.step(worker.Invite{Leaders: w.addresses(), ClusterID: clusterID, ClusterName: clusterName})
	}
}

// settle runs the world until every job has ended: as long as the remaining work takes, and some time to connect.
func (w *World) settle() {
	slots := 0
	for _, s := range w.workers {
		slots += s.slots
	}
	if w.quota > 0 {
		slots = min(slots, w.quota)
	}
	var work time.Duration
	for _, p := range w.plans {
		work += time.Duration(p.spec.Input.Tasks) * p.mean
	}
	end := w.now + 4*time.Minute + 8*work/time.Duration(slots)
	for w.failure == nil && !w.settled() && w.now < end {
		w.run(w.now + time.Second)
	}
	if w.failure != nil {
		return
	}
	if !w.settled() {
		w.fail("%s", w.unsettled())
		return
	}
	// Verdicts, and followers that lag behind. A connection that has lost a message breaks after ten seconds.
	for end := w.now + 30*time.Second; w.failure == nil && w.now < end; {
		w.run(w.now + time.Second)
		if w.quiet() {
			return
		}
	}
}

// quiet reports whether all leaders have the whole log, and no worker runs an attempt.
func (w *World) quiet() bool {
	last := w.oracle.log[len(w.oracle.log)-1].index
	return !slices.ContainsFunc(w.members(), func(l *simLeader) bool { return l.applied < last }) && w.busyWorker() == nil
}

// busyWorker returns a worker with an attempt that it was not told to stop; nil if there is none.
func (w *World) busyWorker() *simWorker {
	for _, s := range w.workers {
		if slices.ContainsFunc(s.running, func(r *run) bool { return r != nil && !r.stopped }) {
			return s
		}
	}
	return nil
}

func (w *World) settled() bool {
	return len(w.oracle.state.Live()) == 0 && w.oracle.over() == 0 && !slices.ContainsFunc(w.clients, func(c *client) bool { return !c.idle }) &&
		!slices.ContainsFunc(w.lockers, func(k *locker) bool { return !k.idle }) && w.oracle.unlocked()
}

// unsettled describes what has not ended.
func (w *World) unsettled() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v after the last fault, not all is done: jobs %v live, %d requests for locks are over", w.now-w.cfg.Span, w.oracle.state.Live(), w.oracle.over())
	for _, id := range w.oracle.state.Live() {
		job := w.oracle.state.Job(id)
		fmt.Fprintf(&b, "; job %d is %v", id, job.Status)
		for _, stage := range job.Stages {
			fmt.Fprintf(&b, ", %s: %d of %d done, %d dead", stage.Name, stage.Done, stage.Tasks, stage.Dead)
		}
	}
	for _, c := range w.clients {
		if !c.idle {
			fmt.Fprintf(&b, "; client %d waits, %d of %d jobs submitted", c.number, c.next, len(c.mine))
		}
	}
	for _, k := range w.lockers {
		if !k.idle {
			fmt.Fprintf(&b, "; locker %d is at its request %d", k.number, k.holds)
		}
	}
	for l := range w.oracle.state.Locks() {
		fmt.Fprintf(&b, "; %q has requested %v, fence %d", l.Holder, l.Names(), l.Fence)
	}
	for _, l := range w.members() {
		st := l.core.Status()
		fmt.Fprintf(&b, "; leader %d: up %v, paused %d, %s of term %d under %d, log up to %d, applied %d", l.addr, l.up, l.paused, st.Role, st.Term, st.LeaderID, st.Last, st.Applied)
	}
	for _, s := range w.workers {
		fmt.Fprintf(&b, "; worker %d: up %v, paused %d, refused %v, id %d", s.number, s.up, s.paused, s.refused, s.id)
	}
	return b.String()
}

// finalChecks checks the promises at the end of the world.
func (w *World) finalChecks() {
	if err := w.history.check(10 * time.Second); err != nil {
		w.fail("%v", err)
	}
	for _, l := range w.members() {
		if len(l.waiting) > 0 && l.leading {
			w.fail("leader %d has answered everything that it has applied, and not %v", l.addr, sortedKeys(l.waiting))
			return
		}
		if !l.up || l.applied < w.oracle.acked {
			w.fail("leader %d has the log up to %d in the end; what was acknowledged goes to %d", l.addr, l.applied, w.oracle.acked)
			return
		}
		var body bytes.Buffer
		if _, err := l.controller.Machine().Snapshot().WriteTo(&body); err != nil {
			w.fail("leader %d: snapshot: %v", l.addr, err)
		}
		w.oracle.snapshot(l.addr, l.controller.Machine().Index(), body.Bytes())
		w.trace("end", uint64(l.addr), l.controller.Machine().Index(), w.oracle.snaps[l.controller.Machine().Index()])
		for _, key := range sortedKeys(w.oracle.keys) {
			if id := w.oracle.keys[key]; l.controller.Machine().Job(id) == nil {
				w.fail("submit %q was acknowledged as job %d; leader %d does not have it", key, id, l.addr)
			}
		}
	}
	if staged := w.oracle.state.Staged(); len(staged) > 0 {
		w.fail("the input of the submits %v is staged in the end", staged)
	}
	if s := w.busyWorker(); s != nil {
		w.fail("no job lives; worker %d still runs something", s.number)
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func boolNumber(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// kindOf numbers an effect of a worker, for the trace.
func kindOf(e worker.Effect) uint64 {
	switch e := e.(type) {
	case worker.Connect:
		return 1
	case worker.Disconnect:
		return 2
	case worker.Send:
		return 3
	case worker.Start:
		return 4 + uint64(e.Chunk.Len())<<8 + e.Chunk.FirstLease<<16
	case worker.Stop:
		return 5
	case worker.Sync:
		return 6 + uint64(len(e.Files))<<8
	case worker.Remove:
		return 7 + uint64(len(e.Files))<<8
	default:
		return 8
	}
}

func (s *Stats) add(o Stats) {
	s.Virtual += o.Virtual
	s.Events += o.Events
	s.Faults += o.Faults
	s.Terms += o.Terms
	s.Attempts += o.Attempts
	s.Snapshots += o.Snapshots
	s.Installed += o.Installed
	s.Reads += o.Reads
	s.Lost += o.Lost
	s.Holds += o.Holds
	s.Slow += o.Slow
	s.SlowOther += o.SlowOther
}
