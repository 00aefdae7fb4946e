package sim

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// stream returns the random numbers of one purpose, so that one fault less, or one message more, changes other events as little as
// possible: otherwise a shorter list of faults would be another world.
func stream(seed uint64, purpose string, number uint64) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(purpose))
	return rand.New(rand.NewPCG(seed, h.Sum64()^number*0x9e3779b97f4a7c15))
}

// lot returns a random number that depends on its arguments alone, and not on earlier draws.
func lot(seed uint64, of ...uint64) uint64 {
	x := seed
	for _, v := range of {
		x = mix(x ^ v*0x9e3779b97f4a7c15)
	}
	return mix(x)
}

// mix is the finalizer of splitmix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// between returns a duration from low to high.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// oneIn is true in one of n cases.
func oneIn(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

// entropy replaces the random source of the process while a world runs: raft draws its election timeouts from there.
type entropy struct{ rng *rand.Rand }

func (e entropy) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 8 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], e.rng.Uint64())
		copy(p[i:], b[:])
	}
	return len(p), nil
}
