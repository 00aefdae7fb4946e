package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// dialed is the leaders dialed since the last call.
func (c *coreTest) dialed() []string {
	var leaders []string
	for _, e := range c.connects {
		leaders = append(leaders, e.Leader)
	}
	c.connects = nil
	return leaders
}

func (c *coreTest) wantDialed(what string, want ...string) {
	c.t.Helper()
	if got := c.dialed(); !slices.Equal(got, want) {
		c.t.Errorf("%s: dialed %v, want %v", what, got, want)
	}
}

// fail makes the dial fail.
func (c *coreTest) fail() {
	c.t.Helper()
	c.step(SessionEnded{Epoch: c.epoch, Err: errors.New("connection refused")})
}

// refuse makes the leader refuse the worker.
func (c *coreTest) refuse(reason string) {
	c.t.Helper()
	leader := c.core.search.last.address
	c.step(SessionEnded{Epoch: c.epoch, Err: &RefusedError{Leader: leader, Reason: reason}, Refused: true})
}

// redirect makes the dialed node answer that it does not lead.
func (c *coreTest) redirect(leader string, leaders ...string) {
	c.t.Helper()
	c.receive(&wire.ToWorker{Message: &wire.ToWorker_Elsewhere{Elsewhere: &wire.Elsewhere{Leader: leader, Leaders: leaders}}})
}

func (c *coreTest) welcomeAs(w *wire.Welcome) {
	c.t.Helper()
	w.Worker, w.HeartbeatMs = 3, 60_000
	c.receive(&wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: w}})
}

func (c *coreTest) up() bool { return c.core.session.phase == sessionUp }

// wait advances the time by d, with a step at each Wake.
func (c *coreTest) wait(d time.Duration) {
	c.t.Helper()
	for end := c.now.Add(d); ; {
		wake := c.wake
		if wake.IsZero() || wake.After(end) {
			c.now = end
			c.step()
			return
		}
		if wake.Before(c.now) {
			c.t.Fatalf("Wake = %v ago", c.now.Sub(wake))
		}
		c.now = wake
		c.step()
	}
}

func helloOf(name string) *wire.Hello {
	return &wire.Hello{Identity: "w", Slots: 1, ClusterName: name}
}

func TestSearchRounds(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:2", "k:1"}, Known: []string{"k:1", "k:2", "no port"}})
	for range 4 { // the fourth has ended already
		c.fail()
	}
	c.wantDialed("first round", "k:1", "k:2", "a:1", "b:2")
	var waits []time.Duration
	for range 8 {
		waits = append(waits, c.wake.Sub(c.now))
		c.now = c.wake
		c.step()
		for range 4 {
			c.fail()
		}
		c.wantDialed("next round", "k:1", "k:2", "a:1", "b:2")
	}
	for i, w := range waits {
		full := min(backoffMax, backoffMin<<i)
		if w < full/2 || w > full {
			t.Errorf("wait %d = %v, want %v to %v", i, w, full/2, full)
		}
	}
	if len(c.noLeader) == 0 || !strings.Contains(c.noLeader[0].Reason, "no leader reached at k:1, k:2, a:1, b:2; still trying") ||
		!strings.Contains(c.noLeader[0].Reason, "b:2: connection refused") || c.noLeader[0].Refused {
		t.Errorf("noLeader = %+v, want every leader and the failure of the last", c.noLeader)
	}
}

func TestSearchDialsTheLostLeaderLast(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1"}})
	c.welcomeAs(&wire.Welcome{Term: 1, Leaders: []string{"a:1", "b:1", "c:1"}})
	c.dialed()
	c.fail()
	if len(c.lost) != 1 {
		t.Errorf("lost = %q, want one", c.lost)
	}
	for range 3 {
		c.wait(backoffMin)
		c.fail()
	}
	c.wantDialed("after the loss", "b:1", "c:1", "a:1")
}

