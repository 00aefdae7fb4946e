package jobs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/keytable"
	"github.com/bridgefour/bridgefour/internal/stage"
)

// TestHashed: the scanner finds the ends of fields, and hashes them as the table does when it grows.
func TestHashed(t *testing.T) {
	for size := range 40 {
		for _, end := range []byte{';', '\n'} {
			field := bytes.Repeat([]byte{':', 0x0b, 0xbb, 0x8a, 'x'}, size)[:size] // some differ from an end by a bit
			text := append(append(slices.Clone(field), end), make([]byte, blockSlack)...)
			s := newFieldScanner(text[:size+1], ';')
			if at, words := s.key(0); at != size || words != keytable.WordsOf(field) {
				t.Errorf("key of %q = %d, %+v, want %d, %+v", text, at, words, size, keytable.WordsOf(field))
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
