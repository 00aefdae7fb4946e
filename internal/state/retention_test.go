package state

import (
	"fmt"
	"strings"
	"testing"
)

func TestPinsAreBounded(t *testing.T) {
	m := latest()
	e := NewEntry(1, FeatureLevel)
	for i := range pinnedMax + 2 {
		e.Submit("", fmt.Sprint(i), "", &Spec{User: "ann", Output: fmt.Sprint("/", i)})
	}
	large := &Spec{User: "bob", Output: "/large", Input: Input{Kind: InputLines, Tasks: 1, Blocks: []Block{{Data: make([]byte, StageBytes)}}}}
	e.Submit("", "large", "", large)
	mustApply(t, m, e)
	for id := range JobID(pinnedMax) {
		if err := m.pin(m.Job(id+1), true); err != nil {
			t.Fatalf("pin(%d) = %v", id+1, err)
		}
	}
	if err := m.pin(m.Job(1), true); err != nil {
		t.Errorf("pin() of a pinned job = %v", err)
	}
	if err := m.pin(m.Job(pinnedMax+1), true); err == nil || !strings.Contains(err.Message, "100 jobs of the user are pinned") {
		t.Errorf("pin() of one too many = %v", err)
	}
	if err := m.pin(m.Job(pinnedMax+3), true); err == nil || !strings.Contains(err.Message, "the list of its inputs takes") {
		t.Errorf("pin() of a job with a large input = %v", err)
	}
	if err := m.pin(m.Job(7), false); err != nil || m.Pinned() != pinnedMax-1 {
		t.Errorf("pin(false) = %v, and %d are pinned", err, m.Pinned())
	}
	if err := m.pin(m.Job(pinnedMax+1), true); err != nil {
		t.Errorf("pin() when there is room again = %v", err)
	}
}

// TestKeptIsCheap: the oldest of many jobs goes without a look at the others.
func TestKeptIsCheap(t *testing.T) {
	var k Kept
	jobs := make([]*Job, 100_000)
	for i := range jobs {
		jobs[i] = &Job{ID: JobID(i + 1), Ended: int64(i), Spec: &Spec{Spool: true}, OutputBytes: 2}
		k.add(jobs[i])
	}
	k.remove(jobs[50_000])
	for _, job := range jobs {
		if job != jobs[50_000] {
			if id, _ := k.Oldest(); id != job.ID {
				t.Fatalf("Oldest() = %d, want %d", id, job.ID)
			}
			k.remove(job)
		}
	}
	if id, _ := k.Oldest(); id != 0 || k.Bytes() != 0 || k.Jobs() != 0 {
		t.Errorf("Oldest() = %d of %d with %d bytes, want none", id, k.Jobs(), k.Bytes())
	}
}
