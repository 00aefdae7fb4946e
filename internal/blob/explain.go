package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/dustin/go-humanize"
)

// explain formats an error of the operating system for users: the operation, the file, the cause, and the way out if the
// cause does not suggest one. It wraps the cause.
func explain(op string, name Location, err error) error {
	// os errors repeat operation and path.
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	} else if linkErr, ok := errors.AsType[*os.LinkError](err); ok {
		err = linkErr.Err
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%s %q: %w: %s; make room there or use another folder", op, name, err, room(name))
	case errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s %q: %w: the quota of user %d is used up; make room or use another folder", op, name, err, fsUser())
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s %q: %w: mount it writable or use another folder", op, name, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s %q: %w for user %d", op, name, err, fsUser())
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%s %q: %w in this process; raise its limit (ulimit -n)", op, name, err)
	case errors.Is(err, syscall.EXDEV):
		return fmt.Errorf("%s %q: %w: a mount point is inside the folder; use a folder of one file system", op, name, err)
	}
	return fmt.Errorf("%s %q: %w", op, name, err)
}

// room describes the free space of the file system of name, in bytes, or in files if those have run out.
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
			return fmt.Sprintf("the file system of %s holds %s files and no more fit", dir, humanize.Comma(int64(left.filesTotal)))
		}
		return fmt.Sprintf("the file system of %s has %s of %s left", dir, humanize.IBytes(left.bytes), humanize.IBytes(left.bytesTotal))
	}
}

// space is the free space for this user.
type space struct{ bytes, bytesTotal, files, filesTotal uint64 }
