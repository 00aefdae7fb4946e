package runner

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// plannedFile is a file of the input as the job was planned with it.
type plannedFile struct {
	path, host string
	whole      bool         // the split is all of the file
	was        blob.Version // at submit, or at the last retry
	// known is false if the leader is older than versions, or could not examine the file. Then was.Size is where the split ends, until the
	// first check sets was.
	known, checked bool
	grownTo        int64 // its last size that was larger
	// tail is blob.TailSum of what was planned: of the split, or as it was when the file was opened; 0: not known.
	tail uint64
}

func (f *plannedFile) plan(split *wire.FileSplit, host string) {
	*f = plannedFile{path: string(split.GetPath()), host: host, whole: split.GetWhole(), tail: split.GetTail()}
	f.was = blob.Version{Size: int64(split.GetSize()), Modified: split.GetModifiedUnixNs(), Identity: split.GetIdentity()} //nolint:gosec // of a file
	f.known = f.was.Modified != 0 || f.was.Identity != 0
	if !f.known {
		f.was.Size = int64(split.GetOffset() + split.GetLength()) //nolint:gosec // in a file
	} else if split.GetOffset() == 0 && split.GetLength() == split.GetSize() {
		f.whole = true
	}
}

// check compares the file with what it was. A file that has grown is as it was, as far as it was planned.
func (f *plannedFile) check(now blob.Version) error {
	first := !f.known && !f.checked
	f.checked = true
	if first && now.Size >= f.was.Size {
		f.was = now
		return nil
	}
	switch f.was.To(now) {
	case blob.Same:
		return nil
	case blob.Grown:
		f.grownTo = now.Size
		return nil
	case blob.Changed:
	}
	return f.changed(now, first)
}

// changed is the error that the file is not what it was.
func (f *plannedFile) changed(now blob.Version, first bool) error {
	since, wayOut := "the job was submitted", "the job reads it in several splits: submit it again"
	was, is := f.was.Difference(now)
	switch {
	case first:
		was = fmt.Sprintf("%s bytes or more", humanize.Comma(f.was.Size))
	case !f.known:
		since = "it was opened"
	}
	if f.whole {
		wayOut = "running the failed tasks again reads it as it is now"
	}
	return bridgefour.BadInput(fmt.Errorf("input %q has changed since %s: it was %s; it is %s (on %s); %s", f.path, since, was, is, f.host, wayOut))
}

// grown reports that the file has grown; empty if it has not.
func (f *plannedFile) grown() string {
	if f.grownTo == 0 {
		return ""
	}
	return fmt.Sprintf("input %q has grown since the job was submitted, when it had %s bytes", f.path, humanize.Comma(f.was.Size))
}

// inputFile reads a file of the input as far as it was planned, and checks it when it is opened and at its end.
type inputFile struct {
	plannedFile
	file blob.File // nil: not open
	left int64     // bytes that were planned
	err  error     // sticky, and never io.EOF
}

// open opens the file at offset.
func (f *inputFile) open(ctx context.Context, stores blob.Stores, offset int64) error {
	store, name, err := stores.Open(f.path)
	if err == nil {
		f.file, err = store.Open(ctx, name, offset)
	}
	if err != nil {
		f.err = program.InputError(f.path, f.host, err)
		return f.err
	}
	err = f.verify()
	f.left = max(0, f.was.Size-offset)
	const atOnce = 64 << 10 // hardly anything happens while a smaller file is read
	if err == nil && f.tail == 0 && f.was.Size > atOnce {
		f.tail, err = f.tailSum()
	}
	return err
}

// verify checks the open file.
func (f *inputFile) verify() error {
	if f.err != nil {
		return f.err
	}
	now, err := f.file.Version()
	if err != nil {
		err = program.InputError(f.path, f.host, err)
	} else if err = f.check(now); err == nil && f.grownTo > 0 && f.tail != 0 {
		var tail uint64
		if tail, err = f.tailSum(); err == nil && tail != f.tail {
			err = f.changed(now, false)
		}
	}
	f.err = err
	return err
}

func (f *inputFile) tailSum() (uint64, error) {
	sum, err := blob.TailSum(f.file, f.was.Size)
	switch {
	case errors.Is(err, io.EOF): // it was truncated just now
		return 0, f.verify()
	case err != nil:
		f.err = program.InputError(f.path, f.host, err)
	}
	return sum, f.err
}

// Read ends as far as the file was planned, also if it has grown. If a file ends before that, it has changed, or its store has failed.
func (f *inputFile) Read(p []byte) (int, error) {
	switch {
	case f.err != nil:
		return 0, f.err
	case f.left == 0 && f.was.Size == 0:
		return 0, f.readEmpty()
	case f.left == 0:
		return 0, io.EOF
	}
	n, err := f.file.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && f.left > 0:
		if f.verify() == nil {
			f.err = fmt.Errorf("input %q: %w: %s bytes are missing (on %s)", f.path, io.ErrUnexpectedEOF, humanize.Comma(f.left), f.host)
		}
		return n, f.err
	case err != nil && !errors.Is(err, io.EOF):
		f.err = program.InputError(f.path, f.host, err)
		return n, f.err
	}
	return n, err
}

// readEmpty checks that a file without a size is empty: those of /proc are not.
func (f *inputFile) readEmpty() error {
	if n, _ := f.file.Read(make([]byte, 1)); n == 0 || f.verify() == nil && f.grownTo > 0 {
		return io.EOF
	}
	if f.err == nil {
		f.err = bridgefour.BadInput(fmt.Errorf("input %q has a content, but its size is 0, as that of the files of /proc: copy it, and name the copy", f.path))
	}
	return f.err
}

func (f *inputFile) close() {
	if f.file != nil {
		_ = f.file.Close() // only read from
	}
	f.file = nil
}
