//go:build !linux

package blob

import (
	"context"
	"errors"
	"math"
	"os"
	"syscall"
)

// syncFiles makes the data of files durable; the caller syncs their folders.
func syncFiles(ctx context.Context, names, _ []Location) error { return fsyncEach(ctx, names) }

// freeSpace is not implemented.
func freeSpace(Location) (space, error) { return space{}, errors.ErrUnsupported }

// NewUserFiles is not implemented.
func NewUserFiles(*syscall.Credential) Store { panic("not implemented on this system") }

func inContext(_ context.Context, f func()) { f() }

func fsUser() int { return os.Geteuid() }

// systemMemory is not known.
func systemMemory() uint64 { return math.MaxUint64 }

// uncache is not implemented.
func uncache(*os.File) {}

// access is not implemented: the first task fails instead.
func access(Location) error { return nil }

// statName returns the version of a file, and what it is. It has no identity: versions are compared by size and time.
func statName(name Location, _ bool) (v Version, folder, regular bool, err error) {
	fi, err := os.Stat(string(name))
	if err != nil {
		return Version{}, false, false, err
	}
	return Version{Size: fi.Size(), Modified: fi.ModTime().UnixNano()}, fi.IsDir(), fi.Mode().IsRegular(), nil
}

// statFile is statName for an open file.
func statFile(f *os.File) (Version, error) {
	fi, err := f.Stat()
	if err != nil {
		return Version{}, err
	}
	return Version{Size: fi.Size(), Modified: fi.ModTime().UnixNano()}, nil
}
