package runner

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/format"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/record"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// reading is how a job reads its files.
type reading struct {
	kind      *record.Kind
	header    int    // lines or rows at the beginning of a file that are no records
	windowMax uint64 // of zstd
	stores    blob.Stores
}

func newReading(j *wire.Job, stores blob.Stores) (r reading, failure *program.Failure) {
	kind, err := record.Parse(j.GetRecords())
	if err != nil {
		return r, program.Failed(wire.FailureKind_BAD_PROGRAM, "%v; is this worker older than the leader?", err)
	}
	window, err := bridgefour.Settings(j.GetSettings()).Size(bridgefour.SettingZstdWindowMax, format.WindowDefault)
	if err != nil {
		return r, program.JobFailure(err)
	}
	const least = 1 << 10 // of the format
	return reading{kind, int(j.GetHeader()), uint64(min(max(window, least), format.WindowMax)), stores}, nil
}

// splitReader reads a split: the records that begin in a range of a file, a whole file, or an item, which is one line. It opens the file at
// the first read.
//
// A whole file is decompressed, as its first bytes say, unless its records are fixed: then its bytes are read as they are.
//
// Of several small files, each is read to its end on its own, and Next goes on to the one after it.
type splitReader struct {
	host string
	ctx  context.Context //nolint:containedctx // of the attempt; io.Reader has none
	how  reading
	// heads: the header of the file comes before the records of each split. Otherwise it is left out.
	heads bool

	item  []byte
	split *wire.FileSplit // nil: an item
	pack  []*wire.FileSplit
	rest  []*wire.FileSplit // of pack: not begun
	file  inputFile
	err   error // sticky; io.EOF at the end

	source  io.Reader // nil: the file has not been opened
	peeked  peekedFile
	decoder format.Decoder
	records record.Reader // of a part of a file
	mark    [3]byte
	ahead   []byte // to be returned before source is read again
	header  []byte // of the file, once it is open
	pos     int64  // of source, or of the item
	given   uint64 // bytes returned, without a header that is repeated
	before  uint64 // bytes of the files before
	grown   []string
}

// begin starts a split. Slot.begin sets an item that is not in it as such.
func (r *splitReader) begin(ctx context.Context, how reading, split *wire.Split, heads bool) {
	r.ctx, r.how, r.heads, r.item, r.pack, r.before, r.grown = ctx, how, heads, split.GetItem(), split.GetFiles().GetList(), 0, r.grown[:0]
	if r.rest = r.pack; len(r.pack) > 0 {
		r.beginFile(r.pack[0])
		r.rest = r.pack[1:]
		return
	}
	r.beginFile(split.GetFile())
}

// beginFile starts a file; nil: an item.
func (r *splitReader) beginFile(split *wire.FileSplit) {
	r.err, r.source, r.ahead, r.header, r.pos, r.given = nil, nil, nil, nil, 0, 0
	r.file, r.split = inputFile{}, split
	if split != nil {
		r.file.plan(split, r.host)
	}
}

// Next ends the file, and begins the next one of several.
func (r *splitReader) Next() (path string, more bool, err error) {
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		return "", false, r.err
	}
	if len(r.rest) == 0 {
		return "", false, nil
	}
	if err := r.ctx.Err(); err != nil {
		return "", false, err
	}
	if r.err = r.endFile(); r.err != nil {
		return "", false, r.err
	}
	r.beginFile(r.rest[0])
	r.rest = r.rest[1:]
	return r.file.path, true, nil
}

// Path is the file that is being read, if the task has several.
func (r *splitReader) Path() string {
	if len(r.pack) == 0 {
		return ""
	}
	return r.file.path
}

// Read reads whole records, in pieces of any size.
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
	if r.split == nil {
		return r.readItem(p)
	}
	if err := r.opened(); err != nil {
		return 0, err
	}
	if len(r.ahead) > 0 {
		n := copy(p, r.ahead)
		r.ahead = r.ahead[n:]
		return n, nil
	}
	n, err := (*sourceReader)(r).Read(p)
	if err != nil {
		return n, r.fail(err)
	}
	return n, nil
}

// opened opens the file unless it is open.
func (r *splitReader) opened() error {
	if r.source == nil {
		if err := r.open(); err != nil {
			return r.fail(err)
		}
	}
	return nil
}

// Header returns the header of the file, which is empty for an item. Records are read behind it.
func (r *splitReader) Header() ([]byte, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	if r.split == nil || errors.Is(r.err, io.EOF) { // an item, or all was read
		return r.header, nil
	}
	if r.err != nil {
		return nil, r.err
	}
	err := r.opened()
	return r.header, err
}

// Offset returns the offset of the next byte in the file, or in the decompressed text.
func (r *splitReader) Offset() int64 { return r.pos - int64(len(r.ahead)) }

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

