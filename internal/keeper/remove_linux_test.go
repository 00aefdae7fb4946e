package keeper

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemoveBelow removes more nested folders than a process can open, some of them closed by their owner, and what is in them.
func TestRemoveBelow(t *testing.T) { //nolint:paralleltest // it limits the files that are open
	dir, outside := t.TempDir(), t.TempDir()
	open := func(at int, name string) int {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	top := open(unix.AT_FDCWD, dir)
	defer unix.Close(top) //nolint:errcheck // only read from
	writeFile := func(at int, name string) {
		fd, err := unix.Openat(at, name, unix.O_CREAT|unix.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
	}
	kept := open(unix.AT_FDCWD, outside)
	writeFile(kept, "file")
	at := open(top, ".")
	const deep = 1000
	for i := range deep {
		if err := unix.Mkdirat(at, "d", 0o700); err != nil {
			t.Fatal(err)
		}
		if i%99 == 0 {
			writeFile(at, "f")
			if err := unix.Symlinkat(outside, at, "link"); err != nil {
				t.Fatal(err)
			}
		}
		next := open(at, "d")
		if i%7 == 3 {
			_ = unix.Fchmod(at, 0)
		}
		_ = unix.Close(at)
		at = next
	}
	_ = unix.Close(at)
	if err := unix.Mkdirat(top, raised+"0", 0o700); err != nil {
		t.Fatal(err)
	}

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) //nolint:errcheck // it was so
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: deep / 2, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	removeBelow(top)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("in a folder that links refer to: %v, %v, want its file", left, err)
	}
}
