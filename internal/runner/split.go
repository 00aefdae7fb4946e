package runner

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"syscall"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/wire"
)

const (
	// Lines are mostly short: this much is read first to find the end of one.
	lineProbe    = 4 << 10
	lineProbeMax = 256 << 10
)

// splitReader reads the lines that begin inside a split: of a file from one byte to another, of a compressed file as a
// whole, or the one line that an item is. It opens the file at the first read.
//
// A line belongs to the split in which its first byte lies. So the reader of a split that does not begin the file starts
// one byte early and skips through the first line end, and every reader goes on behind the split's end until its last
// line is complete. Between them the splits of a file, however cut, give each of its bytes exactly once.
type splitReader struct {
	host   string
	stores blob.Stores
	ctx    context.Context //nolint:containedctx // of the attempt; io.Reader has none

	path string // of the file; empty for an item
	item []byte
	file io.ReadCloser
	err  error // sticky; io.EOF at the end

	pos, end int64 // of a plain file: the next byte to give; the first byte that is not the split's
	last     byte  // the one before pos
	given    uint64
	probe    []byte // buffer
	ahead    []byte // of probe: what was read of the file but not given

	compressed   bool
	decompressor decompressor
}

// begin takes a split; nil is a number of a range, which takeItem fills in.
func (r *splitReader) begin(ctx context.Context, split *wire.Split) {
	r.path, r.item, r.err, r.given, r.pos, r.end, r.ahead = "", nil, nil, 0, 0, 0, nil
	r.ctx = ctx
	r.item = split.GetItem()
	file := split.GetFile()
	if file == nil {
		return
	}
	r.path = string(file.GetPath())
	r.compressed = file.GetWhole() && compression(r.path) != plainText
	r.pos, r.end = int64(file.GetOffset()), int64(file.GetOffset()+file.GetLength())
	if file.GetWhole() {
		r.pos, r.end = 0, math.MaxInt64
	}
}

// Read gives whole lines, in pieces of any size.
func (r *splitReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.path == "" {
		return r.readItem(p)
	}
	if r.file == nil {
		if err := r.open(); err != nil {
			return 0, r.fail(err)
		}
	}
	if r.err != nil { // open found no line of its own
		return 0, r.err
	}
	var n int
	var err error
	if r.compressed {
		n, err = r.decompressor.Read(p)
	} else {
		n, err = r.readPlain(p)
	}
	r.pos += int64(n)
	if n > 0 {
		r.last = p[n-1]
	}
	if err != nil {
		return n, r.fail(err)
	}
	return n, nil
}

// Offset is where the next byte stands in the file, or in the text that the file holds compressed.
func (r *splitReader) Offset() int64 { return r.pos }

func (r *splitReader) readItem(p []byte) (int, error) {
	if r.pos > int64(len(r.item)) {
		r.err = io.EOF
		return 0, io.EOF
	}
	n := copy(p, r.item[r.pos:])
	r.pos += int64(n)
	if n < len(p) {
		p[n] = '\n'
		n++
		r.pos++
	}
	return n, nil
}

func (r *splitReader) open() error {
	store, path, err := r.stores.Open(r.path)
	if err != nil {
		return err
	}
	if r.file, err = store.Open(r.ctx, path, max(0, r.pos-1)); err != nil {
		return err
	}
	if r.compressed {
		return r.decompressor.begin(r.file, compression(r.path))
	}
	if r.pos > 0 {
		if r.pos, err = r.afterLineEnd(r.pos - 1); err != nil {
			return err
		}
	}
	if r.pos >= r.end {
		r.err = io.EOF
	}
	return nil
}

// afterLineEnd reads from pos, where the file is, through the first line end, and gives the place behind it, or one that is
// not below the split's end: then no line begins in the split.
func (r *splitReader) afterLineEnd(pos int64) (int64, error) {
	for size := lineProbe; pos < r.end; size = min(2*size, lineProbeMax) {
		if len(r.probe) < size {
			r.probe = make([]byte, size)
		}
		n, err := r.file.Read(r.probe[:size])
		if i := bytes.IndexByte(r.probe[:n], '\n'); i >= 0 {
			r.ahead = r.probe[i+1 : n]
			return pos + int64(i) + 1, nil
		}
		pos += int64(n)
		if errors.Is(err, io.EOF) {
			return r.end, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return pos, nil
}

func (r *splitReader) readPlain(p []byte) (int, error) {
	if r.pos < r.end {
		if left := r.end - r.pos; int64(len(p)) > left {
			p = p[:left]
		}
		n, err := r.readOn(p)
		r.given += uint64(n)
		return n, err
	}
	if r.last == '\n' {
		return 0, io.EOF
	}
	// The last line goes on behind the split's end, mostly not far: what is read at once grows with what it was so far.
	if most := max(lineProbe, r.pos-r.end); int64(len(p)) > most {
		p = p[:most]
	}
	n, err := r.readOn(p)
	if i := bytes.IndexByte(p[:n], '\n'); i >= 0 {
		n, err = i+1, nil
	}
	r.given += uint64(n)
	return n, err
}

// readOn reads the file from pos on.
func (r *splitReader) readOn(p []byte) (int, error) {
	if len(r.ahead) > 0 {
		n := copy(p, r.ahead)
		r.ahead = r.ahead[n:]
		return n, nil
	}
	return r.file.Read(p)
}

// fail keeps the first error.
func (r *splitReader) fail(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		r.err = io.EOF
	case r.compressed && !errors.As(err, new(syscall.Errno)):
		r.err = corruptError(r.path, r.decompressor.kind, r.pos, err)
	default:
		r.err = program.InputError(r.path, r.host, err)
	}
	return r.err
}

// finish closes the file and gives the bytes of it that were read.
func (r *splitReader) finish() uint64 {
	if r.file == nil {
		return 0
	}
	if r.compressed {
		r.given = r.decompressor.taken()
		r.decompressor.release()
	}
	_ = r.file.Close() // only read from
	r.file = nil
	return r.given
}

// close gives back what is kept from attempt to attempt.
func (r *splitReader) close() {
	r.finish()
	r.decompressor.close()
}
