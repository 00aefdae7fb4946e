package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/dustin/go-humanize"
)

// explain says for people what could not be done to which file, and why, and the way out where the system's word does not
// tell it. The cause can still be tested for.
func explain(op string, name Location, err error) error {
	// The system's error repeats operation and path; only its cause is wanted here.
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	} else if linkErr, ok := errors.AsType[*os.LinkError](err); ok {
		err = linkErr.Err
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%s %q: %w: %s; make room there or use another place", op, name, err, room(name))
	case errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s %q: %w: user %d has used up what he may; make room or use another place", op, name, err, os.Geteuid())
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s %q: %w: mount it writable or use another place", op, name, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s %q: %w for user %d", op, name, err, os.Geteuid())
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%s %q: %w in this process; raise its limit (ulimit -n)", op, name, err)
	case errors.Is(err, syscall.EXDEV):
		return fmt.Errorf("%s %q: %w: a mount point lies inside the folder; use a folder of one file system", op, name, err)
	}
	return fmt.Errorf("%s %q: %w", op, name, err)
}

// room says how much the file system of name has left, in bytes or, where these are not what is lacking, in files.
func room(name Location) string {
	for dir := name.Dir(); ; dir = dir.Dir() {
		left, err := freeSpace(dir)
		if err != nil && !dir.IsRoot() {
			continue
		}
		if err != nil {
			return "the file system is full"
		}
		if left.files == 0 && left.filesTotal > 0 {
			return fmt.Sprintf("the file system of %s holds %s files and can take no more", dir, humanize.Comma(int64(left.filesTotal)))
		}
		return fmt.Sprintf("the file system of %s has %s of %s left", dir, humanize.IBytes(left.bytes), humanize.IBytes(left.bytesTotal))
	}
}

// space is what a file system has left for this user.
type space struct{ bytes, bytesTotal, files, filesTotal uint64 }
