package tasklog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
)

// textMax is the most text of one record. A line longer than this is cut.
const textMax = 64 << 10

const (
	headerLen  = 8
	payloadMax = textMax + 4*binary.MaxVarintLen64
)

// errTorn reports that a file ends inside a record, or that a record is damaged.
var errTorn = errors.New("torn or damaged record")

// Attempt names the attempt that wrote a text.
type Attempt struct {
	Job    uint64
	Stage  uint32
	Index  uint64
	Number uint32
	Lease  uint64
}

// Record is text of one attempt: whole lines, unless a line is over 64 KiB.
type Record struct {
	Stage  uint32
	Index  uint64
	Number uint32 // of the attempt; 0 with Lease 0: the text is a remark of the log itself
	Lease  uint64
	Text   []byte // valid until the next record is read
	Time   int64  // Unix milliseconds, when the text came; 0: not known, an earlier version has written the file
}

// A clock record has the time of the records that follow it, as its index. Versions that do not know it take it for an empty record of a
// stage that no job has.
const (
	clockStage = math.MaxUint32
	clockLease = 1
)

// clockEvery is the resolution of times in a file: between two clock records, in milliseconds.
const clockEvery = 10

func clockRecord(millis int64) Record {
	return Record{Stage: clockStage, Index: uint64(millis), Lease: clockLease} //nolint:gosec // after 1970
}

// clock returns the time of a clock record.
func (r *Record) clock() (millis int64, ok bool) {
	ok = r.Stage == clockStage && r.Number == 0 && r.Lease == clockLease && len(r.Text) == 0 && r.Index <= math.MaxInt64
	return int64(r.Index), ok //nolint:gosec // checked
}

// remark reports whether the record is a remark of the log itself, which concerns every attempt.
func (r *Record) remark() bool { return r.Number == 0 && r.Lease == 0 }

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// appendRecord adds the framed record to b.
func appendRecord(b []byte, r *Record) []byte {
	at := len(b)
	b = append(b, make([]byte, headerLen)...)
	b = binary.AppendUvarint(b, uint64(r.Stage))
	b = binary.AppendUvarint(b, r.Index)
	b = binary.AppendUvarint(b, uint64(r.Number))
	b = binary.AppendUvarint(b, r.Lease)
	b = append(b, r.Text...)
	payload := b[at+headerLen:]
	binary.LittleEndian.PutUint32(b[at:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(payload, castagnoli()))
	return b
}

// decoder reads records one after the other.
type decoder struct {
	r   *bufio.Reader
	buf []byte
	n   int64 // bytes of whole records read
}

func newDecoder(r io.Reader) *decoder { return &decoder{r: bufio.NewReaderSize(r, textMax)} }

// next reads the next record; io.EOF at the end, errTorn if no record can be read.
func (d *decoder) next(rec *Record) error {
	var header [headerLen]byte
	if _, err := io.ReadFull(d.r, header[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return errTorn
		}
		return err
	}
	size := binary.LittleEndian.Uint32(header[:])
	if size > payloadMax {
		return errTorn
	}
	if cap(d.buf) < int(size) {
		d.buf = make([]byte, size, max(4096, 2*size))
	}
	payload := d.buf[:size]
	if _, err := io.ReadFull(d.r, payload); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errTorn
		}
		return err
	}
	if crc32.Checksum(payload, castagnoli()) != binary.LittleEndian.Uint32(header[4:]) {
		return errTorn
	}
	if !decodePayload(payload, rec) {
		return errTorn
	}
	d.n += headerLen + int64(size)
	return nil
}

func decodePayload(p []byte, rec *Record) bool {
	var field [4]uint64
	for i := range field {
		v, n := binary.Uvarint(p)
		if n <= 0 {
			return false
		}
		field[i], p = v, p[n:]
	}
	if field[0] > 1<<32-1 || field[2] > 1<<32-1 || len(p) > textMax {
		return false
	}
	*rec = Record{Stage: uint32(field[0]), Index: field[1], Number: uint32(field[2]), Lease: field[3], Text: p}
	return true
}
