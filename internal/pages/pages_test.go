package pages

import (
	"testing"
	"unsafe"
)

type odd struct{ a, b, c uint64 }

func TestMake(t *testing.T) {
	const perHuge = hugeBytes / int(unsafe.Sizeof(odd{}))
	for _, n := range []int{0, 1, perHuge, 2 * perHuge, 2*perHuge + 1, 5*perHuge + 7} {
		table := Make[odd](n)
		if len(table) != n || cap(table) != n {
			t.Fatalf("Make(%d) has %d elements and room for %d", n, len(table), cap(table))
		}
		for i := range table {
			if table[i] != (odd{}) {
				t.Fatalf("element %d of %d is not zero", i, n)
			}
			table[i] = odd{1, 2, 3}
		}
		if n > 2*perHuge {
			if rest := toHuge(unsafe.Pointer(&table[0])); rest >= int(unsafe.Sizeof(odd{})) {
				t.Errorf("a table of %d elements begins %d bytes before a huge page", n, rest)
			}
		}
	}
}

func TestMakeOfNothing(t *testing.T) {
	if n := len(Make[struct{}](hugeBytes)); n != hugeBytes {
		t.Errorf("%d elements, want %d", n, hugeBytes)
	}
}

func TestGrow(t *testing.T) {
	var list []uint32
	for i := range uint32(3 * hugeBytes) {
		list = append(Grow(list), i)
	}
	for i, v := range list {
		if uint32(i) != v {
			t.Fatalf("element %d is %d", i, v)
		}
	}
}
