package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// place is where in a regular file the standard output of a run begins.
type place struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Offset int64  `json:"offset"`
}

// placeOf returns where the next byte that is written to w goes, and whether that is the end of the file; nil: it is no regular file.
func placeOf(w io.Writer) (at *place, end bool) {
	file, ok := w.(*os.File)
	if !ok {
		return nil, false
	}
	fd := int(file.Fd()) //nolint:gosec // a file descriptor is small
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, false
	}
	at = &place{Device: uint64(stat.Dev), Inode: stat.Ino, Offset: stat.Size} //nolint:gosec,unconvert,nolintlint // its type differs between systems
	if flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0); err == nil && flags&unix.O_APPEND != 0 {
		return at, true
	}
	offset, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, false
	}
	at.Offset = offset
	return at, offset == stat.Size
}

// printedSince returns what w, a file that is appended to, has got since a run began to print to it; nil: nothing, or it is another file.
func printedSince(w io.Writer, begin *place) io.ReadCloser {
	at, end := placeOf(w)
	if at == nil || begin == nil || !end || at.Device != begin.Device || at.Inode != begin.Inode || at.Offset <= begin.Offset {
		return nil
	}
	file, err := os.Open(fmt.Sprintf("/dev/fd/%d", w.(*os.File).Fd())) //nolint:forcetypeassert // it has a place
	if err != nil {
		return nil // without the right to read it
	}
	return struct {
		io.Reader
		io.Closer
	}{bufio.NewReader(io.NewSectionReader(file, begin.Offset, at.Offset-begin.Offset)), file}
}

// continuing is a writer of outputs that leaves out what is printed already. If that is not what the outputs begin with, it writes nothing.
type continuing struct {
	w       io.Writer
	printed io.Reader // what is not compared yet
	equal   int64     // so many bytes were the same
	over    bool      // all of printed was
	differs bool
}

func (c *continuing) Write(p []byte) (int, error) {
	for rest := p; !c.over; {
		if c.differs || len(rest) == 0 {
			return len(p), nil
		}
		text := make([]byte, min(len(rest), 64<<10))
		n, err := io.ReadFull(c.printed, text)
		same := 0
		for same < n && text[same] == rest[same] {
			same++
		}
		c.equal += int64(same)
		rest = rest[same:]
		switch ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); {
		case same < n:
			c.differs = true
		case err != nil && !ended:
			return len(p) - len(rest), err
		case ended:
			c.over = true
			if _, err := c.w.Write(rest); err != nil {
				return 0, err
			}
			return len(p), nil
		}
	}
	return c.w.Write(p)
}

// end reports whether all that was printed is what the outputs, of which there are no more, begin with.
func (c *continuing) end() (bool, error) {
	if c.differs || c.over {
		return !c.differs, nil
	}
	switch _, err := io.ReadFull(c.printed, make([]byte, 1)); {
	case errors.Is(err, io.EOF):
		return true, nil
	case err != nil:
		return false, err
	}
	return false, nil
}
