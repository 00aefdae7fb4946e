package jobs

import (
	"context"
	"encoding/binary"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/stage"
)

type sortConfig struct {
	Field   int    `b4:"field,default=0" help:"number of the field to sort by, from 1; 0: the line"`
	Sep     string `b4:"sep,default=tab" help:"what is between fields; tab, or space for any white space; a CR at the end of a line is a byte of its last field"`
	Numeric bool   `b4:"numeric,default=false" help:"by the number that the field begins with; none counts as 0"`
	Reverse bool   `b4:"reverse,default=false" help:"the greatest first"`
	Unique  bool   `b4:"unique,default=false" help:"the first of equal lines only"`
	Stable  bool   `b4:"stable,default=false" help:"keep the order of the input for equal fields, instead of that of the lines"`
}

// Sort sorts lines by their bytes, as sort of the coreutils does with LC_ALL=C.
func Sort() bridgefour.Job {
	return newStaged("sort", "sort lines; the parts, one after the other, are in order",
		"--input logs/ --output sorted --set field=2 --set numeric=true", newSorter)
}

// sorter is the program of a sort. The shuffle sorts the pairs; the sorter makes keys whose bytes have the order.
type sorter struct {
	sortConfig
	sep   []byte
	place linePlace
	lines lineBlocks
	part  partText
	first firstOnly // if unique
	key   []byte
	size  []byte
	last  lastKey // if unique
}

// linePlace is where a pair of a sort has its line.
type linePlace uint8

const (
	lineIsKey     linePlace = iota // it is the key
	lineInKey                      // it is encoded in the key, which ends with it; the value is the length of what is before it
	lineBesideKey                  // it is the value
)

func newSorter(config sortConfig) (stage.Program, error) {
	s := &sorter{sortConfig: config}
	var err error
	if s.sep, err = separator(config.Sep); err == nil {
		err = checkField("field", config.Field, 0)
	}
	whole := config.Field == 0 && !config.Numeric
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
		if s.Unique {
			s.first.Begin(t.Memory)
		}
		if s.place == lineIsKey && !s.Unique {
			return s.lines.eachLine(t, func(line []byte) error { return t.Emit(line, nil) })
		}
		return s.lines.eachLine(t, func(line []byte) error { return s.emit(t, line) })
	}
	s.part.begin(t)
	s.last.any = false
	err := eachPair(t, s.write)
	if err == nil {
		err = s.part.flush()
	}
	return err
}

func (s *sorter) emit(t *stage.Task, line []byte) error {
	key, by := s.key[:0], line
	if s.Field > 0 {
		by, _ = field(line, s.Field, s.sep) // none is empty
	}
	switch {
	case s.Numeric:
		key = appendNumber(key, by)
	case s.Field > 0:
		key = appendOrdered(key, by)
	case s.place == lineIsKey:
		key = append(key, line...)
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
	switch {
	case s.Unique && !s.first.wants(key):
		return nil
	case s.place == lineIsKey:
		value = nil
	}
	return t.Emit(key, value)
}

// write writes the line of a pair.
func (s *sorter) write(pair stage.Pair) error {
	if s.Unique && s.last.repeats(pair.Key) {
		return nil
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
		if s.part.buf, err = cutOrdered(s.part.buf, s.key); err != nil {
			return err
		}
		s.part.buf = append(s.part.buf, '\n')
		return s.part.grown()
	}
	return s.part.line(line)
}
