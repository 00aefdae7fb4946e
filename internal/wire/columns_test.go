package wire_test

import (
	"testing"

	"github.com/bridgefour/bridgefour/internal/wire"
)

func TestColumns(t *testing.T) {
	tests := []struct {
		column []uint64
		fits   bool // two entries
		second uint64
	}{
		{nil, true, 0},
		{[]uint64{}, true, 0},
		{[]uint64{4}, false, 0},
		{[]uint64{4, 5}, true, 5},
		{[]uint64{4, 5, 6}, false, 5},
	}
	for _, test := range tests {
		if got := wire.ColumnFits(test.column, 2); got != test.fits {
			t.Errorf("ColumnFits(%v, 2) = %v, want %v", test.column, got, test.fits)
		}
		if got := wire.Entry(test.column, 1); got != test.second {
			t.Errorf("Entry(%v, 1) = %d, want %d", test.column, got, test.second)
		}
	}
}
