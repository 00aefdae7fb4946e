package jobs

import (
	"bytes"
	"encoding/binary"
	"unsafe"
)

const mix = 0x9e3779b97f4a7c15 // 2⁶⁴ by the golden ratio

// hashKey hashes a key, 8 bytes at a time.
func hashKey(key []byte) (hash uint64) {
	for ; len(key) >= 8; key = key[8:] {
		hash = mixWord(hash, binary.LittleEndian.Uint64(key))
	}
	var last [8]byte
	copy(last[:], key)
	return mixWord(hash, binary.LittleEndian.Uint64(last[:]))
}

func mixWord(hash, word uint64) uint64 {
	hash = (hash ^ word) * mix
	return hash ^ hash>>32
}

// keyTable has a value for each key, with keys as bytes. A key that is there costs no allocation. Users empty it when it takes tableMax.
type keyTable[V any] struct {
	places []keyPlace[V] // a power of two, at most half of them used; nil: none yet
	used   int
	keys   []byte
}

// keyPlace is a key with its value.
type keyPlace[V any] struct {
	hash          uint64 // odd; 0: the place is free
	keyAt, keyEnd uint32 // in keys
	value         V
}

// tableMax is the maximum memory of a table: with a line more, its keys have 32-bit offsets.
const tableMax = 2 << 30

// clear removes the keys, and keeps the memory.
func (t *keyTable[V]) clear() {
	const placesLeast = 1 << 10
	if t.places == nil {
		t.places = make([]keyPlace[V], placesLeast)
	}
	clear(t.places)
	t.used, t.keys = 0, t.keys[:0]
}

// memory is what the keys take, in bytes: there are up to 4 places for each. It is 0 after clear, however large the table has become.
func (t *keyTable[V]) memory() int64 {
	return 4*int64(t.used)*int64(unsafe.Sizeof(keyPlace[V]{})) + int64(len(t.keys)) //nolint:gosec // small
}

// at returns the value of a key, which is its zero if the key is new, until the next call.
func (t *keyTable[V]) at(key []byte, hash uint64) (value *V, isNew bool) {
	hash |= 1
	mask := uint64(len(t.places) - 1) //nolint:gosec // not negative
	for i := hash >> 1; ; i++ {
		p := &t.places[i&mask]
		if p.hash == hash && bytes.Equal(t.keys[p.keyAt:p.keyEnd], key) {
			return &p.value, false
		}
		if p.hash == 0 {
			return t.take(p, key, hash), true
		}
	}
}

// take gives a key a free place.
func (t *keyTable[V]) take(p *keyPlace[V], key []byte, hash uint64) *V {
	if 2*t.used >= len(t.places) {
		t.grow()
		p = t.free(hash)
	}
	t.used++
	from := len(t.keys)
	t.keys = append(t.keys, key...)
	p.hash, p.keyAt, p.keyEnd = hash, uint32(from), uint32(len(t.keys)) //nolint:gosec // users bound the memory
	return &p.value
}

// free is the free place for a key that is not there.
func (t *keyTable[V]) free(hash uint64) *keyPlace[V] {
	mask := uint64(len(t.places) - 1) //nolint:gosec // not negative
	i := hash >> 1
	for t.places[i&mask].hash != 0 {
		i++
	}
	return &t.places[i&mask]
}

func (t *keyTable[V]) grow() {
	old := t.places
	t.places = make([]keyPlace[V], 2*len(old))
	for i := range old {
		if old[i].hash != 0 {
			*t.free(old[i].hash) = old[i]
		}
	}
}

// each calls f for each key, in no order.
func (t *keyTable[V]) each(f func(key []byte, value *V) error) error {
	for i := range t.places {
		if p := &t.places[i]; p.hash != 0 {
			if err := f(t.keys[p.keyAt:p.keyEnd], &p.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// firstOnly filters the keys of a task: it drops those that it has seen, as far as its memory goes. If few of the keys that filled the memory were repeated, the next ones
// pass by it, because a table that rarely hits costs more than it saves.
type firstOnly struct {
	table  keyTable[struct{}]
	memory int64
	keys   int // since the table was empty
	pass   int // keys that pass by
}

const (
	firstGain = 4 // the filter is used if it takes in at least this many keys for 3 that come out
	firstPass = 8 // tables that are passed by if it is not
)

// begin starts a task that may take so many bytes.
func (f *firstOnly) begin(memory int64) {
	f.table.clear()
	f.memory, f.keys, f.pass = min(memory/2, tableMax), 0, 0 // a table that grows has its old places too
}

// wants reports whether a key may be the first of its kind.
func (f *firstOnly) wants(key []byte) bool {
	if f.pass > 0 {
		f.pass--
		return true
	}
	if f.table.memory()+int64(len(key)) > f.memory {
		if 3*f.keys < firstGain*f.table.used {
			f.pass = firstPass * f.keys
		}
		f.table.clear()
		f.keys = 0
	}
	f.keys++
	_, isNew := f.table.at(key, hashKey(key))
	return isNew
}
