package jobs

import (
	"bytes"
	"encoding/binary"

	b4 "github.com/bridgefour/bridgefour"
)

type sortConfig struct {
	Field   int    `b4:"field,default=0" help:"number of the field to sort by, from 1; 0: the line"`
	Sep     string `b4:"sep,default=tab" help:"what is between fields; tab, or space for any white space"`
	Numeric bool   `b4:"numeric,default=false" help:"by the number that the field begins with; none counts as 0"`
	Reverse bool   `b4:"reverse,default=false" help:"the greatest first"`
	Unique  bool   `b4:"unique,default=false" help:"the first of equal lines only"`
	Stable  bool   `b4:"stable,default=false" help:"keep the order of the input for equal fields, instead of that of the lines"`
}

// Sort sorts lines by their bytes, as sort of the coreutils does with LC_ALL=C.
func Sort() b4.Job {
	return b4.New("sort", sortLines, b4.Summary("sort lines; the parts, one after the other, are in order"),
		b4.Example("--input logs/ --output sorted --set field=2 --set numeric=true"))
}

func sortLines(cfg sortConfig) (b4.Output, error) {
	sep, err := separator(cfg.Sep)
	if err == nil {
		err = checkField("field", cfg.Field, 0)
	}
	if err != nil {
		return nil, err
	}
	if cfg.Field == 0 && !cfg.Numeric { // the key is the line
		return sortBy(&cfg,
			func(line []byte) ([]byte, struct{}) { return line, struct{}{} },
			func(line []byte, _ struct{}) []byte { return line }), nil
	}
	var buf []byte
	key := func(line []byte) []byte {
		text := line
		if cfg.Field > 0 {
			text, _ = field(line, cfg.Field, sep) // none is empty
		}
		if !cfg.Numeric {
			return text
		}
		buf = appendNumeric(buf[:0], text)
		return buf
	}
	if cfg.Stable || cfg.Unique {
		return sortBy(&cfg,
			func(line []byte) ([]byte, []byte) { return key(line), line },
			func(_, line []byte) []byte { return line }), nil
	}
	type keyLine struct{ key, line []byte }
	return sortBy(&cfg,
		func(line []byte) (keyLine, struct{}) { return keyLine{key(line), line}, struct{}{} },
		func(k keyLine, _ struct{}) []byte { return k.line }), nil
}

// sortBy splits lines into pairs, sorts these by their keys, and makes them lines again.
func sortBy[K, V any](cfg *sortConfig, split func(line []byte) (K, V), join func(key K, value V) []byte) b4.Output {
	if !cfg.Reverse {
		return inOrder(split, join, cfg.Unique)
	}
	return inOrder(func(line []byte) (b4.Desc[K], V) {
		key, value := split(line)
		return b4.Desc[K]{Value: key}, value
	}, func(key b4.Desc[K], value V) []byte { return join(key.Value, value) }, cfg.Unique)
}

func inOrder[K, V any](split func(line []byte) (K, V), join func(key K, value V) []byte, unique bool) b4.Output {
	pairs := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[K, V]) error {
		emit(split(line))
		return nil
	})
	return b4.Map(b4.GroupsInOrder(pairs), func(_ *b4.Task, g b4.Group[K, V], emit b4.Emit[[]byte, struct{}]) error {
		for value := range g.Values {
			if emit(join(g.Key, value), struct{}{}); unique {
				break
			}
		}
		return nil
	})
}

// appendNumeric appends the number that a text begins with, so that the bytes of numbers are in their order: a byte for the sign, the number of
// digits before the point, and all digits; of a negative number, all of it inverted. As for sort -n, there may be blanks before it, and a text without a number is 0.
func appendNumeric(to, text []byte) []byte {
	const negative, zero, positive = 0, 1, 2
	text = bytes.TrimLeft(text, " \t")
	minus := len(text) > 0 && text[0] == '-'
	if minus {
		text = text[1:]
	}
	whole := digits(text)
	var part []byte
	if rest := text[len(whole):]; len(rest) > 0 && rest[0] == '.' {
		part = bytes.TrimRight(digits(rest[1:]), "0")
	}
	whole = bytes.TrimLeft(whole, "0")
	if len(whole) == 0 && len(part) == 0 {
		return append(to, zero)
	}
	to = append(to, positive)
	from := len(to)
	to = binary.BigEndian.AppendUint32(to, uint32(len(whole))) //nolint:gosec // of a line
	to = append(append(to, whole...), part...)
	if minus {
		to = append(to, 0) // the end: a longer fraction is a smaller number
		to[from-1] = negative
		for i := from; i < len(to); i++ {
			to[i] = ^to[i]
		}
	}
	return to
}

// digits are those that a text begins with.
func digits(text []byte) []byte {
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		n++
	}
	return text[:n]
}
