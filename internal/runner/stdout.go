package runner

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/internal/blob"
)

// stdoutFile is the file for the standard output of one attempt of a command. It has no name, in the job's private folder, until it
// is the attempt's output, or, if the job's store has no local files, in the scratch folder, and is copied.
//
// Each attempt gets a new file: what a process of an earlier one still writes, such as a daemon that was given the descriptor,
// can not get into another task's part.
type stdoutFile struct {
	store  blob.Local
	folder blob.Location
	copyTo blob.Store    // the job's store, if it is not store
	file   *os.File      // nil: none
	path   blob.Location // empty: the file has no name
}

// begin creates the file for an attempt.
func (s *stdoutFile) begin(ctx context.Context) (err error) {
	s.path = ""
	if s.file, err = s.store.CreateUnnamed(ctx, s.folder); errors.Is(err, errors.ErrUnsupported) {
		// A random name: workers that share the folder do not know each other.
		s.path = s.folder.Join(".stdout-" + strconv.FormatUint(rand.Uint64(), 36))
		s.file, err = s.store.CreateFile(ctx, s.path)
	}
	return err
}

// size returns the length of the attempt's output.
func (s *stdoutFile) size() (int64, error) {
	info, err := s.file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// discard removes the file, if it is not the attempt's output.
func (s *stdoutFile) discard(ctx context.Context) {
	if s.file == nil {
		return
	}
	_ = s.file.Close() // empty, or of an attempt that failed
	s.file = nil
	if s.path != "" {
		_ = s.store.Remove(context.WithoutCancel(ctx), s.path) // the clean-up of the folder removes what remains
	}
}

// errHeld is the error for an output that could still change.
var errHeld = errors.New("a process that is not of the command has its output open for writing")

// finish makes the file the attempt's, and counts it. It fails if a process could still write to it, such as a daemon that was given
// the descriptor: what is counted must be what is published.
func (s *stdoutFile) finish(ctx context.Context, path, final blob.Location, buf []byte, out *Outcome) (err error) {
	defer s.discard(ctx)
	file, err := reopen(s.file, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read from
	if err := s.file.Close(); err != nil {
		return err
	}
	if !readOnly(int(file.Fd())) {
		return errHeld
	}
	if s.copyTo != nil {
		w, err := s.copyTo.Create(ctx, path, final)
		if err != nil {
			return err
		}
		defer w.Abort()
		if err := readBack(file, w, buf, out); err != nil {
			return err
		}
		return w.Prepare()
	}
	if err := readBack(file, io.Discard, buf, out); err != nil {
		return err
	}
	if s.path == "" {
		return s.store.Name(ctx, file, path)
	}
	return s.store.Publish(ctx, s.path, path)
}

// readBack copies an output to w, and computes its checksum and size and the number of lines.
func readBack(file io.Reader, w io.Writer, buf []byte, out *Outcome) error {
	digest := xxhash.New()
	last := byte('\n')
	for {
		n, err := file.Read(buf)
		if piece := buf[:n]; n > 0 {
			_, _ = digest.Write(piece) // never fails
			out.Size += uint64(n)
			out.Records += countLines(piece)
			last = piece[n-1]
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if last != '\n' {
		out.Records++
	}
	out.Checksum = digest.Sum64()
	return nil
}
