package bridgefour

import (
	"bytes"
	"hash/maphash"
	"unsafe"
)

// table combines values by key, with keys as bytes. A pair whose key is there costs no allocation.
type table[V any] struct {
	add     func(a, b V) V
	value   *codec // V's
	refers  int    // bytes that the values refer to
	seed    maphash.Seed
	places  []uint64 // of entries: the high half of the hash, and the number of the entry plus 1; a power of two, at most half full
	entries []tableEntry[V]
	arena   []byte // the keys
}

type tableEntry[V any] struct {
	keyEnd int // in the arena; the key begins where that of the entry before ends
	value  V
}

const tablePlaces = 1 << 10

func newTable[V any](add func(a, b V) V, value *codec) *table[V] {
	return &table[V]{add: add, value: value, seed: maphash.MakeSeed(), places: make([]uint64, tablePlaces)}
}

// memory is the size of the table in bytes, with room for another key.
func (t *table[V]) memory() int64 {
	var entry tableEntry[V]
	return int64(len(t.places))*8 + int64(len(t.entries))*int64(unsafe.Sizeof(entry)) + int64(len(t.arena)) + int64(t.refers) //nolint:gosec // small
}

// reset removes the pairs and keeps the memory.
func (t *table[V]) reset() {
	clear(t.places)
	clear(t.entries) // what values point to is garbage
	t.entries, t.arena, t.refers = t.entries[:0], t.arena[:0], 0
}

func (t *table[V]) key(n int) []byte {
	from := 0
	if n > 0 {
		from = t.entries[n-1].keyEnd
	}
	return t.arena[from:t.entries[n].keyEnd]
}

// put adds a value to that of a key. It returns true if the table may have grown.
func (t *table[V]) put(key []byte, value V) bool {
	const low = 1<<32 - 1
	hash := maphash.Bytes(t.seed, key)
	mask := uint64(len(t.places) - 1)
	at := hash & mask
	for ; t.places[at] != 0; at = (at + 1) & mask {
		if place := t.places[at]; place>>32 == hash>>32 && bytes.Equal(t.key(int(place&low)-1), key) {
			e := &t.entries[int(place&low)-1]
			if t.value.size != nil {
				t.refers -= t.value.size(unsafe.Pointer(&e.value))
			}
			e.value = t.add(e.value, value)
			return t.take(&e.value)
		}
	}
	t.arena = append(t.arena, key...)
	t.entries = append(t.entries, tableEntry[V]{len(t.arena), value})
	t.take(&t.entries[len(t.entries)-1].value)
	t.places[at] = hash&^low | uint64(len(t.entries)) //nolint:gosec // memory is bounded
	if 2*len(t.entries) > len(t.places) {
		t.grow()
	}
	return true
}

// take makes the table own what a value borrows. It reports whether the value refers to bytes.
func (t *table[V]) take(value *V) bool {
	if t.value.own != nil {
		t.value.own(unsafe.Pointer(value))
	}
	if t.value.size == nil {
		return false
	}
	t.refers += t.value.size(unsafe.Pointer(value))
	return true
}

func (t *table[V]) grow() {
	t.places = make([]uint64, 2*len(t.places))
	mask := uint64(len(t.places) - 1)
	for i := range t.entries {
		hash := maphash.Bytes(t.seed, t.key(i))
		at := hash & mask
		for t.places[at] != 0 {
			at = (at + 1) & mask
		}
		t.places[at] = hash>>32<<32 | uint64(i+1) //nolint:gosec // not negative
	}
}

// combiner is a table before a shuffle. It is emptied when it has reached its size; if few pairs had a key that was there, the next ones pass
// by it, because a table that rarely hits costs more than it saves.
type combiner[V any] struct {
	table   *table[V]
	emit    func(key []byte, value *V)
	sizeMax int64
	pairs   int // since the table was empty
	pass    int // pairs that pass by
	held    V
}

const (
	combineGain = 4  // the table is used if it takes in at least this many pairs for 3 that come out
	combinePass = 8  // tables that are passed by if it is not
	combineKeys = 16 // keys that fill the table: longer ones pass by
)

func (c *combiner[V]) put(key []byte, value V) {
	if c.pass > 0 || int64(len(key)) > c.sizeMax/combineKeys {
		c.pass = max(0, c.pass-1)
		c.held = value // its address would move every value to the heap
		c.emit(key, &c.held)
		return
	}
	c.pairs++
	if c.table.put(key, value) && c.table.memory() > c.sizeMax {
		if 3*c.pairs < combineGain*len(c.table.entries) {
			c.pass = combinePass * c.pairs
		}
		c.flush()
	}
}

// flush emits the pairs in the order in which their keys came first.
func (c *combiner[V]) flush() {
	for i := range c.table.entries {
		c.emit(c.table.key(i), &c.table.entries[i].value)
	}
	c.table.reset()
	c.pairs = 0
}