func TestSearchFollowsHints(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:1"}})
	c.redirect("c:1", "a:1", "b:1", "c:1", "d:1")
	c.wantDialed("hint", "a:1", "c:1")
	if !slices.Equal(c.left, []uint64{1}) {
		t.Errorf("left = %v, want the first session", c.left)
	}
	c.redirect("d:1")
	c.redirect("a:1") // a loop
	c.wantDialed("hints", "d:1", "b:1")
	c.redirect("") // there is no leader
	c.wantDialed("round over")
	if wait := c.wake.Sub(c.now); wait <= 0 || wait > electionWait {
		t.Errorf("wait = %v, want up to %v", wait, electionWait)
	}
	for range 8 {
		c.wait(electionWait)
		for range 4 {
			c.redirect("")
		}
		if n := len(c.dialed()); n == 0 {
			t.Errorf("waits longer than %v during an election", electionWait)
		}
	}
	// The first hint of the last round is followed at once in the next.
	c.redirect("bad address")
	c.wait(electionWait)
	c.redirect("b:1")
	c.dialed()
	c.welcomeAs(&wire.Welcome{Term: 1})
	// Nodes that do not lead may be of another cluster: their lists are not saved.
	if want := []string{"b:1"}; len(c.saved) != 1 || !slices.Equal(c.saved[0].Leaders, want) {
		t.Errorf("saved = %+v, want %v", c.saved, want)
	}
}

// TestSearchIsBounded has nodes that name new ones for ever.
func TestSearchIsBounded(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1"}})
	for i := range 1000 {
		if c.core.session.phase != sessionDialing {
			break
		}
		c.redirect(fmt.Sprintf("h%d:1", i), fmt.Sprintf("x%d:1", i), fmt.Sprintf("y%d:1", i))
	}
	if n := len(c.dialed()); n != leadersMax {
		t.Errorf("dialed %d without a wait, want %d", n, leadersMax)
	}
}

func TestSearchWhenTheLeaderStepsDown(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1"}})
	c.welcomeAs(&wire.Welcome{Term: 1, Leaders: []string{"a:1", "b:1", "c:1"}})
	c.later(settledAfter)
	c.dialed()
	c.redirect("c:1")
	c.wait(backoffMin)
	c.wantDialed("after the redirect", "c:1")
}

func TestSearchAfterARefusal(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:1"}})
	c.refuse("identity in use by worker 3 on host x")
	c.wantDialed("after a refusal", "a:1", "b:1")
	c.redirect("a:1") // which has refused
	c.wait(refusedWait - time.Second)
	c.wantDialed("for a minute")
	c.wait(time.Second)
	c.wantDialed("after a minute", "a:1")
	c.refuse("identity in use by worker 3 on host x")
	c.redirect("a:1")
	c.wait(refusedWait)
	c.refuse("identity in use by worker 3 on host x")
	if want := []string{"the leader at a:1 refuses this worker: identity in use by worker 3 on host x"}; !slices.Equal(c.refusals, want) {
		t.Errorf("refusals = %q, want %q", c.refusals, want)
	}
	if last := c.noLeader[len(c.noLeader)-1]; !last.Refused || !strings.Contains(last.Reason, "identity in use") {
		t.Errorf("noLeader = %+v, want the refusal", last)
	}
	c.dialed()
	c.fail() // b:1 is down
	c.wait(refusedWait)
	c.refuse("the clock is 6 minutes ahead")
	if len(c.refusals) != 2 {
		t.Errorf("refusals = %q, want the new reason too", c.refusals)
	}
	for !c.up() {
		c.wait(time.Second)
		if c.core.session.phase == sessionDialing {
			c.welcomeAs(&wire.Welcome{Term: 1})
		}
	}
	if c.exit != nil {
		t.Error("a refusal ends the worker")
	}
}

// TestSearchRefusedInASession: running attempts continue, and results are kept.
func TestSearchRefusedInASession(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1"}})
	c.welcome()
	c.lease(100, 2)
	c.starts[0].Claim()
	c.refuse("removed")
	c.starts[0].Finish(0, Result{})
	c.idle(0)
	if len(c.stops) != 0 {
		t.Error("a refusal stops running attempts")
	}
	c.dialed()
	c.wait(refusedWait)
	c.welcome()
	c.wait(reportDelay)
	c.wantLeases("finished", finishedLeases(c.reports), 100)
}

