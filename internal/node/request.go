package node

import (
	"context"
	"errors"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// outcome is the answer to a request.
type outcome struct {
	event state.Event // of its application
	err   error       // why it was not applied, or may not be
}

// The errors of requests that were in flight when leadership was lost.
var (
	// errNotDone: the log will never contain the request.
	errNotDone = api.NotLeader("leadership was lost before the request was committed: it was not carried out; send it again")
	// errUnknown: no majority answered within settleTime whether the log contains the request.
	errUnknown = api.OutcomeUnknown("leadership was lost before the request was committed")
)

// requests are the clients' requests in flight. They outlive the term: a request that was in flight when it ended may be committed by
// the next leader, and this node sees it then as a follower.
type requests struct {
	// waiting are the channels for the answers, by request key and in the order of the log: two requests with one key get one each.
	waiting map[string][]chan<- outcome
	// settling changes with each term: a position that was read for one does not apply to the requests of the next.
	settling uint64
	// until is the position at which every request without an answer is lost; 0: not known.
	until uint64
}

func newRequests() requests { return requests{waiting: map[string][]chan<- outcome{}} }

func (r *requests) add(key string, answer chan<- outcome) {
	r.waiting[key] = append(r.waiting[key], answer)
}

// reply answers the first request with this key.
func (r *requests) reply(e *state.Event) {
	list := r.waiting[e.Key]
	if len(list) == 0 {
		return // another node's request
	}
	list[0] <- outcome{event: *e}
	if r.waiting[e.Key] = list[1:]; len(list) == 1 {
		delete(r.waiting, e.Key)
	}
}

// fail answers all requests with err.
func (r *requests) fail(err error) {
	r.until = 0
	r.settling++
	for key, list := range r.waiting {
		for _, answer := range list {
			answer <- outcome{err: err}
		}
		delete(r.waiting, key)
	}
}

// reached answers all requests if they would have been applied up to this position.
func (r *requests) reached(index uint64) {
	if r.until != 0 && index >= r.until {
		r.fail(errNotDone)
	}
}

// settleTime bounds how long a deposed leader tries to learn the fate of the requests in flight.
const settleTime = time.Second

// settleEvery is how often the position of the log is checked meanwhile.
const settleEvery = 5 * time.Millisecond

// settleRequests finds out the fate of the requests that were in flight when the term ended. A read index from the next leader lies
// behind its first entry, so behind all entries of this node that it has kept: a request that was not applied up to there is lost for
// certain.
func (n *Node) settleRequests(ctx context.Context) {
	r := &n.loop.requests
	r.until = 0
	r.settling++
	if len(r.waiting) == 0 || ctx.Err() != nil {
		return // when ctx is done, the node stops, which answers them
	}
	settling := r.settling
	n.loop.helpers.Go(func() {
		waiting, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		index, err := n.cfg.Log.ReadIndex(waiting)
		settle := func(f func()) {
			_ = n.do(ctx, func() { // fails only when the node stops, which answers the requests
				if r.settling == settling {
					f()
				}
			})
		}
		if err == nil {
			settle(func() { r.until = index })
			<-waiting.Done() // the log may not get there: a disk may hang
		}
		settle(func() { r.fail(errUnknown) })
	})
}

// answerDelayed answers the requests that are still in flight a while after the log became full or stalled.
func (n *Node) answerDelayed(ctx context.Context, cause string) {
	n.loop.helpers.Go(func() {
		waiting, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		<-waiting.Done()
		_ = n.do(ctx, func() { // fails only when the node steps down or stops
			if n.ready.refusal() == cause {
				n.loop.requests.fail(api.OutcomeUnknown("%s", cause))
			}
		})
	})
}

// execute puts a command into the log, on behalf of the principal in ctx, and returns the event of its application.
func (n *Node) execute(ctx context.Context, key string, add func(*state.Entry)) (state.Event, error) {
	return n.executeBy(ctx, key, auditOf(ctx), add)
}

// executeBy is execute on behalf of a client; nil: it becomes no audit record.
func (n *Node) executeBy(ctx context.Context, key string, by *state.Audit, add func(*state.Entry)) (state.Event, error) {
	if err := n.acceptsWrites(ctx); err != nil {
		return state.Event{}, err
	}
	answer := make(chan outcome, 1)
	audited := func(e *state.Entry) {
		e.By = by
		add(e)
		e.By = nil
	}
	if err := n.deliver(ctx, message{in: leader.Command{Key: key, Add: audited}, answer: answer}); err != nil {
		return state.Event{}, err
	}
	select {
	case o := <-answer:
		if o.err != nil {
			return state.Event{}, o.err
		}
		return o.event, problem(o.event.Err)
	case <-ctx.Done():
		return state.Event{}, context.Cause(ctx)
	case <-n.stopped:
		return state.Event{}, api.OutcomeUnknown("the leader stopped before the request was committed")
	}
}

// problem converts the rejection of a command.
func problem(err error) error {
	var r *state.Rejection
	if !errors.As(err, &r) {
		return err
	}
	switch r.Code {
	case state.NotFound:
		return api.NotFound("%s", r.Message)
	case state.TooLarge:
		return api.TooLarge("%s", r.Message)
	case state.Busy:
		return api.Unavailable("%s", r.Message)
	case state.OverQuota:
		return api.OverQuota("%s", r.Message)
	case state.Conflict, state.OwnConflict:
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
	return n.leading(ctx, f)
}

// do runs f in the goroutine of Run, where it may read the state and the core. It must be quick.
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
	<-done // a query that was received is run
	return nil
}

// deliver sends a message to the goroutine of Run.
func (n *Node) deliver(ctx context.Context, m message) error {
	select {
	case n.inputs <- m:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.stopped:
		return n.stopping()
	}
}

func (n *Node) stopping() error { return api.Unavailable("the leader is shutting down") }
