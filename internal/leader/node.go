package leader

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
)

// NodeConfig sets a node up.
type NodeConfig struct {
	Cluster string        // name of the cluster
	Seed    func() uint64 // for the jitter of back-offs; called once a term
}

// Node is the pure part of a leader process: the state machine and, while this node leads, the core of the term. It has no
// goroutine and no clock and does no I/O: the driver, and the simulator, bring it what the log and the workers say, let it
// step, and carry out the effects.
type Node struct {
	cfg     NodeConfig
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

// NewNode returns a node that follows, with an empty state.
func NewNode(cfg NodeConfig) *Node {
	return &Node{cfg: cfg, machine: state.New(), changed: map[state.JobID]struct{}{}}
}

// Machine is the state. It is another one after a snapshot.
func (n *Node) Machine() *state.Machine { return n.machine }

// Core is the core of the term; nil while this node does not lead.
func (n *Node) Core() *Core { return n.core }

// Leading reports whether this node leads.
func (n *Node) Leading() bool { return n.core != nil }

// Term is the term in which this node leads; 0 while it does not.
func (n *Node) Term() uint64 {
	if n.core == nil {
		return 0
	}
	return n.term
}

// SetMembers takes in who the leaders are, at first and whenever it changes.
func (n *Node) SetMembers(m replica.Members) {
	n.members = Members{ClusterID: m.Cluster, Former: m.Former}
	for _, member := range m.List {
		if member.Address != "" {
			n.members.Addresses = append(n.members.Addresses, member.Address)
		}
	}
	n.Take(n.members)
}

// Log takes in news of the log: a snapshot, entries, a role. Whoever calls it ends what belongs to a term, its sessions
// above all, when Term is another one afterwards. Entries wait for the core's next step; without a core they are applied at once.
func (n *Node) Log(now time.Time, e replica.Event) error {
	if e.Snapshot != nil {
		if err := n.restore(e); err != nil {
			return err
		}
	}
	for _, entry := range e.Entries {
		in := Committed{Index: entry.Index, Term: entry.Term, Data: entry.Data}
		if n.core != nil {
			n.inputs = append(n.inputs, in)
			continue
		}
		if err := n.apply(in); err != nil {
			return err
		}
	}
	if e.Role == nil {
		return nil
	}
	// Nothing of one term may reach the core of the next, but what the log has committed stands.
	if err := n.endTerm(); err != nil {
		return err
	}
	if e.Role.Leader {
		n.term = e.Role.Term
		n.core = NewCore(CoreConfig{
			Machine: n.machine, Cluster: n.cfg.Cluster, Members: n.members, Term: n.term, Now: now, Seed: n.cfg.Seed(),
		})
		n.allChanged()
	}
	return nil
}

// restore begins anew from a snapshot.
func (n *Node) restore(e replica.Event) error {
	m, err := state.Restore(e.Snapshot)
	if cerr := e.Snapshot.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("snapshot at %d: %w", e.SnapshotIndex, err)
	}
	n.core, n.inputs = nil, n.inputs[:0] // a node that leads never gets one; if it did, it would not lead any more
	for _, id := range n.machine.Jobs() {
		if m.Job(id) == nil {
			n.applied.Forgotten = append(n.applied.Forgotten, id)
		}
	}
	n.machine = m
	n.allChanged()
	return nil
}

func (n *Node) allChanged() {
	for _, id := range n.machine.Jobs() {
		n.changed[id] = struct{}{}
	}
}

// endTerm drops the core, and applies the entries that waited for its next step.
func (n *Node) endTerm() error {
	n.core = nil
	inputs := n.inputs
	n.inputs = n.inputs[:0]
	for _, in := range inputs {
		if c, ok := in.(Committed); ok {
			if err := n.apply(c); err != nil {
				return err
			}
		}
	}
	clear(inputs)
	return nil
}

// apply applies an entry without a core, and keeps what the next step must tell.
func (n *Node) apply(c Committed) error {
	if err := n.machine.Apply(c.Index, c.Data, &n.result); err != nil {
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
		case state.JobSubmitted, state.StageStarted, state.TaskReopened, state.TaskDied, state.JobEnding, state.JobEnded,
			state.WorkerJoined, state.WorkerChanged:
		}
	}
	return nil
}

// Take queues an input for the next step. Where this node does not lead there is nobody to take it, and Take reports false.
func (n *Node) Take(in Input) bool {
	if n.core == nil {
		return false
	}
	n.inputs = append(n.inputs, in)
	return true
}

// Step lets the core act on what has come. The effects, valid until the next step, are those of the core and of entries that
// were applied without one: their Replies answer requests of a term that has ended, and their Changed and Forgotten are
// what a follower must render anew.
func (n *Node) Step(now time.Time) (*Effects, error) {
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
func (n *Node) pending() bool {
	return len(n.changed) > 0 || len(n.applied.Replies) > 0 || len(n.applied.Forgotten) > 0 || len(n.applied.Spools) > 0
}
