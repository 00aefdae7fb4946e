package format

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// WindowDefault is the zstd window that needs no permission, as in the zstd tool: a decoder takes about that much memory. WindowMax is
// that of zstd --long=31.
const (
	WindowDefault = 128 << 20
	WindowMax     = 2 << 30
)

// A zstd decoder keeps a buffer of its window. It is reused for the next file only if its file was small and began with a frame of a
// small window: that saves the time for the many small files, and releases the memory of the large.
const (
	keptWindow  = 8 << 20
	inputBuffer = 128 << 10
)

var errTrailing = errors.New("trailing garbage: other bytes follow the compressed data")

// A WindowError is a zstd window that is larger than allowed.
type WindowError struct {
	Window uint64 // 0: not known
	Max    uint64
}

func (e *WindowError) Error() string {
	if e.Window == 0 {
		return fmt.Sprintf("its window exceeds the limit of %d MiB", e.Max>>20)
	}
	return fmt.Sprintf("its window of %d MiB exceeds the limit of %d MiB", e.Window>>20, e.Max>>20)
}

// Decoder decompresses files of one or more concatenated streams. It reuses its buffers from file to file. The zero value is ready for
// Reset.
type Decoder struct {
	format Format
	source counter
	in     *bufio.Reader
	gzip   *gzip.Reader
	zstd   *zstd.Decoder
	window uint64 // that zstd allows
	keep   bool   // zstd may be kept
	reader io.Reader
}

// Reset starts a file of a format that is Compressed. windowMax bounds the window of zstd; 0: [WindowDefault].
func (d *Decoder) Reset(source io.Reader, f Format, windowMax uint64) error {
	d.format, d.source = f, counter{r: source}
	if d.in == nil {
		d.in = bufio.NewReaderSize(&d.source, inputBuffer)
	}
	d.in.Reset(&d.source)
	var err error
	switch f {
	case Gzip:
		if d.gzip == nil {
			d.gzip = new(gzip.Reader)
		}
		d.reader = d.gzip
		if err = d.gzip.Reset(d.in); err == nil {
			d.gzip.Multistream(false)
		}
	case Zstd:
		err = d.resetZstd(windowMax)
	case Bzip2:
		d.reader = bzip2.NewReader(d.in)
	case Text, UTF16, Binary:
		return fmt.Errorf("%s is not a compressed format", f)
	}
	return notEmpty(err)
}

func (d *Decoder) resetZstd(windowMax uint64) error {
	if windowMax == 0 {
		windowMax = WindowDefault
	}
	var header zstd.Header
	prefix, _ := d.in.Peek(zstd.HeaderMaxSize) // an error is met again by the decoder
	err := header.Decode(prefix)
	if err == nil && header.WindowSize > windowMax {
		return &WindowError{header.WindowSize, windowMax}
	}
	d.keep = err == nil && !header.Skippable && header.WindowSize <= keptWindow
	if d.zstd == nil || d.window != windowMax {
		d.closeZstd()
		// One goroutine: parallelism comes from the slots.
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(windowMax))
		if err != nil {
			return err
		}
		d.window = windowMax
	}
	d.reader = d.zstd
	return d.zstd.Reset(d.in)
}

// notEmpty makes io.EOF where data is expected an error: the file is truncated.
func notEmpty(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Read reads decompressed bytes.
func (d *Decoder) Read(p []byte) (int, error) {
	n, err := d.reader.Read(p)
	for n == 0 && errors.Is(err, io.EOF) && d.format == Gzip {
		var more bool
		if more, err = d.nextMember(); !more {
			return 0, err
		}
		n, err = d.gzip.Read(p)
	}
	switch {
	case errors.Is(err, zstd.ErrMagicMismatch), errors.Is(err, bzip2.StructuralError("bad magic value in continuation file")):
		err = errTrailing // that of the first stream has been detected
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = &WindowError{Max: d.window}
	}
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil // of a gzip member: others may follow
	}
	return n, err
}

// nextMember starts the next gzip member. Zero bytes may end the file, as on tapes and block devices.
func (d *Decoder) nextMember() (more bool, err error) {
	next, err := d.in.Peek(2)
	if len(next) == 0 {
		return false, err
	}
	if string(next) == "\x1f\x8b" {
		if err := d.gzip.Reset(d.in); err != nil {
			return false, notEmpty(err)
		}
		d.gzip.Multistream(false)
		return true, nil
	}
	for {
		switch c, err := d.in.ReadByte(); {
		case err != nil:
			return false, err
		case c != 0:
			return false, errTrailing
		}
	}
}

// Consumed returns the number of bytes read from the file.
func (d *Decoder) Consumed() uint64 { return d.source.n }

// Release releases the file and large buffers.
func (d *Decoder) Release() {
	if d.zstd != nil && d.keep && d.source.n <= inputBuffer {
		_ = d.zstd.Reset(nil) // never fails for nil
	} else {
		d.closeZstd()
	}
	d.source = counter{r: eof{}}
	d.reader = nil
}

// Close releases the decoders.
func (d *Decoder) Close() {
	d.closeZstd()
	*d = Decoder{}
}

func (d *Decoder) closeZstd() {
	if d.zstd != nil {
		d.zstd.Close()
		d.zstd = nil
	}
}

// Explain describes an error of Reset or Read, after that many bytes of text.
func (d *Decoder) Explain(at int64, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file ends too early")
	}
	return fmt.Errorf("bad %s data after %d bytes of text: %w", d.format, at, err)
}

type counter struct {
	r io.Reader
	n uint64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += uint64(n)
	return n, err
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
