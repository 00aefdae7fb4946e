package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/replica"
)

// lead serves one term as leader. It returns when this node steps down, and its deferred calls undo what it set up.
func (n *Node) lead(ctx context.Context) error {
	leading, stepDown := context.WithCancel(ctx)
	defer stepDown()
	defer n.settleRequests(ctx)
	defer n.endTerm(ctx)

	m := n.loop.controller.Machine()
	n.log.InfoContext(ctx, "leading", "term", n.loop.controller.Term(), "index", m.Index(), "jobs", m.Len())
	n.loop.requests.fail(errNotDone) // entries of earlier terms are applied by now
	n.received.Store(nil)
	n.publishAccess() // who waits for leadership reads the tables then
	if err := n.cfg.Log.Status().LogFull; err != nil {
		n.refuseWrites(ctx, err)
	} else {
		n.acceptWrites()
	}
	n.updateLevel(time.Now()) // of a new cluster, before its first job
	for _, hook := range n.whileLeading() {
		n.loop.helpers.Go(func() { hook(leading) })
	}
	return n.serve(leading)
}

// whileLeading returns the functions that run while this node leads, each in a goroutine. Their context ends when it steps down, which does
// not wait for them: a file system may hang.
func (n *Node) whileLeading() []func(ctx context.Context) {
	return []func(ctx context.Context){n.sweepSpool}
}

// endTerm closes the sessions of the term, and drops entries that were not proposed.
func (n *Node) endTerm(ctx context.Context) {
	why := "this node no longer leads"
	if ctx.Err() != nil {
		why = "the leader is shutting down"
	}
	n.ready.set(false, why)
	n.loop.unproposed, n.loop.sent, n.loop.stalled = nil, sentVolatile{}, false
	n.observer.endTerm()
	n.loop.lockCalls.wakeAll()
	for id, st := range n.loop.streams {
		st.close(leader.Close{Reason: why})
		delete(n.loop.streams, id)
	}
}

// logRole logs a change of leader.
func (n *Node) logRole(ctx context.Context, r *replica.Role) {
	switch {
	case r.Leader: // lead logs it
	case r.LeaderID == 0:
		n.log.InfoContext(ctx, "no leader is known", "term", r.Term)
	default:
		n.log.InfoContext(ctx, "following", "term", r.Term, "leader", r.LeaderID)
	}
}

// refuseWrites notes that the log of the leader has no room, and acceptWrites that it has again.
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

// stallMax is how long the log may commit nothing while writes wait before more are refused. A leader that hears no majority steps down
// earlier.
const stallMax = 3 * time.Second

// watchProgress refuses writes while the log commits nothing although some wait.
func (n *Node) watchProgress(ctx context.Context, now time.Time) {
	core := n.loop.controller.Core()
	switch stalled := core != nil && core.Stalled(now) > stallMax; {
	case stalled && n.ready.refusal() == "":
		n.loop.stalled = true
		status := n.cfg.Log.Status()
		n.refuseWrites(ctx, errors.New(stallCause(&status)))
	case !stalled && n.loop.stalled:
		n.loop.stalled = false
		if n.cfg.Log.Status().LogFull == nil {
			n.acceptWrites()
		}
	}
}

// stallCause says why the log of a leader commits nothing.
func stallCause(s *replica.Status) string {
	var behind []string
	for _, p := range s.Peers {
		if p.Match < s.Last {
			behind = append(behind, fmt.Sprint(p.ID))
		}
	}
	cause := "the disk of this leader does not answer: check its health and its log"
	if len(behind) > 0 {
		cause = "of the other leaders, " + strings.Join(behind, ", ") + " have not stored what was written last: check their disks and connections, and " +
			"the disk of this one"
	}
	return fmt.Sprintf("nothing was committed for %v while writes wait; %s", stallMax, cause)
}
