package jobs

import (
	"encoding/binary"
	"strconv"
)

// statistics are those of the values of a key. Sums are exact, so that they do not depend on the order of the additions.
type statistics struct {
	count, distinct uint64
	min, max, sum   number
}

func (s statistics) add(t statistics) statistics {
	s.count += t.count
	s.distinct += t.distinct
	s.sum = s.sum.plus(t.sum)
	if t.min.compare(s.min) < 0 {
		s.min = t.min
	}
	if t.max.compare(s.max) > 0 {
		s.max = t.max
	}
	return s
}

// column appends a column of the output.
func (s statistics) column(to []byte, name string) []byte {
	switch name {
	case "count":
		return strconv.AppendUint(to, s.count, 10)
	case "distinct":
		return strconv.AppendUint(to, s.distinct, 10)
	case "min":
		return s.min.appendTo(to)
	case "max":
		return s.max.appendTo(to)
	case "sum":
		return s.sum.appendTo(to)
	}
	return s.sum.over(s.count).appendTo(to)
}

// appendTo appends the statistics as the value of a pair; without numbers, they are counts alone.
func (s statistics) appendTo(to []byte, numbers bool) []byte {
	to = binary.AppendUvarint(binary.AppendUvarint(to, s.count), s.distinct)
	if !numbers {
		return to
	}
	for _, n := range [3]number{s.min, s.max, s.sum} {
		to = binary.LittleEndian.AppendUint64(to, uint64(n.high)) //nolint:gosec // the bits
		to = binary.LittleEndian.AppendUint64(to, n.low)
	}
	return to
}

// parseStatistics is the inverse of appendTo.
func parseStatistics(from []byte) (s statistics, err error) {
	for _, v := range []*uint64{&s.count, &s.distinct} {
		value, n := binary.Uvarint(from)
		if n <= 0 {
			return s, errCut
		}
		*v, from = value, from[n:]
	}
	const numberBytes = 16
	switch len(from) {
	case 0:
		return s, nil
	case 3 * numberBytes:
		for i, n := range []*number{&s.min, &s.max, &s.sum} {
			at := from[i*numberBytes:]
			n.high, n.low = int64(binary.LittleEndian.Uint64(at)), binary.LittleEndian.Uint64(at[8:]) //nolint:gosec // the bits
		}
		return s, nil
	}
	return s, errCut
}
