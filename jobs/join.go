package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	b4 "github.com/bridgefour/bridgefour"
)

type joinConfig struct {
	Right    string `b4:"right,required" help:"path of the right inputs, or its end: a file, a folder or a pattern; all others are left"`
	Key      int    `b4:"key,default=1" help:"number of the field of the key in left lines, from 1"`
	RightKey int    `b4:"right_key,default=1" help:"number of the field of the key in right lines, from 1"`
	Sep      string `b4:"sep,default=tab" help:"what is between fields"`
	Kind     string `b4:"kind,default=inner" help:"inner: pairs of lines; left: also left lines without a right one; anti: only those"`
}

// Join joins the lines of two inputs by key: the key, the other fields of the left line, and those of the right one. The parts are sorted by key. The lines
// of one key must fit into memory.
func Join() b4.Job {
	return b4.New("join", join, b4.Summary("join the lines of two inputs by key"),
		b4.Example("--input orders.csv --input customers.csv --set right=customers.csv --set key=2 --set sep=,"))
}

// joinLine is a line without its key.
type joinLine struct {
	right bool
	rest  []byte
}

func join(cfg joinConfig) (b4.Output, error) {
	sep, err := separator(cfg.Sep)
	if err == nil && sep == nil {
		err = errors.New("invalid setting sep=space: the output needs a separator of its own; name one, such as tab")
	}
	if err == nil {
		err = errors.Join(checkField("key", cfg.Key, 1), checkField("right_key", cfg.RightKey, 1))
	}
	if _, bad := path.Match(cfg.Right, ""); err == nil && bad != nil {
		err = fmt.Errorf("invalid setting right=%q: %w", cfg.Right, bad)
	}
	if kinds := []string{"inner", "left", "anti"}; err == nil && !slices.Contains(kinds, cfg.Kind) {
		err = fmt.Errorf("invalid setting kind=%q: want one of %s", cfg.Kind, strings.Join(kinds, ", "))
	}
	if err != nil {
		return nil, err
	}
	lines := b4.Map(b4.Splits(), func(t *b4.Task, _ struct{}, emit b4.Emit[[]byte, joinLine]) error {
		line, number := joinLine{right: isUnder(t.Input(), cfg.Right)}, cfg.Key
		if line.right {
			number = cfg.RightKey
		}
		records := t.Records()
		for records.Scan() {
			key, rest, ok := cutField(records.Bytes(), line.rest[:0], number, sep)
			if !ok {
				return b4.BadInput(fmt.Errorf("%s: line %q at byte %d has no field %d", t.Input(), records.Bytes(), records.Offset(), number))
			}
			line.rest = rest
			emit(key, line)
		}
		return records.Err()
	})
	return b4.Map(b4.Groups(lines), func(_ *b4.Task, g b4.Group[[]byte, joinLine], emit b4.Emit[[]byte, struct{}]) error {
		var left, right [][]byte
		for line := range g.Values {
			if rest := bytes.Clone(line.rest); line.right {
				right = append(right, rest)
			} else {
				left = append(left, rest)
			}
		}
		var row []byte
		for _, l := range left {
			row = append(append(row[:0], g.Key...), l...)
			if cfg.Kind != "inner" && len(right) == 0 {
				emit(row, struct{}{})
			}
			for _, r := range right {
				if cfg.Kind != "anti" {
					row = append(row[:len(g.Key)+len(l)], r...)
					emit(row, struct{}{})
				}
			}
		}
		return nil
	}), nil
}

// cutField separates a field from a line. The rest is that of the line, with a separator before each field.
func cutField(line, to []byte, number int, sep []byte) (key, rest []byte, ok bool) {
	for at := 1; ; at++ {
		end := bytes.Index(line, sep)
		last := end < 0
		if last {
			end = len(line)
		}
		if at == number {
			key, ok = line[:end], true
		} else {
			to = append(append(to, sep...), line[:end]...)
		}
		if last {
			return key, to, ok
		}
		line = line[end+len(sep):]
	}
}

// isUnder reports whether a path, or the path of a folder that contains it, ends as a pattern does.
func isUnder(input, pattern string) bool {
	pattern = strings.TrimSuffix(path.Clean(pattern), "/")
	elements := strings.Count(strings.TrimPrefix(pattern, "/"), "/") + 1
	for ; input != "" && input != "/" && input != "."; input = path.Dir(input) {
		if path.IsAbs(pattern) {
			if ok, _ := path.Match(pattern, input); ok { // checked
				return true
			}
			continue
		}
		parts := strings.Split(input, "/")
		end := strings.Join(parts[max(0, len(parts)-elements):], "/")
		if ok, _ := path.Match(pattern, end); ok { // checked
			return true
		}
	}
	return false
}
