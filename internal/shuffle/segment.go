package shuffle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/s2"
)

const (
	blockBytes  = 64 << 10 // of records; a longer record has a block of its own
	blockHeader = 16
	footerBytes = 20
	magic       = "b4s1"
	magicSorted = "b4r1" // one partition, with marks

	// packMax bounds the records that are compressed: a longer one is written as it is, from where it lies.
	packMax = 1 << 20
	// recordMax is the maximum length of a record, with the lengths of its key and value.
	recordMax = 1 << 30
	// PartitionsMax is the maximum number of partitions of a segment.
	PartitionsMax = 1 << 16
)

// extent is a partition in a segment.
type extent struct {
	stored  uint64 // bytes of its blocks
	raw     uint64 // bytes of its records
	records uint64
	largest uint64 // bytes of the longest record that is longer than a block; 0: none is
}

// readBytes is what reading the partition takes, about.
func (e *extent) readBytes() int64 {
	const lists = 4 * blockBytes    // a block as it is stored, decompressed, and what the file buffers
	return lists + int64(e.largest) //nolint:gosec // at most recordMax
}

// segmentWriter writes a segment: the records of its partitions in turn.
type segmentWriter struct {
	w        io.Writer
	extents  []extent // of the partitions that have ended
	now      extent   // of the one that is being written
	block    []byte   // blockHeader and records
	pack     []byte
	skip     int // blocks that will not be compressed
	skipNext int
	marker   *marker // nil: the segment has no marks
}

// begin reuses the buffers.
func (s *segmentWriter) begin(w io.Writer) {
	*s = segmentWriter{w: w, extents: s.extents[:0], block: append(s.block[:0], make([]byte, blockHeader)...), pack: s.pack}
}

