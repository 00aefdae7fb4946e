package state

import (
	"math"
	"testing"
)

func TestPeak(t *testing.T) {
	for kib := uint64(0); kib <= math.MaxUint32; kib += 1 + kib/999 {
		got := newPeak(uint32(kib)).kib()
		if uint64(got) > kib || uint64(got) < kib-kib/1000 || newPeak(got).kib() != got {
			t.Fatalf("%d KiB are kept as %d", kib, got)
		}
	}
	if got := newPeak(math.MaxUint32).kib(); got < math.MaxUint32-math.MaxUint32/1000 {
		t.Errorf("%d KiB are kept as %d", uint32(math.MaxUint32), got)
	}
}
