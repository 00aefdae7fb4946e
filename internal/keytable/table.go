// Package keytable holds a value for each key, with keys as bytes, in bounded memory. A key that is there costs no allocation, and two cache misses if it has up to 16 bytes.
package keytable

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"unsafe"

	"github.com/bridgefour/bridgefour/internal/pages"
)

// Words are what a table compares of a key before its bytes. They are apart from these, because the compiler keeps structs of more than four words in memory.
type Words struct {
	Hash       uint64 // of all 8 bytes of the key by Mix, and of the rest, continued with zeros, even if that is empty
	Head, Tail uint64 // the first 16 bytes, little endian, continued with zeros
}

const inlineMax = 16 // bytes of Head and Tail

// WordsOf returns the words of a key.
func WordsOf(key []byte) (w Words) {
	rest := key
	if len(rest) >= 8 {
		w.Head = binary.LittleEndian.Uint64(rest)
		w.Hash, rest = Mix(0, w.Head), rest[8:]
		if w.Tail = word(rest); len(rest) >= 8 {
			w.Hash, rest = Mix(w.Hash, w.Tail), rest[8:]
			for ; len(rest) >= 8; rest = rest[8:] {
				w.Hash = Mix(w.Hash, binary.LittleEndian.Uint64(rest))
			}
		}
	} else {
		w.Head = word(rest)
	}
	w.Hash = Mix(w.Hash, word(rest))
	return w
}

// word is the first 8 bytes of a text, little endian, continued with zeros.
func word(text []byte) uint64 {
	switch n := len(text); {
	case n >= 8:
		return binary.LittleEndian.Uint64(text)
	case n >= 4: // two words of 4 bytes, which overlap
		return uint64(binary.LittleEndian.Uint32(text)) | uint64(binary.LittleEndian.Uint32(text[n-4:]))<<(8*(n-4))
	case n > 0: // the first, the middle and the last byte, which may be one
		return uint64(text[0]) | uint64(text[n/2])<<(8*(n/2)) | uint64(text[n-1])<<(8*(n-1))
	}
	return 0
}

// Mix adds 8 bytes to a hash.
func Mix(hash, word uint64) uint64 {
	const mix = 0x9e3779b97f4a7c15 // 2⁶⁴ by the golden ratio
	hash = (hash ^ word) * mix
	return hash ^ hash>>32
}

// Table has a value for each key. Clear it before its first use, and whenever Memory is more than it may be.
type Table[V any] struct {
	// places find the entries: 0 is free, others are the number of an entry plus 1, and above that the low half of the hash. They are a power of two, and a quarter is used
	// at most, so that most keys are found at the first one, which the branch predictor learns. Nil: none yet.
	places  []uint64
	shift   int // of a hash: its high bits, which depend on all of the key, say where the search begins
	entries []entry[V]
	keys    []byte
}

// entry is a key with its value.
type entry[V any] struct {
	head, tail    uint64 // of the key: short ones are compared without a look into keys
	keyAt, keyEnd uint32 // in keys
	value         V
}

// MemoryMax is the maximum memory of a table in bytes: with a key more, its keys have 32-bit offsets.
const MemoryMax = 2 << 30

// Clear removes the keys, and keeps the memory.
func (t *Table[V]) Clear() {
	const placesLeast = 1 << 10
	if t.places == nil {
		t.places, t.shift = make([]uint64, placesLeast), 64-bits.Len(placesLeast-1)
	}
	clear(t.places)
	clear(t.entries) // what values point to is garbage
	t.entries, t.keys = t.entries[:0], t.keys[:0]
}

// Len is the number of keys.
func (t *Table[V]) Len() int { return len(t.entries) }

// Memory is what the keys take, in bytes: there are up to 8 places for each. It is 0 after Clear, however large the table has become.
func (t *Table[V]) Memory() int64 {
	const placeBytes = 8 * 8
	return int64(len(t.entries))*(placeBytes+int64(unsafe.Sizeof(entry[V]{}))) + int64(len(t.keys)) //nolint:gosec // small
}

// At returns the value of a key, which is its zero if the key is new, until the next call.
func (t *Table[V]) At(key []byte, words Words) (value *V, isNew bool) {
	mask := uint64(len(t.places) - 1) //nolint:gosec // not negative
	for i := words.Hash >> (t.shift & 63); ; i++ {
		place := t.places[i&mask]
		if place == 0 {
			return t.take(key, words), true
		}
		if uint32(place>>32) != uint32(words.Hash) { //nolint:gosec // the low half
			continue
		}
		e := &t.entries[uint32(place)-1] //nolint:gosec // the low half
		if size := int(e.keyEnd - e.keyAt); e.head == words.Head && e.tail == words.Tail && size == len(key) &&
			(size <= inlineMax || string(t.keys[e.keyAt:e.keyEnd]) == string(key)) {
			return &e.value, false
		}
	}
}

// take adds a key that is not there.
func (t *Table[V]) take(key []byte, words Words) *V {
	if 4*len(t.entries) >= len(t.places) {
		t.grow()
	}
	from := len(t.keys)
	t.keys = append(t.keys, key...)
	t.entries = append(t.entries, entry[V]{head: words.Head, tail: words.Tail, keyAt: uint32(from), keyEnd: uint32(len(t.keys))}) //nolint:gosec // users bound the memory
	t.place(words.Hash, len(t.entries))
	return &t.entries[len(t.entries)-1].value
}

// place puts the number of an entry plus 1 into a free place.
func (t *Table[V]) place(hash uint64, number int) {
	mask := uint64(len(t.places) - 1) //nolint:gosec // not negative
	i := hash >> t.shift
	for t.places[i&mask] != 0 {
		i++
	}
	t.places[i&mask] = hash<<32 | uint64(number) //nolint:gosec // users bound the memory
}

func (t *Table[V]) grow() {
	t.places = pages.Make[uint64](2 * len(t.places))
	t.shift--
	for i := range t.entries {
		t.place(WordsOf(t.key(i)).Hash, i+1)
	}
}

func (t *Table[V]) key(n int) []byte {
	e := &t.entries[n]
	return t.keys[e.keyAt:e.keyEnd]
}

// All yields the keys with their values, in the order in which they came first.
func (t *Table[V]) All() iter.Seq2[[]byte, *V] {
	return func(yield func(key []byte, value *V) bool) {
		for i := range t.entries {
			if !yield(t.key(i), &t.entries[i].value) {
				return
			}
		}
	}
}
