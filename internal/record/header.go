package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
)

// Limits of a header: every split repeats it.
const (
	HeaderLinesMax = 10_000
	headerBytesMax = 1 << 20
)

// Header reads the first lines of a file, or rows of CSV, and returns them with the bytes that were read behind them. A file with fewer
// lines is all header.
func Header(file io.Reader, kind *Kind, lines int) (header, ahead []byte, err error) {
	var text []byte
	end := int64(-1) // of the header
	found := func(row int64) int64 {
		if lines--; lines > 0 {
			return row + 1
		}
		end = row
		return math.MaxInt64
	}
	scan := newCSVScan(1, found)
	add := scan.add
	if !kind.IsCSV() {
		add = func(block []byte) error {
			scan.rows(scan.at, block)
			scan.at += int64(len(block))
			return nil
		}
	}
	for {
		used := len(text)
		text = append(text, make([]byte, probe)...)
		n, err := file.Read(text[used:])
		text = text[:used+n]
		bad := add(text[used:])
		eof := errors.Is(err, io.EOF)
		switch {
		case end >= 0 && end <= headerBytesMax: // what is behind the header does not matter
			return bytes.Clone(text[:end]), text[end:], nil
		case bad != nil:
			return nil, nil, fmt.Errorf("header: %w", bad)
		case len(text) > headerBytesMax:
			return nil, nil, fmt.Errorf("the first lines, its header, have more than %d bytes", headerBytesMax)
		case eof && kind.IsCSV() && scan.end() != nil:
			return nil, nil, fmt.Errorf("header: %w", scan.end())
		case eof:
			return text, nil, nil
		case err != nil:
			return nil, nil, err
		}
	}
}
