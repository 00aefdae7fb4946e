package jobs

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/bridgefour/bridgefour/internal/pages"
)

const mix = 0x9e3779b97f4a7c15 // 2⁶⁴ by the golden ratio

// keyWords are what a table compares of a key before its bytes. They are apart from these, because the compiler keeps structs of more than four words in memory.
type keyWords struct {
	hash       uint64 // see hashKey
	head, tail uint64 // the first 16 bytes, little endian, continued with zeros
}

const inlineMax = 16 // bytes of head and tail

func wordsOf(key []byte) keyWords {
	var first [inlineMax]byte
	copy(first[:], key)
	return keyWords{hashKey(key), binary.LittleEndian.Uint64(first[:]), binary.LittleEndian.Uint64(first[8:])}
}

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
	// places find the entries: 0 is free, others are the number of an entry plus 1, and above that the low half of the hash. They are a power of two, and a quarter is used
	// at most, so that most keys are found at the first one, which the branch predictor learns. Nil: none yet.
	places  []uint64
	shift   int // of a hash: its high bits, which depend on all of the key, say where the search begins
	entries []keyEntry[V]
	keys    []byte
}

// keyEntry is a key with its value.
type keyEntry[V any] struct {
	head, tail    uint64 // of the key: short ones are compared without a look into keys
	keyAt, keyEnd uint32 // in keys
	value         V
}

// tableMax is the maximum memory of a table: with a line more, its keys have 32-bit offsets.
const tableMax = 2 << 30

// clear removes the keys, and keeps the memory.
func (t *keyTable[V]) clear() {
	const placesLeast = 1 << 10
	if t.places == nil {
		t.places, t.shift = make([]uint64, placesLeast), 64-bits.Len(placesLeast-1)
	}
	clear(t.places)
	t.entries, t.keys = t.entries[:0], t.keys[:0]
}

// memory is what the keys take, in bytes: there are up to 8 places for each. It is 0 after clear, however large the table has become.
func (t *keyTable[V]) memory() int64 {
	const placeBytes = 8 * 8
	return int64(len(t.entries))*(placeBytes+int64(unsafe.Sizeof(keyEntry[V]{}))) + int64(len(t.keys)) //nolint:gosec // small
}

// at returns the value of a key, which is its zero if the key is new, until the next call.
func (t *keyTable[V]) at(key []byte, words keyWords) (value *V, isNew bool) {
	mask := uint64(len(t.places) - 1) //nolint:gosec // not negative
	for i := words.hash >> (t.shift & 63); ; i++ {
		place := t.places[i&mask]
		if place == 0 {
			return t.take(key, words), true
		}
		if uint32(place>>32) != uint32(words.hash) { //nolint:gosec // the low half
			continue
		}
		e := &t.entries[uint32(place)-1] //nolint:gosec // the low half
		if size := int(e.keyEnd - e.keyAt); e.head == words.head && e.tail == words.tail && size == len(key) &&
			(size <= inlineMax || string(t.keys[e.keyAt:e.keyEnd]) == string(key)) {
			return &e.value, false
		}
	}
}

// take adds a key that is not there.
func (t *keyTable[V]) take(key []byte, words keyWords) *V {
	if 4*len(t.entries) >= len(t.places) {
		t.grow()
	}
	from := len(t.keys)
	t.keys = append(t.keys, key...)
	t.entries = append(t.entries, keyEntry[V]{head: words.head, tail: words.tail, keyAt: uint32(from), keyEnd: uint32(len(t.keys))}) //nolint:gosec // users bound the memory
	t.place(words.hash, len(t.entries))
	return &t.entries[len(t.entries)-1].value
}

// place puts the number of an entry plus 1 into a free place.
func (t *keyTable[V]) place(hash uint64, number int) {
	mask := uint64(len(t.places) - 1) //nolint:gosec // not negative
	i := hash >> t.shift
	for t.places[i&mask] != 0 {
		i++
	}
	t.places[i&mask] = hash<<32 | uint64(number) //nolint:gosec // users bound the memory
}

func (t *keyTable[V]) grow() {
	t.places = pages.Make[uint64](2 * len(t.places))
	t.shift--
	for i := range t.entries {
		t.place(hashKey(t.key(i)), i+1)
	}
}

func (t *keyTable[V]) key(entry int) []byte {
	e := &t.entries[entry]
	return t.keys[e.keyAt:e.keyEnd]
}

// each calls f for each key, in the order in which they came first.
func (t *keyTable[V]) each(f func(key []byte, value *V) error) error {
	for i := range t.entries {
		if err := f(t.key(i), &t.entries[i].value); err != nil {
			return err
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

// wants reports whether a key may be the first of its kind. One that would take much of the memory is not kept.
func (f *firstOnly) wants(key []byte) bool {
	const few = 16 // keys that fill the memory
	if int64(len(key)) > f.memory/few {
		return true
	}
	if f.pass > 0 {
		f.pass--
		return true
	}
	if f.table.memory()+int64(len(key)) > f.memory {
		if 3*f.keys < firstGain*len(f.table.entries) {
			f.pass = firstPass * f.keys
		}
		f.table.clear()
		f.keys = 0
	}
	f.keys++
	_, isNew := f.table.at(key, wordsOf(key))
	return isNew
}
