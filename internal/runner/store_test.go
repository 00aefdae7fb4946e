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

// TestStore runs attempts whose input and output are in a store that has no files of the operating system, and that fails
// at each of its operations in turn: an attempt succeeds only if all of its output is there.
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
		"collect": {builtin("test"), Attempt{Parts: func(yield func(Part, error) bool) {
			yield(Part{Path: "mem://in/input", Size: uint64(len(text))}, nil)
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
					r := New(Config{Jobs: []bridgefour.Job{job}, ScratchDir: t.TempDir(), Stores: blob.Stores{"mem": store}})
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
