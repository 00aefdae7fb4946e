package leader

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// controllerRig is a controller with nothing around it: what it proposes is committed when the test says so.
type controllerRig struct {
	*Controller
	t     *testing.T
	now   time.Time
	index uint64
}

func newControllerRig(t *testing.T) *controllerRig {
	t.Helper()
	n := &controllerRig{Controller: NewController(ControllerConfig{Cluster: "test", Seed: func() uint64 { return 1 }}), t: t, now: time.Unix(1000, 0)}
	n.SetMembers(Members{ClusterID: "c1", Addresses: []string{"one:1"}})
	return n
}

func (n *controllerRig) role(term uint64, leads bool) {
	n.t.Helper()
	if err := n.SetRole(n.now, leads, term); err != nil {
		n.t.Fatal(err)
	}
}

func (n *controllerRig) commit(term uint64, entries ...[]byte) {
	n.t.Helper()
	for _, data := range entries {
		n.index++
		if err := n.Commit(Committed{Index: n.index, Term: term, Data: bytes.Clone(data)}); err != nil {
			n.t.Fatal(err)
		}
	}
}

// step gives a copy of the effects, with what is due of the entries.
func (n *controllerRig) step() Effects {
	n.t.Helper()
	n.now = n.now.Add(10 * time.Millisecond)
	e, err := n.Step(n.now)
	if err != nil {
		n.t.Fatal(err)
	}
	return *e
}

func (n *controllerRig) submit(key string) bool {
	spec := &state.Spec{Output: "/spool/" + key, Spool: true}
	spec.Input, _ = state.RangeInput(1, 3)
	return n.Handle(Command{Key: key, Add: func(e *state.Entry) { e.Submit(key, "uid-"+key, "", spec) }})
}

func TestControllerFollowsLeadsAndFollows(t *testing.T) {
	n := newControllerRig(t)
	if n.Leading() || n.Term() != 0 || n.Core() != nil || n.submit("early") {
		t.Error("a new node leads")
	}
	n.role(3, true)
	if !n.Leading() || n.Term() != 3 || n.Core() == nil {
		t.Error("an elected node does not lead")
	}
	n.submit("a")
	n.submit("b")
	proposed := n.step().Propose
	if len(proposed) != 1 {
		t.Fatalf("%d entries for two requests of one step, want 1", len(proposed))
	}
	// The entry is committed, and in the same breath the term ends: the requests are answered all the same, and a request that
	// has not been proposed is not carried into the next term.
	n.commit(3, proposed...)
	n.submit("lost")
	n.role(4, false)
	e := n.step()
	if n.Leading() || n.Term() != 0 || len(e.Replies) != 2 || e.Replies[0].Key != "a" || e.Replies[1].Job != 2 {
		t.Errorf("after the term: leading %v, replies %+v, want those of a and b", n.Leading(), e.Replies)
	}
	if !slices.Equal(e.Changed, []state.JobID{1, 2}) || len(e.Propose) != 0 {
		t.Errorf("after the term: changed %v, %d entries, want jobs 1 and 2, and none", e.Changed, len(e.Propose))
	}
	if e = n.step(); len(e.Replies)+len(e.Changed) != 0 || !e.Wake.After(n.now) {
		t.Errorf("the next step emits it all again: %+v", e)
	}
	n.role(5, true)
	if e = n.step(); !slices.Equal(e.Changed, []state.JobID{1, 2}) {
		t.Errorf("in a new term: changed %v, want all jobs", e.Changed)
	}
	for range 10 {
		if e = n.step(); len(e.Propose) != 0 {
			t.Errorf("in a new term: %d entries of the last one", len(e.Propose))
		}
	}
}

// A follower emits the changes of the entries of others, and a leader has its members.
func TestControllerReportsAppliedEntries(t *testing.T) {
	n := newControllerRig(t)
	leader := newControllerRig(t)
	leader.role(1, true)
	leader.Handle(Hello{Session: 1, Hello: &wire.Hello{Identity: "alice", Incarnation: "x", Slots: 2}})
	leader.submit("a")
	var welcome *wire.Welcome
	run := func() {
		t.Helper()
		for range 100 {
			e := leader.step()
			for _, s := range e.Send {
				if w := s.Message.GetWelcome(); w != nil {
					welcome = w
				}
				for _, grant := range s.Message.GetWork().GetLeases() {
					leader.Handle(Report{Session: 1, Report: allFinished(grant)})
				}
			}
			for _, data := range e.Propose {
				leader.commit(1, data)
				n.commit(1, data)
			}
		}
	}
	run()
	if welcome.GetClusterId() != "c1" || !slices.Equal(welcome.GetLeaders(), []string{"one:1"}) {
		t.Errorf("welcome: %v, want it to name the cluster and the leaders with an address", welcome)
	}
	e := n.step()
	if job := n.Machine().Job(1); job == nil || job.Status != state.JobDone || !slices.Equal(e.Changed, []state.JobID{1}) {
		t.Errorf("a follower: changed %v, job %+v, want it done", e.Changed, job)
	}
	leader.Handle(Command{Key: "f", Add: func(e *state.Entry) { e.Forget("f", 1) }})
	run()
	if e = n.step(); !slices.Equal(e.Forgotten, []state.JobID{1}) || !slices.Equal(e.Spools, []string{"/spool/a"}) {
		t.Errorf("a follower: forgotten %v, spools %v, want job 1 and its folder", e.Forgotten, e.Spools)
	}
}

// allFinished reports every attempt as finished without output.
func allFinished(w *wire.Leases) *wire.Report {
	f := &wire.Finished{Job: w.GetJob(), Stage: w.GetStage()}
	for i, index := range w.GetIndex() {
		f.Index = append(f.Index, index)
		f.Lease = append(f.Lease, w.GetFirstLease()+uint64(i))
	}
	return &wire.Report{Finished: []*wire.Finished{f}}
}

func TestControllerRefusesUnknownEntry(t *testing.T) {
	bad := Committed{Index: 7, Term: 1, Data: []byte{255, 1, 2}}
	n := newControllerRig(t)
	if err := n.Commit(bad); err == nil || !strings.Contains(err.Error(), "log entry 7") {
		t.Errorf("Commit(an unknown entry) = %v", err)
	}
	n = newControllerRig(t)
	n.role(1, true)
	if err := n.Commit(bad); err != nil {
		t.Errorf("Commit() = %v; a leader applies it in its step", err)
	}
	if _, err := n.Step(n.now); err == nil || !strings.Contains(err.Error(), "log entry 7") {
		t.Errorf("Step(an unknown entry) = %v", err)
	}
	n = newControllerRig(t)
	n.role(1, true)
	if err := n.Commit(bad); err != nil {
		t.Fatal(err)
	}
	if err := n.SetRole(n.now, false, 2); err == nil {
		t.Error("SetRole() = nil at the end of the term, though an entry before it cannot be read")
	}
}
