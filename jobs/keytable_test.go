package jobs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/stage"
)

// TestFirstOnly: the filter drops keys that are repeated, also after its table has been full, and lets keys pass by while they are hardly ever.
func TestFirstOnly(t *testing.T) {
	const memory, many, few = 1 << 20, 100_000, 1000
	var f firstOnly
	key := func(i int) []byte { return binary.AppendUvarint(nil, uint64(i)) } //nolint:gosec // not negative
	f.begin(memory)
	wanted := 0
	for i := range many { // each twice, many times what fits
		if !f.wants(key(i)) {
			t.Fatalf("key %d is not wanted", i)
		}
		if f.wants(key(i)) {
			wanted++
		}
	}
	if wanted > many/1000 {
		t.Errorf("%d of %d keys are wanted twice", wanted, many)
	}
	wanted = 0
	for i := range 3 * few { // once, it may become full
		if f.wants(key(many + i%few)) {
			wanted++
		}
	}
	if wanted < few || wanted > 2*few {
		t.Errorf("%d of %d keys, each three times, are wanted after the table was full", wanted, few)
	}
	f.begin(memory)
	passed := 0
	for i := range many {
		if !f.wants(key(i)) {
			t.Fatalf("key %d is not wanted", i)
		}
		if f.pass > 0 {
			passed++
		}
	}
	if passed < many/2 {
		t.Errorf("%d of %d keys without repetition pass by the table, want most", passed, many)
	}
}

// TestKeyTable compares the table with a map.
func TestKeyTable(t *testing.T) {
	var table keyTable[int]
	for range 2 {
		table.clear()
		want := map[string]int{}
		for i := range 30_000 {
			key := make([]byte, i%19)
			for k := range key {
				key[k] = byte(i * (k + 7) % 5)
			}
			value, isNew := table.at(key, wordsOf(key))
			if _, known := want[string(key)]; known == isNew {
				t.Fatalf("key %q: new is %v", key, isNew)
			}
			*value += i
			want[string(key)] += i
		}
		n := 0
		_ = table.each(func(key []byte, value *int) error {
			if n++; want[string(key)] != *value {
				t.Errorf("key %q has %d, want %d", key, *value, want[string(key)])
			}
			return nil
		})
		if n != len(want) {
			t.Errorf("%d keys, want %d", n, len(want))
		}
	}
}

// TestHashed: the scanner finds the ends of fields, and hashes them as the table does when it grows.
func TestHashed(t *testing.T) {
	for size := range 40 {
		for _, end := range []byte{';', '\n'} {
			field := bytes.Repeat([]byte{':', 0x0b, 0xbb, 0x8a, 'x'}, size)[:size] // some differ from an end by a bit
			text := append(append(slices.Clone(field), end), make([]byte, blockSlack)...)
			s := newFieldScanner(text[:size+1], ';')
			if at, words := s.key(0); at != size || words != wordsOf(field) {
				t.Errorf("key of %q = %d, %+v, want %d, %+v", text, at, words, size, wordsOf(field))
			}
			if at := s.end(0); at != size {
				t.Errorf("end of %q = %d, want %d", text, at, size)
			}
		}
	}
}

// memorySplit is a split in memory.
type memorySplit struct{ *bytes.Reader }

func (memorySplit) Offset() int64               { return 0 }
func (memorySplit) Header() ([]byte, error)     { return nil, nil }
func (memorySplit) Next() (string, bool, error) { return "", false, nil }

// BenchmarkCountLines adds up lines KEY;VALUE of some hundred keys.
func BenchmarkCountLines(b *testing.B) {
	const lines = 1 << 20
	var text []byte
	r := rand.New(rand.NewPCG(1, 2))
	for range lines {
		key := r.IntN(413)
		text = fmt.Appendf(text, "%s%d;%.1f\n", []string{"ba", "nturi", "mun", "lonil Ces"}[key%4], key, 15+10*r.NormFloat64())
	}
	p, err := newCounter(countConfig{Key: 1, Value: 2, Sep: ";"})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		t := &stage.Task{Split: memorySplit{bytes.NewReader(text)}, Memory: 1 << 25, Emit: func(_, _ []byte) error { return nil }}
		if err := p.Run(b.Context(), t); err != nil {
			b.Fatal(err)
		}
	}
}
