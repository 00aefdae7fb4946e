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
	// unknown: leadership was lost, and no majority has told within settleTime whether the log has it.
	unknown
	// delayed: the log has no room, and will have it at most once there is room again.
	delayed
)

// outcome is the answer to a request.
type outcome struct {
	fate  fate
	event state.Event // of an applied one
	cause string      // of a delayed one
}

// requests are the clients' requests that await the word of the log. They outlive the term: what was in flight when it ended may be
// committed by the next leader, and this node sees it then as a follower.
type requests struct {
	// waiting are those who have asked, by request key and in the order of the log: two who use one key get an answer each.
	waiting map[string][]chan<- outcome
	// settling changes whenever those who wait are others: what is found out about some says nothing of the next.
	settling uint64
	// until is the position at which what has not been answered never will be; 0 while none is known.
	until uint64
}

func newRequests() requests { return requests{waiting: map[string][]chan<- outcome{}} }

func (r *requests) add(key string, answer chan<- outcome) {
	r.waiting[key] = append(r.waiting[key], answer)
}

// reply answers the first who has asked with this key.
func (r *requests) reply(e *state.Event) {
	list := r.waiting[e.Key]
	if len(list) == 0 {
		return // asked of another node, or the client has left
	}
	list[0] <- outcome{event: *e}
	if r.waiting[e.Key] = list[1:]; len(list) == 1 {
		delete(r.waiting, e.Key)
	}
}

// fail answers all who still wait.
func (r *requests) fail(o outcome) {
	r.until = 0
	r.settling++
	for key, list := range r.waiting {
		for _, answer := range list {
			answer <- o
		}
		delete(r.waiting, key)
	}
}

// reached answers those whose requests would have been seen by this position.
func (r *requests) reached(index uint64) {
	if r.until != 0 && index >= r.until {
		r.fail(outcome{fate: notDone})
	}
}

// settleTime is how long a deposed leader tries to find out what has become of the requests it had in flight.
const settleTime = time.Second

// settleEvery is how often the position of the log is compared meanwhile.
const settleEvery = 5 * time.Millisecond

// settleRequests finds out what has become of the requests that were in flight when the term ended. A read index that the next
// leader gives lies behind its first entry, so behind all that it has kept of this node's entries: what is not among the
// entries up to there is lost for certain, and whoever waits may be told so.
func (n *Node) settleRequests(ctx context.Context) {
	r := &n.loop.requests
	r.until = 0
	r.settling++
	if len(r.waiting) == 0 || ctx.Err() != nil {
		return // with ctx, the node ends, and they are told that
	}
	now := r.settling
	n.loop.helpers.Go(func() {
		waiting, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		index, err := n.cfg.Log.ReadIndex(waiting)
		settle := func(f func()) {
			_ = n.do(ctx, func() { // refused only when the loop has ended, and all who wait know it
				if r.settling == now {
					f()
				}
			})
		}
		if err == nil {
			settle(func() { r.until = index })
			<-waiting.Done() // a disk that hangs keeps the log from getting there
		}
		settle(func() { r.fail(outcome{fate: unknown}) })
	})
}

// answerDelayed answers the requests that still wait a while after the log has run out of room: their entries wait for room.
func (n *Node) answerDelayed(ctx context.Context, cause string) {
	n.loop.helpers.Go(func() {
		waiting, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		<-waiting.Done()
		_ = n.do(ctx, func() { // refused only when the loop has ended
			if n.ready.refusal() == cause {
				n.loop.requests.fail(outcome{fate: delayed, cause: cause})
			}
		})
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
		case delayed:
			return o.event, api.Unavailable("%s; the request may be carried out when there is room: send it again then, with the same "+
				"Idempotency-Key", o.cause)
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
	if !n.awaitLeading(ctx, electionWait) {
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
