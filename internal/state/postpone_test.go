package state

import "testing"

// TestPostpone: a job whose input was listed before a job that writes there was known lists it again once it holds its locks. One that waits for
// something else keeps its input.
func TestPostpone(t *testing.T) {
	m := latest()
	submit := func(uid string, spec *Spec) *Job {
		e := NewEntry(1, FeatureLevel)
		e.Submit("", uid, "", spec)
		mustApply(t, m, e)
		return m.Job(m.lastJob)
	}
	reader := func(uid string) *Spec {
		b := NewFiles(1 << 20)
		b.AddFile([]byte("/data/a/x"), Version{Size: 3 << 20, Modified: 1}, false)
		in, err := b.Input()
		if err != nil {
			t.Fatal(err)
		}
		return &Spec{Input: in, InputNames: []string{"/data/a"}, Output: "/out/" + uid, Data: []LockName{{Name: "/data/a", Shared: true}}, Locks: []LockName{{Name: "licence"}}}
	}
	first := submit("first", reader("first"))
	second := submit("second", reader("second")) // waits for the licence alone
	writer := submit("writer", &Spec{Output: "/data/a/b"})
	third := submit("third", reader("third"))
	if first.Status != JobActive || second.Status != JobWaiting || second.Spec.Deferred != nil || second.Stages[0].Tasks != 3 {
		t.Fatalf("the second reader is %v with %d tasks, want it to wait with 3", second.Status, second.Stages[0].Tasks)
	}
	if d := third.Spec.Deferred; third.Status != JobWaiting || d == nil || d.Split != 1<<20 || third.Stages[0].Tasks != 1 {
		t.Fatalf("the reader behind the writer is %v with %d tasks, and deferred %v", third.Status, third.Stages[0].Tasks, d)
	}
	if m.InputBytes() != first.Spec.Input.BlockBytes()+second.Spec.Input.BlockBytes() {
		t.Errorf("inputs have %d bytes", m.InputBytes())
	}
	if m.InputDue(third) {
		t.Error("its input is due before it holds its locks")
	}
	for _, job := range []*Job{first, second, writer} {
		e := NewEntry(1, FeatureLevel)
		e.Stop("", job.ID)
		mustApply(t, m, e)
		for i := range m.Job(job.ID).Stages { // the clean-up
			if job = m.Job(job.ID); job.Ready(i) && job.Status == JobStopping {
				e = NewEntry(1, FeatureLevel)
				e.Done(1, job.ID, uint32(i), []Completion{{Lease: NewLease(1, uint64(100*job.ID)+uint64(i)+1)}})
				mustApply(t, m, e)
			}
		}
	}
	if !m.InputDue(third) {
		t.Errorf("its input is not due: %v, writer %v, second %v", third.Status, m.Job(writer.ID).Status, m.Job(second.ID).Status)
	}
}
