package jobs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	b4 "github.com/bridgefour/bridgefour"
)

type countConfig struct {
	Key   int    `b4:"key,default=1" help:"number of the field by which lines are counted, from 1; 0: all lines together"`
	Value int    `b4:"value,default=0" help:"number of the field with the values; 0: none, count only"`
	Sep   string `b4:"sep,default=tab" help:"what is between fields; tab, or space for any white space"`
	Stats string `b4:"stats" help:"columns of the output, of count,min,max,mean,sum,distinct (default count, or min,mean,max if there is a value)"`
}

// Count counts lines by key, and describes the values of another field.
func Count() b4.Job {
	return b4.New("count", count, b4.Summary("count, min, max, mean, sum and distinct values by key, of delimited text"),
		b4.Example("--input stations.txt --set sep=';' --set value=2 --set stats=min,mean,max"))
}

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
func (s *statistics) column(to []byte, name string) []byte {
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

func count(cfg countConfig) (b4.Output, error) {
	sep, err := separator(cfg.Sep)
	if err != nil {
		return nil, err
	}
	for _, err := range []error{checkField("key", cfg.Key, 0), checkField("value", cfg.Value, 0)} {
		if err != nil {
			return nil, err
		}
	}
	columns, err := cfg.columns()
	if err != nil {
		return nil, err
	}
	// A table that only counts values as numbers does not need to parse them.
	numbers := slices.ContainsFunc(columns, func(c string) bool { return c != "count" && c != "distinct" })
	parse := func(t *b4.Task, line []byte) (key, value []byte, s statistics, err error) {
		ok := true
		if cfg.Key > 0 {
			key, ok = field(line, cfg.Key, sep)
		}
		if ok && cfg.Value > 0 {
			value, ok = field(line, cfg.Value, sep)
		}
		if !ok {
			return nil, nil, s, b4.BadInput(fmt.Errorf("%s: line %q has no field %d", t.Input(), line, max(cfg.Key, cfg.Value)))
		}
		if s.count = 1; numbers {
			if s.sum, err = parseNumber(value); err != nil {
				return nil, nil, s, b4.BadInput(fmt.Errorf("%s: field %d of line %q: %w", t.Input(), cfg.Value, line, err))
			}
			s.min, s.max = s.sum, s.sum
		}
		return key, value, s, nil
	}
	var sums b4.Pairs[[]byte, statistics]
	if slices.Contains(columns, "distinct") {
		sums = countDistinct(parse)
	} else {
		sums = b4.Map(b4.Lines(), func(t *b4.Task, line []byte, emit b4.Emit[[]byte, statistics]) error {
			key, _, s, err := parse(t, line)
			if err == nil {
				emit(key, s)
			}
			return err
		})
	}
	totals := b4.SortByKey(b4.Combine(sums, statistics.add))
	row := func(to []byte, s *statistics) []byte {
		for i, name := range columns {
			if i > 0 {
				to = append(to, '\t')
			}
			to = s.column(to, name)
		}
		return to
	}
	if cfg.Key == 0 {
		return b4.Map(totals, func(_ *b4.Task, p b4.KV[[]byte, statistics], emit b4.Emit[struct{}, []byte]) error {
			emit(struct{}{}, row(nil, &p.Value))
			return nil
		}), nil
	}
	return b4.Map(totals, func(_ *b4.Task, p b4.KV[[]byte, statistics], emit b4.Emit[[]byte, []byte]) error {
		emit(p.Key, row(nil, &p.Value))
		return nil
	}), nil
}

// countDistinct makes statistics of each value of a key first; so each of them is one that is distinct.
func countDistinct(parse func(t *b4.Task, line []byte) (key, value []byte, s statistics, err error)) b4.Pairs[[]byte, statistics] {
	type keyValue struct{ key, value []byte }
	values := b4.Map(b4.Lines(), func(t *b4.Task, line []byte, emit b4.Emit[keyValue, statistics]) error {
		key, value, s, err := parse(t, line)
		if err == nil {
			emit(keyValue{key, value}, s)
		}
		return err
	})
	return b4.Map(b4.Combine(values, statistics.add), func(_ *b4.Task, p b4.KV[keyValue, statistics], emit b4.Emit[[]byte, statistics]) error {
		p.Value.distinct = 1
		emit(p.Key.key, p.Value)
		return nil
	})
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
