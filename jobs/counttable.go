package jobs

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/bridgefour/bridgefour/internal/keytable"
	"github.com/bridgefour/bridgefour/internal/stage"
)

// decimal is a number of at most 9 digits, of which so many are after the point.
type decimal struct {
	value    int64
	decimals int
}

// number is the number of which a decimal is a short form.
func (d decimal) number() number { return scaled(d.value, d.decimals) }

// scaled is a number in units of 10^-decimals.
func scaled(v int64, decimals int) number {
	high, low := bits.Mul64(uint64(max(v, -v)), scales[decimalsMax-decimals]) //nolint:gosec // not negative
	n := number{int64(high), low}                                             //nolint:gosec // below 2³⁰
	if v < 0 {
		return n.negated()
	}
	return n
}

// fieldScanner finds the ends of fields in a block of lines, 8 bytes at a time.
type fieldScanner struct {
	text []byte // with blockSlack more bytes
	sep  byte
	seps uint64 // sep in each byte
}

const ones = 0x0101010101010101

func newFieldScanner(block []byte, sep byte) *fieldScanner {
	return &fieldScanner{text: block[:len(block)+blockSlack], sep: sep, seps: ones * uint64(sep)}
}

// ends has the high bit of each byte of a word set that is a separator or a line end; bits after the first one may be set as well.
func (s *fieldScanner) ends(word uint64) uint64 {
	const newlines = ones * '\n'
	x, y := word^s.seps, word^newlines
	return ((x-ones)&^x | (y-ones)&^y) & highs
}

// key is the end of the field that begins at an offset, and its words. Without the branch at its last word, a line takes 24 ns instead of 23.
func (s *fieldScanner) key(at int) (end int, k keytable.Words) {
	for i := 0; ; i++ {
		word, n := binary.LittleEndian.Uint64(s.text[at:]), 64
		found := s.ends(word)
		if found != 0 {
			n = bits.TrailingZeros64(found) // 7 + 8 times the bytes before
			word &= 1<<(n&^7) - 1
		}
		switch i {
		case 0:
			k.Head = word
		case 1:
			k.Tail = word
		}
		k.Hash = keytable.Mix(k.Hash, word)
		if at += n / 8; found != 0 {
			return at, k
		}
	}
}

// end is the end of the field that begins at an offset.
func (s *fieldScanner) end(at int) int {
	for {
		if found := s.ends(binary.LittleEndian.Uint64(s.text[at:])); found != 0 {
			return at + bits.TrailingZeros64(found)/8
		}
		at += 8
	}
}

// decimal parses a field that is a number as most are: a sign, digits, a point, digits, and 9 of them at most.
func (s *fieldScanner) decimal(at int) (d decimal, end int, ok bool) {
	const digitsMax = 9
	text := s.text
	negative := text[at] == '-'
	if negative {
		at++
	}
	digits, point := 0, 0
	for ; ; at++ {
		b := text[at]
		if v := b - '0'; v <= 9 {
			d.value = 10*d.value + int64(v)
			if digits++; digits > digitsMax {
				return d, 0, false
			}
			continue
		}
		if b != '.' || point > 0 {
			break
		}
		point = digits + 1
	}
	if point > 0 {
		d.decimals = digits - point + 1
	}
	if negative {
		d.value = -d.value
	}
	return d, at, digits > 0 && (text[at] == s.sep || text[at] == '\n')
}

// countTable adds up values by key. What is usual costs neither an allocation nor arithmetic of more than 64 bits.
type countTable struct {
	task     *stage.Task
	numbers  bool
	keys     keytable.Table[usual]
	exact    []statistics // of keys whose values are not all usual
	decimals int          // of the usual values: they are in units of 10^-decimals
	lines    uint64       // since the usual values were folded
	value    []byte
}

// usual is what was added up of the usual values of a key.
type usual struct {
	count         uint64
	sum, min, max int64
	exact         uint32 // place in exact plus 1; 0: none
}

const (
	usualMost = 1e9     // a usual value is less, in units of the table
	foldLines = 1 << 33 // so many usual values can be added up in 64 bits
)

// reset empties the table for a task, and keeps its memory.
func (c *countTable) reset(t *stage.Task, numbers bool) {
	c.task, c.numbers = t, numbers
	c.clear()
}

func (c *countTable) clear() {
	c.keys.Clear()
	c.exact, c.decimals, c.lines = c.exact[:0], 0, 0
}

// add adds a usual value.
func (c *countTable) add(key []byte, words keytable.Words, v decimal) {
	p, _ := c.keys.At(key, words)
	value := v.value
	if v.decimals != c.decimals {
		if v.decimals > c.decimals {
			c.fold()
			c.decimals = v.decimals
		}
		value *= int64(scales[c.decimals-v.decimals]) //nolint:gosec // at most 10⁹
		if value >= usualMost || value <= -usualMost {
			c.merge(p, exactly(v.number()))
			return
		}
	}
	c.lines++
	if p.count++; p.count == 1 {
		p.min, p.max = value, value
	}
	p.sum += value
	p.min, p.max = min(p.min, value), max(p.max, value)
}

// addExact adds any value.
func (c *countTable) addExact(key []byte, n number) {
	p, _ := c.keys.At(key, keytable.WordsOf(key))
	c.merge(p, exactly(n))
}

func exactly(n number) statistics { return statistics{count: 1, min: n, max: n, sum: n} }

func (c *countTable) merge(p *usual, s statistics) {
	if p.exact == 0 {
		c.exact = append(c.exact, s)
		p.exact = uint32(len(c.exact)) //nolint:gosec // bounded by the memory of a task
		return
	}
	e := &c.exact[p.exact-1]
	*e = e.add(s)
}

// fold makes the usual values exact ones.
func (c *countTable) fold() {
	for _, p := range c.keys.All() {
		if p.count > 0 {
			c.merge(p, statistics{count: p.count, sum: scaled(p.sum, c.decimals), min: scaled(p.min, c.decimals), max: scaled(p.max, c.decimals)})
			p.count, p.sum = 0, 0
		}
	}
	c.lines = 0
}

// bounded is called after each block of lines. It emits the table if it takes much memory.
func (c *countTable) bounded() error {
	if c.lines > foldLines-blockKept {
		c.fold()
	}
	if c.keys.Memory()+int64(len(c.exact))*int64(unsafe.Sizeof(statistics{})) < min(c.task.Memory, keytable.MemoryMax) { //nolint:gosec // small
		return nil
	}
	return c.flush()
}

// flush emits the statistics of all keys, and empties the table.
func (c *countTable) flush() error {
	c.fold()
	defer c.clear()
	for key, p := range c.keys.All() {
		c.value = c.exact[p.exact-1].appendTo(c.value[:0], c.numbers)
		if err := c.task.Emit(key, c.value); err != nil {
			return err
		}
	}
	return nil
}