func TestSearchLeavesASilentLeader(t *testing.T) {
	ping := &wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}}
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:1"}})
	c.welcomeAs(&wire.Welcome{Term: 4, SilenceMs: 1000, Leaders: []string{"a:1", "b:1"}})
	c.lease(100, 1)
	c.starts[0].Claim()
	for range 10 {
		c.wait(900 * time.Millisecond)
		c.receive(ping)
	}
	if !c.up() {
		t.Fatal("left a leader that pings")
	}
	c.dialed()
	c.wait(time.Second)
	if c.up() || len(c.left) != 1 || len(c.lost) != 1 {
		t.Fatalf("up = %v, left = %v, lost = %q; want the session left", c.up(), c.left, c.lost)
	}
	c.wait(backoffMin)
	c.wantDialed("after the silence", "b:1")
	c.wantLeases("held", []uint64{c.core.ledger.grants[0].first}, 100)

	// Another node leads; it ends, and the old leader resumes.
	c.welcomeAs(&wire.Welcome{Term: 5, SilenceMs: 1000, Leaders: []string{"a:1", "b:1"}})
	c.fail()
	c.wait(2 * backoffMin)
	c.wantDialed("next", "a:1")
	c.welcomeAs(&wire.Welcome{Term: 4, SilenceMs: 1000})
	if c.up() || len(c.stale) != 1 || c.stale[0] != (StaleLeader{"a:1", 4, 5}) {
		t.Errorf("up = %v, stale = %+v; want the leader of term 4 left for one of term 5", c.up(), c.stale)
	}
	c.wait(answerMin / 2)
	c.wantDialed("after the old leader", "b:1")
	if len(c.stops) != 0 {
		t.Error("a running attempt was stopped")
	}
}

// TestSearchAfterAStop stops the worker's process: the leader's messages are not read yet.
func TestSearchAfterAStop(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:1"}})
	c.welcomeAs(&wire.Welcome{Term: 4, SilenceMs: 1000})
	c.later(20 * time.Second)
	if !c.up() {
		t.Fatal("left the leader before reading its messages")
	}
	c.wait(500 * time.Millisecond)
	if c.up() {
		t.Error("stays with a silent leader")
	}
}

// TestSearchAfterAShortStop stops an idle worker's process for a little longer than its leader may be silent.
func TestSearchAfterAShortStop(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:1"}})
	c.welcomeAs(&wire.Welcome{Term: 4, HeartbeatMs: 300, SilenceMs: 1000, IdleHeartbeatMs: 1000, IdleSilenceMs: 2500})
	c.wait(400 * time.Millisecond)
	c.later(3 * time.Second)
	if !c.up() {
		t.Fatal("left the leader before reading its messages")
	}
	c.wait(1600 * time.Millisecond)
	if c.up() {
		t.Error("stays with a silent leader")
	}
}

func TestHeartbeatsOfAnIdleWorker(t *testing.T) {
	ping := &wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}}
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:1"}})
	c.receive(&wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: &wire.Welcome{
		Worker: 1, Term: 1, HeartbeatMs: 300, SilenceMs: 1000, IdleHeartbeatMs: 1000, IdleSilenceMs: 2500,
	}}})
	want := func(what string, n int) {
		t.Helper()
		if len(c.beats) != n {
			t.Fatalf("%s: %d heartbeats, want %d", what, len(c.beats), n)
		}
	}
	c.wait(999 * time.Millisecond)
	want("idle", 0)
	c.wait(time.Millisecond)
	want("idle for a second", 1)
	c.wait(400 * time.Millisecond)
	c.receive(ping)
	want("a ping soon after", 1)
	c.wait(200 * time.Millisecond)
	c.receive(ping)
	want("a ping when the next is near", 2)
	c.wait(400 * time.Millisecond)
	c.lease(100, 1)
	want("a lease, and the last heartbeat older than a busy worker's may be", 3)
	c.wait(300 * time.Millisecond)
	want("busy", 4)
	c.wait(600 * time.Millisecond)
	if !c.up() {
		t.Error("left a leader early")
	}
	c.wait(300 * time.Millisecond)
	if c.up() {
		t.Error("a busy worker stays with a leader that is silent for over a second")
	}
}

