package blob

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"
	"time"
)

// Info is what a store knows of a file.
type Info struct {
	Name     string // full path, any bytes
	Size     int64
	Modified time.Time
	Folder   bool // Stat only: names lie below it
}

// Keep says whether a listing goes into a folder or names a file. It spares a store the work for what nobody wants. It is
// called from several goroutines at once, and for a link of which nobody knows yet what it leads to with both.
type Keep func(name string, folder bool) bool

// Store holds files by name. All methods are for concurrent use. A file that is not there gives an error for which
// errors.Is(err, fs.ErrNotExist) is true.
type Store interface {
	// Stat follows links. What is neither file nor folder (a pipe, a device) is a [SpecialError].
	Stat(ctx context.Context, name string) (Info, error)

	// List names the files below dir, at any depth, in byte order of their names; keep (nil: everything) limits it. A folder that is
	// not there has no files. An entry that cannot be read comes with its name (a folder's ends in "/") and an error, and the
	// listing goes on after it. Pipes, sockets and devices are left out. Links are followed, but what a link leads to is listed
	// once: one that leads to what the listing has under its own name is left out, and so is a circle.
	List(ctx context.Context, dir string, keep Keep) iter.Seq2[Info, error]

	// Open reads from offset on. For local files the reader is an *os.File.
	Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error)

	// Create starts a file, and the folders it needs. Nothing stands under name before Prepare or Commit; what stood there is
	// replaced then.
	Create(ctx context.Context, name string) (Writer, error)

	// Sync makes prepared files durable, with their names, however they were written. Many at once cost little more than one.
	Sync(ctx context.Context, names ...string) error

	// Publish gives the file from the name to, in one step and in place of what stood there; durable after SyncDir. It can be
	// repeated: from gone and to there is success. The caller sees to it that to's folder exists.
	Publish(ctx context.Context, from, to string) error

	// SyncDir makes durable what Publish and the Removes did to the names in dir; a folder that is not there is fine.
	SyncDir(ctx context.Context, dir string) error

	// CheckWritable tells, without changing anything, whether files could be made below dir, which need not be there.
	CheckWritable(ctx context.Context, dir string) error

	// MkdirAll makes a folder and those above it, where the store has such things.
	MkdirAll(ctx context.Context, dir string) error

	// Remove removes files; one that is not there is fine.
	Remove(ctx context.Context, names ...string) error

	// RemoveAll removes a folder and all below it; one that is not there is fine.
	RemoveAll(ctx context.Context, dir string) error

	// RemoveEmpty removes a folder if nothing is in it, and is content otherwise.
	RemoveEmpty(ctx context.Context, dir string) error
}

// Writer writes one file. It ends with one of Commit, Prepare and Abort; an Abort after either does nothing and may be deferred.
type Writer interface {
	io.Writer
	// Commit shows the file under its name, whole and durable.
	Commit() error
	// Prepare shows the file under its name; Sync makes it durable, cheaper for many than Commit for each.
	Prepare() error
	// Abort drops the file.
	Abort()
}

// SpecialError says that a name belongs to neither a file nor a folder.
type SpecialError struct {
	Name string
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

// For gives the store of a location and the location's name in it. Known are absolute paths, file:// with an absolute path,
// and mem:// (a new, empty store in memory, for tests).
func For(location string) (Store, string, error) {
	if scheme, rest, ok := strings.Cut(location, "://"); ok && isScheme(scheme) {
		switch scheme {
		case "file":
			if !path.IsAbs(rest) {
				return nil, "", fmt.Errorf("%q names a host; write file:/// and an absolute path", location)
			}
			return NewFiles(), path.Clean(rest), nil
		case "mem":
			return NewMemory(), path.Clean("/" + rest), nil
		}
		return nil, "", fmt.Errorf("%q: %s:// is not supported; use an absolute path or file://", location, scheme)
	}
	if !path.IsAbs(location) {
		return nil, "", fmt.Errorf("%q is not an absolute path", location)
	}
	return NewFiles(), path.Clean(location), nil
}

// isScheme reports whether s looks as RFC 3986 wants a scheme; "/a/b" in front of "://" is the path of a strange file.
func isScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(c))) {
			return false
		}
	}
	return s != ""
}
