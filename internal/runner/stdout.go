package runner

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/internal/blob"
)

// stdoutFile is the file for the standard output of a command's attempts. It is in the job's private folder and is renamed to
// become an attempt's file, or, if the job's store has no local files, in the scratch folder and is copied.
//
// A process that an attempt leaves behind may keep the file open, and its late output must not become that of another attempt.
// So each attempt gets a new file, or one that is empty and that provably no other process has open: each attempt gets an open
// file description of its own, and [exclusive] reports when all of those are closed. (Always creating a new file would double
// the cost of a short command without output: on ext4 without a journal it takes up to a millisecond.)
type stdoutFile struct {
	store     blob.Local
	folder    blob.Location
	copyTo    blob.Store // the job's store, if it is not store
	path      blob.Location
	file      *os.File // nil: none
	fd        int      // of file
	attemptFD int      // the command's descriptor; -1 once it has started
}

// begin prepares the file for an attempt, and opens attemptFD.
func (s *stdoutFile) begin(ctx context.Context) error {
	var st syscall.Stat_t
	if s.file != nil && (syscall.Fstat(s.fd, &st) != nil || st.Nlink != 1) {
		s.close(ctx) // the folder was removed when the job ended; this is a retry
	}
	if s.file == nil {
		// A random name: workers that share the folder do not know each other.
		path := s.folder.Join(".stdout-" + strconv.FormatUint(rand.Uint64(), 36))
		file, err := s.store.CreateFile(ctx, path)
		if err != nil {
			return err
		}
		s.path, s.file, s.fd = path, file, int(file.Fd())
	}
	attemptFD, err := reopen(s.fd, syscall.O_RDWR)
	if err != nil {
		return err
	}
	s.attemptFD = attemptFD
	return nil
}

// size returns the length of the attempt's output.
func (s *stdoutFile) size() (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(s.fd, &st); err != nil {
		return 0, err
	}
	return st.Size, nil
}

// clear empties the file for another attempt, or removes it.
func (s *stdoutFile) clear(ctx context.Context) {
	if s.file == nil {
		return
	}
	if !exclusive(s.fd) {
		s.close(ctx)
		return
	}
	if size, err := s.size(); err != nil || size > 0 && s.file.Truncate(0) != nil {
		s.close(ctx)
	}
}

func (s *stdoutFile) close(ctx context.Context) {
	if s.file == nil {
		return
	}
	_ = s.file.Close() // empty, or of an attempt that failed
	_ = s.store.Remove(context.WithoutCancel(ctx), s.path)
	s.file = nil
}

// errHeld is the error for an output that could still change.
var errHeld = errors.New("a process started by the command still has its output open")

// finish makes the file the attempt's, and counts it. It fails if a process could still write to it: what is counted must be
// what is published.
func (s *stdoutFile) finish(ctx context.Context, path, final blob.Location, buf []byte, out *Outcome) (err error) {
	file, err := s.store.Open(ctx, s.path, 0)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read from
	err = s.file.Close()
	s.file = nil
	private := s.path
	defer func() {
		if err != nil || s.copyTo != nil {
			err = errors.Join(err, s.store.Remove(context.WithoutCancel(ctx), private))
		}
	}()
	if err != nil {
		return err
	}
	if f, ok := file.(blob.LocalFile); ok && !readOnly(int(f.Fd())) {
		return errHeld
	}
	if s.copyTo == nil {
		if err := s.store.Publish(ctx, private, path); err != nil {
			return err
		}
		private = path
		return readBack(file, io.Discard, buf, out)
	}
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
