package replica

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"golang.org/x/sys/unix"

	"github.com/bridgefour/bridgefour/internal/datadir"
)

// Trim frees the preallocated space of a log that no process uses: the next file, which a process that was killed has left, and the
// zeros at the end of the newest one. That is replaced by a sparse copy with the same content and size, so a crash or power loss at any
// moment leaves the log as it was.
func Trim(dir string) (err error) {
	if !wal.Exist(filepath.Join(dir, walName)) {
		return nil
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	j := &journal{dir: dir}
	segs, err := listSegments(j.walDir())
	if err == nil {
		err = j.removeTemporary()
	}
	if err != nil || len(segs) == 0 {
		return err
	}
	path := segs[len(segs)-1].path
	if sparse, err := isSparse(path); sparse || err != nil {
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

// isSparse reports whether a file takes less space than its size, as one that was trimmed does.
func isSparse(path string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false, fmt.Errorf("trim log: %w", err)
	}
	return st.Blocks*blockUnit < st.Size, nil
}

// blockUnit is the unit of Stat_t.Blocks.
const blockUnit = 512

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
