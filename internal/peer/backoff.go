package peer

import (
	"context"
	"math/rand/v2"
	"time"
)

// backOff is an exponential back-off that begins at backOffMin.
type backOff struct{ last time.Duration }

func (b *backOff) reset() { b.last = 0 }

// next returns the next delay, at most limit. A quarter of it is random, so that nodes do not retry in step.
func (b *backOff) next(limit time.Duration) time.Duration {
	b.last = min(max(2*b.last, backOffMin), limit)
	return b.last - time.Duration(rand.Int64N(int64(b.last)/4))
}

// wait waits until the delay or ctx ends, or again is signaled, which it reports.
func (b *backOff) wait(ctx context.Context, limit time.Duration, again <-chan struct{}) (woken bool) {
	timer := time.NewTimer(b.next(limit))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-again:
		return true
	}
	return false
}
