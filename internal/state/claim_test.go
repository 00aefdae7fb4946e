package state

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// TestClaims: no two workers have one id; one that comes for a dead one takes its place, and its number; a number that was claimed is given to no other.
func TestClaims(t *testing.T) {
	m := New()
	m.level = FeatureLevel
	step := func(want string, add func(e *Entry)) {
		t.Helper()
		e := NewEntry(1, m.Level())
		add(e)
		result := mustApply(t, m, e)
		got := ""
		for _, id := range m.Workers() {
			w := m.Worker(id)
			got += fmt.Sprintf("%d:%s@%s=%d,%v ", id, w.Identity, w.Address, w.Claim, w.Status)
		}
		for i := range result.Events {
			if err := result.Events[i].Err; err != nil {
				got += err.Error()
			}
		}
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		// A snapshot has the same workers.
		back, err := Restore(bytes.NewReader(snapshotBytes(t, m.Snapshot())))
		if err != nil || !slices.Equal(back.Workers(), m.Workers()) || back.ByIdentity("") != nil {
			t.Errorf("Restore = %v, %v", back.Workers(), err)
		}
	}
	register := func(identity, address string, claim uint64) func(e *Entry) {
		return func(e *Entry) { e.Register("k", &WorkerInfo{Identity: identity, Address: address, Claim: claim}) }
	}
	set := func(id WorkerID, status WorkerStatus) func(e *Entry) {
		return func(e *Entry) { e.SetWorker("k", id, status) }
	}
	step("1:@spren-03:1=4,dead ", register("", "spren-03:1", 4))
	step("1:@spren-03:2=4,dead ", register("", "spren-03:2", 4)) // expected elsewhere
	step("1:a@10.0.0.3:2=4,alive ", register("a", "10.0.0.3:2", 4))
	step("1:a@10.0.0.3:2=4,alive ", register("", "spren-03:1", 4)) // it has come
	step("1:a@10.0.0.3:2=4,alive worker 1 at 10.0.0.3:2 has the same id 3: two workers cannot share an id; start this one with another WORKER_ID",
		register("b", "10.0.0.4:2", 4))
	step("1:a@10.0.0.3:2=4,alive 4:b@10.0.0.4:2=0,alive ", register("b", "10.0.0.4:2", 0)) // 3 was claimed: not its number
	step("1:a@10.0.0.3:3=4,alive 4:b@10.0.0.4:2=0,alive ", register("a", "10.0.0.3:3", 0)) // keeps its claim
	step("1:a@10.0.0.3:3=4,dead 4:b@10.0.0.4:2=0,alive ", set(1, WorkerDead))
	step("1:c@10.0.0.5:2=4,alive 4:b@10.0.0.4:2=0,alive ", register("c", "10.0.0.5:2", 4)) // another container
	step("1:c@10.0.0.5:2=4,dead 4:b@10.0.0.4:2=0,alive ", set(1, WorkerDead))
	step("4:b@10.0.0.4:2=4,alive ", register("b", "10.0.0.4:2", 4)) // a member
	step("4:b@10.0.0.4:2=4,alive 5:a@x=0,alive ", register("a", "x", 0))
	step("5:a@x=0,alive ", set(4, WorkerRemoved))
	step("5:a@x=0,alive 6:b@10.0.0.4:2=4,alive ", register("b", "10.0.0.4:2", 4))
}