// open opens the file where the split begins.
func (r *splitReader) open() error {
	offset, end := int64(r.split.GetOffset()), int64(r.split.GetOffset()+r.split.GetLength()) //nolint:gosec // of a file
	if offset == 0 {
		if err := r.file.open(r.ctx, r.how.stores, 0); err != nil {
			return err
		}
		if n := r.how.kind.Size(); n > 0 && r.file.was.Size%n != 0 { // it has changed since it was planned
			return fmt.Errorf("%d bytes are not a multiple of the %d of a record", r.file.was.Size, n)
		}
		if r.split.GetWhole() || end >= r.file.was.Size {
			return r.openWhole()
		}
	}
	header, ahead, err := r.readHeader(offset)
	if err != nil {
		return err
	}
	first, kind := int64(len(header)), r.how.kind // the offset of the first record
	from, end := max(offset, first), max(end, first)
	switch {
	case offset == 0:
		r.records.ResetAt(kind, &r.file, ahead, from, end)
	case from == first || kind.IsExact():
		if err := r.file.open(r.ctx, r.how.stores, from); err != nil {
			return err
		}
		r.records.ResetAt(kind, &r.file, nil, from, end)
	default:
		if err := r.file.open(r.ctx, r.how.stores, from-1); err != nil {
			return err
		}
		r.records.Reset(kind, &r.file, from, end)
	}
	r.source, r.pos = &r.records, from
	switch {
	case offset == 0 && first == 0:
		return r.dropBOM()
	case offset == 0:
		r.given = uint64(first)
	}
	if kind.DropsBOM() {
		header = header[format.SkipBOM(header):]
	}
	if r.header = header; r.heads {
		r.ahead = header
	}
	return nil
}

// readHeader reads the header of a file that is cut. At offset 0 the file is open, and ahead was read behind the header.
func (r *splitReader) readHeader(offset int64) (header, ahead []byte, err error) {
	if r.how.header == 0 {
		return nil, nil, nil
	}
	if offset > 0 {
		if err := r.file.open(r.ctx, r.how.stores, 0); err != nil {
			return nil, nil, err
		}
	}
	header, ahead, err = record.Header(&r.file, r.how.kind, r.how.header)
	if err == nil && offset > 0 {
		r.file.close() // after an error, fail checks the file
	}
	return header, ahead, err
}

// openWhole opens a file that is one split, which is open at its beginning.
func (r *splitReader) openWhole() error {
	prefix, err := r.peeked.peek(&r.file)
	if err != nil {
		return err
	}
	r.source = &r.peeked
	if r.how.kind.Size() > 0 {
		return nil
	}
	switch f := format.Detect(prefix); {
	case f.Compressed():
		r.source = &r.decoder
		if err := r.decoder.Reset(&r.peeked, f, r.how.windowMax); err != nil {
			return err
		}
	case f.NeedsTool() && !r.heads:
		return fmt.Errorf("%s is not read directly: decompress it first, or run a command that does", f)
	case format.NamedCompressed(r.file.path) && (f == format.Binary || len(prefix) == 0):
		return errors.New("its name is that of a compressed file, but it is empty, or neither gzip, zstd or bzip2 nor text")
	}
	if r.how.header > 0 && !r.heads {
		r.header, r.ahead, err = record.Header((*sourceReader)(r), r.how.kind, r.how.header)
		if r.how.kind.DropsBOM() {
			r.header = r.header[format.SkipBOM(r.header):]
		}
		return err
	}
	return r.dropBOM()
}

// dropBOM drops the byte order mark at the beginning of a file.
func (r *splitReader) dropBOM() error {
	if !r.how.kind.DropsBOM() {
		return nil
	}
	n, err := io.ReadFull((*sourceReader)(r), r.mark[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	r.ahead = r.mark[format.SkipBOM(r.mark[:n]):n]
	return nil
}

// peekedFile reads all bytes of a file whose first bytes were looked at.
type peekedFile struct {
	prefix []byte // buffer for the first bytes
	unread []byte // of prefix
	file   *inputFile
}

// peek returns the first bytes of a file that is open at its beginning, as many as tell its format.
func (w *peekedFile) peek(file *inputFile) ([]byte, error) {
	if w.prefix == nil {
		w.prefix = make([]byte, format.PrefixSize)
	}
	n, err := io.ReadFull(file, w.prefix)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	w.unread, w.file = w.prefix[:n], file
	return w.unread, nil
}

func (w *peekedFile) Read(p []byte) (int, error) {
	if len(w.unread) > 0 {
		n := copy(p, w.unread)
		w.unread = w.unread[n:]
		return n, nil
	}
	return w.file.Read(p)
}

// sourceReader reads the source.
type sourceReader splitReader

func (r *sourceReader) Read(p []byte) (int, error) {
	n, err := r.source.Read(p)
	r.pos += int64(n)
	if r.source == &r.records {
		r.pos = r.records.Offset()
	}
	r.given += uint64(n)
	return n, err
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
		if r.source == &r.decoder {
			err = r.decoder.Explain(r.pos, err)
		}
		if large, ok := errors.AsType[*format.WindowError](err); ok {
			err = fmt.Errorf("%w; if a slot may take that much memory, allow it with --set %s=%dMiB", err, bridgefour.SettingZstdWindowMax,
				max(large.Window, 2*large.Max)>>20)
		}
		r.err = bridgefour.BadInput(fmt.Errorf("input %q: %w", r.file.path, err))
	}
	return r.err
}

// finish closes the file and returns the number of bytes that were read of the split. The error is that the file has changed while a part of it was
// read: at its end, Read has reported that.
func (r *splitReader) finish() (read uint64, err error) {
	err = r.endFile()
	return r.before, err
}

// endFile is finish of one file.
func (r *splitReader) endFile() (err error) {
	if r.file.file == nil {
		return nil
	}
	if r.err == nil {
		err = r.file.verify()
	}
	if r.source == &r.decoder {
		r.given = r.decoder.Consumed()
		r.decoder.Release()
	}
	r.file.close()
	if grown := r.file.grown(); grown != "" {
		r.grown = append(r.grown, grown)
	}
	r.before += r.given
	return err
}

// close releases the decoders.
func (r *splitReader) close() {
	r.file.close()
	r.decoder.Close()
}
