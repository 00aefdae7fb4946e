package keytable

import (
	"encoding/binary"
	"testing"
)

// TestWordsOf: the hash is that of the words of a key one after the other, however they are read.
func TestWordsOf(t *testing.T) {
	for size := range 40 {
		key := make([]byte, size, 48)
		for i := range key {
			key[i] = byte(0xf1 + 7*i)
		}
		padded := append(append([]byte(nil), key...), make([]byte, 48)...)
		want := Words{Head: binary.LittleEndian.Uint64(padded), Tail: binary.LittleEndian.Uint64(padded[8:])}
		for at := 0; at <= size; at += 8 {
			want.Hash = Mix(want.Hash, binary.LittleEndian.Uint64(padded[at:]))
		}
		if got := WordsOf(key); got != want {
			t.Errorf("WordsOf(%x) = %x, want %x", key, got, want)
		}
	}
}

// TestBounded: the table finds keys that are repeated, also after it has been full, and lets keys pass by while they are hardly ever.
func TestBounded(t *testing.T) {
	const memory, many, few = 1 << 20, 100_000, 1000
	var b Bounded[struct{}]
	wants := func(key []byte) bool { // as a filter that drops repeated keys
		if b.Passes(key) {
			return true
		}
		if b.Full(key) {
			b.Empty()
		}
		_, isNew := b.At(key, WordsOf(key))
		return isNew
	}
	key := func(i int) []byte { return binary.AppendUvarint(nil, uint64(i)) } //nolint:gosec // not negative
	b.Begin(memory)
	wanted := 0
	for i := range many { // each twice, many times what fits
		if !wants(key(i)) {
			t.Fatalf("key %d is not wanted", i)
		}
		if wants(key(i)) {
			wanted++
		}
	}
	if wanted > many/1000 {
		t.Errorf("%d of %d keys are wanted twice", wanted, many)
	}
	wanted = 0
	for i := range 3 * few { // once, it may become full
		if wants(key(many + i%few)) {
			wanted++
		}
	}
	if wanted < few || wanted > 2*few {
		t.Errorf("%d of %d keys, each three times, are wanted after the table was full", wanted, few)
	}
	b.Begin(memory)
	passed := 0
	for i := range many {
		if !wants(key(i)) {
			t.Fatalf("key %d is not wanted", i)
		}
		if b.pass > 0 {
			passed++
		}
	}
	if passed < many/2 {
		t.Errorf("%d of %d keys without repetition pass by the table, want most", passed, many)
	}
}

// TestTable compares the table with a map.
func TestTable(t *testing.T) {
	var table Table[int]
	for range 2 {
		table.Clear()
		want := map[string]int{}
		for i := range 30_000 {
			key := make([]byte, i%19)
			for k := range key {
				key[k] = byte(i * (k + 7) % 5)
			}
			value, isNew := table.At(key, WordsOf(key))
			if _, known := want[string(key)]; known == isNew {
				t.Fatalf("key %q: new is %v", key, isNew)
			}
			*value += i
			want[string(key)] += i
		}
		n := 0
		for key, value := range table.All() {
			if n++; want[string(key)] != *value {
				t.Errorf("key %q has %d, want %d", key, *value, want[string(key)])
			}
		}
		if n != len(want) {
			t.Errorf("%d keys, want %d", n, len(want))
		}
	}
}
