package state

import (
	"bytes"
	"strings"
	"testing"
)

// TestStagedIsBounded: what is staged, for one job, for all, and beside the jobs that there are.
func TestStagedIsBounded(t *testing.T) {
	m := latest()
	half := []Block{{Data: make([]byte, InputBytesMax/2)}}
	stage := func(uid string, before int) *Rejection {
		c := command{uid: uid, staged: uint64(before), blocks: half}
		return m.stage(&c)
	}
	refused := func(err *Rejection, code RejectionCode, text string) {
		t.Helper()
		if err == nil || err.Code != code || !strings.Contains(err.Message, text) {
			t.Errorf("stage() = %v, want %q", err, text)
		}
	}
	if err := stage("a", 0); err != nil {
		t.Fatal(err)
	}
	refused(stage("a", 1), TooLarge, "more than 256 MiB")
	for i, uid := range strings.Split("abcdefg", "") {
		if err := stage(uid, 0); err != nil {
			t.Fatalf("staging %d: %v", i, err)
		}
	}
	refused(stage("h", 0), Busy, "more than 1024 MiB in all")
	m.takeStaged("a")
	m.inputs = InputsBytesMax - 7*InputBytesMax/2
	refused(stage("h", 0), Busy, "more than 4096 MiB of each leader's memory")
	m.inputs -= 1 << 20
	if err := stage("h", 0); err != nil || len(m.Staged()) != 7 {
		t.Errorf("stage() = %v, and %q are staged", err, m.Staged())
	}
}

// TestInputBytes: the inputs of all jobs are counted, also after a restart.
func TestInputBytes(t *testing.T) {
	m, blocks := latest(), []Block{{Data: make([]byte, 1000)}, {Data: make([]byte, 500)}}
	e := NewEntry(1, FeatureLevel)
	spec := &Spec{Output: "/a", Input: Input{Kind: InputLines, Tasks: 2, Blocks: blocks}}
	e.Submit("", "u1", "", spec)
	e.Stage("", "u2", 0, blocks)
	spec = &Spec{Output: "/b", Input: spec.Input}
	e.SubmitStaged("", "u2", 1, spec)
	e.Stop("", 1)
	mustApply(t, m, e)
	want := 2 * (1500 + 2*blockOverhead)
	restored, err := Restore(bytes.NewReader(snapshotBytes(t, m.Snapshot())))
	if err != nil || restored.InputBytes() != uint64(want) || m.InputBytes() != uint64(want) {
		t.Errorf("InputBytes() = %d, and %d after a restart, %v; want %d", m.InputBytes(), restored.InputBytes(), err, want)
	}
	e = NewEntry(2, FeatureLevel)
	e.Done(1, 1, 1, []Completion{{Lease: 1}})
	e.Forget("", 1)
	mustApply(t, m, e)
	if got := m.InputBytes(); got != uint64(want)/2 {
		t.Errorf("InputBytes() = %d when one is forgotten, want %d", got, want/2)
	}
}