func TestLeaderWithoutPings(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf("alpha"), Leaders: []string{"a:1"}})
	c.welcomeAs(&wire.Welcome{Term: 4, Cluster: "alpha"})
	c.wait(time.Hour)
	if !c.up() {
		t.Error("left a leader that does not ping")
	}
	if len(c.saved) != 1 || c.saved[0].ClusterID != "" || !slices.Equal(c.saved[0].Leaders, []string{"a:1"}) {
		t.Errorf("saved = %+v, want the address that works", c.saved)
	}
}

func TestSearchAnswerTimeout(t *testing.T) {
	ping := &wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}}
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:1"}})
	c.wait(answerMin)
	c.wantDialed("with others to dial", "a:1", "b:1")
	c.wait(answerMin / 2)
	c.receive(ping)
	for c.now.Sub(c.core.session.dialedAt) < WelcomeTimeout-answerMax { // the log is slow to register the worker, and the leader pings
		c.wait(answerMax - time.Millisecond)
		c.receive(ping)
	}
	c.wantDialed("while the leader pings")
	c.receive(&wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: &wire.Welcome{Worker: 1}}})
	if !c.up() {
		t.Error("the Welcome of the present session was not taken")
	}

	c = newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1"}})
	c.wait(WelcomeTimeout - time.Millisecond)
	if len(c.left) != 0 {
		t.Error("gave the only leader up early")
	}
	c.wait(backoffMax)
	c.wantDialed("with no others", "a:1", "a:1")
	c.step(Received{1, &wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: &wire.Welcome{Worker: 1}}}})
	if c.up() {
		t.Error("a Welcome of an old session was taken")
	}
}

func TestSearchLeavesALeaderThatPingsForEver(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:1"}})
	for range 2 * int(WelcomeTimeout/answerMin) {
		if len(c.left) > 0 {
			break
		}
		c.receive(&wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}})
		c.wait(answerMin / 2)
	}
	if len(c.left) == 0 {
		t.Error("never left a leader that does not welcome")
	}
}

// TestSearchWithAStoppedNode: a stopped node delays a round only briefly, however long there is no leader.
func TestSearchWithAStoppedNode(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"a:1", "b:1", "c:1"}})
	elsewhere := &wire.ToWorker{Message: &wire.ToWorker_Elsewhere{Elsewhere: &wire.Elsewhere{}}}
	dials, begun := 0, c.now
	for c.now.Sub(begun) < 30*time.Second {
		if last := c.connects[len(c.connects)-1]; len(c.connects) > dials {
			dials = len(c.connects)
			if last.Leader != "a:1" { // a:1 is stopped, the others know no leader
				c.receive(elsewhere)
				continue
			}
			at := c.now
			for len(c.left) == 0 || c.left[len(c.left)-1] != last.Epoch {
				c.wait(10 * time.Millisecond)
			}
			if took := c.now.Sub(at); took > answerMax {
				t.Fatalf("waited %v for a silent node while others answer", took)
			}
		}
		c.wait(10 * time.Millisecond)
	}
}

