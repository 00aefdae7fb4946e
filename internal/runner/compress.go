package runner

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/bridgefour/bridgefour"
)

// format is a compression format, identified by the suffix of the file's name.
type format string

const (
	plainText format = ""
	gzipped   format = "gzip"
	zstandard format = "zstd"
	bzipped   format = "bzip2"
)

func compression(path string) format {
	switch {
	case hasSuffix(path, ".gz"):
		return gzipped
	case hasSuffix(path, ".zst"):
		return zstandard
	case hasSuffix(path, ".bz2"):
		return bzipped
	}
	return plainText
}

// hasSuffix ignores case, as planning does, which makes such a file a single split.
func hasSuffix(path, suffix string) bool {
	return len(path) >= len(suffix) && strings.EqualFold(path[len(path)-len(suffix):], suffix)
}

// zstdWindowMax is the window of zstd --long=31, the maximum of the tool.
const zstdWindowMax = 2 << 30

// decompressor reads a compressed file of one or more concatenated streams. It reuses its decoders.
type decompressor struct {
	kind   format
	file   countingReader
	in     *bufio.Reader
	gzip   *gzip.Reader
	zstd   *zstd.Decoder
	reader io.Reader
}

func (d *decompressor) begin(file io.Reader, kind format) error {
	const inputBuffer = 128 << 10
	d.kind, d.file = kind, countingReader{r: file}
	if d.in == nil {
		d.in = bufio.NewReaderSize(&d.file, inputBuffer)
	}
	d.in.Reset(&d.file)
	var err error
	switch kind {
	case gzipped:
		if d.gzip == nil {
			d.gzip = new(gzip.Reader)
		}
		d.reader, err = d.gzip, d.gzip.Reset(d.in)
	case zstandard:
		if d.zstd == nil {
			// One goroutine: parallelism comes from the slots.
			d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindowMax))
			if err != nil {
				return err
			}
		}
		d.reader, err = d.zstd, d.zstd.Reset(d.in)
	case bzipped:
		d.reader = bzip2.NewReader(d.in)
	case plainText:
		d.reader = d.in
	}
	return notEmpty(err)
}

// notEmpty makes io.EOF where a header is expected an error: the file is truncated.
func notEmpty(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Read reads decompressed bytes.
func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.reader.Read(p)
	if d.file.n == 0 {
		err = notEmpty(err) // zstd and bzip2 accept an empty file
	}
	return n, err
}

func (d *decompressor) consumed() uint64 { return d.file.n }

// release releases the file.
func (d *decompressor) release() {
	d.file = countingReader{r: eofReader{}}
	d.reader = nil
	if d.zstd != nil {
		_ = d.zstd.Reset(nil) // never fails for nil
	}
}

func (d *decompressor) close() {
	if d.zstd != nil {
		d.zstd.Close()
	}
	*d = decompressor{}
}

func corruptError(path string, kind format, at int64, err error) error {
	cause := err.Error()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		cause = "the file ends too early"
	}
	return bridgefour.BadInput(fmt.Errorf("input %q: bad %s data after %d bytes of text: %s", path, kind, at, cause))
}

type countingReader struct {
	r io.Reader
	n uint64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += uint64(n)
	return n, err
}

type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }
