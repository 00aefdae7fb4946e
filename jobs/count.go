package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/keytable"
	"github.com/bridgefour/bridgefour/internal/stage"
)

type countConfig struct {
	Key   int    `b4:"key,default=1" help:"number of the field by which lines are counted, from 1; 0: all lines together"`
	Value int    `b4:"value,default=0" help:"number of the field with the values; 0: none, count only"`
	Sep   string `b4:"sep,default=tab" help:"what is between fields; tab, or space for any white space"`
	Stats string `b4:"stats" help:"columns of the output, of count,min,max,mean,sum,distinct (default count, or min,mean,max if there is a value)"`
}

// Count counts lines by key, and describes the values of another field. The output is sorted by key, also over all its parts.
func Count() bridgefour.Job {
	return newStaged("count", "count, min, max, mean, sum and distinct values by key, of delimited text",
		"--input stations.txt --set sep=';' --set value=2 --set stats=min,mean,max", newCounter)
}

// counter is the program of a count. Each task of the first stage adds up its lines in a table, and emits the statistics of its keys. If distinct values are
// counted, these statistics are by key and value, and a stage more makes them those of the keys.
type counter struct {
	countConfig
	sep      []byte
	columns  []string
	numbers  bool // values are numbers, and not just texts of which some are distinct
	number   int  // Value if they are; 0: they are not
	distinct bool

	lines lineBlocks
	table countTable
	part  partText
	key   []byte
	value []byte
	sum   groupSum
}

func newCounter(cfg countConfig) (stage.Program, error) {
	c := &counter{countConfig: cfg}
	sep, sepErr := separator(cfg.Sep)
	columns, err := cfg.columns()
	if err = errors.Join(sepErr, checkField("key", cfg.Key, 0), checkField("value", cfg.Value, 0), err); err != nil {
		return nil, err
	}
	c.sep, c.columns = sep, columns
	c.numbers = slices.ContainsFunc(columns, func(name string) bool { return name != "count" && name != "distinct" })
	if c.numbers {
		c.number = cfg.Value
	}
	c.distinct = slices.Contains(columns, "distinct")
	return c, nil
}

// columns are those of the output.
func (c *countConfig) columns() ([]string, error) {
	known := []string{"count", "min", "max", "mean", "sum", "distinct"}
	switch {
	case c.Stats == "" && c.Value == 0:
		return known[:1], nil
	case c.Stats == "":
		return []string{"min", "mean", "max"}, nil
	}
	columns := strings.Split(c.Stats, ",")
	for _, name := range columns {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("invalid setting stats=%q: %q is none of %s", c.Stats, name, strings.Join(known, ","))
		}
		if name != "count" && c.Value == 0 {
			return nil, fmt.Errorf("invalid setting stats=%q: %s is of values: give the number of their field (--set value=N)", c.Stats, name)
		}
	}
	return columns, nil
}

// Stages are two, or three if distinct values are counted.
func (c *counter) Stages() []stage.Stage {
	line := []stage.Stage{{Name: "map"}, {Name: "count", Partition: stage.ByRange}}
	if c.distinct {
		line = slices.Insert(line, 1, stage.Stage{Name: "values"})
	}
	return line
}

// Run runs a task of any stage.
func (c *counter) Run(_ context.Context, t *stage.Task) error {
	c.sum = groupSum{key: c.sum.key[:0]}
	switch {
	case t.Stage == 0:
		return c.readLines(t)
	case t.Part == nil:
		return c.sumValues(t)
	}
	c.part.begin(t)
	err := c.sum.each(t, func(key []byte) []byte { return key }, 0, func(key []byte, s *statistics) error { return c.row(key, s) })
	if err == nil {
		err = c.part.flush()
	}
	return err
}

// readLines adds up the lines of a split.
func (c *counter) readLines(t *stage.Task) error {
	c.table.reset(t, c.numbers)
	err := c.lines.begin(t)
	for err == nil {
		var block []byte
		if block, err = c.lines.next(); block == nil || err != nil {
			break
		}
		if len(c.sep) == 1 && c.Key > 0 && !c.distinct {
			err = c.scan(t, block)
		} else {
			err = c.eachOf(t, block)
		}
		if err == nil {
			err = c.table.bounded()
		}
	}
	if err == nil {
		err = c.table.flush()
	}
	return err
}

// eachOf adds up the lines of a block one by one.
func (c *counter) eachOf(t *stage.Task, block []byte) (err error) {
	for len(block) > 0 && err == nil {
		var line []byte
		line, block = cutLine(block)
		err = c.add(t, line)
	}
	return err
}

