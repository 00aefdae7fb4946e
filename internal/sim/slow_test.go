package sim

import (
	"testing"
	"time"
)

// TestSlowWorker runs worlds in which one worker is slow. It is quarantined if it takes ten times as long as the others, and not if it takes twice as
// long; and no other worker is, although one attempt in fifty takes eight times as long anywhere.
func TestSlowWorker(t *testing.T) {
	for _, tt := range []struct {
		times       int
		quarantined bool
	}{{10, true}, {2, false}} {
		var total Stats
		worlds := seeds() / 20
		for seed := range uint64(worlds) {
			c := Draw(seed + 1)
			c.Kinds, c.Slow, c.Failing = []FaultKind{BreakSession, KillWorker}, tt.times, 0
			c.Leaders, c.Workers, c.Slots, c.Mean, c.Tasks, c.Jobs, c.Pace, c.Span = 1, 5, 4, time.Second, 100, 60, 20*time.Second, 2*time.Minute
			r := Run(c, c.Faults(), nil)
			if r.Err != nil {
				t.Errorf("%v\n%v", &c, r.Err)
			}
			total.add(r.Stats)
		}
		t.Logf("%d times slow: %+v", tt.times, total)
		if tt.quarantined && total.Slow < worlds || !tt.quarantined && total.Slow > 0 {
			t.Errorf("a worker that takes %d times as long was quarantined %d times in %d worlds", tt.times, total.Slow, worlds)
		}
		if total.SlowOther > 0 {
			t.Errorf("others were quarantined %d times", total.SlowOther)
		}
	}
}
