package sim

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// stream is a source of random numbers of its own for each purpose, so that a fault that is left out, or a message more,
// changes what happens elsewhere as little as may be. That is what makes a list of faults worth cutting down.
func stream(seed uint64, purpose string, number uint64) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(purpose))
	return rand.New(rand.NewPCG(seed, h.Sum64()^number*0x9e3779b97f4a7c15))
}

// lot is a random number that depends on what it is drawn for, and on nothing that happened before.
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

// between is a time from low to high.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// oneIn is true once in n times.
func oneIn(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

// entropy stands in for the source of randomness of the whole process while a world runs: raft draws its election timeouts
// from there.
type entropy struct{ rng *rand.Rand }

func (e entropy) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 8 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], e.rng.Uint64())
		copy(p[i:], b[:])
	}
	return len(p), nil
}
