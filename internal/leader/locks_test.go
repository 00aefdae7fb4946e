package leader

import (
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// lock requests an exclusive lock of one second.
func (r *coreRig) lock(holder, name string) {
	r.t.Helper()
	r.step(Command{holder, func(e *state.Entry) {
		e.Lock(holder, state.LockOp{Holder: holder, Names: []state.LockName{{Name: name}}, TTLMS: 1000})
	}})
	r.step()
}

// pass lets time pass, in steps that the core asks for.
func (r *coreRig) pass(d time.Duration) {
	r.t.Helper()
	for end := r.now.Add(d); ; {
		next := earlier(r.last.Wake, end)
		if next.After(r.now) {
			r.now = next
		}
		r.step()
		if !r.now.Before(end) {
			r.step()
			return
		}
	}
}

// locked returns the holder of a lock; empty: it is free.
func (r *coreRig) locked(name string) string {
	for _, l := range r.machine.LocksAt(state.LockName{Name: name}) {
		if l.Held() {
			return l.Holder
		}
	}
	return ""
}

// TestLocksExpire: a lock that is not renewed is lost; one that is waited for by a call does not expire; a new leader gives each its full time.
func TestLocksExpire(t *testing.T) {
	r := newCoreRig(t, 0)
	r.core.pipeline.raiseLevel(r.now, "1")
	r.step()
	r.step()
	r.lock("first", "a")
	r.lock("second", "a")
	r.lock("third", "a")
	for range 5 {
		r.pass(900 * time.Millisecond)
		for id := state.LockID(1); id <= 2; id++ {
			if !r.core.RenewLock(r.now, id) {
				t.Fatalf("request %d could not be renewed", id)
			}
		}
		r.core.AwaitLock(3)
	}
	if r.locked("a") != "first" || r.machine.Lock(3) == nil {
		t.Fatalf("after renewals, %q has it; the third: %+v", r.locked("a"), r.machine.Lock(3))
	}
	if got := r.core.LockExpires(r.now, 1); got <= 900*time.Millisecond || got > time.Second {
		t.Errorf("LockExpires() = %v", got)
	}
	r.pass(1100 * time.Millisecond)
	if r.locked("a") != "third" || r.core.RenewLock(r.now, 1) || r.core.LockExpires(r.now, 1) != 0 || len(r.core.locks.byID) != 1 {
		t.Errorf("after a second without renewals, %q has it; %d requests are timed", r.locked("a"), len(r.core.locks.byID))
	}
	if r.core.ReturnLock(r.now, 3); len(r.core.locks.queue) != 1 {
		t.Errorf("%d requests are queued", len(r.core.locks.queue))
	}
	r.pass(900 * time.Millisecond)
	r.log.term++
	r.core = NewCore(CoreConfig{Machine: r.machine, Term: r.log.term, Now: r.now, Seed: 1})
	r.step()
	for range 5 { // calls that have ended count no more
		r.core.ReturnLock(r.now, 3)
	}
	r.pass(900 * time.Millisecond)
	if r.locked("a") != "third" {
		t.Error("an election has taken a lock away")
	}
	r.pass(200 * time.Millisecond)
	if r.locked("a") != "" {
		t.Error("after the election, a lock was not lost in time")
	}
}

// TestFencesAfterRecovery: a cluster that was recovered gives none of the numbers that it may have given in entries that were lost.
func TestFencesAfterRecovery(t *testing.T) {
	r := newCoreRig(t, 0)
	r.core.pipeline.raiseLevel(r.now, "1")
	r.step()
	r.step()
	r.lock("first", "a")
	before := r.machine.Lock(1).Fence
	for former := 1; former <= 2; former++ {
		r.log.term++
		r.core = NewCore(CoreConfig{Machine: r.machine, Term: r.log.term, Now: r.now, Seed: 1, Members: Members{Former: make([]string, former)}})
		r.step()
		r.lock("next", string(rune('b'+former)))
		l := r.machine.LocksAt(state.LockName{Name: string(rune('b' + former))})[0]
		if want := uint64(former) << fencesPerRecovery; l.Fence <= want || l.Fence > want+100 || l.Fence <= before {
			t.Errorf("after recovery %d, the fence is %d, after %d", former, l.Fence, before)
		}
		before = l.Fence
	}
}

// TestInheritedPriority: a job that is waited for goes before others of its priority.
func TestInheritedPriority(t *testing.T) {
	r := newCoreRig(t, 1)
	r.core.pipeline.raiseLevel(r.now, "1")
	r.step()
	r.step()
	job := func(output string, priority uint32) {
		spec := &state.Spec{Output: output, Priority: priority, Overwrite: true}
		spec.Input, _ = state.RangeInput(1, 1000)
		r.step(Command{"", func(e *state.Entry) { e.Submit("", output, "", spec) }})
		r.step()
	}
	job("/a", 10)
	job("/b", 20)
	job("/a", 90)
	r.workers[0].reports = nil // it is slow
	if d := r.core.Demand(); len(d) == 0 || d[0].Jobs[0].Job != 1 {
		t.Errorf("Demand() = %+v, want job 1 first, for which job 3 waits", d)
	}
	r.step(Command{"", func(e *state.Entry) { e.Stop("", 3) }})
	r.step()
	if d := r.core.Demand(); len(d) == 0 || d[0].Jobs[0].Job != 2 {
		t.Errorf("Demand() = %+v, want job 2 first", d)
	}
}
