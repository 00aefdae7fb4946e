package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/format"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/record"
)

// stdinPieces cuts standard input while it comes into files that are named after the first. Piece i begins with the header, and has the
// records that begin in [i*size, (i+1)*size), as the splits of a file that is there as a whole.
type stdinPieces struct {
	path    string
	size    int64
	plain   bool // not of fixed records: the text is looked at
	header  []byte
	records record.Reader
	n       int64 // pieces so far
}

// takeStdin copies the first piece of standard input to a new file, or all of it, if it is no longer, or must be known as a whole: then it
// returns nil.
func takeStdin(ctx context.Context, req *api.JobRequest, builtins []plan.Builtin, path string, stdin io.Reader) (*stdinPieces, error) {
	size, kind, header := plan.Cut(req, builtins)
	p := &stdinPieces{path: path, size: int64(size), plain: kind.Size() == 0} //nolint:gosec // bounded
	taken := make(chan error, 1)
	more := false
	go func() { // a read of a terminal or pipe cannot be interrupted; after an interrupt the process ends
		var err error
		more, err = p.first(kind, header, stdin)
		taken <- err
	}()
	select {
	case err := <-taken:
		if err != nil || !more {
			return nil, err
		}
		req.Split = "none" // it is cut
		return p, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// first makes the first piece. It reports whether there may be others.
func (p *stdinPieces) first(kind *record.Kind, header int, stdin io.Reader) (more bool, err error) {
	f, err := os.OpenFile(p.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	begin, text, err := peekFormat(stdin)
	stdin = io.MultiReader(bytes.NewReader(begin), stdin)
	if err != nil || p.size == 0 || p.plain && !text {
		return false, errors.Join(err, p.copy(f, stdin))
	}
	var ahead []byte
	if header > 0 {
		if p.header, ahead, err = record.Header(stdin, kind, header); err != nil {
			return false, err
		}
	}
	p.n = 1
	p.records.ResetAt(kind, stdin, ahead, int64(len(p.header)), p.size)
	if err := p.copy(f, io.MultiReader(bytes.NewReader(p.header), &p.records)); err != nil || p.records.Offset() < p.size {
		return false, err
	}
	if p.plain {
		var prefix [format.PrefixSize]byte
		if n, _ := f.ReadAt(prefix[:], 0); format.Detect(prefix[:n]) != format.Text { // it is one piece
			if more, err := p.records.Next(math.MaxInt64); err != nil || !more {
				return false, err
			}
			return false, p.copy(f, &p.records)
		}
	}
	if kind.DropsBOM() {
		p.header = p.header[format.SkipBOM(p.header):]
	}
	return true, nil
}

// peekFormat reads as much of standard input as tells whether it is compressed. It does not wait for more than a line.
func peekFormat(stdin io.Reader) (begin []byte, text bool, err error) {
	buf := make([]byte, format.MagicSize)
	for n := 0; n < len(buf); {
		k, err := stdin.Read(buf[n:])
		n += k
		begin = buf[:n]
		switch {
		case format.Detect(begin) != format.Text:
			return begin, false, nil
		case errors.Is(err, io.EOF), err == nil && bytes.IndexByte(begin, '\n') >= 0:
			return begin, true, nil
		case err != nil:
			return begin, false, err
		}
	}
	return begin, true, nil
}

// next makes the next piece and returns its name. The error is io.EOF if there is none.
func (p *stdinPieces) next() (path string, err error) {
	begin := p.records.Offset()
	more, err := p.records.Next((p.n + 1) * p.size)
	if err != nil {
		return "", err
	}
	if !more {
		return "", io.EOF
	}
	path = fmt.Sprintf("%s-%07d", p.path, p.n)
	p.n++
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	err = p.copy(f, io.MultiReader(bytes.NewReader(p.header), &p.records))
	if err == nil && p.plain {
		err = p.check(f, begin)
	}
	return path, errors.Join(err, f.Close())
}

// check refuses a piece that readers would take for compressed, and one that shows that the input was no text after all.
func (p *stdinPieces) check(f *os.File, begin int64) error {
	var prefix [format.PrefixSize]byte
	n, _ := f.ReadAt(prefix[:], int64(len(p.header)))
	if kind := format.Detect(prefix[:n]); kind.Compressed() || kind != format.Text && begin < format.PrefixSize {
		return fmt.Errorf("from byte %d on it is %s, and only text is cut: use --split none, for one task", begin, kind)
	}
	return nil
}

func (p *stdinPieces) copy(f *os.File, from io.Reader) error {
	_, err := io.Copy(f, from)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("%w; set XDG_STATE_HOME to another folder", err)
	}
	return err
}

const (
	// growEvery is the shortest interval between two growths of a job, growPieces the most pieces of one.
	growEvery  = 20 * time.Millisecond
	growPieces = 4096
	// Standard input is read no further while the pieces that are not done take so many bytes, and are more than so many for each slot.
	aheadBytes   = 256 << 20
	aheadPerSlot = 4
)

// ahead is how many tasks may be open before standard input is read further.
func (p *stdinPieces) ahead(slots int) uint64 {
	return uint64(max(aheadPerSlot*slots, int(min(growPieces, aheadBytes/p.size)))) //nolint:gosec // positive
}

// stdinPiece is a piece, or why there is none.
type stdinPiece struct {
	path string
	err  error
}

// feed makes pieces until standard input ends, and calls grow with those that have come since the last call.
func (p *stdinPieces) feed(ctx context.Context, grow func(files []string, last bool) error) error {
	pieces := make(chan stdinPiece)
	go func() { // as in takeStdin
		for err := error(nil); err == nil; {
			var path string
			path, err = p.next()
			select {
			case pieces <- stdinPiece{path, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	for next := time.Now(); ; next = time.Now().Add(growEvery) {
		files, err := gather(ctx, pieces, next)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return err
		}
		if err := grow(files, last); err != nil || last {
			return err
		}
	}
}

// gather returns the pieces that come until a time, and at least one. The error is io.EOF if they are the last.
func gather(ctx context.Context, pieces <-chan stdinPiece, until time.Time) (files []string, err error) {
	timer := time.NewTimer(0) // due when the first has come
	defer timer.Stop()
	var due <-chan time.Time // nil: none has come
	for {
		select {
		case piece := <-pieces:
			switch {
			case errors.Is(piece.err, io.EOF):
				return files, io.EOF
			case piece.err != nil:
				return nil, fmt.Errorf("standard input: %w", piece.err)
			}
			if files = append(files, piece.path); len(files) == growPieces {
				return files, nil
			}
			if due == nil {
				timer.Reset(time.Until(until))
				due = timer.C
			}
		case <-due:
			return files, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
