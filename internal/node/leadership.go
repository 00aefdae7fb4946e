package node

import (
	"context"
	"sync"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// lead serves one term as leader. It returns when this node steps down, and its deferred calls undo what it has begun.
func (n *Node) lead(ctx context.Context) error {
	var hooks sync.WaitGroup
	leading, stepDown := context.WithCancel(ctx)
	defer hooks.Wait()
	defer stepDown()
	defer n.settleRequests(ctx)
	defer n.endTerm(ctx)

	m := n.loop.controller.Machine()
	n.log.InfoContext(ctx, "leading", "term", n.loop.controller.Term(), "index", m.Index(), "jobs", m.Len())
	n.loop.requests.fail(outcome{fate: notDone}) // what an earlier term has put into the log is applied by now
	n.received.Store(nil)
	if err := n.cfg.Log.Status().LogFull; err != nil {
		n.refuseWrites(ctx, err)
	} else {
		n.acceptWrites()
	}
	for _, hook := range n.whileLeading() {
		hooks.Go(func() { hook(leading) })
	}
	return n.serve(leading)
}

// whileLeading are the functions that run, each in a goroutine, while this node leads. Their context ends when it steps down, which
// waits for them.
func (n *Node) whileLeading() []func(ctx context.Context) {
	return []func(ctx context.Context){n.sweepSpool}
}

// endTerm ends what belongs to a term: sessions, and entries that were not proposed.
func (n *Node) endTerm(ctx context.Context) {
	why := "this node no longer leads"
	if ctx.Err() != nil {
		why = "the leader is shutting down"
	}
	n.ready.set(false, why)
	n.loop.stuck, n.loop.told = nil, told{}
	n.observer.endTerm()
	for id, st := range n.loop.streams {
		st.close(leader.Close{Reason: why})
		delete(n.loop.streams, id)
	}
}

// logRole logs who leads now.
func (n *Node) logRole(ctx context.Context, r *replica.Role) {
	switch {
	case r.Leader: // logged when it leads
	case r.LeaderID == 0:
		n.log.InfoContext(ctx, "no leader is known", "term", r.Term)
	default:
		n.log.InfoContext(ctx, "following", "term", r.Term, "leader", r.LeaderID)
	}
}

// refuseWrites is called while this node leads and its log has no room.
func (n *Node) refuseWrites(ctx context.Context, err error) {
	if n.ready.set(true, err.Error()) {
		n.log.WarnContext(ctx, "not accepting writes", "error", err)
		n.answerDelayed(ctx, err.Error())
	}
}

func (n *Node) acceptWrites() {
	if n.ready.set(true, "") {
		n.log.Info("accepting writes")
	}
}
