package leader

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Timing of the control plane.
const (
	heartbeat = 300 * time.Millisecond
	// silence is how long a worker waits for a word from its leader before it looks for another.
	silence = time.Second
	// lossAfter without a word from a worker, its attempts go to others. With the check every tick and the hand-over it
	// keeps within the promised three seconds.
	lossAfter = 2 * time.Second
	// The same for workers without a lease. They have nothing that somebody waits for, and a thousand of them should cost little.
	idleHeartbeat = time.Second
	idleSilence   = 2500 * time.Millisecond
	idleLossAfter = 3 * time.Second
	tick          = 100 * time.Millisecond
)

// What the state remembers of the past: enough for a person to look at, little enough for snapshots to stay small.
const (
	endedJobsMax   = 1000
	deadWorkersMax = 1000
)

// SessionID names one stream of a worker; the driver gives it.
type SessionID uint64

// The inputs of the core.
type (
	// Input is what may happen to the core.
	Input interface{ input() }
	// Hello is the first message of a session.
	Hello struct {
		Session SessionID
		Hello   *wire.Hello
	}
	// Report is news from a worker.
	Report struct {
		Session SessionID
		Report  *wire.Report
	}
	// Drained says that the worker of a session has drained and exits.
	Drained struct{ Session SessionID }
	// Closed says that a session's stream has ended.
	Closed struct{ Session SessionID }
	// Committed is an entry that the log has committed and fsynced.
	Committed struct {
		Index, Term uint64
		Data        []byte
	}
	// Command adds a client's commands to the log. The result is an event among the Replies with the same key.
	Command struct {
		Key string
		Add func(e *state.Entry)
	}
	// FetchLog asks the workers for logs.
	FetchLog struct{ Request *wire.LogRequest }
	// RaiseLevel raises the feature level to the highest that this program reads. Every leader can read it; Needs is the version of the
	// program that can.
	RaiseLevel struct{ Needs string }
	// Members is what workers are told of the leaders, and what their hellos are held against.
	Members struct {
		ClusterID string   // empty: not known; no worker is refused for it
		Former    []string // what the cluster was called before it was recovered
		Addresses []string // host:port of all leaders. Never changed after it was given
	}
)

func (Hello) input()      {}
func (Report) input()     {}
func (Drained) input()    {}
func (Closed) input()     {}
func (Committed) input()  {}
func (Command) input()    {}
func (FetchLog) input()   {}
func (RaiseLevel) input() {}
func (Members) input()    {}

// Effects is what the driver must do after a step.
type Effects struct {
	Propose   [][]byte
	Send      []Send
	Close     []Close
	Replies   []state.Event // RequestApplied
	Facts     []state.Event // for the log
	Changed   []state.JobID // jobs whose view is old
	Forgotten []state.JobID // jobs that are gone
	Spools    []string      // spool folders that nobody needs any more
	Wake      time.Time     // step again by then
}

// Send is a message for a worker.
type Send struct {
	Session SessionID
	Message *wire.ToWorker
}

// Close ends a session. Refused: for good; the worker must not come back by itself.
type Close struct {
	Session SessionID
	Refused bool
	Reason  string
}

// Core holds what a leader knows beyond the log, for one term: sessions, leases, what is open. It is a step function:
// inputs and the time go in, effects come out; it has no goroutine, no clock and does no I/O.
type Core struct {
	machine *state.Machine
	sched   *sched.Scheduler
	term    uint64
	name    string // of the cluster
	members Members
	pinging *wire.ToWorker // one for all
	rand    *rand.Rand
	seq     uint64 // of the last lease of this term

	workers  map[state.WorkerID]*worker
	sessions map[SessionID]*session
	readers  map[state.JobID]*state.InputReader
	hungry   []*worker        // to be looked at by rebalance; each once
	famine   bool             // all are hungry
	order    []state.WorkerID // of a walk over workers; kept for its memory
	ripe     time.Time        // the last end of a back-off that has made all hungry
	changed  map[state.JobID]struct{}
	touched  []*session // with something in work

	// began is, by stage, the last lease number before the stage started in this term. What was leased until then is void,
	// whatever a worker that was cut off may say.
	began map[state.JobID]map[uint32]state.Lease

	// leased says which lease of this term's books each task has. It is nil most of the time: made when a worker comes with
	// leases, for thousands may come with thousands each, and dropped when no more have come for a tick.
	leased     map[taskKey]state.Lease
	leasedUsed bool // since the last tick

	// awaited are the workers that were alive when the term began and have not come back yet: until they have, or the
	// time is up, jobs older than the term are not leased, because their attempts may still run.
	awaited map[state.WorkerID]struct{}
	release time.Time

	pipeline   pipeline // to the log
	raising    bool     // the feature level: an entry of this term does it
	forgetting bool     // an old job, as the log will say
	result     state.Result
	joined     []state.Event // registrations in the entry that is being acted on
	effects    Effects
	ticked     time.Time
	now        time.Time // of the step
}

