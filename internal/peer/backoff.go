package peer

import (
	"context"
	"math/rand/v2"
	"time"
)

// backOff is how long to wait before the next try: backOffMin first, then twice as long each time.
type backOff struct{ last time.Duration }

func (b *backOff) reset() { b.last = 0 }

// next is the time to wait now, at most limit. A quarter of it is random, so that nodes that fail together part ways.
func (b *backOff) next(limit time.Duration) time.Duration {
	b.last = min(max(2*b.last, backOffMin), limit)
	return b.last - time.Duration(rand.Int64N(int64(b.last)/4))
}

// wait waits, until ctx is done or sooner if somebody signals again, which it reports.
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
