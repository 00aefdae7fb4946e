package jobs

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/stage"
)

type sortConfig struct {
	Field     string `help:"fields to sort by, the first one first, such as 2 or 3,1; without it, the whole line"`
	Delimiter string `b4:",default=tab" help:"what separates fields: one byte, tab or space"`
	Numeric   bool   `b4:",default=false" help:"compare numbers, such as -12.5, instead of bytes; what is not a number is 0"`
	Reverse   bool   `b4:",default=false" help:"the greatest first"`
	Unique    bool   `b4:",default=false" help:"of lines that are equal in what is compared, write the first one alone"`
	Stable    bool   `b4:",default=false" help:"leave lines that are equal in what is compared in the order of the input, instead of comparing all of them"`
}

// NewSort returns the job that sorts lines as sort of the GNU coreutils does with LC_ALL=C. Its parts, one after the other, are in order.
func NewSort() bridgefour.Job {
	return newStaged("sort", "sort lines; the parts, one after the other, are in order",
		"--input sales.tsv --output sorted --set field=3 --set numeric=true --set reverse=true", newSorter)
}

// sorter is the program of a sort. The shuffle sorts the pairs; the sorter makes keys whose bytes have the order.
type sorter struct {
	sortConfig
	by fields
	// place is where a pair has the line.
	place linePlace
	lines lineBlocks
	part  partText
	key   []byte
	size  []byte
	last  []byte // key of the last line, if unique
	any   bool
}

// linePlace is where a pair has its line.
type linePlace uint8

const (
	lineIsKey     linePlace = iota // it is the key
	lineInKey                      // it is encoded in the key, which ends with it; the value is the length of what is before it
	lineBesideKey                  // it is the value
)

func newSorter(config sortConfig) (stage.Program, error) {
	s := &sorter{sortConfig: config}
	var err error
	s.by, err = parseFields(config.Field, config.Delimiter)
	whole := len(s.by.numbers) == 0 && !config.Numeric
	switch {
	case whole && !config.Reverse:
		s.place = lineIsKey
	case !whole && (config.Stable || config.Unique):
		s.place = lineBesideKey
	default:
		s.place = lineInKey
	}
	return s, err
}

// Stages are two.
func (*sorter) Stages() []stage.Stage { return twoStages("sort", stage.ByRange) }

// Run makes the pairs of a split, or writes the lines of a range.
func (s *sorter) Run(_ context.Context, t *stage.Task) error {
	if t.Stage == 0 {
		if s.place == lineIsKey {
			return s.lines.eachLine(t, func(line []byte) error { return t.Emit(line, nil) })
		}
		return s.lines.eachLine(t, func(line []byte) error { return s.emit(t, line) })
	}
	s.part.begin(t)
	s.any = false
	err := eachPair(t, s.write)
	if err == nil {
		err = s.part.flush()
	}
	return err
}

func (s *sorter) emit(t *stage.Task, line []byte) error {
	key := s.key[:0]
	switch {
	case len(s.by.numbers) > 0:
		for _, number := range s.by.numbers {
			key = s.appendKey(key, s.by.cut(line, number))
		}
	case s.Numeric:
		key = s.appendKey(key, line)
	}
	size, value := len(key), line
	if s.place == lineInKey {
		if s.Reverse {
			key = appendOrdered(key, line)
		} else {
			key = append(key, line...)
		}
		s.size = binary.AppendUvarint(s.size[:0], uint64(size))
		value = s.size
	}
	if s.Reverse {
		invert(key)
	}
	s.key = key
	return t.Emit(key, value)
}

func (s *sorter) appendKey(to, text []byte) []byte {
	if s.Numeric {
		return appendNumber(to, text)
	}
	return appendOrdered(to, text)
}

// write writes the line of a pair.
func (s *sorter) write(pair stage.Pair) error {
	if s.Unique {
		if s.any && bytes.Equal(pair.Key, s.last) {
			return nil
		}
		s.last, s.any = append(s.last[:0], pair.Key...), true
	}
	switch s.place {
	case lineIsKey:
		return s.part.line(pair.Key)
	case lineBesideKey:
		return s.part.line(pair.Value)
	case lineInKey:
	}
	size, n := binary.Uvarint(pair.Value)
	if n <= 0 || size > uint64(len(pair.Key)) {
		return errCut
	}
	line := pair.Key[size:]
	if s.Reverse {
		s.key = append(s.key[:0], line...)
		invert(s.key)
		var err error
		if s.part.buf, _, err = cutOrdered(s.part.buf, s.key); err != nil {
			return err
		}
		s.part.buf = append(s.part.buf, '\n')
		return s.part.grown()
	}
	return s.part.line(line)
}
