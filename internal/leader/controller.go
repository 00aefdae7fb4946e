package leader

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// ControllerConfig configures a controller.
type ControllerConfig struct {
	Cluster string        // name of the cluster
	Seed    func() uint64 // for the jitter of back-offs; called once a term
	// OpenSecret returns the value of a secret of the job with that UID. The error is for users.
	OpenSecret func(uid string, s *state.Secret) (string, error)
	Idle       bool // grants no leases: the state is only read
	// Unled is how long attempts of jobs with named locks run without a leader; 0: a minute.
	Unled time.Duration
}

// Controller is the pure part of a node: the state machine and, while the node leads, the core of the term. It has no
// goroutine and no clock and does no I/O: the driver, and the simulator, hand over what the log and the workers deliver, call Step,
// and carry out the effects.
type Controller struct {
	cfg     ControllerConfig
	members Members
	machine *state.Machine
	core    *Core // nil while the node does not lead
	term    uint64
	inputs  []Input // for the core's next step
	result  state.Result

	// Effects of entries that were applied without a core, for the next step.
	changed map[state.JobID]struct{}
	applied Effects
	effects Effects // of the last step
}

// NewController returns a controller that follows, with an empty state.
func NewController(cfg ControllerConfig) *Controller {
	return &Controller{cfg: cfg, machine: state.New(), changed: map[state.JobID]struct{}{}}
}

// Machine is the state. Restore replaces it.
func (c *Controller) Machine() *state.Machine { return c.machine }

// Core is the core of the term; nil while the node does not lead.
func (c *Controller) Core() *Core { return c.core }

// Leading reports whether the node leads.
func (c *Controller) Leading() bool { return c.core != nil }

// Term is the term in which the node leads; 0 while it does not.
func (c *Controller) Term() uint64 {
	if c.core == nil {
		return 0
	}
	return c.term
}

// SetMembers sets the leaders of the cluster, initially and after every change.
func (c *Controller) SetMembers(m Members) {
	c.members = m
	c.Handle(m)
}

// Commit hands over an entry that the log has committed, in log order. It waits for the core's next step; without a core it is
// applied at once.
func (c *Controller) Commit(entry Committed) error {
	if c.core != nil {
		c.inputs = append(c.inputs, entry)
		return nil
	}
	return c.apply(entry)
}

// SetRole ends the term that the node led, if it did, and starts the given one if the node leads it. No input of one term reaches the
// core of the next; committed entries are applied.
func (c *Controller) SetRole(now time.Time, leads bool, term uint64) error {
	c.core = nil
	for _, in := range c.inputs {
		if entry, ok := in.(Committed); ok {
			if err := c.apply(entry); err != nil {
				return err
			}
		}
	}
	clear(c.inputs)
	c.inputs = c.inputs[:0]
	if leads {
		c.term = term
		c.core = NewCore(CoreConfig{
			Machine: c.machine, Cluster: c.cfg.Cluster, Members: c.members, Term: c.term, Now: now, Seed: c.cfg.Seed(), OpenSecret: c.cfg.OpenSecret,
			Idle: c.cfg.Idle, Unled: c.cfg.Unled,
		})
		c.allChanged()
	}
	return nil
}

// Restore replaces the state by that of a snapshot. A node that leads never gets one; if it did, it would no longer lead.
func (c *Controller) Restore(m *state.Machine) {
	c.core, c.inputs = nil, c.inputs[:0]
	for _, id := range c.machine.Jobs() {
		if m.Job(id) == nil {
			c.applied.Forgotten = append(c.applied.Forgotten, id)
		}
	}
	c.machine = m
	c.allChanged()
}

func (c *Controller) allChanged() {
	for _, id := range c.machine.Jobs() {
		c.changed[id] = struct{}{}
	}
}

// apply applies an entry without a core, and keeps its effects for the next step.
func (c *Controller) apply(entry Committed) error {
	if err := c.machine.Apply(entry.Index, entry.Data, &c.result); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	last := state.JobID(0)
	for i := range c.result.Verdicts {
		if id := c.result.Verdicts[i].Job; id != last { // thousands in a row are of one job
			c.changed[id], last = struct{}{}, id
		}
	}
	for i := range c.result.Events {
		e := &c.result.Events[i]
		if e.Job != 0 {
			c.changed[e.Job] = struct{}{}
		}
		switch e.Kind {
		case state.JobForgotten:
			c.applied.Forgotten = append(c.applied.Forgotten, e.Job)
			if e.Output != "" {
				c.applied.Spools = append(c.applied.Spools, e.Output)
			}
		case state.RequestApplied:
			c.applied.Replies = append(c.applied.Replies, *e)
		case state.JobSubmitted, state.StageStarted, state.StageEnded, state.TaskReopened, state.TaskLost, state.TaskDied, state.JobEnding, state.JobEnded,
			state.WorkerJoined, state.WorkerChanged, state.QuotasChanged, state.Audited, state.JobWaits, state.StageGrown, state.InputDue,
			state.LockHeld, state.LockWaiting, state.LockGone, state.LockOver, state.PriorityChanged,
			state.WorkerQuarantined, state.WorkerReleased:
		}
	}
	return nil
}

// Handle queues an input for the core's next step. It reports false, and drops the input, while the node does not lead.
func (c *Controller) Handle(in Input) bool {
	if c.core == nil {
		return false
	}
	c.inputs = append(c.inputs, in)
	return true
}

// Step steps the core with the queued inputs. The effects, valid until the next step, are those of the core and of entries that were
// applied without one: their Replies answer requests of an earlier term, and their Changed and Forgotten are what a follower
// must render again.
func (c *Controller) Step(now time.Time) (*Effects, error) {
	out := Effects{Wake: now.Add(tick)}
	if c.core != nil {
		effects, err := c.core.Step(now, c.inputs...)
		if err != nil {
			return nil, err
		}
		clear(c.inputs) // releases the entries
		c.inputs = c.inputs[:0]
		if !c.pending() {
			return effects, nil
		}
		out = *effects
	}
	for _, id := range out.Changed {
		c.changed[id] = struct{}{}
	}
	out.Changed = slices.Sorted(maps.Keys(c.changed))
	out.Replies = slices.Concat(c.applied.Replies, out.Replies)
	out.Forgotten = slices.Concat(c.applied.Forgotten, out.Forgotten)
	out.Spools = slices.Concat(c.applied.Spools, out.Spools)
	clear(c.changed)
	c.applied = Effects{}
	c.effects = out
	return &c.effects, nil
}

// pending reports whether entries that were applied without a core have left effects.
func (c *Controller) pending() bool {
	return len(c.changed) > 0 || len(c.applied.Replies) > 0 || len(c.applied.Forgotten) > 0 || len(c.applied.Spools) > 0
}