// add appends an encoded record.
func (s *segmentWriter) add(record []byte) error {
	if len(s.block)+len(record) > blockHeader+blockBytes && len(s.block) > blockHeader {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if s.marker != nil && s.now.raw >= s.marker.next {
		s.marker.add(record, s.now.stored, s.now.raw)
	}
	s.now.raw += uint64(len(record))
	s.now.records++
	if len(record) > blockBytes { // the block is empty
		s.now.largest = max(s.now.largest, uint64(len(record)))
		if len(record) > packMax {
			return s.writeLong(record)
		}
	}
	s.block = append(s.block, record...)
	return nil
}

// addLong appends a record of more than packMax bytes that is not encoded. The segment has no marks.
func (s *segmentWriter) addLong(key, value []byte) error {
	if err := s.flush(); err != nil {
		return err
	}
	size := uint64(encodedBytes(key, value)) //nolint:gosec // not negative
	s.now.raw += size
	s.now.records++
	s.now.largest = max(s.now.largest, size)
	return s.writeLong(binary.AppendUvarint(nil, uint64(len(key))), key, binary.AppendUvarint(nil, uint64(len(value))), value)
}

// writeLong writes a block of one record, which is in pieces, without a copy of it.
func (s *segmentWriter) writeLong(record ...[]byte) error {
	var digest xxhash.Digest
	digest.Reset()
	size := 0
	for _, piece := range record {
		_, _ = digest.Write(piece) // never fails
		size += len(piece)
	}
	header := s.block[:blockHeader]
	putHeader(header, size, size, digest.Sum64())
	if _, err := s.w.Write(header); err != nil {
		return err
	}
	for _, piece := range record {
		if _, err := s.w.Write(piece); err != nil {
			return err
		}
	}
	s.now.stored += uint64(blockHeader + size) //nolint:gosec // not negative
	return nil
}

// putHeader fills in the header of a block.
func putHeader(header []byte, raw, stored int, sum uint64) {
	binary.LittleEndian.PutUint32(header, uint32(raw))        //nolint:gosec // at most recordMax
	binary.LittleEndian.PutUint32(header[4:], uint32(stored)) //nolint:gosec // likewise
	binary.LittleEndian.PutUint64(header[8:], sum)
}

// next ends the partition.
func (s *segmentWriter) next() error {
	err := s.flush()
	s.extents = append(s.extents, s.now)
	s.now = extent{}
	return err
}

func (s *segmentWriter) flush() error {
	raw := s.block[blockHeader:]
	if len(raw) == 0 {
		return nil
	}
	out := s.block
	if packed := s.compress(raw); packed != nil {
		out = packed
	}
	stored := out[blockHeader:]
	putHeader(out, len(raw), len(stored), xxhash.Sum64(stored))
	if _, err := s.w.Write(out); err != nil {
		return err
	}
	s.now.stored += uint64(len(out))
	s.block = s.block[:blockHeader]
	return nil
}

// compress returns the compressed block with room for its header; nil if that would save less than an eighth. After a block that does not
// compress, more and more of the following ones are not tried.
func (s *segmentWriter) compress(raw []byte) []byte {
	const skipMax = 64
	if s.skip > 0 {
		s.skip--
		return nil
	}
	if n := blockHeader + s2.MaxEncodedLen(len(raw)); n > len(s.pack) {
		s.pack = make([]byte, n)
	}
	packed := s2.Encode(s.pack[blockHeader:], raw)
	if len(packed) > len(raw)-len(raw)/8 {
		s.skipNext = min(max(1, 2*s.skipNext), skipMax)
		s.skip = s.skipNext
		return nil
	}
	s.skipNext = 0
	return s.pack[:blockHeader+len(packed)]
}

// end writes the index and returns its entries, which are valid until begin.
func (s *segmentWriter) end() ([]extent, error) {
	var index []byte
	for _, e := range s.extents {
		index = binary.AppendUvarint(index, e.stored)
		index = binary.AppendUvarint(index, e.raw)
		index = binary.AppendUvarint(index, e.records)
		index = binary.AppendUvarint(index, e.largest)
	}
	kind := magic
	if s.marker != nil {
		index, kind = appendMarks(index, s.marker.marks), magicSorted
	}
	length := len(index)
	index = binary.LittleEndian.AppendUint32(index, uint32(length)) //nolint:gosec // at most 40 bytes a partition, and some for marks
	index = binary.LittleEndian.AppendUint32(index, uint32(len(s.extents)))
	index = binary.LittleEndian.AppendUint64(index, xxhash.Sum64(index))
	_, err := s.w.Write(append(index, kind...))
	return s.extents, err
}

// ErrDamaged is wrapped by the errors of a segment that cannot be read as it was written, among them those of Segment.Open.
var ErrDamaged = errors.New("damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// tailBytes is read at once from the end of a segment: the index of most fits.
const tailBytes = 16 << 10

// readIndex reads the index of a segment.
func readIndex(s *Segment, partitions int) ([]extent, error) {
	index, blocks, err := readRawIndex(s, magic, partitions)
	if err != nil {
		return nil, err
	}
	extents, rest, err := parseIndex(index, partitions, blocks)
	if err == nil && len(rest) > 0 {
		err = damaged("its index is longer than its partitions")
	}
	return extents, err
}

// readSorted reads the index of a segment that is sorted as a whole.
func readSorted(s *Segment) (sorted, error) {
	index, blocks, err := readRawIndex(s, magicSorted, 1)
	if err != nil {
		return sorted{}, err
	}
	extents, rest, err := parseIndex(index, 1, blocks)
	if err != nil {
		return sorted{}, err
	}
	marks, err := parseMarks(rest, extents[0])
	return sorted{extents[0], marks}, err
}

// readRawIndex returns the index of a segment of a kind, and how many bytes of blocks are before it.
func readRawIndex(s *Segment, kind string, partitions int) (_ []byte, blocks int64, err error) {
	open, size := s.Open, int64(s.Size) //nolint:gosec // of a file
	tail, err := readAt(open, max(0, size-tailBytes), size)
	if err != nil {
		return nil, 0, err
	}
	if len(tail) < footerBytes || string(tail[len(tail)-len(kind):]) != kind {
		return nil, 0, damaged("it does not end as a segment does")
	}
	footer := tail[len(tail)-footerBytes:]
	length, n := int64(binary.LittleEndian.Uint32(footer)), binary.LittleEndian.Uint32(footer[4:])
	if length+footerBytes > size || int64(n) != int64(partitions) {
		return nil, 0, damaged("an index of %d bytes for %d partitions; want %d", length, n, partitions)
	}
	if length+footerBytes > int64(len(tail)) {
		if tail, err = readAt(open, size-footerBytes-length, size); err != nil {
			return nil, 0, err
		}
	}
	index := tail[int64(len(tail))-footerBytes-length : len(tail)-len(kind)]
	sum := len(index) - 8
	if binary.LittleEndian.Uint64(index[sum:]) != xxhash.Sum64(index[:sum]) {
		return nil, 0, damaged("the checksum of its index is wrong")
	}
	return index[:length], size - footerBytes - length, nil
}

// parseIndex reads the partitions of an index, and returns what follows them.
func parseIndex(index []byte, partitions int, blocks int64) (_ []extent, rest []byte, err error) {
	extents := make([]extent, partitions)
	total := uint64(0)
	for i := range extents {
		for _, v := range []*uint64{&extents[i].stored, &extents[i].raw, &extents[i].records, &extents[i].largest} {
			value, n := binary.Uvarint(index)
			if n <= 0 || value > math.MaxInt64 {
				return nil, nil, damaged("its index ends early")
			}
			*v, index = value, index[n:]
		}
		if extents[i].largest > recordMax {
			return nil, nil, damaged("its index lists a record of %d bytes", extents[i].largest)
		}
		total += extents[i].stored
		if total > uint64(blocks) { //nolint:gosec // not negative
			return nil, nil, damaged("its index lists more than there is")
		}
	}
	if total != uint64(blocks) { //nolint:gosec // not negative
		return nil, nil, damaged("its index lists %d of %d bytes", total, blocks)
	}
	return extents, index, nil
}

func readAt(open func(offset int64) (io.ReadCloser, error), from, to int64) ([]byte, error) {
	if from > to || from < 0 {
		return nil, damaged("%d bytes long", to)
	}
	f, err := open(from)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	text := make([]byte, to-from)
	if _, err := io.ReadFull(f, text); err != nil {
		return nil, short(err)
	}
	return text, nil
}

// short turns the end of a file into damage.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it is shorter than it was")
	}
	return err
}

