package blob

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"
)

// Info is what a store knows of a file.
type Info struct {
	Name     Location
	Size     int64
	Modified time.Time
	Folder   bool // Stat only: names lie below it
}

// Keep says whether a listing goes into a folder or names a file. It spares a store the work for what nobody wants. It is
// called from several goroutines at once, and for a link of which nobody knows yet what it leads to with both.
type Keep func(name Location, folder bool) bool

// Store holds files by name. All methods are for concurrent use. A file that is not there gives an error for which
// errors.Is(err, fs.ErrNotExist) is true.
type Store interface {
	// Stat follows links. What is neither file nor folder (a pipe, a device) is a [SpecialError].
	Stat(ctx context.Context, name Location) (Info, error)

	// List names the files below dir, at any depth, in byte order of their names; keep (nil: everything) limits it. A folder that is
	// not there has no files. An entry that cannot be read comes with its name (a folder's ends in "/") and an error, and the
	// listing goes on after it. Pipes, sockets and devices are left out. Links are followed, but what a link leads to is listed
	// once: one that leads to what the listing has under its own name is left out, and so is a circle.
	List(ctx context.Context, dir Location, keep Keep) iter.Seq2[Info, error]

	// Open reads from offset on. For local files the reader is an *os.File.
	Open(ctx context.Context, name Location, offset int64) (io.ReadCloser, error)

	// Create starts a file, and the folders it needs. A file with a private name is a new one (fs.ErrExist if there is one) and
	// stands there until Publish is called with the same pair of names; an object store may upload to final from the start, and
	// complete the upload then. final is empty if the file is read under its private name, or if the final one is not known.
	// A file without a private name appears under final at Commit or Prepare, whole, in place of what stood there.
	Create(ctx context.Context, private, final Location) (Writer, error)
	// Sync makes prepared files durable, with their names, however they were written. Many at once cost little more than one.
	Sync(ctx context.Context, names ...Location) error

	// Publish gives the file private the name final, in one step and in place of what stood there; durable after SyncDir. It can
	// be repeated: private gone and final there is success. final's folder must exist.
	Publish(ctx context.Context, private, final Location) error

	// SyncDir makes durable what Publish and the Removes did to the names in dir; a folder that is not there is fine.
	SyncDir(ctx context.Context, dir Location) error

	// Resolve follows the links in name, as far as it is there.
	Resolve(ctx context.Context, name Location) Location
	// CheckWritable tells, without changing anything, whether files could be made below dir, which need not be there.
	CheckWritable(ctx context.Context, dir Location) error

	// MkdirAll makes a folder and those above it, where the store has such things.
	MkdirAll(ctx context.Context, dir Location) error

	// Remove removes files; one that is not there is fine.
	Remove(ctx context.Context, names ...Location) error

	// RemoveAll removes a folder and all below it; one that is not there is fine.
	RemoveAll(ctx context.Context, dir Location) error

	// RemoveEmpty removes a folder if nothing is in it, and is content otherwise.
	RemoveEmpty(ctx context.Context, dir Location) error
}

// Local is a store whose files are files of the operating system: a command can have one as its standard output.
type Local interface {
	Store
	// CreateFile is Create for a file with a private name: it is open for reading and writing.
	CreateFile(ctx context.Context, private Location) (*os.File, error)
	// Free tells how much room is left in dir, or where it would be made, and how much there is in all.
	Free(dir Location) (free, total uint64, ok bool)
}

// Writer writes one file. It ends with one of Commit, Prepare and Abort; an Abort after either does nothing and may be deferred.
type Writer interface {
	io.Writer
	// Commit ends the file and makes it durable.
	Commit() error
	// Prepare ends the file; Sync makes it durable, cheaper for many than Commit for each.
	Prepare() error
	// Abort drops the file.
	Abort()
}

// SpecialError says that a name belongs to neither a file nor a folder.
type SpecialError struct {
	Name Location
	Mode fs.FileMode
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
