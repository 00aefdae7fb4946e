package leader

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// ControllerConfig sets a controller up.
type ControllerConfig struct {
	Cluster string        // name of the cluster
	Seed    func() uint64 // for the jitter of back-offs; called once a term
}

// Controller is the pure part of a node: the state machine and, while the node leads, the core of the term. It has no
// goroutine and no clock and does no I/O: the driver, and the simulator, bring it what the log and the workers say, let it
// step, and carry out the effects.
type Controller struct {
	cfg     ControllerConfig
	members Members
	machine *state.Machine
	core    *Core // nil while this node does not lead
	term    uint64
	inputs  []Input // for the core's next step
	result  state.Result

	// What entries have done that were applied without a core, for the next step.
	changed map[state.JobID]struct{}
	applied Effects
	given   Effects // by the last step
}

// NewController returns a controller that follows, with an empty state.
func NewController(cfg ControllerConfig) *Controller {
	return &Controller{cfg: cfg, machine: state.New(), changed: map[state.JobID]struct{}{}}
}

// Machine is the state. It is another one after a snapshot.
func (n *Controller) Machine() *state.Machine { return n.machine }

// Core is the core of the term; nil while this node does not lead.
func (n *Controller) Core() *Core { return n.core }

// Leading reports whether this node leads.
func (n *Controller) Leading() bool { return n.core != nil }

// Term is the term in which this node leads; 0 while it does not.
func (n *Controller) Term() uint64 {
	if n.core == nil {
		return 0
	}
	return n.term
}

// SetMembers takes in who the leaders are, at first and whenever it changes.
func (n *Controller) SetMembers(m Members) {
	n.members = m
	n.Handle(m)
}

// Commit takes in an entry that the log has committed, in log order. It waits for the core's next step; without a core it is
// applied at once.
func (n *Controller) Commit(entry Committed) error {
	if n.core != nil {
		n.inputs = append(n.inputs, entry)
		return nil
	}
	return n.apply(entry)
}

// SetRole ends the term that this node led, if it did, and begins the given one if the node leads it. Nothing of one term
// reaches the core of the next, but what the log has committed stands.
func (n *Controller) SetRole(now time.Time, leads bool, term uint64) error {
	if err := n.endTerm(); err != nil {
		return err
	}
	if leads {
		n.term = term
		n.core = NewCore(CoreConfig{
			Machine: n.machine, Cluster: n.cfg.Cluster, Members: n.members, Term: n.term, Now: now, Seed: n.cfg.Seed(),
		})
		n.allChanged()
	}
	return nil
}

// Restore replaces the state by that of a snapshot. A node that leads never gets one; if it did, it would no longer lead.
func (n *Controller) Restore(m *state.Machine) {
	n.core, n.inputs = nil, n.inputs[:0]
	for _, id := range n.machine.Jobs() {
		if m.Job(id) == nil {
			n.applied.Forgotten = append(n.applied.Forgotten, id)
		}
	}
	n.machine = m
	n.allChanged()
}

func (n *Controller) allChanged() {
	for _, id := range n.machine.Jobs() {
		n.changed[id] = struct{}{}
	}
}

// endTerm drops the core, and applies the entries that waited for its next step.
func (n *Controller) endTerm() error {
	n.core = nil
	inputs := n.inputs
	n.inputs = n.inputs[:0]
	for _, in := range inputs {
		if entry, ok := in.(Committed); ok {
			if err := n.apply(entry); err != nil {
				return err
			}
		}
	}
	clear(inputs)
	return nil
}

// apply applies an entry without a core, and keeps what the next step must tell.
func (n *Controller) apply(entry Committed) error {
	if err := n.machine.Apply(entry.Index, entry.Data, &n.result); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	last := state.JobID(0)
	for i := range n.result.Verdicts {
		if id := n.result.Verdicts[i].Job; id != last { // thousands in a row are of one job
			n.changed[id], last = struct{}{}, id
		}
	}
	for i := range n.result.Events {
		e := &n.result.Events[i]
		if e.Job != 0 {
			n.changed[e.Job] = struct{}{}
		}
		switch e.Kind {
		case state.JobForgotten:
			n.applied.Forgotten = append(n.applied.Forgotten, e.Job)
			if e.Output != "" {
				n.applied.Spools = append(n.applied.Spools, e.Output)
			}
		case state.RequestApplied:
			n.applied.Replies = append(n.applied.Replies, *e)
		case state.JobSubmitted, state.StageStarted, state.StageEnded, state.TaskReopened, state.TaskLost, state.TaskDied, state.JobEnding, state.JobEnded,
			state.WorkerJoined, state.WorkerChanged:
		}
	}
	return nil
}

// Handle queues an input for the core's next step. It reports false, and drops the input, while the node does not lead.
func (n *Controller) Handle(in Input) bool {
	if n.core == nil {
		return false
	}
	n.inputs = append(n.inputs, in)
	return true
}

// Step lets the core act on what has come. The effects, valid until the next step, are those of the core and of entries that
// were applied without one: their Replies answer requests of a term that has ended, and their Changed and Forgotten are
// what a follower must render anew.
func (n *Controller) Step(now time.Time) (*Effects, error) {
	out := Effects{Wake: now.Add(tick)}
	if n.core != nil {
		effects, err := n.core.Step(now, n.inputs...)
		if err != nil {
			return nil, err
		}
		clear(n.inputs) // lets go of the entries
		n.inputs = n.inputs[:0]
		if out = *effects; !n.pending() {
			n.given = out
			return &n.given, nil
		}
	}
	for _, id := range out.Changed {
		n.changed[id] = struct{}{}
	}
	out.Changed = slices.Sorted(maps.Keys(n.changed))
	out.Replies = slices.Concat(n.applied.Replies, out.Replies)
	out.Forgotten = slices.Concat(n.applied.Forgotten, out.Forgotten)
	out.Spools = slices.Concat(n.applied.Spools, out.Spools)
	clear(n.changed)
	n.applied = Effects{}
	n.given = out
	return &n.given, nil
}

// pending reports whether there is something to tell of entries that were applied without a core.
func (n *Controller) pending() bool {
	return len(n.changed) > 0 || len(n.applied.Replies) > 0 || len(n.applied.Forgotten) > 0 || len(n.applied.Spools) > 0
}
