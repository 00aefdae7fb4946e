package leader

import (
	"slices"
	"time"
)

// When a worker is quarantined as flapping: flapLosses times within flapWindow the leases that it had were lost, because it was silent for too long, and the
// same process came back. So does a machine that hangs for seconds at a time, or whose network does. What it runs comes to nothing, and each loss counts
// against its tasks. A process that ends is another case: see exits.
const (
	flapLosses = 3
	flapWindow = 2 * time.Minute
)

// losses are those of a worker's leases.
type losses struct {
	times []time.Time // the last ones; at most flapLosses
	trial time.Time   // it was quarantined as flapping: until then, one more loss decides
	inRow int         // quarantines since a trial was passed
}

// onTrial reports whether the next loss decides.
func (l *losses) onTrial(now time.Time) bool { return now.Before(l.trial) }

// add notes a loss, and reports whether the worker flaps.
func (l *losses) add(now time.Time) bool {
	if l.onTrial(now) {
		return true
	}
	l.inRow = 0
	if len(l.times) == flapLosses {
		l.times = slices.Delete(l.times, 0, 1)
	}
	l.times = append(l.times, now)
	return len(l.times) == flapLosses && now.Sub(l.times[0]) < flapWindow
}
