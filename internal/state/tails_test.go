package state

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// failing is a machine with jobs of one map task each, which never die.
func failing(t *testing.T, level uint32, jobs int) *Machine {
	t.Helper()
	m := New()
	entries := [][]byte{}
	if level > 0 {
		entries = append(entries, RaiseLevel(1, level, "v0").Data())
	}
	e := NewEntry(1, level)
	for i := range jobs {
		e.Submit("", fmt.Sprint("uid", i), "", &Spec{Output: fmt.Sprint("/out/", i), Input: Input{Kind: InputRange, Tasks: 1}})
	}
	for _, data := range append(entries, e.Data()) {
		if err := m.Apply(m.Index()+1, data, &Result{}); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// fail lets the task of a job fail, with a tail of size bytes.
func fail(t *testing.T, m *Machine, level uint32, job JobID, number, size int) {
	t.Helper()
	e := NewEntry(2, level)
	log := slices.Repeat([]byte{byte(number)}, size)
	e.Failed(job, 0, 0, Failure{Kind: Preempted, Worker: 1, Lease: Lease(number)}, &Tail{Log: log, LogBytes: uint64(size)})
	if err := m.Apply(m.Index()+1, e.Data(), &Result{}); err != nil {
		t.Fatal(err)
	}
}

// attempts are the attempts of a job whose tails are kept.
func attempts(m *Machine, job JobID) (list []uint32) {
	for _, t := range m.Tails(job) {
		list = append(list, t.Attempt)
	}
	return list
}

func TestTailsOfAJob(t *testing.T) {
	m := failing(t, FeatureLevel, 2)
	for n := 1; n <= 100; n++ {
		fail(t, m, FeatureLevel, 1, n, 10)
	}
	fail(t, m, FeatureLevel, 2, 101, 10)
	want := []uint32{1, 2, 3, 4, 5, 6, 7, 8, 93, 94, 95, 96, 97, 98, 99, 100}
	if got := attempts(m, 1); !slices.Equal(got, want) {
		t.Errorf("tails of attempts %v, want %v", got, want)
	}
	twin := restore(t, m)
	if got := attempts(twin, 1); !slices.Equal(got, want) {
		t.Errorf("after a snapshot: tails of attempts %v, want %v", got, want)
	}
	m.dropTails(1)
	if len(attempts(m, 1)) != 0 || len(attempts(m, 2)) != 1 {
		t.Errorf("after job 1 is forgotten: tails of %v and %v", attempts(m, 1), attempts(m, 2))
	}
}

func TestTailsOfACluster(t *testing.T) {
	const jobs = 2 * tailsBytesMax / TailTextMax
	m := failing(t, FeatureLevel, jobs)
	snapshot := m.Snapshot()
	for n := range jobs {
		fail(t, m, FeatureLevel, JobID(n+1), n+1, TailTextMax)
		if n == jobs/4 {
			snapshot = m.Snapshot()
		}
	}
	var total int
	for i := range m.tails {
		total += m.tails[i].size()
	}
	if total > tailsBytesMax || total < tailsBytesMax*3/4 {
		t.Errorf("tails of %d bytes are kept, want nearly %d", total, tailsBytesMax)
	}
	if len(attempts(m, 1)) > 0 || len(attempts(m, jobs)) != 1 {
		t.Error("the newest tail is dropped before the oldest")
	}
	if got := len(attempts(snapshot.machine, 1)); got != 1 {
		t.Errorf("a snapshot has lost the tail of job 1 to a later change: %d tails", got)
	}
	fail(t, m, FeatureLevel, jobs, jobs+1, TailTextMax+1)
	if got := len(attempts(m, jobs)); got != 1 {
		t.Errorf("a tail beyond the limit is kept: %d tails", got)
	}
}

func TestTailsNeedTheirLevel(t *testing.T) {
	for level := range uint32(FeatureLevel + 1) {
		m := failing(t, level, 1)
		fail(t, m, level, 1, 1, 10)
		if got, want := len(attempts(m, 1)), int(level/2); got != want {
			t.Errorf("level %d: %d tails are kept, want %d", level, got, want)
		}
	}
}

// restore is the machine that a snapshot of m gives.
func restore(t *testing.T, m *Machine) *Machine {
	t.Helper()
	twin, err := Restore(bytes.NewReader(snapshotBytes(t, m.Snapshot())))
	if err != nil {
		t.Fatal(err)
	}
	return twin
}
