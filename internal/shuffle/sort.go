package shuffle

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/bridgefour/bridgefour/internal/pages"
)

// A record lies in the buffer at a multiple of unit bytes, so that 32 bits can say where in chunks of up to 32 GiB.
const (
	unit       = 8
	chunkBytes = 1 << 20
	chunkUnits = chunkBytes / unit
	entryBytes = 16
	// memoryMax is the largest buffer of which every place has a number.
	memoryMax = 1 << 34
)

// entry is a record in the buffer.
type entry struct {
	prefix    uint64 // up to 8 bytes of the key, big endian: from its start, or further on while sorting
	at        uint32 // in units
	partition uint16
	// size is the length of the record, at most sizeMax: a longer one says it itself. Looking it up there is a cache miss for each record.
	size uint16
}

const sizeMax = 1<<16 - 1

// buffer collects records and sorts them by partition and key. Records with equal keys keep their order.
type buffer struct {
	chunks  [][]byte // chunkBytes each, but for parts of longer ones
	free    [][]byte // chunks for reuse
	used    int      // bytes of the last chunk
	entries []entry
	spare   []entry
}

// memory is the size of the records, with what sorting takes.
func (b *buffer) memory() int64 {
	return int64(max(0, len(b.chunks)-1)*chunkBytes+b.used) + 2*entryBytes*int64(len(b.entries))
}

// kept is the memory of an empty buffer.
func (b *buffer) kept() int64 {
	return int64(len(b.free)*chunkBytes + (cap(b.entries)+cap(b.spare))*entryBytes)
}

// reset removes the records and keeps the memory.
func (b *buffer) reset() {
	for _, c := range b.chunks {
		if cap(c) == chunkBytes {
			b.free = append(b.free, c[:chunkBytes])
		}
	}
	b.chunks, b.entries = b.chunks[:0], b.entries[:0]
	b.used = 0
}

// encodedBytes is the length of a record in the buffer and in a block.
func encodedBytes(key, value []byte) int {
	return uvarintBytes(len(key)) + len(key) + uvarintBytes(len(value)) + len(value)
}

func uvarintBytes(n int) int { return (bits.Len32(uint32(n)|1) + 6) / 7 } //nolint:gosec // at most recordMax

// add appends a record of the given encoded length.
func (b *buffer) add(partition int, key, value []byte, size int) {
	if len(b.chunks) == 0 || b.used+size > chunkBytes {
		b.grow(size)
	}
	at := uint32((len(b.chunks)-1)*chunkUnits + b.used/unit) //nolint:gosec // below memoryMax
	chunk := b.chunks[len(b.chunks)-1]
	if size > chunkBytes { // grow has appended its parts
		first := len(b.chunks) - (size+chunkBytes-1)/chunkBytes
		at, chunk = uint32(first*chunkUnits), b.chunks[first]
	}
	to := binary.AppendUvarint(chunk[b.used:b.used], uint64(len(key)))
	to = append(to, key...)
	to = binary.AppendUvarint(to, uint64(len(value)))
	_ = append(to, value...)
	if b.used += (size + unit - 1) &^ (unit - 1); size > chunkBytes {
		b.used = chunkBytes // of the last one
	}
	b.entries = append(pages.Grow(b.entries), entry{prefix(key), at, uint16(partition), uint16(min(size, sizeMax))}) //nolint:gosec // below PartitionsMax; small
}

// grow makes room for a record. One that is longer than a chunk has several, of which the first one reaches to the end of the last.
func (b *buffer) grow(size int) {
	b.used = 0
	if size <= chunkBytes {
		if len(b.free) == 0 {
			b.allocate()
		}
		n := len(b.free) - 1
		b.chunks, b.free = append(b.chunks, b.free[n]), b.free[:n]
		return
	}
	n := (size + chunkBytes - 1) / chunkBytes
	long := make([]byte, n*chunkBytes, n*chunkBytes+1) // never taken for a chunk by reset
	for i := range n {
		b.chunks = append(b.chunks, long[i*chunkBytes:])
	}
}

// allocate makes chunks for reuse: one by one while they are few, then several at once, for huge pages.
func (b *buffer) allocate() {
	const few, several = 16, 8
	n := 1
	if len(b.chunks) >= few {
		n = several
	}
	all := pages.Make[byte](n * chunkBytes)
	for chunk := range slices.Chunk(all, chunkBytes) {
		b.free = append(b.free, chunk)
	}
	slices.Reverse(b.free) // the first one is taken first
}

// from is the chunk from the record of an entry on.
func (b *buffer) from(e *entry) []byte {
	return b.chunks[e.at/chunkUnits][e.at%chunkUnits*unit:]
}

// record is the encoded record of an entry.
func (b *buffer) record(e *entry) []byte {
	record := b.from(e)
	if e.size == sizeMax {
		return record[:fieldEnd(record, fieldEnd(record, 0))]
	}
	return record[:e.size]
}

// fieldEnd is where the key or the value ends that begins at an offset of a record in the buffer.
func fieldEnd(record []byte, at int) int {
	size, n := binary.Uvarint(record[at:])
	return at + n + int(size) //nolint:gosec // add wrote it
}

