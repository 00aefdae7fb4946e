// Package bytesize parses numbers of bytes as users write them.
package bytesize

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Parse parses a number of bytes, from 1 to 2⁶³-1: 1000, 64MiB, 1.5g. K, KB and KiB all mean 1024 bytes, and so on up to T;
// case is ignored.
func Parse(text string) (uint64, error) {
	const forms = "want 65536, 512KiB, 64MiB or 1.5GiB"
	trimmed := strings.TrimSpace(text)
	number := strings.TrimRight(trimmed, "bikmgtBIKMGT")
	unit, ok := unitBytes(trimmed[len(number):])
	number = strings.TrimRight(number, " ")
	whole, fraction, dotted := strings.Cut(number, ".")
	if !ok || !isDigits(whole) || dotted && !isDigits(fraction) {
		return 0, fmt.Errorf("invalid size %q: %s", text, forms)
	}
	size, fits := mulAdd(whole, unit)
	if !fits {
		return 0, fmt.Errorf("size %q is too large: at most %d bytes", text, uint64(math.MaxInt64))
	}
	size += fractionOf(fraction, unit)
	if size == 0 {
		return 0, fmt.Errorf("size %q is less than a byte: %s", text, forms)
	}
	return size, nil
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func unitBytes(unit string) (uint64, bool) {
	unit = strings.ToUpper(unit)
	if unit == "" || unit == "B" {
		return 1, true
	}
	power := strings.IndexByte("KMGT", unit[0])
	if power < 0 || unit[1:] != "" && unit[1:] != "B" && unit[1:] != "IB" {
		return 0, false
	}
	return 1 << (10 * (power + 1)), true
}

// mulAdd returns digits times unit, if that is less than 1<<63 with a unit to spare.
func mulAdd(digits string, unit uint64) (uint64, bool) {
	var n uint64
	for _, c := range []byte(digits) {
		if n > math.MaxInt64/10-1 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	high, low := bits.Mul64(n, unit)
	return low, high == 0 && low <= math.MaxInt64-unit
}

// fractionOf returns 0.digits times unit, rounded down.
func fractionOf(digits string, unit uint64) uint64 {
	var n, scale uint64 = 0, 1
	for _, c := range []byte(digits) {
		if scale == 1_000_000_000_000 {
			break // enough: about a byte of a TiB
		}
		n, scale = n*10+uint64(c-'0'), scale*10
	}
	high, low := bits.Mul64(n, unit)
	quotient, _ := bits.Div64(high, low, scale)
	return quotient
}
