package runner

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskSpace tells of the file system that path is on, or would be.
func diskSpace(path string) (free, total uint64, ok bool) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if err == nil {
			unit := uint64(st.Bsize)
			return st.Bavail * unit, st.Blocks * unit, true
		}
		parent := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || parent == path {
			return 0, 0, false
		}
		path = parent
	}
}
