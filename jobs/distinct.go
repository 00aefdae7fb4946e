package jobs

import (
	"bytes"
	"context"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/keytable"
	"github.com/bridgefour/bridgefour/internal/stage"
)

type distinctConfig struct {
	Field int    `b4:"field,default=0" help:"number of the field whose values are wanted, from 1; 0: the line"`
	Sep   string `b4:"sep,default=tab" help:"what is between fields; tab, or space for any white space; a CR at the end of a line is of no field"`
}

// Distinct writes each line, or value of a field, once. The parts, one after the other, are in order.
func Distinct() bridgefour.Job {
	return newStaged("distinct", "write each line, or value of a field, once, in order",
		"--input access.log --set field=1 --set sep=space", newDistinct)
}

// distinct is the program: the texts are the keys, and the shuffle puts equal ones beside each other.
type distinct struct {
	distinctConfig
	sep   []byte
	lines lineBlocks
	first firstOnly
	part  partText
	last  lastKey
}

func newDistinct(cfg distinctConfig) (stage.Program, error) {
	sep, err := separator(cfg.Sep)
	if err == nil {
		err = checkField("field", cfg.Field, 0)
	}
	return &distinct{distinctConfig: cfg, sep: sep}, err
}

// firstOnly filters the keys of a task: it drops those that it has seen, as far as its memory goes.
type firstOnly struct{ keytable.Bounded[struct{}] }

// wants reports whether a key may be the first of its kind.
func (f *firstOnly) wants(key []byte) bool {
	if f.Passes(key) {
		return true
	}
	if f.Full(key) {
		f.Empty()
	}
	_, isNew := f.At(key, keytable.WordsOf(key))
	return isNew
}

// lastKey is the last key of a partition.
type lastKey struct {
	key []byte
	any bool // there is one
}

// repeats reports whether a key is that of the call before.
func (l *lastKey) repeats(key []byte) bool {
	if l.any && bytes.Equal(key, l.key) {
		return true
	}
	l.key, l.any = append(l.key[:0], key...), true
	return false
}

// Stages are two.
func (*distinct) Stages() []stage.Stage { return twoStages("distinct", stage.ByRange) }

// Run emits the texts of a split, each once as far as memory goes, or writes those of a range.
func (d *distinct) Run(_ context.Context, t *stage.Task) error {
	if t.Stage == 0 {
		d.first.Begin(t.Memory)
		return d.lines.eachLine(t, func(line []byte) error {
			value := line
			if d.Field > 0 {
				var ok bool
				if value, ok = field(withoutCR(line), d.Field, d.sep); !ok {
					return noField(t.Path, line, d.Field)
				}
			}
			if !d.first.wants(value) {
				return nil
			}
			return t.Emit(value, nil)
		})
	}
	d.part.begin(t)
	d.last.any = false
	err := eachPair(t, func(pair stage.Pair) error {
		if d.last.repeats(pair.Key) {
			return nil
		}
		return d.part.line(pair.Key)
	})
	if err == nil {
		err = d.part.flush()
	}
	return err
}