func (b *buffer) key(e *entry) []byte {
	record := b.from(e)
	if size := int(record[0]); size < 0x80 {
		return record[1 : 1+size]
	}
	size, n := binary.Uvarint(record)
	return record[n : n+int(size)] //nolint:gosec // add wrote it
}

// prefix returns the first 8 bytes of a key as a number that sorts as they do; a shorter key is continued with zeros.
func prefix(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var padded [8]byte
	copy(padded[:], key)
	return binary.BigEndian.Uint64(padded[:])
}

// sorted sorts the records and returns the entries, in order of partition and key; their prefixes are no longer those of the keys.
func (b *buffer) sorted(partitions int) []entry {
	if cap(b.spare) < len(b.entries) {
		b.spare = pages.Make[entry](cap(b.entries))
	}
	b.spare = b.spare[:len(b.entries)]
	ends := make([]int, partitions+1)
	for i := range b.entries {
		ends[b.entries[i].partition+1]++
	}
	for i := range partitions {
		ends[i+1] += ends[i]
	}
	// ends[p] is where partition p begins; afterwards, where it ends.
	for _, e := range b.entries {
		b.spare[ends[e.partition]] = e
		ends[e.partition]++
	}
	from := 0
	for _, end := range ends[:partitions] {
		b.sort(b.spare[from:end], b.entries[from:end], 0)
		from = end
	}
	return b.spare
}

const (
	// few entries are sorted by insertion: counting their digits would take longer.
	few = 48
	// radixDigits are the bytes by which entries are sorted at once: most of those that are different are so in these. 640,000 lines of random text take 25 ns each, 35 with
	// all 8 bytes of the prefix.
	radixDigits = 4
)

// sort sorts entries whose keys are equal before depth, and whose prefix is that at depth, with room for as many. It is stable.
func (b *buffer) sort(list, room []entry, depth int) {
	if len(list) <= few {
		b.insertionSort(list, depth)
		return
	}
	differs := uint64(0)
	for i := range list {
		differs |= list[i].prefix ^ list[0].prefix
	}
	if differs == 0 {
		b.sortEqual(list, room, depth+8)
		return
	}
	first := (bits.Len64(differs) - 1) / 8 // byte in which they differ, the last one of the prefix being 0
	shift := 8 * max(0, first+1-radixDigits)
	radixSort(list, room, shift)
	for from := 0; from < len(list); {
		to := from + 1
		for to < len(list) && list[to].prefix>>shift == list[from].prefix>>shift {
			to++
		}
		if to-from > 1 {
			b.sort(list[from:to], room[from:to], depth)
		}
		from = to
	}
}

// radixSort sorts by radixDigits bytes of the prefix, by one after the other from the last one (LSD), which is that at shift. It skips bytes in which all are equal, and is stable.
func radixSort(list, room []entry, shift int) {
	var counts [radixDigits][256]uint32
	for i := range list {
		p := list[i].prefix >> shift
		counts[0][byte(p)]++
		counts[1][byte(p>>8)]++
		counts[2][byte(p>>16)]++
		counts[3][byte(p>>24)]++
	}
	from, to := list, room
	for digit := range counts {
		places, at := &counts[digit], shift+8*digit
		if places[byte(list[0].prefix>>at)] == uint32(len(list)) { //nolint:gosec // below 2³² entries fit into memoryMax
			continue
		}
		sum := uint32(0)
		for i, n := range places {
			places[i], sum = sum, sum+n
		}
		for _, e := range from {
			place := &places[byte(e.prefix>>at)]
			to[*place] = e
			*place++
		}
		from, to = to, from
	}
	if &from[0] != &list[0] {
		copy(list, from)
	}
}

// sortEqual sorts entries whose keys, continued with zeros, are equal before depth.
func (b *buffer) sortEqual(list, room []entry, depth int) {
	shortest, longest := len(b.key(&list[0])), 0
	for i := range list {
		key := b.key(&list[i])
		shortest, longest = min(shortest, len(key)), max(longest, len(key))
		list[i].prefix = prefix(key[min(depth, len(key)):])
	}
	switch {
	case longest > depth && shortest >= depth:
		b.sort(list, room, depth)
	case shortest < longest: // some end before depth, so zeros in the others may stand for no byte
		slices.SortStableFunc(list, func(x, y entry) int { return bytes.Compare(b.key(&x), b.key(&y)) })
	}
}

// insertionSort is stable.
func (b *buffer) insertionSort(list []entry, depth int) {
	for i := 1; i < len(list); i++ {
		e := list[i]
		at := i
		for at > 0 && (e.prefix < list[at-1].prefix || e.prefix == list[at-1].prefix && b.compare(&e, &list[at-1], depth) < 0) {
			list[at] = list[at-1]
			at--
		}
		list[at] = e
	}
}

// compare compares the keys of two entries, which are equal before depth and have the same prefix there.
func (b *buffer) compare(x, y *entry, depth int) int {
	j, k := b.key(x), b.key(y)
	if depth += 8; len(j) <= depth && len(k) <= depth {
		return cmp.Compare(len(j), len(k)) // they differ by zeros at most
	}
	return bytes.Compare(j, k)
}
