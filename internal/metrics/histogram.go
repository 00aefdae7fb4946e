package metrics

import (
	"math/bits"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Histogram counts durations in buckets that double. It must cope with a million attempts a second, so it consists of two additions, and is
// not safe for concurrent use. The zero value is empty.
type Histogram struct {
	buckets [bucketsMax]uint64 // bucket i: less than 2^i microseconds, and not less than half of it
	sum     time.Duration
}

// bucketsMax puts the bound of the last bucket but one at 2^36 microseconds, or 19 hours.
const bucketsMax = 38

// Observe counts n durations of d.
func (h *Histogram) Observe(d time.Duration, n int) {
	d = max(0, d)
	h.buckets[min(bits.Len64(uint64(d.Microseconds())), bucketsMax-1)] += uint64(n)
	h.sum += time.Duration(n) * d
}

// Add counts what o has counted.
func (h *Histogram) Add(o *Histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.sum += o.sum
}

// Metric returns the present counts.
func (h *Histogram) Metric(desc *prometheus.Desc) prometheus.Metric {
	below, all := h.cumulative()
	return prometheus.MustNewConstHistogram(desc, all, h.sum.Seconds(), below)
}

// cumulative returns, for each upper bound in seconds, how many durations are below it, and the number of all.
func (h *Histogram) cumulative() (below map[float64]uint64, all uint64) {
	const first, step = 6, 2 // from 64 µs on, by four
	below = map[float64]uint64{}
	for i, n := range h.buckets {
		all += n
		if i >= first && (i-first)%step == 0 && i < bucketsMax-1 {
			below[float64(uint64(1)<<i)/1e6] = all
		}
	}
	return below, all
}
