package runner

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/wire"
)

const (
	// Most lines are short: the search for a line end starts with this size.
	lineProbe    = 4 << 10
	lineProbeMax = 256 << 10
)

// splitReader reads the lines that start in a split: a byte range of a file, a compressed file, or an item, which is one line.
// It opens the file at the first read.
//
// A line belongs to the split that contains its first byte. So the reader of a split that does not start the file begins one
// byte early and skips the first line end, and each reader continues past the split's end until its last line is complete.
// Together the splits of a file, however cut, yield each of its bytes exactly once.
type splitReader struct {
	host   string
	stores blob.Stores
	ctx    context.Context //nolint:containedctx // of the attempt; io.Reader has none

	path string // of the file; empty for an item
	item []byte
	file inputFile
	err  error // sticky; io.EOF at the end

	pos, end int64  // of a plain file: the next byte to return; the end of the split
	last     byte   // the one before pos
	given    uint64 // bytes returned of a plain file
	probe    []byte // buffer
	ahead    []byte // of probe: read from the file but not returned yet

	compressed   bool
	decompressor decompressor
}

// begin starts a split; nil for an item that Slot.begin sets.
func (r *splitReader) begin(ctx context.Context, split *wire.Split) {
	r.path, r.item, r.err, r.given, r.pos, r.end, r.ahead = "", nil, nil, 0, 0, 0, nil
	r.ctx = ctx
	r.item, r.file = split.GetItem(), inputFile{}
	file := split.GetFile()
	if file == nil {
		return
	}
	r.path = string(file.GetPath())
	r.file.plan(file, r.host)
	r.compressed = file.GetWhole() && compression(r.path) != plainText
	r.pos, r.end = int64(file.GetOffset()), int64(file.GetOffset()+file.GetLength())
	if file.GetWhole() {
		r.pos, r.end = 0, math.MaxInt64
	}
}

// Read reads whole lines, in pieces of any size.
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
	if r.file.file == nil {
		if err := r.open(); err != nil {
			return 0, r.fail(err)
		}
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

// Offset returns the offset of the next byte in the file, or in the decompressed text.
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
	err := r.file.open(r.ctx, r.stores, max(0, r.pos-1))
	if err != nil {
		return err
	}
	if r.compressed {
		return r.decompressor.begin(&r.file, compression(r.path))
	}
	if r.pos > 0 {
		if r.pos, err = r.afterLineEnd(r.pos - 1); err != nil {
			return err
		}
	}
	if r.pos >= r.end {
		return io.EOF
	}
	return nil
}

// afterLineEnd reads from pos, the file's offset, through the first line end. It returns the offset behind it, or one past the
// split's end: then no line starts in the split.
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
	// The last line continues past the split's end, mostly not far: the size of the reads grows with its length so far.
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

// readOn reads the file from pos.
func (r *splitReader) readOn(p []byte) (int, error) {
	if len(r.ahead) > 0 {
		n := copy(p, r.ahead)
		r.ahead = r.ahead[n:]
		return n, nil
	}
	return r.file.Read(p)
}

// fail records the end of the input, or the first error. That the file has changed explains everything else.
func (r *splitReader) fail(err error) error {
	if r.err = r.file.err; r.err == nil {
		r.err = r.file.verify()
	}
	switch {
	case r.err != nil:
	case errors.Is(err, io.EOF):
		r.err = io.EOF
	default:
		r.err = corruptError(r.path, r.decompressor.kind, r.pos, err)
	}
	return r.err
}

// finish closes the file and returns the number of bytes read from it. The error is that the file has changed while a part of it was read:
// at its end, Read has reported that.
func (r *splitReader) finish() (read uint64, err error) {
	if r.file.file == nil {
		return 0, nil
	}
	if r.err == nil {
		err = r.file.verify()
	}
	if r.compressed {
		r.given = r.decompressor.consumed()
		r.decompressor.release()
	}
	r.file.close()
	return r.given, err
}

// close releases the decoders.
func (r *splitReader) close() {
	r.file.close()
	r.decompressor.close()
}
