package record

import (
	"errors"
	"io"
)

const (
	// Most records are short: searches start with this size.
	probe    = 4 << 10
	probeMax = 256 << 10
	// A larger buffer, grown by one huge record, is not kept for the next range.
	bufKept = 1 << 20
)

// Reader reads the records that begin in a range of a file. It reuses its buffer. The zero value is ready for Reset.
type Reader struct {
	kind     *Kind
	source   io.Reader
	pos, end int64  // the next byte to return; the end of the range
	buf      []byte // unread bytes of source: buf[next:filled]
	next     int
	filled   int
	eof      bool // of source

	state  state
	search search
	ready  int // bytes of buf that are before f(end)
	found  bool
	check  *fastqCheck // nil: records are not checked
}

// state is what the reader does next.
type state uint8

const (
	skipping state = iota // the rest of a record that began before the range
	inside                // the range
	behind                // the range, in its last record
	ended
)

// Reset starts the range [from, end), where from is behind the first byte. The next byte of source is that at from-1. The kind is not exact.
func (r *Reader) Reset(kind *Kind, source io.Reader, from, end int64) {
	r.ResetAt(kind, source, nil, from, end)
	r.state, r.pos, r.search = skipping, from-1, search{kind: kind, inLine: true}
}

// ResetAt starts the range [from, end), at the beginning of a record. ahead are the bytes at from that were read already; source has those
// behind them.
func (r *Reader) ResetAt(kind *Kind, source io.Reader, ahead []byte, from, end int64) {
	if cap(r.buf) > bufKept {
		r.buf = nil
	}
	*r = Reader{kind: kind, source: source, pos: from, end: end, buf: r.buf, state: inside}
	r.buf = append(r.buf[:0], ahead...)
	r.filled = len(ahead)
	r.buf = r.buf[:cap(r.buf)]
	if kind.name == "fastq" {
		r.check = &fastqCheck{at: from}
	}
	if from >= end {
		r.state = ended
	}
}

// Next goes on with the range from the end of the last one to end, after Read has returned io.EOF. It reports whether that begins in the file,
// which it may read from to know: a file that ends there has no such range, and so no other.
func (r *Reader) Next(end int64) (bool, error) {
	from := r.end
	r.end, r.state, r.found = end, inside, false
	if r.pos > from {
		if r.pos >= end {
			r.state = ended
		}
		return true, nil
	}
	for r.next == r.filled && !r.eof {
		if err := r.fill(probe); err != nil {
			return false, err
		}
	}
	return r.next < r.filled, nil
}

// Offset is the offset of the next byte in the file. After the last it is before the end of the range only if the file is.
func (r *Reader) Offset() int64 { return r.pos }

// Read reads whole records, in pieces of any size. If the file ends before the range, so do the records.
func (r *Reader) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.state == skipping {
		if err := r.skip(); err != nil {
			return 0, err
		}
	}
	if r.state == inside {
		n, err = r.readInside(p)
	} else {
		n, err = r.readBehind(p)
	}
	r.pos += int64(n)
	if r.check != nil {
		if bad := r.check.add(p[:n]); bad != nil {
			return 0, bad
		}
		if errors.Is(err, io.EOF) {
			if bad := r.check.end(r.eof); bad != nil {
				return n, bad
			}
		}
	}
	return n, err
}

// skip goes to the first record of the range.
func (r *Reader) skip() error {
	for size := probe; ; size = min(2*size, probeMax) {
		if err := r.fill(size); err != nil {
			return err
		}
		n, found := r.search.next(r.buf[r.next:r.filled], r.eof)
		r.next += n
		r.pos += int64(n)
		switch {
		case r.pos >= r.end || r.eof && !found:
			r.state = ended
			return nil
		case found:
			r.state = inside
			if r.check != nil {
				r.check.at = r.pos
			}
			return nil
		}
	}
}

func (r *Reader) readInside(p []byte) (int, error) {
	if left := r.end - r.pos; int64(len(p)) > left {
		p = p[:left]
	}
	var n int
	var err error
	if r.next < r.filled {
		n = copy(p, r.buf[r.next:r.filled])
		r.next += n
	} else {
		n, err = r.source.Read(p)
		r.eof = errors.Is(err, io.EOF)
	}
	if r.pos+int64(n) == r.end && n > 0 {
		r.state, err = behind, nil
		if r.kind.begins == nil || r.kind.lines && p[n-1] == '\n' { // it need not be searched for
			r.state = ended
		}
		r.search = search{kind: r.kind, inLine: p[n-1] != '\n'}
	}
	return n, err
}

// readBehind returns what is before f(end).
func (r *Reader) readBehind(p []byte) (int, error) {
	for r.state == behind && r.ready == 0 {
		if r.found || r.eof && r.next == r.filled {
			r.state = ended
			break
		}
		// The size of the reads grows with the length of the record so far.
		if err := r.fill(int(min(max(probe, r.pos-r.end, int64(r.filled-r.next)), probeMax))); err != nil {
			return 0, err
		}
		r.ready, r.found = r.search.next(r.buf[r.next:r.filled], r.eof)
	}
	if r.state == ended {
		return 0, io.EOF
	}
	n := copy(p, r.buf[r.next:r.next+r.ready])
	r.next += n
	r.ready -= n
	return n, nil
}

// fill reads up to size bytes more into the buffer, unless the source has ended.
func (r *Reader) fill(size int) error {
	if r.next == r.filled {
		r.next, r.filled = 0, 0
	}
	if len(r.buf)-r.filled < size {
		r.filled = copy(r.buf, r.buf[r.next:r.filled])
		r.next = 0
		if len(r.buf)-r.filled < size {
			grown := make([]byte, max(2*len(r.buf), r.filled+size))
			copy(grown, r.buf[:r.filled])
			r.buf = grown
		}
	}
	n, err := r.source.Read(r.buf[r.filled : r.filled+size])
	r.filled += n
	if errors.Is(err, io.EOF) {
		r.eof, err = true, nil
	}
	return err
}
