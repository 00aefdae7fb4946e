package shuffle

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"
)

// A segment whose partitions are ranges of keys is sorted as a whole, and marks of its keys are in its index. The ranges are cut when all segments are
// there, by the marks of all, so no record is read to find out how the keys are distributed. From the same segments, every task cuts the same ranges.

// mark is the key of a record in a sorted segment.
type mark struct {
	key []byte // its first markKeyBytes
	cut bool   // key is not all of it
	at  uint64 // where the block with the record begins
	raw uint64 // bytes of records before it
}

const (
	marksMax     = 256 // of a segment: then every other one is dropped
	markKeyBytes = 48
	markStride   = 1 << 10 // bytes of records between two marks, until marks are dropped
)

// marker collects the marks of the records that a segmentWriter writes.
type marker struct {
	marks  []mark
	next   uint64 // bytes of records before the next mark
	stride uint64
}

// add marks a record.
func (m *marker) add(record []byte, at, raw uint64) {
	key, _, err := cutField(record)
	if err != nil {
		panic(err) // the buffer or a block that was checked has it
	}
	if len(m.marks) == marksMax {
		for i := range marksMax / 2 {
			m.marks[i] = m.marks[2*i]
		}
		m.marks, m.stride = m.marks[:marksMax/2], 2*m.stride
		if m.next = m.marks[len(m.marks)-1].raw + m.stride; raw < m.next {
			return
		}
	}
	m.marks = append(m.marks, mark{bytes.Clone(key[:min(len(key), markKeyBytes)]), len(key) > markKeyBytes, at, raw})
	m.next = raw + m.stride
}

// appendMarks encodes marks: their number, and of each twice the length of its key, plus 1 if that is cut, the key, and how much at and raw are more than of the
// one before.
func appendMarks(index []byte, marks []mark) []byte {
	index = binary.AppendUvarint(index, uint64(len(marks)))
	var last mark
	for _, m := range marks {
		head := uint64(len(m.key)) << 1
		if m.cut {
			head |= 1
		}
		index = append(binary.AppendUvarint(index, head), m.key...)
		index = binary.AppendUvarint(index, m.at-last.at)
		index = binary.AppendUvarint(index, m.raw-last.raw)
		last = m
	}
	return index
}

// parseMarks reads the marks of a partition, which are all that is left of its index.
func parseMarks(index []byte, of extent) (marks []mark, err error) {
	number := func() (v uint64) {
		v, n := binary.Uvarint(index)
		if n <= 0 {
			err, n = damaged("its index is cut"), len(index)
		}
		index = index[n:]
		return v
	}
	n := number()
	if err != nil || n > marksMax || (n == 0) != (of.records == 0) {
		return nil, damaged("its index has %d marks of %d records", n, of.records)
	}
	var last mark
	for range n {
		head := number()
		if size := head >> 1; size > markKeyBytes || size > uint64(len(index)) {
			return nil, damaged("a mark of %d bytes", size)
		}
		m := mark{key: index[:head>>1], cut: head&1 != 0}
		index = index[head>>1:]
		m.at, m.raw = last.at+number(), last.raw+number()
		if err != nil || m.at >= of.stored || m.raw >= of.raw || m.at < last.at || m.raw < last.raw || bytes.Compare(m.key, last.key) < 0 {
			return nil, damaged("a mark beyond its partition, or out of order")
		}
		marks, last = append(marks, m), m
	}
	if len(index) > 0 {
		return nil, damaged("its index is longer than its marks")
	}
	return marks, err
}

// before reports whether the key of a mark is certainly before a bound.
func (m *mark) before(bound []byte) bool {
	return bytes.Compare(m.key, bound) < 0 && (!m.cut || !bytes.HasPrefix(bound, m.key))
}

// sorted is a sorted segment.
type sorted struct {
	all   extent
	marks []mark
}