// add adds a line of any form.
func (c *counter) add(t *stage.Task, line []byte) error {
	var key, value []byte
	ok := int64(len(line)) <= c.lines.max
	if !ok {
		return c.lines.tooLong()
	}
	if c.Key > 0 {
		key, ok = field(withoutCR(line), c.Key, c.sep)
	}
	if ok && c.Value > 0 {
		value, ok = field(withoutCR(line), c.Value, c.sep)
	}
	if !ok {
		return noField(t.Path, line, max(c.Key, c.Value))
	}
	if c.distinct {
		c.key = append(appendOrdered(c.key[:0], key), value...)
		key = c.key
	}
	n := number{}
	if c.numbers {
		var err error
		if n, err = parseNumber(value); err != nil {
			return bridgefour.BadInput(fmt.Errorf("%s: field %d of line %q: %w", t.Path, c.Value, line, err))
		}
	}
	c.table.addExact(key, n)
	return nil
}

// scan adds up the lines of a block that has a separator of one byte. What it cannot read, it leaves to add. All is in one function: to return key, hash and value
// of a line from another one took a tenth of the time.
func (c *counter) scan(t *stage.Task, block []byte) error {
	s := newFieldScanner(block, c.sep[0])
	keyField, valueField, most := c.Key, c.number, max(c.Key, c.Value)
	// plain says that no line ends with a carriage return or is too long: then they are not asked one by one.
	plain := bytes.IndexByte(block, '\r') < 0 && int64(len(block)) <= c.lines.max
	for from := 0; from < len(block); {
		var key []byte
		var words keytable.Words
		var v decimal
		at, number, ok := from, 1, true
		for ; ; number++ {
			if number == valueField {
				if v, at, ok = s.decimal(at); !ok {
					at = from
					break
				}
			} else if number == keyField {
				start := at
				at, words = s.key(at)
				key = s.text[start:at]
			} else {
				at = s.end(at)
			}
			if number == most || s.text[at] == '\n' {
				break
			}
			at++
		}
		if s.text[at] != '\n' {
			at += bytes.IndexByte(block[at:], '\n')
		}
		if ok && number == most && (plain || !hasCR(block[from:at]) && int64(at-from) <= c.lines.max) {
			c.table.add(key, words, v)
		} else if err := c.add(t, block[from:at]); err != nil {
			return err
		}
		from = at + 1
	}
	return nil
}

// sumValues makes statistics of the values of a key those of the key. Each of them is one that is distinct.
func (c *counter) sumValues(t *stage.Task) error {
	return c.sum.each(t, orderedText, 1, func(key []byte, s *statistics) error {
		var err error
		if c.key, err = cutOrdered(c.key[:0], key); err != nil {
			return err
		}
		c.value = s.appendTo(c.value[:0], c.numbers)
		return t.Emit(c.key, c.value)
	})
}

// row writes the statistics of a key.
func (c *counter) row(key []byte, s *statistics) error {
	if c.Key > 0 {
		c.part.buf = append(append(c.part.buf, key...), '\t')
	}
	for i, name := range c.columns {
		if i > 0 {
			c.part.buf = append(c.part.buf, '\t')
		}
		c.part.buf = s.column(c.part.buf, name)
	}
	c.part.buf = append(c.part.buf, '\n')
	return c.part.grown()
}

// groupSum adds up statistics that have equal keys.
type groupSum struct {
	key  []byte
	last []byte // the whole key of the last pair
	sum  statistics
	any  bool
}

// each calls done for each group of pairs whose keys have an equal part. distinct is added for each key.
func (g *groupSum) each(t *stage.Task, part func(key []byte) []byte, distinct uint64, done func(key []byte, s *statistics) error) error {
	err := eachPair(t, func(pair stage.Pair) error {
		s, err := parseStatistics(pair.Value)
		if err != nil {
			return err
		}
		if distinct > 0 && (!g.any || !bytes.Equal(pair.Key, g.last)) {
			s.distinct = distinct
			g.last = append(g.last[:0], pair.Key...)
		}
		key := part(pair.Key)
		if g.any && bytes.Equal(key, g.key) {
			g.sum = g.sum.add(s)
			return nil
		}
		if g.any {
			err = done(g.key, &g.sum)
		}
		g.key, g.sum, g.any = append(g.key[:0], key...), s, true
		return err
	})
	if err == nil && g.any {
		err = done(g.key, &g.sum)
	}
	return err
}
