package view

import (
	"slices"
	"testing"

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
