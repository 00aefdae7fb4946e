package bridgefour

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/bridgefour/bridgefour/internal/pages"
)

const (
	scannerBufferStart = 64 << 10
	// Larger buffers, grown by one huge record, are not kept for the next task.
	bufferKept = 1 << 20
)

// Scanner reads lines one at a time, without an allocation per line.
//
//	for records.Scan() {
//		use(records.Bytes())
//	}
//	return records.Err()
type Scanner struct {
	source   io.Reader
	name     string
	bytesMax int64
	buf      []byte // unread bytes of source: buf[next:filled]
	next     int
	filled   int
	base     int64 // offset of buf[0] in the input
	record   []byte
	at       int64 // offset of record in the input
	eof      bool
	err      error
}

// reset reuses the buffer.
func (r *Scanner) reset(source io.Reader, name string) {
	r.free()
	*r = Scanner{source: source, name: name, bytesMax: recordMaxDefault, buf: r.buf, eof: source == nil}
}

// free frees the buffer if it is large.
func (r *Scanner) free() { r.buf, r.record = kept(r.buf), nil }

// Scan advances to the next record. It returns false at the end or after an error: see Err.
func (r *Scanner) Scan() bool {
	searched := 0 // bytes after next without a newline
	for r.err == nil {
		if i := bytes.IndexByte(r.buf[r.next+searched:r.filled], '\n'); i >= 0 {
			r.give(searched+i, 1)
			return r.err == nil
		}
		searched = r.filled - r.next
		if r.eof {
			if searched == 0 {
				break
			}
			r.give(searched, 0)
			return r.err == nil
		}
		r.fill()
	}
	r.record = nil
	return false
}

// Bytes is the record without its newline. A carriage return before that is part of it. It is valid until the next call of Scan.
func (r *Scanner) Bytes() []byte { return r.record }

// Offset is the offset of the record in its input: in the file, or in the decompressed text.
func (r *Scanner) Offset() int64 { return r.at }

// Err is the error that stopped Scan; nil at the end of the split.
func (r *Scanner) Err() error { return r.err }

func (r *Scanner) give(length, lineEnd int) {
	r.at = r.base + int64(r.next)
	if int64(length) > r.bytesMax {
		r.tooLong()
		return
	}
	r.record = r.buf[r.next : r.next+length : r.next+length]
	r.next += length + lineEnd
}

// fill reads more into the buffer, and makes room for it first.
func (r *Scanner) fill() {
	pending := r.filled - r.next
	if int64(pending) > r.bytesMax {
		r.at = r.base + int64(r.next)
		r.tooLong()
		return
	}
	if r.filled == len(r.buf) {
		target := r.buf
		if pending > len(r.buf)/2 || len(r.buf) == 0 {
			target = make([]byte, max(scannerBufferStart, pages.Longer(len(r.buf))))
		}
		copy(target, r.buf[r.next:r.filled])
		r.base += int64(r.next)
		r.buf, r.next, r.filled = target, 0, pending
	}
	n, err := r.source.Read(r.buf[r.filled:])
	r.filled += n
	// After the read: the first read of a split skips the line that belongs to the previous split.
	if positioned, ok := r.source.(interface{ Offset() int64 }); ok {
		r.base = positioned.Offset() - int64(r.filled)
	}
	if errors.Is(err, io.EOF) {
		r.eof = true
	} else if err != nil {
		r.err = err
	}
}

func (r *Scanner) tooLong() {
	r.record = nil
	r.err = BadInput(fmt.Errorf("%s: record at byte %d exceeds %d bytes; raise the limit with --set %s=SIZE",
		r.name, r.at, r.bytesMax, SettingRecordMax))
}

// limit sets the maximum record length from the settings.
func (r *Scanner) limit(settings Settings) {
	r.bytesMax, r.err = settings.Size(SettingRecordMax, recordMaxDefault)
}
