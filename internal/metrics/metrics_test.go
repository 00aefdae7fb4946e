package metrics

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	var h, all Histogram
	for _, d := range []time.Duration{-time.Second, 0, time.Microsecond, 63 * time.Microsecond, 64 * time.Microsecond, time.Hour, 100 * time.Hour} {
		h.Observe(d, 1)
	}
	all.Observe(time.Millisecond, 3)
	all.Add(&h)
	below, n := all.cumulative()
	if n != 10 || below[64e-6] != 4 || below[256e-6] != 5 || below[1024e-6] != 8 || below[float64(1<<34)/1e6] != 9 {
		t.Errorf("cumulative() = %v, %d", below, n)
	}
	if want := 128*time.Microsecond + 3*time.Millisecond + 101*time.Hour; all.sum != want {
		t.Errorf("sum = %v, want %v", all.sum, want)
	}
}
