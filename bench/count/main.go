// Command count is a hand-tuned program for one job, with which bench compares Bridge Four: the minimum, mean and maximum of the values of each key in a file of lines
// KEY;VALUE, whose values have one decimal. It uses two threads, a table with open addressing, and no SIMD.
//
//	go run ./bench/count FILE OUTPUT
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	threads    = 2
	pieceBytes = 16 << 20
	lineMax    = 256
	places     = 1 << 15 // of a table; a power of two
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: count FILE OUTPUT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "count:", err)
		os.Exit(1)
	}
}

// entry is a key with its sums, in tenths.
type entry struct {
	hash     uint64
	key      []byte // nil: none
	count    int64
	sum      int64
	min, max int64
}

type table struct{ entries []entry }

// at returns the entry of a key.
func (t *table) at(key []byte, hash uint64) *entry {
	for i := hash >> 32; ; i++ {
		e := &t.entries[i%places]
		if e.hash == hash && bytes.Equal(e.key, key) {
			return e
		}
		if e.key == nil {
			*e = entry{hash: hash, key: bytes.Clone(key), min: 1 << 62, max: -1 << 62}
			return e
		}
	}
}

func run(input, output string) error {
	f, err := os.Open(input)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var next atomic.Int64
	var tables [threads]table
	var errs [threads]error
	var wait sync.WaitGroup
	for i := range threads {
		tables[i].entries = make([]entry, places)
		wait.Go(func() {
			buf := make([]byte, pieceBytes+2*lineMax)
			for errs[i] == nil {
				from := next.Add(pieceBytes) - pieceBytes
				if from >= info.Size() {
					return
				}
				errs[i] = tables[i].piece(f, buf, from)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	all := &tables[0]
	for _, e := range tables[1].entries {
		if e.key != nil {
			into := all.at(e.key, e.hash)
			into.count, into.sum, into.min, into.max = into.count+e.count, into.sum+e.sum, min(into.min, e.min), max(into.max, e.max)
		}
	}
	list := slices.DeleteFunc(all.entries, func(e entry) bool { return e.key == nil })
	slices.SortFunc(list, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	var text []byte
	for _, e := range list {
		text = fmt.Appendf(text, "%s\t%.1f\t%.1f\t%.1f\n", e.key, float64(e.min)/10, float64(e.sum)/10/float64(e.count), float64(e.max)/10)
	}
	return os.WriteFile(output, text, 0o600)
}

// piece counts the lines that begin in a piece of the file: behind a line end that is before its end.
func (t *table) piece(f *os.File, buf []byte, from int64) error {
	start := max(0, from-1)
	n, err := f.ReadAt(buf[:pieceBytes+int(from-start)+lineMax], start)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	text := buf[:n]
	last := min(n, pieceBytes+int(from-start)) - 1 // a line end from here on is the last one
	end := bytes.IndexByte(text[last:], '\n')
	if end < 0 {
		return errors.New("a line is too long, or has no end")
	}
	text = text[:last+end+1]
	if from > 0 {
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	for len(text) > 0 {
		text = t.line(text)
	}
	return nil
}

// line counts the first line, and returns the others.
func (t *table) line(text []byte) []byte {
	const (
		semicolons = 0x3b3b3b3b3b3b3b3b
		ones       = 0x0101010101010101
		prime      = 0x9e3779b97f4a7c15
	)
	hash, end := uint64(0), 0
	for ; len(text)-end >= 8; end += 8 { // eight bytes at a time, as long as none is a semicolon
		word := binary.LittleEndian.Uint64(text[end:])
		x := word ^ semicolons
		if found := (x - ones) &^ x & (ones << 7); found != 0 {
			n := bits.TrailingZeros64(found) / 8
			hash = (hash ^ word&(1<<(8*n)-1)) * prime
			end += n
			break
		}
		hash = (hash ^ word) * prime
	}
	for text[end] != ';' {
		hash = (hash ^ uint64(text[end])) * prime
		end++
	}
	hash ^= hash >> 29
	e := t.at(text[:end], hash)
	at, negative := end+1, false
	if text[at] == '-' {
		at, negative = at+1, true
	}
	value := int64(text[at] - '0')
	if at++; text[at] != '.' {
		value = 10*value + int64(text[at]-'0')
		at++
	}
	value = 10*value + int64(text[at+1]-'0')
	if negative {
		value = -value
	}
	e.count++
	e.sum += value
	e.min, e.max = min(e.min, value), max(e.max, value)
	return text[at+3:]
}