func TestSearchSavesTheLeaders(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Leaders: []string{"nat:1"}, ClusterID: "old"})
	if got := c.connects[0].Hello; got.GetClusterId() != "old" || got.GetUnixMs() != c.now.UnixMilli() {
		t.Errorf("hello = %v, want the cluster and the time", got)
	}
	c.welcomeAs(&wire.Welcome{Term: 9, ClusterId: "old", Leaders: []string{"a:1", "b:1", "b:1", "bad", "x:0", " :1"}})
	c.receive(&wire.ToWorker{Message: &wire.ToWorker_Leaders{Leaders: &wire.Leaders{Addresses: []string{"c:1"}}}})
	c.receive(&wire.ToWorker{Message: &wire.ToWorker_Leaders{Leaders: &wire.Leaders{}}})
	c.dialed()
	c.fail()
	c.wait(backoffMin)
	// Recovered under another id, in a lower term.
	c.welcomeAs(&wire.Welcome{Term: 3, ClusterId: "new", Leaders: []string{"c:1"}})
	if !c.up() {
		t.Error("a recovered cluster is not followed")
	}
	var got []string
	for _, k := range c.saved {
		got = append(got, k.ClusterID+" "+strings.Join(k.Leaders, ","))
	}
	want := []string{"old a:1,b:1,nat:1", "old c:1,nat:1", "old c:1,nat:1", "new c:1"}
	if !slices.Equal(got, want) {
		t.Errorf("saved = %q, want %q", got, want)
	}
	c.fail()
	c.wait(2 * backoffMin)
	if got := c.connects[len(c.connects)-1].Hello.GetClusterId(); got != "new" {
		t.Errorf("hello's cluster = %q, want the new one", got)
	}
}

// TestSearchOfAnotherName has a leader of a version that does not check names.
func TestSearchOfAnotherName(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf("alpha"), Leaders: []string{"a:1"}})
	c.welcomeAs(&wire.Welcome{Term: 1, Cluster: "beta"})
	if c.up() || len(c.refusals) != 1 || !strings.Contains(c.refusals[0], "alpha") || !strings.Contains(c.refusals[0], "beta") {
		t.Errorf("up = %v, refusals = %q; want a refusal that names both clusters", c.up(), c.refusals)
	}
	if len(c.saved) != 0 {
		t.Errorf("saved = %+v, want nothing of another cluster", c.saved)
	}
}

func TestSearchDiscovers(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf(""), Discovers: true})
	c.wantDialed("without addresses")
	if !slices.Equal(c.discoveries, []string{""}) {
		t.Fatalf("discoveries = %q, want one at once", c.discoveries)
	}
	c.wait(time.Minute)
	if len(c.discoveries) != 1 {
		t.Errorf("%d discoveries at a time, want 1", len(c.discoveries))
	}
	ambiguous := errors.New("two clusters\nanswer")
	c.step(Discovered{nil, ambiguous})
	if len(c.undiscovered) != 1 || c.noLeader[len(c.noLeader)-1].Reason != "no leader found: two clusters; answer" {
		t.Errorf("undiscovered = %q, noLeader = %+v; want the reason in both", c.undiscovered, c.noLeader)
	}
	for range 20 {
		c.wait(discoverMax)
		c.step(Discovered{nil, ambiguous})
	}
	if n := len(c.discoveries); n != 21 {
		t.Errorf("%d discoveries in 20 waits, want each wait to end with one", n)
	}
	if len(c.undiscovered) != 1 {
		t.Errorf("undiscovered = %q, want one", c.undiscovered)
	}
	c.wait(discoverMax)
	c.step(Discovered{[]string{"f:1", "nonsense", "g:1"}, nil})
	c.fail()
	c.wantDialed("found", "f:1", "g:1")
	c.welcomeAs(&wire.Welcome{Term: 1, ClusterId: "id", Leaders: []string{"g:1", "h:1"}})

	// All leaders move.
	before := len(c.discoveries)
	c.fail()
	for len(c.discoveries) == before {
		c.wait(backoffMin / 2)
		if c.core.session.phase == sessionDialing {
			c.fail()
		}
		if len(c.connects) > 100 {
			t.Fatal("no discovery although all known leaders are gone")
		}
	}
	if c.discoveries[before] != "id" {
		t.Errorf("discovers cluster %q, want its own", c.discoveries[before])
	}
	if n := len(c.dialed()); n < 2*discoverAfter {
		t.Errorf("dialed known leaders %d times before a discovery, want %d rounds", n, discoverAfter)
	}
	c.step(Discovered{[]string{"new:1"}, nil})
	for range 4 {
		if c.core.session.phase == sessionDialing && c.core.search.last.address == "new:1" {
			return
		}
		c.fail()
	}
	t.Error("the discovered leader is not dialed at once")
}

