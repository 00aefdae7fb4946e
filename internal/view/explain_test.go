package view

import (
	"slices"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

func TestMemoryIsASize(t *testing.T) {
	spec := &state.Spec{SlotsPerTask: 1, Memory: 2 << 30}
	if got, want := needed(spec), "1 slot and 2.0 GiB of memory"; got != want {
		t.Errorf("needed() = %q, want %q", got, want)
	}
	small := &state.Worker{WorkerInfo: state.WorkerInfo{Slots: 1, Memory: 1 << 30}}
	if got, want := lacks(spec, small), []string{"an attempt needs 2.0 GiB of memory, it has 1.0 GiB"}; !slices.Equal(got, want) {
		t.Errorf("lacks() = %q, want %q", got, want)
	}
}

// TestLockHolderOfAnotherUser: an explanation names the user alone, as the list of locks does.
func TestLockHolderOfAnotherUser(t *testing.T) {
	m := state.New()
	e := state.NewEntry(2, 2)
	e.Lock("", state.LockOp{User: "ann", Holder: "secret", Names: []state.LockName{{Name: "n"}}, TTLMS: 30_000})
	e.Submit("", "u", "", &state.Spec{User: "bob", Spool: true, Input: state.Input{Kind: state.InputNone, Tasks: 1}, Locks: []state.LockName{{Name: "n"}}})
	var out state.Result
	for i, data := range [][]byte{state.RaiseLevel(1, 1, "").Data(), state.RaiseLevel(1, 2, "").Data(), e.Data()} {
		if err := m.Apply(uint64(i+1), data, &out); err != nil {
			t.Fatal(err)
		}
	}
	x := &explainer{machine: m, job: m.Job(1), now: time.Unix(1, 0)}
	x.locks()
	if want := "it waits for an exclusive lock on n, held by user ann"; len(x.out.Reasons) != 1 || x.out.Reasons[0] != want {
		t.Errorf("reasons %q, want %q", x.out.Reasons, want)
	}
}
