package jobs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
)

// wordRef is a sortable word with its count. Its first 16 bytes, as big-endian integers, are in the order of the bytes.
type wordRef struct {
	head, tail uint64
	count      uint64
	long       longRef // 0: the word is head and tail
}

// longRef is the place of a long word in the arena: place<<longSizeBits | size.
type longRef uint64

const longSizeBits = 24

// sorted returns all words in byte order.
//
// They are distributed by their third and fourth byte, then by their first two, which orders them by all four (a radix sort); the
// remaining equal stretches are short, and are sorted by comparison.
func (c *wordCounter) sorted() []wordRef {
	const firstFour, firstTwo = 32, 48 // shifts
	c.listWords()
	c.spare = slices.Grow(c.spare[:0], len(c.list))[:len(c.list)]
	c.deal(c.spare, c.list, firstFour)
	c.deal(c.list, c.spare, firstTwo)
	from := 0
	for i := 1; i <= len(c.list); i++ {
		if i < len(c.list) && c.list[i].head>>firstFour == c.list[from].head>>firstFour {
			continue
		}
		if i-from > 1 {
			slices.SortFunc(c.list[from:i], c.compare)
		}
		from = i
	}
	return c.list
}

// deal orders words by the 16 bits of their heads above shift, stably.
func (c *wordCounter) deal(to, from []wordRef, shift int) {
	const digits = 1 << 16
	if c.places == nil {
		c.places = make([]int32, digits)
	}
	places := c.places[:digits]
	clear(places)
	for i := range from {
		places[uint16(from[i].head>>shift)]++
	}
	sum := int32(0)
	for i, size := range places {
		places[i] = sum
		sum += size
	}
	for i := range from {
		place := &places[uint16(from[i].head>>shift)]
		to[*place] = from[i]
		*place++
	}
}

func (c *wordCounter) listWords() {
	c.list = slices.Grow(c.list[:0], c.shortUsed+c.middleUsed+c.longUsed)
	for i := range c.short {
		if entry := &c.short[i]; entry.key != 0 {
			c.list = append(c.list, wordRef{head: bits.ReverseBytes64(entry.key), count: entry.count})
		}
	}
	for i := range c.middle {
		if entry := &c.middle[i]; entry.head != 0 {
			c.list = append(c.list, wordRef{
				head: bits.ReverseBytes64(entry.head), tail: bits.ReverseBytes64(entry.tail), count: entry.count,
			})
		}
	}
	for i := range c.long {
		if entry := &c.long[i]; entry.hash != 0 {
			c.list = append(c.list, c.longWordRef(entry, entry.count))
		}
	}
}

func (c *wordCounter) longWordRef(entry *longWord, count uint64) wordRef {
	var first [16]byte
	copy(first[:], c.longBytes(entry))
	return wordRef{
		head: binary.BigEndian.Uint64(first[:8]), tail: binary.BigEndian.Uint64(first[8:]), count: count,
		long: longRef(entry.at<<longSizeBits | entry.size),
	}
}

// compare orders words by their bytes. The rest matters only if the first 16 bytes are equal, where missing bytes are zero.
func (c *wordCounter) compare(a, b wordRef) int {
	if a.head != b.head {
		return cmp.Compare(a.head, b.head)
	}
	if a.tail != b.tail {
		return cmp.Compare(a.tail, b.tail)
	}
	if a.long == b.long {
		return 0
	}
	var first, second [16]byte
	return bytes.Compare(c.bytesInto(&first, &a), c.bytesInto(&second, &b))
}

// bytes returns a word. It is valid until the next call.
func (c *wordCounter) bytes(w *wordRef) []byte { return c.bytesInto(&c.scratch, w) }

func (c *wordCounter) bytesInto(scratch *[16]byte, w *wordRef) []byte {
	if w.long != 0 {
		at, size := w.long>>longSizeBits, w.long&(1<<longSizeBits-1)
		return c.arena[at : at+size]
	}
	binary.BigEndian.PutUint64(scratch[:8], w.head)
	binary.BigEndian.PutUint64(scratch[8:], w.tail)
	return scratch[:w.shortSize()]
}

// shortSize is the size of a short word: the bytes behind it are zero, and none of its own is.
func (w *wordRef) shortSize() int {
	if w.tail == 0 {
		return 8 - bits.TrailingZeros64(w.head)/8
	}
	return 16 - bits.TrailingZeros64(w.tail)/8
}