func TestSearchWaitsForAnInvitation(t *testing.T) {
	c := newTestOf(t, Config{Hello: helloOf("")})
	c.wait(time.Hour)
	c.wantDialed("without addresses")
	if len(c.discoveries) != 0 || len(c.noLeader) != 1 || c.noLeader[0].Reason != "waiting for an invitation by a leader" {
		t.Errorf("discoveries = %q, noLeader = %+v", c.discoveries, c.noLeader)
	}
	c.step(Invite{Leaders: []string{"a:1", "b:1"}, ClusterID: "id", ClusterName: "alpha"})
	if got := c.connects[0].Hello.GetClusterId(); got != "id" {
		t.Errorf("hello's cluster = %q, want that of the invitation", got)
	}
	c.fail()
	c.fail()
	c.wait(answerMin / 2)
	c.wantDialed("invited", "a:1", "b:1", "a:1")
	c.refuse("another cluster by now")
	c.step(Invite{Leaders: []string{"a:1"}, ClusterID: "id"}) // while b:1 is being dialed
	c.wantDialed("invited again", "b:1", "a:1")
	c.welcomeAs(&wire.Welcome{Term: 1, ClusterId: "id"})
	if !slices.Equal(c.answers, []error{nil, nil}) || len(c.saved) != 1 {
		t.Errorf("answers = %v, saved = %+v", c.answers, c.saved)
	}
}

func TestInvitations(t *testing.T) {
	two := []string{"a:1", "b:1"}
	up := func(id string) func(*coreTest) {
		return func(c *coreTest) { c.welcomeAs(&wire.Welcome{Term: 1, ClusterId: id}) }
	}
	tests := []struct {
		name  string
		own   string // cluster
		begin func(*coreTest)
		in    Invite
		want  string // in the answer; empty: accepted
	}{
		{"no cluster yet", "", nil, Invite{two, "id", "alpha", 0}, ""},
		{"a leader without an id", "", nil, Invite{two, "", "alpha", 0}, ""},
		{"the same cluster", "id", nil, Invite{two, "id", "alpha", 0}, ""},
		{"the same cluster, in session", "id", up("id"), Invite{two, "id", "alpha", 0}, ""},
		{"another cluster", "id", nil, Invite{two, "other", "alpha", 0}, "belongs to cluster id, and is invited to \"alpha\" (other)"},
		{"another cluster, since it joined", "", up("id"), Invite{two, "other", "alpha", 0}, "belongs to cluster id"},
		{"a cluster without an id", "id", nil, Invite{two, "", "alpha", 0}, "no id given"},
		{"another name", "", nil, Invite{two, "id", "beta", 0}, `started for cluster "alpha", and is invited to "beta"`},
		{"in session with a leader without an id", "", up(""), Invite{two, "id", "alpha", 0}, "has a leader already"},
		{"no address", "", nil, Invite{nil, "id", "alpha", 0}, "no valid address"},
		{"nonsense", "", nil, Invite{[]string{"a", "b c:1", ":1", "x:99999"}, "id", "alpha", 0}, "no valid address"},
		{"during a drain", "", func(c *coreTest) {
			c.welcome()
			c.lease(100, 1)
			c.step(Drain{})
		}, Invite{two, "id", "alpha", 0}, "shutting down"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newTestOf(t, Config{Hello: helloOf("alpha"), Leaders: []string{"s:1"}, ClusterID: test.own})
			if test.begin != nil {
				test.begin(c)
			}
			wasUp := c.up()
			c.dialed()
			c.step(test.in)
			if len(c.answers) != 1 {
				t.Fatalf("answers = %v, want one", c.answers)
			}
			if err := c.answers[0]; test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("answer = %v, want %q", err, test.want)
			}
			c.fail()
			c.wait(backoffMax)
			if got, want := slices.Contains(c.dialed(), "a:1"), test.want == "" && !wasUp; got != want {
				t.Errorf("dialed the leader of the invitation: %v, want %v", got, want)
			}
		})
	}
}
