package leader

import (
	"slices"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// testLog is a log that commits the proposed entries after some time, in order, or loses them.
type testLog struct {
	machine *state.Machine
	index   uint64
	term    uint64
	pending []proposed
	latency func() time.Duration
	held    bool // nothing is committed
}

type proposed struct {
	at   time.Time
	data []byte
}

func (l *testLog) propose(now time.Time, entries [][]byte) {
	for _, data := range entries {
		at := now.Add(l.latency())
		if n := len(l.pending); n > 0 && l.pending[n-1].at.After(at) {
			at = l.pending[n-1].at
		}
		l.pending = append(l.pending, proposed{at, slices.Clone(data)})
	}
}

// committed returns the entries that are committed by now.
func (l *testLog) committed(now time.Time) []Input {
	var list []Input
	for !l.held && len(l.pending) > 0 && !l.pending[0].at.After(now) {
		l.index++
		list = append(list, Committed{Index: l.index, Term: l.term, Data: l.pending[0].data})
		l.pending = l.pending[1:]
	}
	return list
}

// elect starts a new term: the first kept entries in flight are committed, the rest is lost.
func (l *testLog) elect(t *testing.T, kept int) {
	t.Helper()
	var result state.Result
	for _, p := range l.pending[:min(kept, len(l.pending))] {
		l.index++
		if err := l.machine.Apply(l.index, p.data, &result); err != nil {
			t.Fatal(err)
		}
	}
	l.pending = nil
	l.term++
}

// next is when the log commits the next entry; ok is false if it has none.
func (l *testLog) next() (at time.Time, ok bool) {
	if l.held || len(l.pending) == 0 {
		return at, false
	}
	return l.pending[0].at, true
}
