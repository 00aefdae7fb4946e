package jobs

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"github.com/bridgefour/bridgefour/internal/pages"
)

// wordCounter is a hash table of words, optimized for text: a word of up to 8 bytes is stored and compared as one integer, one of up
// to 16 as two. Text is examined 8 bytes at a time; there is no loop over the letters of an ordinary word.
//
// The table of a word depends on the word alone: words with a byte of 0x20 or less (control characters) or more than 16 bytes are
// long words, others are assigned by length. So zero bytes behind a short word cannot be mistaken for a part of it.
type wordCounter struct {
	buf []byte

	short      []shortWord // a power of two, at most half full
	shortShift int
	shortUsed  int

	middle      []middleWord
	middleShift int
	middleUsed  int

	long     []longWord
	longMask uint64
	longUsed int
	arena    []byte // the bytes of long words
	seed     maphash.Seed

	scratch [16]byte

	batch   [middleBatch]middleKey // words of the middle table that are to be counted
	batched int
	touched uint64 // keeps the compiler from removing the reads of countBatch
}

// middleKey is a word of 9 to 16 bytes.
type middleKey struct{ head, tail uint64 }

type shortWord struct{ key, count uint64 }

type middleWord struct{ head, tail, count uint64 }

type longWord struct {
	hash  uint64 // 0: free; its lowest bit is always set
	at    uint64 // in the arena
	size  uint64
	count uint64
}

const (
	loadSlack = 24 // bytes behind a block that loads within it read and ignore

	shortStart  = 1 << 13
	middleStart = 1 << 11
	longStart   = 1 << 8

	middleBatch = 64

	lows  = 0x7f7f7f7f7f7f7f7f
	highs = 0x8080808080808080

	// Golden-ratio multipliers: the high bits of the product depend on every bit of the key.
	mixHead = 0x9e3779b97f4a7c15
	mixTail = 0xd6e8feb86659fd93

	asciiSpaces = 1<<'\t' | 1<<'\n' | 1<<'\v' | 1<<'\f' | 1<<'\r' | 1<<' '
)

func newWordCounter() *wordCounter {
	return &wordCounter{
		short: make([]shortWord, shortStart), shortShift: 64 - bits.Len(shortStart-1),
		middle: make([]middleWord, middleStart), middleShift: 64 - bits.Len(middleStart-1),
		long: make([]longWord, longStart), longMask: longStart - 1,
		seed: maphash.MakeSeed(),
	}
}

// reset removes the words and keeps the memory.
func (c *wordCounter) reset() {
	clear(c.short)
	clear(c.middle)
	clear(c.long)
	c.shortUsed, c.middleUsed, c.longUsed = 0, 0, 0
	c.arena = c.arena[:0]
}

// memory is the approximate size of the counter.
func (c *wordCounter) memory() int {
	return len(c.buf) + 16*len(c.short) + 24*len(c.middle) + 32*len(c.long) + cap(c.arena)
}

// needs is the most memory that the words take: a table that has grown has four places for each, and had half as many besides while it grew. It is 0 after reset.
func (c *wordCounter) needs() int64 {
	return int64(6*(16*c.shortUsed+24*c.middleUsed+32*c.longUsed) + 3*len(c.arena))
}

// notAbove returns the high bit of each byte that is 0x20 or less. No byte's sum carries into the next.
func notAbove(x uint64) uint64 {
	const add = (0x7f - 0x20) * 0x0101010101010101
	return ^((x&lows + add) | x) & highs
}

// words counts the words of buf[:end], which must end in white space; loadSlack bytes must follow it.
func (c *wordCounter) words(buf []byte, end int) {
	const word = 8
	short, shift := c.short, c.shortShift
	for i := 0; i < end; {
		x := binary.LittleEndian.Uint64(buf[i:])
		stops := notAbove(x)
		if stops == 0 {
			i = c.longer(buf, i, end, x)
			short, shift = c.short, c.shortShift
			continue
		}
		stop := bits.TrailingZeros64(stops) &^ (word - 1) // in bits
		if asciiSpaces>>(x>>stop&63)&1 == 0 {
			i = c.odd(buf, i, end)
			short, shift = c.short, c.shortShift
			continue
		}
		i += stop/word + 1
		if stop == 0 {
			continue
		}
		key := x & (1<<stop - 1)
		if key&highs != 0 {
			i = c.odd(buf, i-stop/word-1, end)
			short, shift = c.short, c.shortShift
			continue
		}
		at := key * mixHead >> shift
		for {
			entry := &short[at&uint64(len(short)-1)]
			if entry.key == key {
				entry.count++
				break
			}
			if entry.key == 0 {
				c.addShort(key)
				short, shift = c.short, c.shortShift
				break
			}
			at++
		}
	}
	c.countBatch()
}

