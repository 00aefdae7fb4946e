package leader

import (
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// However many attempts fail, the log grows by few tails.
func TestTailsAreLimited(t *testing.T) {
	c := &Core{now: time.Unix(1, 0), tails: wire.TailRate{Burst: tailsBurst, Interval: tailsInterval}}
	kept := func(seconds int) (n int) {
		for range seconds * 1000 {
			c.now = c.now.Add(time.Millisecond)
			if c.tail(&wire.Tail{LogBytes: 1}) != nil {
				n++
			}
		}
		return n
	}
	if got := kept(10); got < tailsBurst+36 || got > tailsBurst+44 {
		t.Errorf("%d tails are kept in 10 s, want a burst of %d and 4 a second", got, tailsBurst)
	}
	c.now = c.now.Add(time.Hour)
	if got := kept(1); got < tailsBurst || got > tailsBurst+5 {
		t.Errorf("%d tails are kept in 1 s after a pause, want a burst of %d", got, tailsBurst)
	}
	if c.tail(nil) != nil {
		t.Error("a failure without a tail has one")
	}
}
