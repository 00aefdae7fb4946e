package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// csvScan finds the rows of a CSV file (RFC 4180; the separator is a comma, semicolon, tab or vertical bar). A line end inside a quoted field
// does not end a row. A file with a quote elsewhere than around a field is refused, because programs differ in what it means.
type csvScan struct {
	at     int64 // of the next byte
	quoted bool
	opened int64 // offset of the last opening quote
	closed bool  // the last byte was a closing quote
	prev   byte
	want   int64                        // found is called for the first row that begins at or behind it
	found  func(row int64) (want int64) // returns the next want, which is behind row
}

func newCSVScan(want int64, found func(int64) int64) *csvScan {
	return &csvScan{prev: '\n', want: want, found: found}
}

// add scans the next bytes.
func (s *csvScan) add(block []byte) error {
	base := s.at
	for i := 0; i < len(block); {
		if s.quoted {
			end := bytes.IndexByte(block[i:], '"')
			if end < 0 {
				break
			}
			i += end + 1
			s.quoted, s.closed, s.prev = false, true, '"'
			continue
		}
		if s.closed {
			if c := block[i]; c != '"' && c != '\r' && c != '\n' && !isSeparator(c) {
				return s.fail(base + int64(i) - 1)
			}
			s.closed = false
		}
		end := bytes.IndexByte(block[i:], '"')
		plain := block[i:]
		if end >= 0 {
			plain = block[i : i+end]
		}
		s.rows(base+int64(i), plain)
		i += len(plain)
		if len(plain) > 0 {
			s.prev = plain[len(plain)-1]
		}
		if end < 0 {
			break
		}
		s.opened = base + int64(i)
		behindBOM := s.opened == 3 && s.prev == 0xbf
		if s.prev != '"' && s.prev != '\n' && !isSeparator(s.prev) && !behindBOM {
			return s.fail(s.opened)
		}
		i++
		s.quoted, s.prev = true, '"'
	}
	s.at = base + int64(len(block))
	return nil
}

// rows searches text outside of quoted fields.
func (s *csvScan) rows(at int64, text []byte) {
	for s.want-1 < at+int64(len(text)) {
		from := max(0, s.want-1-at)
		end := bytes.IndexByte(text[from:], '\n')
		if end < 0 {
			return
		}
		s.want = s.found(at + from + int64(end) + 1)
	}
}

// end checks the end of the file.
func (s *csvScan) end() error {
	if s.quoted {
		return fmt.Errorf("the quote at byte %d is not closed; use --split none, or --records lines if no field contains a line end", s.opened)
	}
	return nil
}

func (s *csvScan) fail(at int64) error {
	return fmt.Errorf("the quote at byte %d neither begins nor ends a field, so it is not clear where the row ends; "+
		"use --split none, or --records lines if no field contains a line end", at)
}

// Separators are what may be between the fields of a CSV row.
const Separators = ",;\t|"

func isSeparator(c byte) bool { return strings.IndexByte(Separators, c) >= 0 }

// csvSplitsMax bounds the splits of a CSV file: the beginning of each is in the log.
const csvSplitsMax = 1 << 18

// CSVBoundaries returns the offset f(i*split) for each split i of a file but the first. The rows of the header are not records: no split
// but the first begins in it. The file must have size bytes, and is not empty.
func CSVBoundaries(file io.Reader, size, split int64, header int) ([]int64, error) {
	if splits := (size-1)/split + 1; splits > csvSplitsMax {
		return nil, fmt.Errorf("%d splits of a CSV file are too many: at most %d; use a larger split", splits, csvSplitsMax)
	}
	boundaries := make([]int64, 0, (size-1)/split)
	rows := header
	// Of the header, every row is wanted; of the others, the first of each split.
	next := func(row int64) int64 {
		if rows > 0 {
			return row + 1
		}
		at := split * int64(len(boundaries)+1)
		for ; at <= row && at < size; at += split {
			boundaries = append(boundaries, row)
		}
		return max(at, row+1)
	}
	scan := newCSVScan(0, func(row int64) int64 { rows = max(0, rows-1); return next(row) })
	scan.want = next(0)
	buf := make([]byte, 256<<10)
	for {
		n, err := file.Read(buf)
		if bad := scan.add(buf[:n]); bad != nil {
			return nil, bad
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if err := scan.end(); err != nil {
		return nil, err
	}
	if scan.at != size {
		return nil, fmt.Errorf("the file has %d bytes, and had %d when it was listed: it was changed meanwhile", scan.at, size)
	}
	for len(boundaries) < cap(boundaries) {
		boundaries = append(boundaries, size)
	}
	return boundaries, nil
}
