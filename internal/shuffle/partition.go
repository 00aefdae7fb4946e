package shuffle

import (
	"bytes"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Hash is the partition of a key: the high half of partitions × xxh64(key). It never changes, because outputs of different jobs are joined by it.
func Hash(key []byte, partitions int) int {
	high, _ := bits.Mul64(xxhash.Sum64(key), uint64(partitions)) //nolint:gosec // not negative
	return int(high)                                             //nolint:gosec // below partitions
}

// Range is the partition of a key among len(bounds)+1: the number of bounds that are at or before it. Bounds are ascending.
func Range(key []byte, bounds [][]byte) int {
	at, found := slices.BinarySearchFunc(bounds, key, bytes.Compare)
	if found {
		at++
	}
	return at
}
