package shuffle

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
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
	partition uint32
	at        uint32 // in units
}

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
func (b *buffer) add(partition uint32, key, value []byte, size int) {
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
	b.entries = append(b.entries, entry{prefix(key), partition, at})
}

// grow makes room for a record. One that is longer than a chunk has several, of which the first one reaches to the end of the last.
func (b *buffer) grow(size int) {
	b.used = 0
	if size <= chunkBytes {
		var chunk []byte
		if n := len(b.free); n > 0 {
			chunk, b.free = b.free[n-1], b.free[:n-1]
		} else {
			chunk = make([]byte, chunkBytes)
		}
		b.chunks = append(b.chunks, chunk)
		return
	}
	n := (size + chunkBytes - 1) / chunkBytes
	long := make([]byte, n*chunkBytes, n*chunkBytes+1) // never taken for a chunk by reset
	for i := range n {
		b.chunks = append(b.chunks, long[i*chunkBytes:])
	}
}

// record is the encoded record of an entry and what follows it in its chunk.
func (b *buffer) record(e *entry) []byte {
	return b.chunks[e.at/chunkUnits][e.at%chunkUnits*unit:]
}

func (b *buffer) key(e *entry) []byte {
	record := b.record(e)
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
	b.spare = slices.Grow(b.spare[:0], len(b.entries))[:len(b.entries)]
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

// few entries are sorted by insertion: counting their digits would take longer.
const few = 48

// sort sorts entries whose keys are equal before depth, and whose prefix is that at depth, with room for as many.
func (b *buffer) sort(list, room []entry, depth int) {
	if len(list) <= few {
		b.insertionSort(list, depth)
		return
	}
	radixSort(list, room)
	for from := 0; from < len(list); {
		to := from + 1
		for to < len(list) && list[to].prefix == list[from].prefix {
			to++
		}
		if to-from > 1 {
			b.sortEqual(list[from:to], room[from:to], depth+8)
		}
		from = to
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

// radixSort sorts by prefix, by one byte after the other from the last one (LSD), and skips bytes in which all are equal. It is stable.
func radixSort(list, room []entry) {
	var counts [8][256]uint32
	for i := range list {
		p := list[i].prefix
		counts[0][byte(p)]++
		counts[1][byte(p>>8)]++
		counts[2][byte(p>>16)]++
		counts[3][byte(p>>24)]++
		counts[4][byte(p>>32)]++
		counts[5][byte(p>>40)]++
		counts[6][byte(p>>48)]++
		counts[7][byte(p>>56)]++
	}
	from, to := list, room
	for digit := range counts {
		shift := 8 * digit
		places := &counts[digit]
		if places[byte(list[0].prefix>>shift)] == uint32(len(list)) { //nolint:gosec // below 2³² entries fit into memoryMax
			continue
		}
		sum := uint32(0)
		for i, n := range places {
			places[i], sum = sum, sum+n
		}
		for _, e := range from {
			place := &places[byte(e.prefix>>shift)]
			to[*place] = e
			*place++
		}
		from, to = to, from
	}
	if &from[0] != &list[0] {
		copy(list, from)
	}
}
