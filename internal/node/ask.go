package node

import (
	"context"
	"errors"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// fate is what has become of a request.
type fate uint8

const (
	// applied: the log has it.
	applied fate = iota
	// notDone: it is certain that the log will never have it.
	notDone
	// unknown: leadership was lost, and no majority has told within settlePatience whether the log has it.
	unknown
)

// outcome is the answer to a request.
type outcome struct {
	fate  fate
	event state.Event // of an applied one
}

// asked are the requests that await the word of the log. They outlive the term: what was in flight when it ended may be
// committed by the next leader, and this node sees it then as a follower.
type asked struct {
	// waiting are those who have asked, by request key and in the order of the log: two who use one key get an answer each.
	waiting map[string][]chan<- outcome
	// settling changes whenever those who wait are others: what is found out about some says nothing of the next.
	settling uint64
	// until is the position at which what has not been answered never will be; 0 while none is known.
	until uint64
}

func newAsked() asked { return asked{waiting: map[string][]chan<- outcome{}} }

func (a *asked) add(key string, answer chan<- outcome) {
	a.waiting[key] = append(a.waiting[key], answer)
}

// reply answers the first who has asked with this key.
func (a *asked) reply(e *state.Event) {
	list := a.waiting[e.Key]
	if len(list) == 0 {
		return // asked of another node, or the client has left
	}
	list[0] <- outcome{event: *e}
	if a.waiting[e.Key] = list[1:]; len(list) == 1 {
		delete(a.waiting, e.Key)
	}
}

// fail answers all who still wait.
func (a *asked) fail(f fate) {
	a.until = 0
	a.settling++
	for key, list := range a.waiting {
		for _, answer := range list {
			answer <- outcome{fate: f}
		}
		delete(a.waiting, key)
	}
}

// reached answers those whose requests would have been seen by this position.
func (a *asked) reached(index uint64) {
	if a.until != 0 && index >= a.until {
		a.fail(notDone)
	}
}

// settlePatience is how long a deposed leader tries to find out what has become of the requests it had in flight.
const settlePatience = time.Second

// settleEvery is how often the position of the log is compared meanwhile.
const settleEvery = 5 * time.Millisecond

// settleAsked finds out what has become of the requests that were in flight when the term ended. A read index that the next
// leader gives lies behind its first entry, so behind all that it has kept of this node's entries: what is not among the
// entries up to there is lost for certain, and whoever waits may be told so.
func (n *Node) settleAsked(ctx context.Context) {
	a := &n.loop.asked
	a.until = 0
	a.settling++
	if len(a.waiting) == 0 {
		return
	}
	now := a.settling
	n.loop.helpers.Go(func() {
		patient, cancel := context.WithTimeout(ctx, settlePatience)
		defer cancel()
		index, err := n.cfg.Log.ReadIndex(patient)
		settle := func(f func()) {
			_ = n.do(ctx, func() { // refused only when the loop has ended, and all who wait know it
				if a.settling == now {
					f()
				}
			})
		}
		if err == nil {
			settle(func() { a.until = index })
			<-patient.Done() // a disk that hangs keeps the log from getting there
		}
		settle(func() { a.fail(unknown) })
	})
}

// ask has the log apply a command and returns its answer.
func (n *Node) ask(ctx context.Context, key string, add func(*state.Entry)) (state.Event, error) {
	if err := n.acceptsWrites(ctx); err != nil {
		return state.Event{}, err
	}
	answer := make(chan outcome, 1)
	select {
	case n.inputs <- message{in: leader.Command{Key: key, Add: add}, answer: answer}:
	case <-ctx.Done():
		return state.Event{}, context.Cause(ctx)
	case <-n.stopped:
		return state.Event{}, n.stopping()
	}
	select {
	case o := <-answer:
		switch o.fate {
		case notDone:
			return o.event, api.NotLeader("leadership was lost before the log had the request: it was not carried out; send it again")
		case unknown:
			return o.event, api.Unavailable("leadership was lost before the log had the request: it may or may not be carried out; " +
				"send it again with the same Idempotency-Key")
		case applied:
		}
		return o.event, problem(o.event.Err)
	case <-ctx.Done():
		return state.Event{}, context.Cause(ctx)
	case <-n.stopped:
		return state.Event{}, api.Unavailable("the leader stopped before the log had the request: it may or may not be carried out; " +
			"send it again with the same Idempotency-Key")
	}
}

// problem is what a client is told of a refused command.
func problem(err error) error {
	var r *state.Rejection
	if !errors.As(err, &r) {
		return err
	}
	switch r.Code {
	case state.NotFound:
		return api.NotFound("%s", r.Message)
	case state.Conflict:
	}
	return api.Conflict("%s", r.Message)
}

// Do implements [view.Source].
func (n *Node) Do(ctx context.Context, f func(*leader.Controller)) error {
	return n.do(ctx, func() { f(n.loop.controller) })
}

// DoLeading implements [view.Source].
func (n *Node) DoLeading(ctx context.Context, f func(*state.Machine, *leader.Core)) error {
	if !n.leads(ctx) {
		return n.notLeader()
	}
	leading := false
	if err := n.do(ctx, func() {
		if core := n.loop.controller.Core(); core != nil {
			leading = true
			f(n.loop.controller.Machine(), core)
		}
	}); err != nil {
		return err
	}
	if !leading {
		return n.notLeader()
	}
	return nil
}

// WritesRefused implements [view.Source].
func (n *Node) WritesRefused() string {
	if why := n.notReady.Load(); why != nil {
		return *why
	}
	return ""
}

// do runs f in the loop, where it may read the state and the core. It must be quick.
func (n *Node) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	query := func() { defer close(done); f() }
	select {
	case n.queries <- query:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.stopped:
		return n.stopping()
	}
	<-done // the loop never abandons a query it has taken
	return nil
}

func (n *Node) stopping() error { return api.Unavailable("the leader is shutting down") }

// notLeading is what a node that does not lead tells workers and clients.
const notLeading = "this node does not lead"

// leads reports whether this node leads. Where that may be so in a moment, because it was just elected or nobody is yet, it
// waits: who comes early need not come again.
func (n *Node) leads(ctx context.Context) bool {
	const patience = time.Second
	var timeout <-chan time.Time
	for {
		changed := n.changes.Changed()
		if n.leading.Load() {
			return true
		}
		if status := n.cfg.Log.Status(); status.LeaderID != 0 && status.LeaderID != status.ID {
			return false
		}
		if timeout == nil {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		case <-n.stopped:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (n *Node) hasBegun() bool {
	select {
	case <-n.begun:
		return true
	default:
		return false
	}
}

// acceptsWrites is nil where this node leads and its log has room.
func (n *Node) acceptsWrites(ctx context.Context) error {
	if !n.leads(ctx) {
		return n.notLeader()
	}
	if why := n.notReady.Load(); why != nil {
		return api.Unavailable("%s", *why)
	}
	return nil
}

// notLeader is the refusal of what only the leader does.
func (n *Node) notLeader() error {
	select {
	case <-n.stopped:
		return n.stopping()
	default:
	}
	if address, self := n.LeaderAddress(); address != "" && !self {
		return api.NotLeader("%s; the leader is at %s", notLeading, address)
	}
	return api.NotLeader("%s, and knows of none just now: try again in a moment", notLeading)
}
