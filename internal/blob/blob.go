package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"syscall"
)

// Info describes a file.
type Info struct {
	Name Location
	Version
	Folder bool // set by Stat only
}

// File is a file that is open for reading.
type File interface {
	io.ReadCloser
	// Version returns the current version of the open file, also if another file has its name now.
	Version() (Version, error)
}

// LocalFile is a File of the operating system.
type LocalFile struct{ *os.File }

// Keep filters a listing: it reports whether to list the file name, or to descend into it if it is a folder. It is called
// concurrently. For a link with an unknown target it is called for both kinds.
type Keep func(name Location, folder bool) bool

// Linked is told where the links lead that a listing follows: to files and folders, with links resolved, or to where nothing is yet. A target that the
// listing contains anyway is left out.
type Linked func(target Location)

// Store holds files by name. All methods may be called concurrently. If a file does not exist, the error satisfies
// errors.Is(err, fs.ErrNotExist).
type Store interface {
	// Stat follows links. A name that is neither a file nor a folder, such as a pipe or a device, returns a [SpecialError].
	Stat(ctx context.Context, name Location) (Info, error)

	// List yields the files below dir, at any depth, in byte order of their names, filtered by keep (nil: everything). A missing
	// folder has no files. An unreadable entry is yielded with its name (that of a folder ends in "/") and an error, and the
	// listing continues. Pipes, sockets and devices are skipped. Links are followed, but each target is listed once: a link to
	// something that the listing contains under its own name is skipped, and so is a cycle. Linked may be nil.
	List(ctx context.Context, dir Location, keep Keep, linked Linked) iter.Seq2[Info, error]

	// Open opens a file for reading from offset. A local file is a LocalFile.
	Open(ctx context.Context, name Location, offset int64) (File, error)

	// Create starts a file and creates the folders it needs. A file with a private name must be new (otherwise fs.ErrExist) and
	// keeps that name until Publish is called with the same pair of names; an object store may upload to final from the start,
	// and complete the upload then. final is empty if the file is read under its private name, or if it is not known.
	// A file without a private name appears under final at Commit or Prepare, complete, and replaces what was there.
	Create(ctx context.Context, private, final Location) (Writer, error)
	// Sync makes prepared files and their names durable. Many files at once cost little more than one.
	Sync(ctx context.Context, names ...Location) error

	// Publish renames private to final, atomically, and replaces what was there; it is durable after SyncDir. It is idempotent:
	// if private is missing and final exists, it succeeds. The folder of final must exist.
	Publish(ctx context.Context, private, final Location) error

	// SyncDir makes the effects of Publish and the Remove methods on the names in dir durable. dir may be missing.
	SyncDir(ctx context.Context, dir Location) error

	// Resolve follows the links in name, as far as it exists, and those that lead to where nothing is yet.
	Resolve(ctx context.Context, name Location) Location
	// CheckWritable checks, without changing anything, that files can be created below dir, which may be missing.
	CheckWritable(ctx context.Context, dir Location) error

	// MkdirAll creates a folder and its parents, if the store has folders.
	MkdirAll(ctx context.Context, dir Location) error

	// Remove removes files; they may be missing.
	Remove(ctx context.Context, names ...Location) error

	// RemoveAll removes a folder and everything below it; it may be missing.
	RemoveAll(ctx context.Context, dir Location) error

	// RemoveEmpty removes a folder if it is empty, and does nothing otherwise.
	RemoveEmpty(ctx context.Context, dir Location) error
}

// Writer writes one file. Exactly one of Commit, Prepare and Abort ends it; a later Abort does nothing and may be deferred.
type Writer interface {
	io.Writer
	// Commit ends the file and makes it durable.
	Commit() error
	// Prepare ends the file without making it durable: Sync does that for many files at less cost.
	Prepare() error
	// Abort discards the file.
	Abort()
}

// SpecialError reports a name that is neither a file nor a folder.
type SpecialError struct {
	Name Location
	Mode fs.FileMode
}

// IsMissing reports whether an error says that nothing has the name.
func IsMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// IsReplaced reports whether an error says that something other than a file has the name.
func IsReplaced(err error) bool {
	_, special := errors.AsType[*SpecialError](err)
	return special || errors.Is(err, syscall.EISDIR)
}

func (e *SpecialError) Error() string {
	kind := "not a regular file"
	switch {
	case e.Mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case e.Mode&fs.ModeSocket != 0:
		kind = "a socket"
	case e.Mode&fs.ModeDevice != 0:
		kind = "a device"
	}
	return fmt.Sprintf("%q is %s; only files and folders can be used", e.Name, kind)
}