// session is one stream of a worker.
type session struct {
	id     SessionID
	hello  *wire.Hello
	worker *worker // nil until the log has registered it
	known  map[state.JobID]struct{}
	work   *wire.Work // to be sent at the end of the step
	bytes  int        // of the jobs and leases in work, about
	sent   time.Time  // last message
}

// worker is what the leader knows of a registered worker in this term.
type worker struct {
	sched.Worker
	session     *session // nil: its stream is gone; it may come back
	incarnation string
	rival       string // incarnation of another process that claims the identity
	rivalSince  time.Time
	heard       time.Time
	lost        bool // given up in this term, until it comes back
	draining    bool // it, or the user, said so
	leases      map[state.Lease]lease
	hungry      bool     // it is in Core.hungry
	running     []uint64 // leases in a slot, as of its last heartbeat

	failed map[taskKey]struct{} // tasks that have failed here since the last success
	won    time.Time            // last success
	aside  time.Time            // no leases before
}

// lease is an attempt that a worker was given.
type lease struct {
	job   state.JobID
	stage uint32
	task  uint64
	cost  int64
	ended bool // reported, and on its way through the log
}

type taskKey struct {
	job   state.JobID
	stage uint32
	task  uint64
}

// CoreConfig is what a term begins with.
type CoreConfig struct {
	Machine *state.Machine
	Cluster string // name of the cluster
	Members Members
	Term    uint64
	Now     time.Time
	Seed    uint64 // for the jitter of back-offs
}

// NewCore starts a term over what the log holds.
func NewCore(cfg CoreConfig) *Core {
	m, now := cfg.Machine, cfg.Now
	c := &Core{
		machine: m, sched: sched.New(), term: cfg.Term, name: cfg.Cluster, members: cfg.Members,
		pinging: &wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}}, rand: rand.New(rand.NewPCG(cfg.Seed, cfg.Term)),
		workers: map[state.WorkerID]*worker{}, sessions: map[SessionID]*session{}, readers: map[state.JobID]*state.InputReader{},
		changed: map[state.JobID]struct{}{}, awaited: map[state.WorkerID]struct{}{},
		began: map[state.JobID]map[uint32]state.Lease{}, pipeline: newPipeline(m.Level()), release: now.Add(lossAfter), ticked: now, now: now,
	}
	for _, id := range m.Workers() {
		if m.Worker(id).Status != state.WorkerDead {
			c.awaited[id] = struct{}{}
		}
	}
	for _, id := range m.Live() {
		for i, job := 0, m.Job(id); i < len(job.Stages); i++ {
			if job.Ready(i) {
				c.sched.Start(job, uint32(i), len(c.awaited) > 0)
			}
		}
		c.changed[id] = struct{}{}
	}
	return c
}

// Step takes in what has happened by now, and returns what is to be done. The effects are valid until the next step.
func (c *Core) Step(now time.Time, inputs ...Input) (*Effects, error) {
	c.effects = Effects{
		Propose: c.effects.Propose[:0], Send: c.effects.Send[:0], Close: c.effects.Close[:0], Replies: c.effects.Replies[:0],
		Facts: c.effects.Facts[:0], Changed: c.effects.Changed[:0], Forgotten: c.effects.Forgotten[:0], Spools: c.effects.Spools[:0],
	}
	c.now = now
	for _, in := range inputs {
		if err := c.take(now, in); err != nil {
			return nil, err
		}
	}
	if since := now.Sub(c.ticked); since >= tick {
		c.ticked = now
		c.updateClusterStatus(now, since)
	}
	if at, ok := c.sched.Wake(); ok && !at.After(now) && at.After(c.ripe) {
		c.ripe = at
		c.allHungry()
	}
	c.rebalance(now)
	c.effects.Propose = c.pipeline.flush(now, c.effects.Propose)
	c.effects.Changed = slices.AppendSeq(c.effects.Changed, maps.Keys(c.changed))
	slices.Sort(c.effects.Changed)
	clear(c.changed)
	c.effects.Wake = c.wake(now)
	return &c.effects, nil
}

