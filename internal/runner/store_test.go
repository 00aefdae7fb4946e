//go:build linux

package runner

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/blob/blobtest"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestStore runs attempts with input and output in a store without local files that fails at each of its operations in turn. An
// attempt may succeed only with its complete output.
func TestStore(t *testing.T) {
	const text = "one\ntwo\nthree\n"
	job := testJob{
		mapTask: copyTask,
		collect: func(_ context.Context, c *bridgefour.Collection) error {
			for part, err := range c.Parts() {
				if err != nil {
					return err
				}
				if _, err := io.Copy(c.Out(), part); err != nil {
					return err
				}
			}
			return nil
		},
	}
	input := wholeFile("mem://in/input")
	for name, test := range map[string]struct {
		program *wire.Program
		attempt Attempt
		want    string
	}{
		"builtin":        {builtin("test"), Attempt{Split: input}, text},
		"builtin, split": {builtin("test"), Attempt{Split: fileSplit("mem://in/input", 2, 5)}, "two\n"},
		"builtin, empty": {builtin("test"), Attempt{Split: fileSplit("mem://in/input", 5, 1)}, ""},
		"collect": {builtin("test"), Attempt{Role: wire.StageRole_STAGE_COLLECT, Parts: func(yield func(Part, error) bool) {
			yield(Part{Path: "mem://in/input", Size: uint64(len(text)), Checksum: xxhash.Sum64String(text)}, nil)
		}}, text},
		"command":        {commandProgram("cat"), Attempt{Split: input}, text},
		"command, empty": {commandProgram("true"), Attempt{Split: itemSplit("x")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, late := range []bool{false, true} {
				for failAt, reached := 1, true; reached; failAt++ {
					store := &blobtest.Faulty{Store: blobtest.NewMemory(), Late: late}
					blobtest.Put(t, store, "mem://in/input", text)
					store.FailAt = store.Calls() + failAt
					r := New(Config{Jobs: []bridgefour.Job{job}, Users: Users{Stores: blob.Stores{"mem": store}}})
					slot := r.NewSlot()
					a := test.attempt
					a.Job = &wire.Job{Id: 1, Uid: "uid", Output: "mem://out/folder", Program: test.program}
					a.StageName, a.Index, a.Lease = "map", 7, 42
					out := slot.Run(t.Context(), &a)
					closeSlot(t, slot)
					reached = store.Calls() >= store.FailAt
					store.FailAt = 0
					if out.Failure != nil && reached {
						continue
					}
					if err := wantOutput(t, store, out, test.want); err != nil {
						t.Errorf("with operation %d failed (late: %v): %v", failAt, late, err)
					}
					if failAt == 1 && !reached {
						t.Error("the attempt has not used the store")
					}
				}
			}
		})
	}
}

// TestFinalName checks the final name that Create gets.
func TestFinalName(t *testing.T) {
	stages := []*wire.Stage{
		{Name: "map", Role: wire.StageRole_STAGE_MAP, Tasks: 200_000},
		{Name: "commit", Role: wire.StageRole_STAGE_COMMIT, From: []uint32{0}},
	}
	collected := []*wire.Stage{stages[0], {Name: "collect", Role: wire.StageRole_STAGE_COLLECT, Tasks: 1, From: []uint32{0}}}
	for _, test := range []struct {
		plan  []*wire.Stage
		stage uint64
		spool bool
		want  blob.Location
	}{
		{stages, 0, false, "/out/part-000007"},
		{stages, 0, true, ""},
		{collected, 0, false, ""}, // read by the collect stage
		{collected, 1, false, "/out/_RESULT"},
		{[]*wire.Stage{{Name: "map", Role: wire.StageRole_STAGE_MAP}}, 0, false, ""}, // of an older leader
		{nil, 0, false, ""},
	} {
		a := &Attempt{Job: &wire.Job{Plan: test.plan, Spool: test.spool}, Stage: test.stage, Index: 7}
		if len(test.plan) > 0 {
			a.Role = test.plan[test.stage].GetRole()
		}
		if got := a.final(&jobState{output: "/out"}); got != test.want {
			t.Errorf("final() of stage %d of %v, spool %v = %q, want %q", test.stage, test.plan, test.spool, got, test.want)
		}
	}
}

func wantOutput(t *testing.T, store blob.Store, out Outcome, text string) error {
	t.Helper()
	if want := blob.Location("mem://out/folder/_temporary/uid/map-7-42"); out.File != want {
		return fmt.Errorf("Run() = %+v, want the file %s", out, want)
	}
	if got := blobtest.Get(t, store, out.File); got != text || out.Size != uint64(len(text)) || out.Checksum != xxhash.Sum64String(text) {
		return fmt.Errorf("Run() = %+v with the content %q, want %q", out, got, text)
	}
	return nil
}
