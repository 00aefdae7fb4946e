package runner

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/internal/layout"
)

// createNew creates a file, and its folder where that is missing. The folder is not remembered: an aborted job's folder is
// removed, and made again by a retry. A file that is there already is an error: an earlier attempt may have it open.
func createNew(folder, path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(folder, 0o777); err != nil {
			return nil, err
		}
		file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	}
	return file, err
}

func createEmpty(folder, path string) error {
	file, err := createNew(folder, path)
	if err != nil {
		return err
	}
	return file.Close()
}

// attemptFile is where a built-in job's output goes: made at the first byte, hashed on its way.
type attemptFile struct {
	folder  string
	attempt *Attempt
	path    string // empty: not made
	file    *os.File
	size    uint64
	digest  xxhash.Digest
}

func (f *attemptFile) begin(folder string, a *Attempt) {
	f.folder, f.attempt = folder, a
	f.path, f.file, f.size = "", nil, 0
}

func (f *attemptFile) create() error {
	path := filepath.Join(f.folder, layout.Attempt(f.attempt.StageName, f.attempt.Index, f.attempt.Lease))
	file, err := createNew(f.folder, path)
	if err != nil {
		return err
	}
	f.path, f.file = path, file
	f.digest.Reset()
	return nil
}

// Write adds p to the file.
func (f *attemptFile) Write(p []byte) (int, error) {
	if f.file == nil {
		if err := f.create(); err != nil {
			return 0, err
		}
	}
	n, err := f.file.Write(p)
	_, _ = f.digest.Write(p[:n]) // never fails
	f.size += uint64(n)
	return n, err
}

// finish closes the file and tells out of it. A job that is not spooled gets a file for an empty output too: it becomes
// an empty part.
func (f *attemptFile) finish(records uint64, out *Outcome) error {
	if f.file == nil {
		if f.attempt.Job.GetSpool() {
			return nil
		}
		if err := f.create(); err != nil {
			return err
		}
	}
	err := f.file.Close()
	f.file = nil
	if err != nil {
		return err
	}
	out.File, out.Size, out.Records, out.Checksum = f.path, f.size, records, f.digest.Sum64()
	return nil
}

// discard removes what was written.
func (f *attemptFile) discard() error {
	if f.path == "" {
		return nil
	}
	var closed error
	if f.file != nil {
		closed = f.file.Close()
		f.file = nil
	}
	return errors.Join(closed, os.Remove(f.path))
}

func countLines(p []byte) uint64 { return uint64(bytes.Count(p, []byte{'\n'})) }
