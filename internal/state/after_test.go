package state

import (
	"fmt"
	"testing"
)

const lineJobs = 10_000

// line submits a line of jobs, each after the one before.
func line(tb testing.TB, jobs int) *Machine {
	tb.Helper()
	m := latest()
	for i := range jobs {
		e := NewEntry(1, FeatureLevel)
		spec := &Spec{User: "ann", Output: fmt.Sprintf("/out/%d", i)}
		if i > 0 {
			spec.After = []Dependency{{Job: JobID(i)}}
		}
		e.Submit("", fmt.Sprintf("u%d", i), "", spec)
		mustApply(tb, m, e)
	}
	return m
}

// statuses counts the jobs by status.
func statuses(m *Machine) map[JobStatus]int {
	counts := make(map[JobStatus]int)
	for _, id := range m.Jobs() {
		counts[m.Job(id).Status]++
	}
	return counts
}

// TestLine fails the first of a long line of jobs, runs it again, and then all of them.
func TestLine(t *testing.T) {
	m := line(t, lineJobs)
	if got := statuses(m); got[JobActive] != 1 || got[JobWaiting] != lineJobs-1 {
		t.Fatalf("at first, %v", got)
	}
	e := NewEntry(1, FeatureLevel)
	e.Failed(1, 0, 0, Failure{Kind: BadInput, Lease: 1, Message: "gone"}, nil)
	mustApply(t, m, e)
	if got := statuses(m); got[JobFailed] != lineJobs || len(m.Live()) != 0 || m.openBy["ann"] != 0 {
		t.Fatalf("once the first has failed, %v, live %d, open %v", got, len(m.Live()), m.openBy)
	}
	if got, want := m.Job(lineJobs).Error, "not run: it comes after job 1, which has failed"; got != want || m.Job(lineJobs).Blocker != 1 {
		t.Errorf("the last one's error is %q, want %q", got, want)
	}
	if id, ok := m.Beyond(1); ok || m.Kept().Jobs() != 1 {
		t.Errorf("retention counts %d jobs, and does not keep job %d", m.Kept().Jobs(), id)
	}
	e = NewEntry(1, FeatureLevel)
	e.Retry("", 1)
	mustApply(t, m, e)
	if got := statuses(m); got[JobActive] != 1 || got[JobWaiting] != lineJobs-1 || m.openBy["ann"] != lineJobs {
		t.Fatalf("once the first is retried, %v, open %v", got, m.openBy)
	}
	for id := range JobID(lineJobs) {
		e := NewEntry(1, FeatureLevel)
		e.Done(1, id+1, 0, []Completion{{Lease: 2}})
		e.Done(1, id+1, 1, []Completion{{Lease: 3}})
		e.Forget("", id)
		mustApply(t, m, e)
	}
	if got := statuses(m); got[JobDone] != 1 || len(m.after) != 0 || len(m.outputs.byJob) != 1 || m.outputs.root.below[useOutput] != 1 || m.Lock(1) != nil {
		t.Errorf("at last, %v, %d jobs that others come after, %d outputs", got, len(m.after), len(m.outputs.byJob))
	}
}

// BenchmarkLine measures the submit of a job at the end of a long line, and the end of its first one.
func BenchmarkLine(b *testing.B) {
	m := line(b, lineJobs)
	for id := JobID(1); b.Loop(); id++ {
		e := NewEntry(1, FeatureLevel)
		e.Submit("", "u", "", &Spec{User: "ann", Output: fmt.Sprintf("/out/%d", lineJobs+id), After: []Dependency{{Job: m.lastJob}}})
		e.Done(1, id, 0, []Completion{{Lease: 2}})
		e.Done(1, id, 1, []Completion{{Lease: 3}})
		mustApply(b, m, e)
	}
}
