package jobs

import (
	"encoding/binary"
	"testing"
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
			value, isNew := table.at(key, hashKey(key))
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
