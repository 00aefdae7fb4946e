package blob_test

import (
	"errors"
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgefour/bridgefour/internal/blob"
)

// cached returns how many pages of a file are in memory.
func cached(t *testing.T, path string) uint64 {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close() //nolint:errcheck // only read
	var stat unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &stat, 0); errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skip("this kernel does not tell: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return stat.Cache
}

// TestUncache: a file of a large output leaves the memory of the system, and that of a small one stays there.
func TestUncache(t *testing.T) {
	const size = 1 << 20
	dir := t.TempDir()
	var fs unix.Statfs_t
	must(t, unix.Statfs(dir, &fs))
	if fs.Type != unix.EXT4_SUPER_MAGIC && fs.Type != unix.XFS_SUPER_MAGIC && fs.Type != unix.BTRFS_SUPER_MAGIC {
		t.Skip("the temporary folder may be in memory only")
	}
	stores, path := blob.Stores{}, dir+"/file"
	must(t, os.WriteFile(path, make([]byte, size), 0o600))
	must(t, stores.Sync(t.Context(), blob.Location(path)))
	stores.Uncache(t.Context(), blob.Location(path), size)
	if n := cached(t, path); n == 0 {
		t.Error("the file of a small output is not in memory")
	}
	stores.Uncache(t.Context(), blob.Location(path), math.MaxUint64)
	if n := cached(t, path); n > 0 {
		t.Errorf("%d pages of a file of a large output are in memory", n)
	}
	stores.Uncache(t.Context(), blob.Location(dir+"/missing"), math.MaxUint64)
}
