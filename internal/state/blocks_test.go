package state

import (
	"fmt"
	"testing"
)

// TestBlockCache: readers that share a cache read what is in their inputs, also if it keeps only some of the blocks, and it keeps within its bound.
func TestBlockCache(t *testing.T) {
	const n = 30_000
	var inputs []*Input
	for k := range 3 {
		b := NewLines()
		for i := range n {
			b.AddLine(fmt.Appendf(nil, "%d-%d", k, i))
		}
		inputs = append(inputs, mustInput(t, b))
	}
	blocks := uint64(0)
	for _, most := range []int{0, 200 << 10, 1 << 30} {
		cache := NewBlockCache(most)
		var readers []*InputReader
		for _, in := range inputs {
			readers = append(readers, cache.NewReader(in))
		}
		for i := range uint64(3000) {
			k, at := i%3, permute(i, n, 7)
			if got, want := string(mustSplit(t, readers[k], at).Item), fmt.Sprintf("%d-%d", k, at); got != want {
				t.Fatalf("split %d of input %d = %q, want %q", at, k, got, want)
			}
		}
		size := 0
		for e := cache.used.Front(); e != nil; e = e.Next() {
			size += e.Value.(*blockOfValues).size()
		}
		if size != cache.bytes || size > most && len(cache.blocks) > 1 || len(cache.blocks) != cache.used.Len() {
			t.Errorf("a cache of %d bytes has %d (%d counted) in %d blocks", most, size, cache.bytes, len(cache.blocks))
		}
		blocks = uint64(len(cache.blocks))
	}
	if want := uint64(len(inputs[0].Blocks) * 3); blocks != want {
		t.Errorf("%d blocks are kept, want all %d", blocks, want)
	}
	for _, data := range [][]byte{nil, {1, 2, 3}, NewLines().compress([]byte{200})} {
		if _, err := NewBlockCache(0).get(data); err == nil {
			t.Errorf("a block of %v was read", data)
		}
	}
}
