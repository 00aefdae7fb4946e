package format

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// NewText returns a reader of the text in a file, which may be compressed.
func NewText(file io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(file, PrefixSize)
	prefix, err := in.Peek(PrefixSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch f := Detect(prefix); {
	case f.Compressed():
		d := new(Decoder)
		if err := d.Reset(in, f, 0); err != nil {
			return nil, d.Explain(0, err)
		}
		return &text{d: d}, nil
	case f == UTF16:
		return nil, errors.New("this is UTF-16 text: convert it to UTF-8, as with iconv -f UTF-16 -t UTF-8")
	case f != Text && f != Binary:
		return nil, fmt.Errorf("this is %s, not text: gzip, zstd and bzip2 are read, others must be decompressed or converted first", f)
	}
	return in, nil
}

// text is compressed.
type text struct {
	d *Decoder
	n int64
}

func (t *text) Read(p []byte) (int, error) {
	n, err := t.d.Read(p)
	t.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = t.d.Explain(t.n, err)
	}
	return n, err
}
