package leader

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// SessionID is the number of one stream of a worker, given by the driver.
type SessionID uint64

// The inputs of the core.
type (
	// Input is an event for the core.
	Input interface{ input() }
	// Hello is the first message of a session.
	Hello struct {
		Session SessionID
		Hello   *wire.Hello
	}
	// Report is a report of a worker.
	Report struct {
		Session SessionID
		Report  *wire.Report
	}
	// Drained means that the worker of a session has drained and exits.
	Drained struct{ Session SessionID }
	// Closed means that the stream of a session has ended.
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
	// FetchLog requests logs from the workers.
	FetchLog struct{ Request *wire.LogRequest }
	// RaiseLevel raises the feature level to the highest that this program reads. Every leader can read it; Needs is the version of the
	// program that can.
	RaiseLevel struct{ Needs string }
	// Members is the leaders of the cluster. Changes are sent to the workers, and their Hellos are checked against it.
	Members struct {
		ClusterID string   // empty: not known, and not checked
		Former    []string // ids of the cluster before it was recovered
		Addresses []string // host:port of all leaders; not changed any more
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
	Replies   []state.Event       // RequestApplied
	Facts     []state.Event       // for the observer
	Done      int                 // tasks whose output the log has accepted
	Failed    []state.FailureKind // of the attempts whose failure the log has counted
	Changed   []state.JobID       // jobs whose views are old
	Forgotten []state.JobID       // jobs that were dropped
	Spools    []string            // spool folders to be removed
	Due       []state.JobID       // jobs whose deferred input must be planned
	Locks     []state.LockID      // of clients: granted or gone
	// Quarantines are volatile: no event of the log tells of them.
	Quarantines []Quarantine
	Wake        time.Time // call Step by then, if no input comes before
}

// Send is a message for a worker.
type Send struct {
	Session SessionID
	Message *wire.ToWorker
}

// Close ends a session. After Refused the worker must not come back by itself.
type Close struct {
	Session SessionID
	Refused bool
	Reason  string
}

// Core is the volatile state of a leader for one term: sessions, leases, open tasks, commands on their way into the log. It is a step
// function: inputs and the time go in, effects come out.
type Core struct {
	term    uint64
	cluster string // name
	members Members
	machine *state.Machine
	sched   *sched.Scheduler
	rand    *rand.Rand // for the jitter of back-offs

	pipeline  pipeline
	registry  registry
	leases    leaseBook
	locks     lockBook
	leftovers leftoverBook
	dirty     dirtySet
	outbox    outbox

	openSecret func(uid string, s *state.Secret) (string, error)
	idle       bool // grants no leases

	readers    map[state.JobID]*state.InputReader
	blocks     *state.BlockCache        // of the readers
	changed    map[state.JobID]struct{} // jobs whose views are old
	fleet      uint64                   // sched.Fleet as of the last tick
	inputsKept uint64                   // see inputsKept; tests lower it
	forgetting bool                     // a command that forgets the oldest job is on its way through the log
	tails      wire.TailRate
	runTimes   map[state.JobID]map[uint32]*runTimes // of stages that have not ended
	exits      exitBook
	speculated time.Time     // when stragglers were last looked for
	due        []state.JobID // jobs whose deferred input an earlier leader may have planned
	result     state.Result
	effects    Effects
	now        time.Time // of the step
}

// CoreConfig configures the core of a term.
type CoreConfig struct {
	Machine *state.Machine
	Cluster string // name of the cluster
	Members Members
	Term    uint64
	Now     time.Time
	Seed    uint64 // for the jitter of back-offs
	// OpenSecret is that of ControllerConfig.
	OpenSecret func(uid string, s *state.Secret) (string, error)
	Idle       bool          // that of ControllerConfig
	Unled      time.Duration // that of ControllerConfig
}

// NewCore starts a term over the state of the log.
func NewCore(cfg CoreConfig) *Core {
	m := cfg.Machine
	c := &Core{
		term: cfg.Term, cluster: cfg.Cluster, members: cfg.Members, machine: m, sched: sched.New(), rand: rand.New(rand.NewPCG(cfg.Seed, cfg.Term)),
		pipeline: newPipeline(m.Level()), registry: newRegistry(m, cfg.Now), leases: newLeaseBook(cfg.Term),
		leftovers: newLeftoverBook(m, cfg.Unled, cfg.Now),
		locks:     lockBook{byID: map[state.LockID]*lockTerm{}}, runTimes: map[state.JobID]map[uint32]*runTimes{}, exits: exitBook{},
		readers: map[state.JobID]*state.InputReader{}, blocks: state.NewBlockCache(blocksBytesMax), changed: map[state.JobID]struct{}{}, now: cfg.Now,
		inputsKept: inputsKept, openSecret: cfg.OpenSecret, idle: cfg.Idle, tails: wire.TailRate{Burst: tailsBurst, Interval: tailsInterval},
	}
	c.sched.SetQuotas(m.Access().Quotas())
	for _, id := range m.Live() {
		c.sched.SetPriority(m.Job(id), m.Priority(m.Job(id)))
		for i, job := 0, m.Job(id); i < len(job.Stages); i++ {
			if job.Ready(i) {
				c.sched.Start(job, uint32(i), len(c.registry.awaited) > 0)
				c.backOffAgain(job, i)
			}
		}
		if m.InputDue(m.Job(id)) {
			c.due = append(c.due, id)
		}
		c.sched.Pause(id, c.now)
		c.changed[id] = struct{}{}
	}
	for _, uid := range m.Staged() { // by an earlier leader, which cannot submit the job any more
		c.open().Unstage("", uid)
	}
	c.startLocks()
	c.startLeftovers()
	return c
}

// Step handles the inputs and what is due by now. The effects are valid until the next step. After an error the core must not be used
// again.
func (c *Core) Step(now time.Time, inputs ...Input) (*Effects, error) {
	c.effects = Effects{
		Propose: c.effects.Propose[:0], Close: c.effects.Close[:0], Replies: c.effects.Replies[:0], Facts: c.effects.Facts[:0],
		Changed: c.effects.Changed[:0], Forgotten: c.effects.Forgotten[:0], Spools: c.effects.Spools[:0], Failed: c.effects.Failed[:0],
		Due: c.due, Locks: c.effects.Locks[:0], Quarantines: c.effects.Quarantines[:0],
	}
	c.due = nil
	c.now = now
	c.outbox.reset(now)
	for _, in := range inputs {
		if err := c.handle(in); err != nil {
			return nil, err
		}
	}
	ticked := now.Sub(c.registry.checked) >= tick
	if ticked {
		c.updateClusterStatus()
	}
	c.endOver(ticked)
	c.expireLocks()
	if at, ok := c.sched.Wake(); ok && c.dirty.due(now, at) {
		c.dirty.markAll()
	}
	c.rebalance()
	c.speculate()
	c.effects.Send = c.outbox.flush(c.registry.sessions)
	c.effects.Propose = c.pipeline.flush(now, c.effects.Propose)
	c.effects.Changed = slices.AppendSeq(c.effects.Changed, maps.Keys(c.changed))
	slices.Sort(c.effects.Changed)
	clear(c.changed)
	c.effects.Wake = c.wake()
	return &c.effects, nil
}

func (c *Core) handle(in Input) error {
	switch in := in.(type) {
	case Hello:
		c.handleHello(in)
	case Report:
		switch s := c.registry.sessions[in.Session]; {
		case s == nil:
		case s.worker != nil:
			c.handleReport(s.worker, in.Report)
		case s.leaving != 0:
			c.handleLeaving(s, in.Report)
		}
	case Drained:
		switch s := c.registry.sessions[in.Session]; {
		case s == nil:
		case s.worker != nil:
			c.drained(s.worker)
		case s.leaving != 0:
			c.leftovers.known(s.leaving, nil)
			c.leave(s, s.leaving)
		}
	case Closed:
		if w := c.registry.detach(in.Session); w != nil {
			c.sched.Leave(&w.Worker)
		}
	case Command:
		c.handleCommand(in)
	case Members:
		c.handleMembers(in)
	case RaiseLevel:
		if c.machine.Level() < state.FeatureLevel {
			c.pipeline.raiseLevel(c.now, in.Needs)
		}
	case FetchLog:
		for _, w := range c.registry.inOrder {
			if w.session != nil {
				c.outbox.send(w.session, &wire.ToWorker{Message: &wire.ToWorker_Log{Log: in.Request}})
			}
		}
	case Committed:
		if err := c.machine.Apply(in.Index, in.Data, &c.result); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		if c.pipeline.setLevel(c.machine.Level()) {
			for _, w := range c.registry.inOrder {
				c.completeInfo(w)
			}
		}
		if in.Term == c.term {
			c.settle()
		}
		c.updateJobStates()
	}
	return nil
}

// handleCommand adds a client's commands to the log. A job that they stop or retry is frozen until they are applied. Commands that make an
// entry too large to be sent, or that no leader could read from it, are answered, and not added.
func (c *Core) handleCommand(in Command) {
	e := c.open()
	known, mark := len(e.Fenced), e.Mark()
	in.Add(e)
	refusal := ""
	if size := e.Size() - mark.Size(); e.Size() > EntryBytesMax {
		refusal = fmt.Sprintf("the request takes %.1f MiB of the log, and one entry holds %d MiB", float64(size)/(1<<20), EntryBytesMax>>20)
	} else if err := e.Check(mark); err != nil {
		refusal = fmt.Sprintf("the request has a value that the log cannot hold, which should have been refused earlier; please report this: %v", err)
	}
	if refusal != "" {
		e.Truncate(mark)
		c.effects.Replies = append(c.effects.Replies, state.Event{
			Kind: state.RequestApplied, Key: in.Key, Err: &state.Rejection{Code: state.TooLarge, Message: refusal},
		})
		return
	}
	fenced := e.Fenced[known:]
	c.pipeline.freeze(fenced)
	for _, id := range fenced {
		c.sched.Freeze(id, true)
	}
}

// open returns the log entry for a command that is waited for.
func (c *Core) open() *state.Entry { return c.pipeline.openUrgent(c.now, c.leases.last) }

// wake is when the core must step again if no input comes.
func (c *Core) wake() time.Time {
	at := c.registry.checked.Add(tick)
	if due, ok := c.pipeline.wake(); ok {
		at = earlier(at, due)
	}
	if due, ok := c.locks.wake(); ok {
		at = earlier(at, due)
	}
	if next, ok := c.sched.Wake(); ok && next.After(c.now) {
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

func (c *Core) addFact(e *state.Event) { c.effects.Facts = append(c.effects.Facts, *e) }
