// Package datadir has what every data directory needs: no access for other users, a lock against a second process, and files that appear
// whole or not at all, also across a power loss.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// modeOthers are the permission bits of the group and of other users.
const modeOthers = 0o077

// Mkdir creates a folder that no other user can read, and its parents. In one that exists, the files and folders that ours reports are
// closed to other users if this user owns them: earlier versions left them open. So is the folder itself if it holds nothing else; another
// folder, such as /tmp, is not only ours to close.
func Mkdir(dir string, ours func(name string) bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	only := true
	for _, e := range entries {
		if !ours(e.Name()) {
			only = false
		} else if err := tighten(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if only {
		return tighten(dir)
	}
	return nil
}

// Is reports whether dir is the data directory of a worker or a leader, of whatever cluster.
func Is(dir string) bool {
	worker := regexp.MustCompile(`^[0-9a-f]{32}\n$`)
	leader := regexp.MustCompile(`^bridgefour log `)
	return holds(filepath.Join(dir, "identity"), worker) || holds(filepath.Join(dir, "log", "FORMAT"), leader)
}

// holds reports whether a small file has that content.
func holds(path string, content *regexp.Regexp) bool {
	const sizeMax = 64
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > sizeMax {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && content.Match(text)
}

// tighten closes a file or folder of this user to all others.
func tighten(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // it was temporary
	case err != nil:
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if info.Mode()&modeOthers == 0 || info.Mode()&fs.ModeSymlink != 0 || !ok || int(owner.Uid) != os.Geteuid() {
		return nil
	}
	return os.Chmod(path, info.Mode()&^modeOthers)
}

// ErrLocked means that another process holds a lock.
var ErrLocked = errors.New("locked by another process")

// Temporary is in the names of files that are being written.
const Temporary = ".tmp"

// KillTimeout is the wait for the lock of a process that was just killed: it keeps its locks until its memory has been freed.
const KillTimeout = 2 * time.Second

// Lock creates the file at path if needed and locks it for this process; if another process has it, it tries for the given time. Closing the
// file unlocks it; the kernel does the same when the process has ended, so it is never stale. With ErrLocked the file is open all the same,
// to be read and closed.
func Lock(path string, timeout time.Duration) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(timeout); ; time.Sleep(10 * time.Millisecond) { // flock has no timeout
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a file descriptor is small
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		case !time.Now().Before(end):
			return f, fmt.Errorf("lock %s: %w", path, ErrLocked)
		}
	}
}

// WriteFile makes the file at path hold data, atomically and durably.
func WriteFile(path string, data []byte) (err error) {
	dir, name := filepath.Split(path)
	tmp, err := os.CreateTemp(dir, name+Temporary+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name()) // the error that matters is err
		}
	}()
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync directory %s: %w", dir, err), d.Close())
	}
	return d.Close()
}

// DiskBytes is the space that a file takes on its disk: less than its size if it is sparse, more if space for it is preallocated.
func DiskBytes(info fs.FileInfo) int64 {
	const blockBytes = 512 // the unit of Blocks, whatever the file system
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * blockBytes
	}
	return 0
}
