package node

import (
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// An older leader says that a worker is quarantined, and not why; a newer one may have a cause that is not known.
func TestQuarantineCauses(t *testing.T) {
	s := &wire.ShadowState{
		Worker: []uint64{1, 2, 3, 4}, WorkerAside: []bool{false, true, true, true}, WorkerAsideCause: []uint32{0, uint32(leader.Slow), 99},
	}
	v := newVolatileState(s, time.UnixMilli(0))
	for id, want := range map[state.WorkerID]leader.QuarantineCause{1: leader.NotQuarantined, 2: leader.Slow, 3: leader.Failing, 4: leader.Failing} {
		if got := v.workers[id].Quarantined; got != want {
			t.Errorf("worker %d is quarantined as %q, want %q", id, got, want)
		}
	}
}