func (c *Core) take(now time.Time, in Input) error {
	switch in := in.(type) {
	case Hello:
		c.hello(now, in)
	case Report:
		if s := c.sessions[in.Session]; s != nil && s.worker != nil {
			c.report(now, s.worker, in.Report)
		}
	case Drained:
		c.goodbye(now, in.Session)
	case Closed:
		c.closed(in.Session)
	case Command:
		c.ask(now, in)
	case Members:
		c.setMembers(in)
	case RaiseLevel:
		if !c.raising && c.machine.Level() < state.FeatureLevel {
			c.raising = true
			c.pipeline.add(state.RaiseLevel(now.UnixMilli(), state.FeatureLevel, in.Needs))
		}
	case FetchLog:
		for _, id := range c.sorted(c.workers) {
			if w := c.workers[id]; w.session != nil {
				c.send(w.session, &wire.ToWorker{Message: &wire.ToWorker_Log{Log: in.Request}})
			}
		}
	case Committed:
		if err := c.machine.Apply(in.Index, in.Data, &c.result); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		c.pipeline.level = c.machine.Level()
		if in.Term == c.term {
			c.settle()
		}
		c.updateJobStates(now)
	}
	return nil
}

// ask adds a client's commands to the entry. A job that they stop or retry gets no lease until they are applied.
func (c *Core) ask(now time.Time, in Command) {
	e := c.open(now)
	known := len(e.Fenced)
	in.Add(e)
	fenced := e.Fenced[known:]
	c.pipeline.freeze(fenced)
	for _, id := range fenced {
		c.sched.Freeze(id, true)
	}
}

// open returns the log entry for a command that is waited for.
func (c *Core) open(now time.Time) *state.Entry {
	return c.pipeline.openUrgent(now, state.NewLease(c.term, c.seq))
}

// wake is when the core must step again though nothing happens.
func (c *Core) wake(now time.Time) time.Time {
	at := c.ticked.Add(tick)
	if due, ok := c.pipeline.wake(); ok {
		at = earlier(at, due)
	}
	if next, ok := c.sched.Wake(); ok && next.After(now) {
		at = earlier(at, next)
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (c *Core) send(s *session, m *wire.ToWorker) {
	s.sent = c.now
	c.effects.Send = append(c.effects.Send, Send{Session: s.id, Message: m})
}

// workFor returns the message that the session will get at the end of this step.
func (c *Core) workFor(s *session) *wire.Work {
	if s.work == nil {
		s.work, s.bytes = &wire.Work{}, 0
		c.touched = append(c.touched, s)
	}
	return s.work
}

// workWith is workFor with room for so many bytes more: if they would make the message too large, it is sent, and another begun.
func (c *Core) workWith(s *session, bytes int) *wire.Work {
	if s.work != nil && s.bytes+bytes > workBytesMax {
		c.send(s, &wire.ToWorker{Message: &wire.ToWorker_Work{Work: s.work}})
		s.work, s.bytes = &wire.Work{}, 0
	}
	work := c.workFor(s)
	s.bytes += bytes
	return work
}

func (c *Core) sendWork() {
	slices.SortFunc(c.touched, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	for _, s := range c.touched {
		if c.sessions[s.id] == s {
			c.send(s, &wire.ToWorker{Message: &wire.ToWorker_Work{Work: s.work}})
		}
		s.work = nil
	}
	c.touched = c.touched[:0]
}

// sorted gives the keys of a set of workers in order: what the core does must not depend on how a map is laid out, or the
// simulator could not play a failure again. The slice is good until the next call.
func (c *Core) sorted(set map[state.WorkerID]*worker) []state.WorkerID {
	c.order = slices.AppendSeq(c.order[:0], maps.Keys(set))
	slices.Sort(c.order)
	return c.order
}

func (c *Core) fact(e state.Event) { c.effects.Facts = append(c.effects.Facts, e) }