// longer counts a word whose first 8 bytes, head, contain no separator, and returns the place behind it; a middle word is batched.
func (c *wordCounter) longer(buf []byte, start, end int, head uint64) int {
	const word = 8
	tail := binary.LittleEndian.Uint64(buf[start+word:])
	stops := notAbove(tail)
	if stops == 0 {
		return c.odd(buf, start, end)
	}
	stop := bits.TrailingZeros64(stops) &^ (word - 1)
	isSpace := asciiSpaces>>(tail>>stop&63)&1 != 0
	tail &= 1<<stop - 1
	if !isSpace || (head|tail)&highs != 0 {
		return c.odd(buf, start, end)
	}
	if stop == 0 {
		c.addShort(head)
	} else {
		c.batch[c.batched] = middleKey{head, tail}
		if c.batched++; c.batched == len(c.batch) {
			c.countBatch()
		}
	}
	return start + word + stop/word + 1
}

// odd counts a word of any kind that begins at start, if any, and returns the place behind it and its separator.
func (c *wordCounter) odd(buf []byte, start, end int) int {
	for i := start; i < end; i++ {
		size := 0
		switch b := buf[i]; {
		case b <= ' ':
			size = int(asciiSpaces >> b & 1)
		case b == 0xc2 || b >= 0xe1 && b <= 0xe3: // first bytes of Unicode's white space
			size = wideSpace(buf[i:end])
		}
		if size > 0 {
			if i > start {
				c.add(buf[start:i])
			}
			return i + size
		}
	}
	return end
}

// wideSpace returns the length of the non-ASCII white space at the start of text; 0 if there is none.
func wideSpace(text []byte) int {
	r, size := utf8.DecodeRune(text)
	if unicode.IsSpace(r) {
		return size
	}
	return 0
}

// lastSpace returns the place behind the last white space in text; 0 if there is none. None ends in text[:from].
func lastSpace(text []byte, from int) int {
	for i := len(text) - 1; i >= from; i-- {
		if text[i] <= ' ' && asciiSpaces>>text[i]&1 != 0 {
			return i + 1
		}
	}
	from = max(0, from-utf8.UTFMax)
	i := bytes.LastIndexFunc(text[from:], unicode.IsSpace)
	if i < 0 {
		return 0
	}
	_, size := utf8.DecodeRune(text[from+i:])
	return from + i + size
}

// isLong reports whether a word is stored as a long word.
func isLong(word []byte) bool {
	const inlineMax = 16
	return len(word) > inlineMax || slices.ContainsFunc(word, func(b byte) bool { return b <= ' ' })
}

// add counts a word of any kind.
func (c *wordCounter) add(word []byte) {
	if isLong(word) {
		c.addLong(word)
		return
	}
	c.scratch = [16]byte{}
	copy(c.scratch[:], word)
	head, tail := binary.LittleEndian.Uint64(c.scratch[:8]), binary.LittleEndian.Uint64(c.scratch[8:])
	if tail == 0 {
		c.addShort(head)
	} else {
		c.addMiddle(head, tail)
	}
}

func (c *wordCounter) addShort(key uint64) {
	mask := uint64(len(c.short) - 1)
	at := key * mixHead >> c.shortShift
	for c.short[at&mask].key != 0 {
		if c.short[at&mask].key == key {
			c.short[at&mask].count++
			return
		}
		at++
	}
	c.short[at&mask] = shortWord{key, 1}
	if c.shortUsed++; full(c.shortUsed, len(c.short)) {
		c.growShort()
	}
}

func (c *wordCounter) addMiddle(head, tail uint64) {
	mask := uint64(len(c.middle) - 1)
	at := middleHash(head, tail) >> c.middleShift
	for c.middle[at&mask].head != 0 {
		if entry := &c.middle[at&mask]; entry.head == head && entry.tail == tail {
			entry.count++
			return
		}
		at++
	}
	c.middle[at&mask] = middleWord{head, tail, 1}
	if c.middleUsed++; full(c.middleUsed, len(c.middle)) {
		c.growMiddle()
	}
}

