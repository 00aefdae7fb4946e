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

// stdoutFile takes the standard output of a command's attempts. It lies in the job's attempt-private folder, so that it
// needs only a new name to become an attempt's file, or, if the job's store has no local files, in the scratch folder.
//
// A process that an attempt leaves behind may keep the file open, and what it writes later must not become the output of
// another attempt. So an attempt gets a new file, or one that is empty and that no other process can have open: each
// attempt gets an opening of its own of it, and [exclusive] tells when all of those are closed. (Always to make a new one
// would double the cost of a short command that writes nothing: ext4 without a journal takes a millisecond for it.)
type stdoutFile struct {
	store  blob.Local
	folder blob.Location
	copyTo blob.Store // the job's, if it is not store; or nil
	path   blob.Location
	file   *os.File // nil: none
	fd     int      // of file
	given  int      // the attempt's, until it has started
}

// begin gives a file for an attempt's standard output.
func (s *stdoutFile) begin(ctx context.Context) error {
	var st syscall.Stat_t
	if s.file != nil && (syscall.Fstat(s.fd, &st) != nil || st.Nlink != 1) {
		s.close(ctx) // the folder was removed: the job was over, and is now run again
	}
	if s.file == nil {
		// Named at random: workers that share the folder know nothing of each other.
		path := s.folder.Join(".stdout-" + strconv.FormatUint(rand.Uint64(), 36))
		file, err := s.store.CreateFile(ctx, path)
		if err != nil {
			return err
		}
		s.path, s.file, s.fd = path, file, int(file.Fd())
	}
	given, err := openAgain(s.fd, syscall.O_RDWR)
	if err != nil {
		return err
	}
	s.given = given
	return nil
}

// size of what the attempt wrote.
func (s *stdoutFile) size() (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(s.fd, &st); err != nil {
		return 0, err
	}
	return st.Size, nil
}

// clear makes the file fit for another attempt, or removes it.
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

// errHeld is the failure of a command whose output could still change.
var errHeld = errors.New("a process that the command started still has its output open")

// take makes the file the attempt's, and counts it. What is counted must be what is published, so that nothing may be able
// to write to it any more.
func (s *stdoutFile) take(ctx context.Context, path, final blob.Location, buf []byte, out *Outcome) (err error) {
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
	if f, ok := file.(*os.File); ok && !readOnly(int(f.Fd())) {
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

// readBack hashes an output and counts its lines on their way to w.
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