// bounds are where the ranges begin but the first, for so many ranges with about as many bytes of records each. Several may be equal: the ranges between are empty.
func bounds(segments []sorted, ranges int) [][]byte {
	type sample struct {
		key    []byte
		weight uint64
	}
	var samples []sample
	total := uint64(0)
	for _, s := range segments {
		for i, m := range s.marks {
			end := s.all.raw
			if i+1 < len(s.marks) {
				end = s.marks[i+1].raw
			}
			samples = append(samples, sample{m.key, end - m.raw})
		}
		total += s.all.raw
	}
	slices.SortStableFunc(samples, func(a, b sample) int { return bytes.Compare(a.key, b.key) })
	list := make([][]byte, 0, ranges-1)
	sum := uint64(0)
	for _, s := range samples {
		for len(list) < ranges-1 && float64(sum) >= float64(total)*float64(len(list)+1)/float64(ranges) {
			list = append(list, s.key)
		}
		sum += s.weight
	}
	for len(list) < ranges-1 { // few marks: nothing is after the last
		list = append(list, nil)
	}
	return list
}

// keyRange is a range of keys: from low on, and before high.
type keyRange struct {
	low, high []byte
	last      bool // there is no high
}

// rangeOf returns a range of those that bounds cut.
func rangeOf(bounds [][]byte, n int) keyRange {
	r := keyRange{last: true}
	if n > 0 {
		if r.low = bounds[n-1]; r.low == nil {
			return keyRange{} // nothing is in it
		}
	}
	if n < len(bounds) && bounds[n] != nil {
		r.high, r.last = bounds[n], false
	}
	return r
}

func (r *keyRange) empty() bool { return !r.last && bytes.Compare(r.low, r.high) >= 0 }

// within returns where the blocks with the records of a range begin and end in a segment; there may be others. The records of the blocks that end at or before
// safe are not after the range.
func (s *sorted) within(r *keyRange) (from, safe, to uint64) {
	if first := sort.Search(len(s.marks), func(i int) bool { return !s.marks[i].before(r.low) }); first > 0 {
		from = s.marks[first-1].at
	}
	safe, to = s.all.stored, s.all.stored
	if !r.last {
		safe = 0
		if after := sort.Search(len(s.marks), func(i int) bool { return !s.marks[i].before(r.high) }); after > 0 {
			safe = s.marks[after-1].at
		}
		end := sort.Search(len(s.marks), func(i int) bool { return bytes.Compare(s.marks[i].key, r.high) >= 0 })
		for k := end + 1; k < len(s.marks); k++ {
			if s.marks[k].at > s.marks[end].at {
				to = s.marks[k].at
				break
			}
		}
	}
	return from, safe, to
}

// rangeBlocks are the blocks of a segment, without the records that are not in a range.
type rangeBlocks struct {
	blockReader
	of      keyRange
	near    uint64 // the bytes before the end in which there may be records after the range
	started bool   // the record before was in the range
}

func (b *rangeBlocks) next() ([]byte, error) {
	for {
		block, err := b.blockReader.next()
		if block == nil || err != nil {
			return nil, err
		}
		if !b.started {
			if block, err = b.skip(block); err != nil {
				return nil, err
			}
		}
		if !b.of.last && (b.left == 0 || b.left+blockHeader < b.near) { // the header of the next block has been read
			if block, err = b.cut(block); err != nil {
				return nil, err
			}
		}
		if len(block) > 0 {
			return block, nil
		}
	}
}

// skip drops the records before the range.
func (b *rangeBlocks) skip(block []byte) ([]byte, error) {
	for len(block) > 0 {
		key, _, rest, err := cutRecord(block)
		if err != nil {
			return nil, err
		}
		if bytes.Compare(key, b.of.low) >= 0 {
			b.started = true
			break
		}
		block = rest
	}
	return block, nil
}

// cut drops the records after the range, and ends with them.
func (b *rangeBlocks) cut(block []byte) ([]byte, error) {
	for rest := block; len(rest) > 0; {
		key, _, after, err := cutRecord(rest)
		if err != nil {
			return nil, err
		}
		if bytes.Compare(key, b.of.high) >= 0 {
			b.left = 0
			return block[:len(block)-len(rest)], nil
		}
		rest = after
	}
	return block, nil
}
