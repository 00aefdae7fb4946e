package shuffle

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Hash is the partition of a key: the high half of partitions × xxh64(key). It never changes, because outputs of different jobs are joined by it.
func Hash(key []byte, partitions int) int {
	high, _ := bits.Mul64(xxhash.Sum64(key), uint64(partitions)) //nolint:gosec // not negative
	return int(high)                                             //nolint:gosec // below partitions
}