// countBatch counts the batched words. Most of a table's places lie outside the caches, and a probe is followed by branches that depend on what it
// reads; so all places are read first, with nothing that depends on them: then the processor waits for many at once instead of for each.
func (c *wordCounter) countBatch() {
	batch := c.batch[:c.batched]
	c.batched = 0
	mask := uint64(len(c.middle) - 1)
	var touched uint64
	for _, key := range batch {
		touched += c.middle[middleHash(key.head, key.tail)>>c.middleShift&mask].head
	}
	c.touched = touched
	for _, key := range batch {
		c.addMiddle(key.head, key.tail)
	}
}

func (c *wordCounter) addLong(word []byte) {
	if full(c.longUsed+1, len(c.long)) {
		c.growLong()
	}
	hash := maphash.Bytes(c.seed, word) | 1 // never that of a free slot
	at := hash >> 1
	for c.long[at&c.longMask].hash != 0 {
		entry := &c.long[at&c.longMask]
		if entry.hash == hash && bytes.Equal(c.longBytes(entry), word) {
			entry.count++
			return
		}
		at++
	}
	c.long[at&c.longMask] = longWord{hash, uint64(len(c.arena)), uint64(len(word)), 1}
	c.arena = append(c.arena, word...)
	c.longUsed++
}

func middleHash(head, tail uint64) uint64 {
	return (head ^ bits.RotateLeft64(tail*mixTail, 32)) * mixHead
}

func (c *wordCounter) longBytes(entry *longWord) []byte {
	return c.arena[entry.at : entry.at+entry.size]
}

// fresh allocates a table of n places and writes to each of its pages: a page that is first read from causes another fault, and
// interrupts the other processors, when it is written to.
func fresh[T any](n int) []T {
	const pageBytes = 4096
	var zero T
	table := pages.Make[T](n)
	for i := 0; i < n; i += max(1, pageBytes/int(unsafe.Sizeof(zero))) {
		table[i] = zero
	}
	return table
}

// full limits tables to half of their places: then most words are found at the first probe, which the branch predictor learns.
func full(used, size int) bool { return used > size/2 }

func (c *wordCounter) growShort() {
	old := c.short
	c.short = fresh[shortWord](2 * len(old))
	c.shortShift--
	mask := uint64(len(c.short) - 1)
	for _, entry := range old {
		if entry.key == 0 {
			continue
		}
		at := entry.key * mixHead >> c.shortShift
		for c.short[at&mask].key != 0 {
			at++
		}
		c.short[at&mask] = entry
	}
}

func (c *wordCounter) growMiddle() {
	old := c.middle
	c.middle = fresh[middleWord](2 * len(old))
	c.middleShift--
	mask := uint64(len(c.middle) - 1)
	for _, entry := range old {
		if entry.head == 0 {
			continue
		}
		at := middleHash(entry.head, entry.tail) >> c.middleShift
		for c.middle[at&mask].head != 0 {
			at++
		}
		c.middle[at&mask] = entry
	}
}

func (c *wordCounter) growLong() {
	old := c.long
	c.long = fresh[longWord](2 * len(old))
	c.longMask = uint64(len(c.long) - 1)
	for _, entry := range old {
		if entry.hash == 0 {
			continue
		}
		at := entry.hash >> 1
		for c.long[at&c.longMask].hash != 0 {
			at++
		}
		c.long[at&c.longMask] = entry
	}
}

// all yields the words with their counts, in the order of the tables. A word is valid until the next one.
func (c *wordCounter) all() iter.Seq2[[]byte, uint64] {
	return func(yield func([]byte, uint64) bool) {
		for i := range c.short {
			entry := &c.short[i]
			binary.LittleEndian.PutUint64(c.scratch[:], entry.key)
			if entry.key != 0 && !yield(c.scratch[:usedBytes(entry.key)], entry.count) {
				return
			}
		}
		for i := range c.middle {
			entry := &c.middle[i]
			binary.LittleEndian.PutUint64(c.scratch[:8], entry.head)
			binary.LittleEndian.PutUint64(c.scratch[8:], entry.tail)
			if entry.head != 0 && !yield(c.scratch[:8+usedBytes(entry.tail)], entry.count) {
				return
			}
		}
		for i := range c.long {
			if entry := &c.long[i]; entry.hash != 0 && !yield(c.longBytes(entry), entry.count) {
				return
			}
		}
	}
}

// usedBytes is the number of bytes of a word as a number: those behind it are zero, and none of its own is.
func usedBytes(word uint64) int { return (bits.Len64(word) + 7) / 8 }
