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
	// electionWait bounds a client's wait for the end of an election.
	electionWait = time.Second
	// workerElectionWait is the same for a worker. It is shorter than a worker waits for an answer.
	workerElectionWait = 500 * time.Millisecond
	// beginWait bounds a client's wait until the views may be served: by then a log of any usual size has been read.
	beginWait = 5 * time.Second
	// beginAlone is when the views are served even if no leader is known.
	beginAlone = 2 * time.Second
	// readyAgeMax is the longest silence of the leader for a follower to be ready: a few missed heartbeats and an election.
	readyAgeMax = 2 * time.Second
)

// readiness says whether this node leads, why it refuses writes, and whether its views may be served. Nothing else does. The
// goroutine of Run changes it.
type readiness struct {
	born  time.Time
	now   atomic.Pointer[readyState]
	begun chan struct{}
	// current: the views have shown what was committed at the start. It is not set if they are served for want of a leader.
	current atomic.Bool
	// changed notifies of each change, and of changes of the leader and of the members.
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

// leading reports whether this node leads: it was elected, and its state includes everything committed before.
func (r *readiness) leading() bool { return r.now.Load().leading }

// refusal says why this node refuses writes; empty: it accepts them.
func (r *readiness) refusal() string { return r.now.Load().refusal }

// set reports whether the values have changed.
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

// Begun is closed when the views show what was committed at the start: on the leader, or on a follower that has reached a position that
// the leader reported. The follower's own commit index would not do: it is 0 on a new member. Before that, jobs would seem unknown
// that appear a moment later. Without a leader it is closed after a while.
func (n *Node) Begun() <-chan struct{} { return n.ready.begun }

// beginIfCaughtUp is called after each publication of the views.
func (n *Node) beginIfCaughtUp(now time.Time) {
	if n.ready.current.Load() {
		return
	}
	status := n.cfg.Log.Status()
	if received := n.received.Load(); n.loop.beginAt == 0 && received != nil {
		n.loop.beginAt = received.index
	}
	follows := n.loop.beginAt != 0 && n.views.Index() >= n.loop.beginAt
	alone := status.LeaderID == 0 && now.Sub(n.ready.born) > beginAlone && n.views.Index() >= status.Committed
	if n.ready.leading() || follows {
		n.ready.current.Store(true)
	} else if !alone {
		return
	}
	if !n.ready.hasBegun() {
		n.ready.begin()
	}
}

// awaitLeading reports whether this node leads. During an election, or if this node was just elected, it waits: a request that comes
// early need not be repeated.
func (n *Node) awaitLeading(ctx context.Context, wait time.Duration) bool {
	if n.ready.leading() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	leading := false
	_ = n.ready.changed.Wait(ctx, func() (bool, error) { // after an error it does not lead
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

// notLeading is the answer of a follower to workers and clients.
const notLeading = "this node does not lead"

// notLeader refuses a request that only the leader serves.
func (n *Node) notLeader() error {
	select {
	case <-n.stopped:
		return n.stopping()
	default:
	}
	if address, self := n.LeaderAddress(); address != "" && !self {
		return api.NotLeader("%s; the leader is at %s", notLeading, address)
	}
	return api.NotLeader("%s, and no leader is known now: try again in a moment", notLeading)
}

// WritesRefused implements [view.Source].
func (n *Node) WritesRefused() string { return n.ready.refusal() }

// NotReady says why clients should use another node; empty: this one leads and accepts writes, or it follows and hears from the leader.
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
		return fmt.Sprintf("no heartbeat from the leader at %s for %v", address, time.Duration(age)*time.Millisecond)
	}
	return ""
}

// clusterNotReady says why the cluster accepts no writes, as far as this node knows; empty: it does.
func (n *Node) clusterNotReady(status *replica.Status) string {
	switch {
	case n.ready.leading():
		return n.ready.refusal()
	case !n.ready.hasBegun():
		return "the leader is starting"
	case status.LeaderID == 0:
		return "no leader is known: an election is under way, or no majority of the leaders can be reached"
	case status.LeaderID == status.ID:
		return "this node was just elected"
	}
	if received := n.received.Load(); received != nil {
		return received.notReady
	}
	return ""
}

// untilBegun delays requests until the views may be served.
type untilBegun struct {
	begun <-chan struct{}
	next  http.Handler
}

// ServeHTTP implements http.Handler.
func (e untilBegun) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-e.begun:
		e.next.ServeHTTP(w, r)
		return
	default:
	}
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics", "/v1/cluster": // these report the current state
		if r.Header.Get("Authorization") == "" { // the tokens are not known yet
			e.next.ServeHTTP(w, r)
			return
		}
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
		_ = json.NewEncoder(w).Encode(api.Unavailable("the leader is starting: it is reading its log")) // the client may have gone
	case <-r.Context().Done():
	}
}
