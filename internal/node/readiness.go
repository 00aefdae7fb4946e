package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/view"
)

// How long requests wait for a node that is about to be ready.
const (
	// electionWait is how long a client waits for an election to end; an election takes no longer.
	electionWait = time.Second
	// workerElectionWait is the same for a worker, which is then redirected at once. It is less than a worker waits for an answer.
	workerElectionWait = 500 * time.Millisecond
	// beginWait is how long a client waits until the views may be served. A log of any ordinary size has been read by then.
	beginWait = 5 * time.Second
	// beginAlone is when the views are served though no leader was heard of.
	beginAlone = 2 * time.Second
	// readyAgeMax is how long ago a follower that is ready has heard from the leader: a few missed heartbeats and an election.
	readyAgeMax = 2 * time.Second
)

// readiness is the one answer to whether this node leads, why it refuses writes, and whether its views may be served. The
// goroutine of Run changes it.
type readiness struct {
	born  time.Time
	now   atomic.Pointer[readyState]
	begun chan struct{}
	// changed notifies of each change, also of who leads and who the members are.
	changed *view.Broadcast
}

// readyState is replaced as a whole.
type readyState struct {
	leading bool
	refusal string // why writes are refused; empty on a leader that accepts them
}

func newReadiness() *readiness {
	r := &readiness{born: time.Now(), begun: make(chan struct{}), changed: view.NewBroadcast()}
	r.now.Store(&readyState{refusal: "the leader is starting"})
	return r
}

// leading reports whether this node leads: it was elected, and its state has all that was committed before.
func (r *readiness) leading() bool { return r.now.Load().leading }

// refusal says why this node refuses writes; empty: it accepts them.
func (r *readiness) refusal() string { return r.now.Load().refusal }

// set reports whether that is a change.
func (r *readiness) set(leading bool, refusal string) bool {
	next := readyState{leading, refusal}
	if *r.now.Swap(&next) == next {
		return false
	}
	r.changed.Notify()
	return true
}

func (r *readiness) hasBegun() bool {
	select {
	case <-r.begun:
		return true
	default:
		return false
	}
}

// begin lets the views be served.
func (r *readiness) begin() {
	close(r.begun)
	r.changed.Notify()
}

// Begun is closed when this node's views show what the log held when it came up, and it leads or knows who does: before
// that it would deny jobs that it will know in a moment. A node that hears of no leader begins after a while all the same.
func (n *Node) Begun() <-chan struct{} { return n.ready.begun }

// beginIfCaughtUp lets the views be served when it is time. Called after they were published.
func (n *Node) beginIfCaughtUp(now time.Time) {
	if n.ready.hasBegun() {
		return
	}
	status := n.cfg.Log.Status()
	if n.loop.target == 0 && status.LeaderID != 0 {
		n.loop.target = status.Committed
	}
	follows := status.LeaderID != 0 && status.LeaderID != status.ID && n.views.Index() >= n.loop.target
	if n.ready.leading() || follows || now.Sub(n.ready.born) > beginAlone && n.views.Index() >= status.Committed {
		n.ready.begin()
	}
}

// awaitLeading reports whether this node leads. If that may change in a moment, because it was just elected or no leader is
// known yet, it waits: a request that comes early need not come again.
func (n *Node) awaitLeading(ctx context.Context, wait time.Duration) bool {
	if n.ready.leading() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	leading := false
	_ = n.ready.changed.Wait(ctx, func() (bool, error) { // an error means that it does not lead
		leading = n.ready.leading()
		status := n.cfg.Log.Status()
		return leading || status.LeaderID != 0 && status.LeaderID != status.ID, nil
	})
	return leading
}

// acceptsWrites returns nil if this node leads and its log has room.
func (n *Node) acceptsWrites(ctx context.Context) error {
	if !n.awaitLeading(ctx, electionWait) {
		return n.notLeader()
	}
	if why := n.ready.refusal(); why != "" {
		return api.Unavailable("%s", why)
	}
	return nil
}

// notLeading is what a node that does not lead tells workers and clients.
const notLeading = "this node does not lead"

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

// WritesRefused implements [view.Source].
func (n *Node) WritesRefused() string { return n.ready.refusal() }

// NotReady says why clients should use another node now; empty: this one leads and accepts writes, or hears from the leader.
func (n *Node) NotReady() string {
	address, self := n.LeaderAddress()
	if self {
		return n.ready.refusal()
	}
	_, age, _ := n.Status()
	switch {
	case address == "":
		return "no leader is known here: an election needs a majority of the leaders"
	case age >= readyAgeMax.Milliseconds():
		return fmt.Sprintf("nothing was heard from the leader at %s for %v", address, time.Duration(age)*time.Millisecond)
	}
	return ""
}

// clusterNotReady says why the cluster accepts no writes, as far as this node knows; empty: it accepts them.
func (n *Node) clusterNotReady(status *replica.Status) string {
	switch {
	case n.ready.leading():
		return n.ready.refusal()
	case !n.ready.hasBegun():
		return "the leader is starting"
	case status.LeaderID == 0:
		return "no leader is known: an election is under way, or no majority of the leaders can be reached"
	case status.LeaderID == status.ID:
		return "this node was elected just now"
	}
	if received := n.received.Load(); received != nil {
		return received.notReady
	}
	return ""
}

// early holds requests back until the views may be served.
type early struct {
	begun <-chan struct{}
	next  http.Handler
}

// ServeHTTP implements http.Handler.
func (e early) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-e.begun:
		e.next.ServeHTTP(w, r)
		return
	default:
	}
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics", "/v1/cluster": // these report the current state
		e.next.ServeHTTP(w, r)
		return
	}
	timer := time.NewTimer(beginWait)
	defer timer.Stop()
	select {
	case <-e.begun:
		e.next.ServeHTTP(w, r)
	case <-timer.C:
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(api.Unavailable("the leader is starting: it still reads its log")) // the client may have gone
	case <-r.Context().Done():
	}
}
