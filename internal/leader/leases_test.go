package leader

import (
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
)

func TestLeaseBookNumbersGrow(t *testing.T) {
	b := newLeaseBook(3)
	a, other := b.open(1), b.open(2)
	first := b.grant(a, &lease{taskKey: newTaskKey(1, 0, 0)})
	second := b.grant(other, &lease{taskKey: newTaskKey(1, 0, 1)})
	if first != state.NewLease(3, 1) || second != state.NewLease(3, 2) {
		t.Errorf("granted %v and %v, want 1 and 2 of term 3", first, second)
	}
	if b.open(1)[first].task != 0 || len(b.open(1)) != 1 {
		t.Errorf("worker 1 has %v, want its one lease", b.open(1))
	}
}

// leased is right whether its index was built before or after a change.
func TestLeaseBookKnowsLeasedTasks(t *testing.T) {
	for _, built := range []bool{false, true} {
		b := newLeaseBook(1)
		s, key := b.open(1), newTaskKey(1, 0, 7)
		if built {
			b.leased(key)
		}
		number := b.grant(s, &lease{taskKey: key})
		if !b.leased(key) || b.leased(newTaskKey(2, 0, 7)) {
			t.Errorf("built %v: after a grant, leased = %v, and of another job %v", built, b.leased(key), b.leased(newTaskKey(2, 0, 7)))
		}
		s[number].ended = true
		if !b.leased(key) || len(s.standing()) != 0 {
			t.Errorf("built %v: a lease that waits for the log: leased = %v, standing %v; want true, none", built, b.leased(key), s.standing())
		}
		if !built {
			b.byTask = nil
		}
		b.drop(s, number)
		if b.leased(key) || len(s) != 0 {
			t.Errorf("built %v: after a drop, leased = %v, leases %v", built, b.leased(key), s)
		}
	}
}

// A task whose stage has started again may have two leases, of which the later one counts, whichever ends first.
func TestLeaseBookAfterStageRestart(t *testing.T) {
	b := newLeaseBook(1)
	s, key := b.open(1), newTaskKey(1, 0, 0)
	old := b.grant(s, &lease{taskKey: key})
	s[old].ended = true
	b.startStage(key.Key)
	fresh := b.grant(s, &lease{taskKey: key})
	other := newTaskKey(1, 1, 0)
	if b.current(old, key.Key) || !b.current(fresh, key.Key) || !b.current(old, other.Key) {
		t.Errorf("current = %v, %v, of another stage %v; want false, true, true", b.current(old, key.Key), b.current(fresh, key.Key), b.current(old, other.Key))
	}
	if !b.leased(key) {
		t.Error("the task is not leased")
	}
	b.drop(s, old)
	if !b.leased(key) || !slices.Equal(s.standing(), []state.Lease{fresh}) {
		t.Errorf("after the old lease has ended: leased = %v, standing %v", b.leased(key), s.standing())
	}
	b.forget(1)
	if len(b.started) != 0 {
		t.Errorf("a forgotten job is remembered: %v", b.started)
	}
}

func TestLeaseBookDropsUnusedIndex(t *testing.T) {
	b := newLeaseBook(1)
	b.leased(taskKey{})
	if b.tick(); b.byTask == nil {
		t.Error("the index is dropped though it was used since the last tick")
	}
	if b.tick(); b.byTask != nil {
		t.Error("the index is kept though it was not used since the last tick")
	}
}

func TestLeaseBookRemovesWorker(t *testing.T) {
	b := newLeaseBook(1)
	key := newTaskKey(1, 0, 0)
	b.grant(b.open(1), &lease{taskKey: key})
	b.leased(key)
	b.remove(1)
	if b.leased(key) || len(b.open(1)) != 0 {
		t.Errorf("after the removal: leased = %v, leases %v", b.leased(key), b.open(1))
	}
}

// TestOvertakes: a second attempt overtakes the first one only if that still stands.
func TestOvertakes(t *testing.T) {
	b, set, key := newLeaseBook(1), leaseSet{}, newTaskKey(1, 0, 7)
	first := b.grant(set, &lease{taskKey: key})
	second := b.grant(set, &lease{taskKey: key})
	b.second(key, held{1, first}, held{2, second})
	if b.overtakes(key, first) || !b.overtakes(key, second) {
		t.Errorf("overtakes = %v and %v, want that the second one does", b.overtakes(key, first), b.overtakes(key, second))
	}
	if b.drop(set, first); b.overtakes(key, second) {
		t.Error("overtakes = true of a lease whose first one is gone")
	}
}