// blockReader reads the blocks of one partition. The header of the next block is read along with a block.
type blockReader struct {
	r      io.ReadCloser
	left   uint64 // bytes of blocks not read yet
	header [blockHeader]byte
	stored []byte
	raw    []byte
}

// next returns the records of the next block, valid until the next call; nil at the end.
func (b *blockReader) next() ([]byte, error) {
	if b.left == 0 {
		return nil, nil
	}
	if b.stored == nil {
		if b.left < blockHeader {
			return nil, damaged("a block is cut")
		}
		if _, err := io.ReadFull(b.r, b.header[:]); err != nil {
			return nil, short(err)
		}
		b.left -= blockHeader
	}
	raw, n := uint64(binary.LittleEndian.Uint32(b.header[:])), uint64(binary.LittleEndian.Uint32(b.header[4:]))
	sum := binary.LittleEndian.Uint64(b.header[8:])
	follows := uint64(0)
	if n < b.left {
		follows = blockHeader
	}
	if n+follows > b.left || n > raw || raw > recordMax {
		return nil, damaged("a block of %d bytes in %d", raw, n)
	}
	resize(&b.stored, n+follows, b.left)
	if _, err := io.ReadFull(b.r, b.stored); err != nil {
		return nil, short(err)
	}
	b.left -= n + follows
	copy(b.header[:], b.stored[n:])
	stored := b.stored[:n]
	if xxhash.Sum64(stored) != sum {
		return nil, damaged("the checksum of a block is wrong")
	}
	if n == raw {
		return stored, nil
	}
	if size, err := s2.DecodedLen(stored); err != nil || uint64(size) != raw { //nolint:gosec // not negative
		return nil, damaged("a block does not decompress to its length")
	}
	more := uint64(0)
	if b.left > 0 {
		more = blockBytes
	}
	resize(&b.raw, raw, more)
	if _, err := s2.Decode(b.raw, stored); err != nil {
		return nil, damaged("a block does not decompress: %v", err)
	}
	return b.raw, nil
}

// resize makes b n bytes long. If it has no room, a new one has room for an ordinary block, but not for more than the given bytes if n are not: the partitions of many
// segments are small. It is not nil then.
func resize(b *[]byte, n, most uint64) {
	if *b == nil || uint64(cap(*b)) < n {
		*b = nil // not held beside the new one
		*b = make([]byte, n, max(n, min(most, blockBytes+blockHeader)))
	}
	*b = (*b)[:n]
}

// cutRecord takes the first record off an encoded block.
func cutRecord(block []byte) (key, value, rest []byte, err error) {
	if key, block, err = cutField(block); err == nil {
		value, block, err = cutField(block)
	}
	return key, value, block, err
}

func cutField(block []byte) (field, rest []byte, err error) {
	if len(block) > 0 && block[0] < 0x80 && int(block[0]) < len(block) { // most fields are short
		end := 1 + int(block[0])
		return block[1:end:end], block[end:], nil
	}
	size, n := binary.Uvarint(block)
	if n <= 0 || size > uint64(len(block)-n) {
		return nil, nil, damaged("a record is cut")
	}
	end := n + int(size) //nolint:gosec // within the block
	return block[n:end:end], block[end:], nil
}
