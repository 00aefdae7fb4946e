package record

import "bytes"

// search computes f(x) from the bytes behind x.
type search struct {
	kind   *Kind
	inLine bool // the next byte is not the first of a line that could begin a record
}

// next returns the number of bytes of data that are before f(x), and whether that is f(x). If it is not, the caller repeats the other
// bytes with more behind them. eof: data is the rest of the file; without a record, f(x) is its end.
func (s *search) next(data []byte, eof bool) (n int, found bool) {
	for {
		if s.inLine {
			end := bytes.IndexByte(data[n:], '\n')
			if end < 0 {
				return len(data), false
			}
			n += end + 1
			s.inLine = false
		}
		if n == len(data) {
			return n, n > 0 && s.kind.lines // whatever comes is a record
		}
		switch s.kind.begins(s.kind, data[n:], eof) {
		case yes:
			return n, true
		case more:
			return n, false
		case no:
			s.inLine = true
		}
	}
}
