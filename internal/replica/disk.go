package replica

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bridgefour/bridgefour/internal/datadir"
)

// ErrLogFull means that the disk under the log has no room. Nothing acknowledged is lost; the log continues by itself when there is room.
var ErrLogFull = errors.New("no room for the log")

// logFullError is an ErrLogFull with the cause and the way out.
type logFullError struct {
	dir  string
	free int64
	need int64
	err  error // what the system said; nil when the log stopped before the disk was full
}

func (e *logFullError) Error() string {
	cause := ""
	if e.err != nil {
		cause = fmt.Sprintf(" (%v)", e.err)
	}
	return fmt.Sprintf("no room for the log: the disk under %s has %.1f MB free, the log needs %.1f MB%s; "+
		"make room there; nothing acknowledged is lost",
		e.dir, float64(e.free)/1e6, float64(e.need)/1e6, cause)
}

func (e *logFullError) Is(target error) bool { return target == ErrLogFull }

func (e *logFullError) Unwrap() error { return e.err }

// freeBytes returns the space under dir that an unprivileged user may use.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // other systems have other types here
}

// Usage is the space of a log on its disk, in bytes.
type Usage struct {
	Log  int64 // its files and snapshots, with what is preallocated
	Free int64 // what an unprivileged user may still use
}

// usedBytes returns the space that the files of folders take.
func usedBytes(dirs ...string) (used int64) {
	for _, dir := range dirs {
		list, _ := os.ReadDir(dir) // one that is missing takes none
		for _, e := range list {
			if info, err := e.Info(); err == nil { // else removed meanwhile
				used += datadir.DiskBytes(info)
			}
		}
	}
	return used
}

// noSpace reports whether err means that the disk or a quota is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// lockDir locks the data directory for this process.
func lockDir(dir string) (*os.File, error) {
	f, err := datadir.Lock(filepath.Join(dir, "LOCK"), datadir.KillTimeout)
	if errors.Is(err, datadir.ErrLocked) {
		holder := "another process"
		if pid, rerr := io.ReadAll(io.LimitReader(f, 32)); rerr == nil && len(pid) > 0 {
			holder = "process " + strings.TrimSpace(string(pid))
		}
		return nil, errors.Join(fmt.Errorf("data directory %s is in use by %s: stop that one first, or use another data directory",
			dir, holder), f.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil && !noSpace(err) {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), f.Close())
	}
	return f, nil
}
