package heap

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestLimit(t *testing.T) {
	for _, test := range []struct {
		of   *limiter
		held int64
		want int64
	}{
		{&limiter{}, 1 << 30, math.MaxInt64},
		{&limiter{bounded: 64 << 20, unbound: 1}, 0, math.MaxInt64},
		{&limiter{bounded: 64 << 20}, 40 << 20, baseBytes + 64<<20},
		{&limiter{bounded: 64 << 20}, 160 << 20, baseBytes + 200<<20},
	} {
		if got := test.of.limit(test.held); got != test.want {
			t.Errorf("%d bytes, %d not bounded: limit(%d) = %d, want %d", test.of.bounded, test.of.unbound, test.held, got, test.want)
		}
	}
}

// withoutLimit removes the limit that GOMEMLIMIT has set, if it has, during a test.
func withoutLimit(t *testing.T) {
	t.Helper()
	before := debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
}

// TestShares sets the limit of this process.
func TestShares(t *testing.T) {
	check := func(want int64) {
		t.Helper()
		if got := debug.SetMemoryLimit(-1); got != want {
			t.Fatalf("the limit is %d, want %d", got, want)
		}
	}
	withoutLimit(t)
	var a, b, c Share
	check(math.MaxInt64)
	a.Bound(1 << 30)
	check(baseBytes + 1<<30)
	b.Bound(2 << 30)
	b.Bound(2 << 30)
	check(baseBytes + 3<<30)
	c.Unbound()
	check(math.MaxInt64)
	c.Close()
	b.Bound(1 << 30)
	check(baseBytes + 2<<30)
	b.Close()
	check(baseBytes + 1<<30)
	a.Close()
	check(math.MaxInt64)
}

// TestHeldMoreThanItsShare checks that what is held raises the limit after a collection, and that the limit comes back.
func TestHeldMoreThanItsShare(t *testing.T) {
	withoutLimit(t)
	const share, size = 16 << 20, 64 << 20
	var s Share
	s.Bound(share)
	defer s.Close()
	long := make([]byte, size)
	for debug.SetMemoryLimit(-1) < baseBytes+size+size/4 {
		runtime.GC()
	}
	runtime.KeepAlive(long)
	for debug.SetMemoryLimit(-1) != baseBytes+share {
		runtime.GC()
	}
}
