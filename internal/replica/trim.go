package replica

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/bridgefour/bridgefour/internal/datadir"
)

// Trim frees the preallocated space of a log that no process uses: the next file, which a process that was killed has left, and the
// zeros at the end of the newest one. That is replaced by a sparse copy with the same content and size, so a crash or power loss at any
// moment leaves the log as it was.
func Trim(dir string) (err error) {
	j := &journal{dir: dir}
	if !wal.Exist(j.walDir()) {
		return nil
	}
	segs, err := listSegments(j.walDir())
	if err != nil {
		return err
	}
	path := segs[len(segs)-1].path
	if sparse, err := isSparse(path); sparse || err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := j.removeTemporary(); err != nil {
		return err
	}
	if err := copySparse(path, path+tmpExt); err != nil {
		return fmt.Errorf("trim log: %w", errors.Join(err, os.RemoveAll(path+tmpExt)))
	}
	if err := os.Rename(path+tmpExt, path); err != nil {
		return fmt.Errorf("trim log: %w", err)
	}
	return datadir.SyncDir(filepath.Dir(path))
}

// Copy copies the log in a data directory, which another process may use, to an empty one: what is durable when it is called is in the copy.
func Copy(from, to string) error {
	snaps := snapStore{dir: filepath.Join(from, "snap")}
	positions, err := snaps.list()
	if err != nil {
		return err
	}
	files := []string{filepath.Join(from, formatFile)}
	if mark, err := readOpenMark(from); err != nil {
		return err
	} else if mark.name != "" {
		files = append(files, filepath.Join(from, openMarkName))
	}
	for _, p := range positions {
		files = append(files, snaps.path(p))
	}
	segs, err := listSegments(filepath.Join(from, walName))
	if err != nil {
		return err
	}
	for _, s := range segs {
		files = append(files, s.path)
	}
	for _, name := range []string{"snap", walName} {
		if err := os.MkdirAll(filepath.Join(to, name), 0o700); err != nil {
			return fmt.Errorf("copy log: %w", err)
		}
	}
	for _, f := range files {
		name, err := filepath.Rel(from, f)
		if err == nil {
			err = copySparse(f, filepath.Join(to, name))
		}
		if err != nil {
			return fmt.Errorf("copy log: %w", err)
		}
	}
	return nil
}

// isSparse reports whether a file takes less space than its size, as one that was trimmed does.
func isSparse(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("trim log: %w", err)
	}
	return datadir.DiskBytes(info) < info.Size(), nil
}

// copySparse copies a file durably; blocks of zeros take no space in the copy. Blocks are read from the end, so the copy of a file that
// another process appends to is what the file was at some moment: everything before what was copied first.
func copySparse(from, to string) (err error) {
	const blockBytes = 4 << 10
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf, zeros := make([]byte, blockBytes), make([]byte, blockBytes)
	for at := info.Size() / blockBytes * blockBytes; at >= 0; at -= blockBytes {
		n, err := in.ReadAt(buf[:min(blockBytes, info.Size()-at)], at)
		if err != nil {
			return err
		}
		if bytes.Equal(buf[:n], zeros[:n]) {
			continue
		}
		if _, err := out.WriteAt(buf[:n], at); err != nil {
			return err
		}
	}
	return errors.Join(out.Truncate(info.Size()), out.Sync())
}
