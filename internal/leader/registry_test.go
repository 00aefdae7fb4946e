package leader

import (
	"slices"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// registryOf is the registry of a term over a state that has workers with these identities.
func registryOf(t *testing.T, now time.Time, identities ...string) (registry, *state.Machine) {
	t.Helper()
	m := state.New()
	e := state.NewEntry(1, 0)
	for _, id := range identities {
		e.Register("", &state.WorkerInfo{Identity: id, Slots: 1})
	}
	var out state.Result
	if err := m.Apply(1, e.Data(), &out); err != nil {
		t.Fatal(err)
	}
	return newRegistry(m, now), m
}

func sessionOf(id SessionID, identity string) *session {
	return &session{id: id, hello: &wire.Hello{Identity: identity, Incarnation: "x"}}
}

func TestRegistryReplacesSession(t *testing.T) {
	now := time.UnixMilli(1)
	r, _ := registryOf(t, now)
	leases := newLeaseBook(1)
	w := r.worker(1, &leases)
	first, second := sessionOf(1, "a"), sessionOf(2, "a")
	for _, s := range []*session{first, second} {
		r.sessions[s.id] = s
	}
	if old := r.attach(w, first, now); old != nil || w.session != first || !w.assignable() {
		t.Errorf("attach(first) = %v, session %v", old, w.session)
	}
	if old := r.attach(w, second, now); old != first || r.sessions[1] != nil || r.assignable(9) != 1 {
		t.Errorf("attach(second) = %v, %d sessions, want the first one, and one left", old, len(r.sessions))
	}
	if r.detach(1) != nil || w.session != second {
		t.Error("the end of the replaced session detaches the worker")
	}
	if r.detach(2) != w || w.session != nil || w.assignable() {
		t.Error("the end of its session does not detach the worker")
	}
}

// A worker is silent after LossAfter; an idle one that is connected has longer, and the time in which the leader was starved does not
// count.
func TestRegistrySilence(t *testing.T) {
	start := time.UnixMilli(1)
	r, _ := registryOf(t, start)
	leases := newLeaseBook(1)
	idle, busy, gone := r.worker(1, &leases), r.worker(2, &leases), r.worker(3, &leases)
	for i, w := range []*worker{idle, busy, gone} {
		r.attach(w, sessionOf(SessionID(i+1), "a"), start)
	}
	leases.grant(busy.leases, &lease{})
	gone.session = nil
	check := func(after time.Duration, want ...bool) {
		t.Helper()
		for i, w := range []*worker{idle, busy, gone} {
			if got := w.silent(start.Add(after)); got != want[i] {
				t.Errorf("worker %d after %v: silent = %v, want %v", w.ID, after, got, want[i])
			}
		}
	}
	check(LossAfter, false, false, false)
	check(LossAfter+1, false, true, true)
	check(idleLossAfter+1, true, true, true)
	r.startCheck(start.Add(idleLossAfter))
	check(idleLossAfter+1, false, false, false)
	busy.lost = true
	check(idleLossAfter+LossAfter+1, false, false, true)
}

// Workers of before the term are awaited for LossAfter, and those that have come but wait for a slow log for longer.
func TestRegistryAwaitsWorkersOfBefore(t *testing.T) {
	start := time.UnixMilli(1)
	r, m := registryOf(t, start, "a", "b", "c")
	r.sessions[1] = sessionOf(1, "b")
	if list := r.overdue(m, start.Add(LossAfter)); list != nil {
		t.Errorf("overdue in time: %v", list)
	}
	if list := r.overdue(m, start.Add(LossAfter+1)); !slices.Equal(list, []state.WorkerID{1, 3}) {
		t.Errorf("overdue: %v, want 1 and 3: worker 2 is registering", list)
	}
	for id, last := range map[state.WorkerID]bool{1: false, 9: false} {
		if got := r.arrived(id); got != last {
			t.Errorf("arrived(%d) = %v", id, got)
		}
	}
	if r.arrived(3); !r.arrived(2) || r.arrived(2) {
		t.Error("arrived(2) is not, once, the last")
	}
}

func TestQuarantineEvidence(t *testing.T) {
	now := time.UnixMilli(1)
	var q quarantine
	for i := range quarantineTasks - 1 {
		for range 2 { // a task counts once
			if q.fail(taskKey{task: uint64(i)}) {
				t.Fatalf("%d tasks suffice, want %d", i+1, quarantineTasks)
			}
		}
	}
	q.succeed(now)
	for i := range quarantineTasks {
		if got := q.fail(taskKey{task: uint64(i)}); got != (i == quarantineTasks-1) {
			t.Errorf("after a success, failure %d: %v", i+1, got)
		}
	}
	if q.active() || q.expired(now) {
		t.Error("evidence alone is a quarantine")
	}
	q.cause, q.until = Failing, now.Add(time.Second)
	if !q.active() || q.expired(now) || !q.expired(q.until) {
		t.Errorf("active %v, expired at once %v, at its end %v; want true, false, true", q.active(), q.expired(now), q.expired(q.until))
	}
	if q.lift(time.Time{}); q.active() || len(q.failed) != 0 {
		t.Errorf("after the end: active %v, evidence %v", q.active(), q.failed)
	}
}
