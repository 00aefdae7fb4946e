package jobs

import (
	"errors"

	b4 "github.com/bridgefour/bridgefour"
)

type topConfig struct {
	N     int    `b4:"n,default=10" help:"how many"`
	Field int    `b4:"field,default=0" help:"number of the field whose values are counted, from 1; 0: the line"`
	Sep   string `b4:"sep,default=tab" help:"what is between fields; tab, or space for any white space; a CR at the end of a line is of no field"`
}

// Top finds the lines, or values of a field, that are most frequent: VALUE<TAB>COUNT lines. Equally frequent ones are sorted.
func Top() b4.Job {
	return b4.New("top", func(cfg topConfig) (b4.Output, error) {
		sep, err := separator(cfg.Sep)
		if err = errors.Join(err, checkField("field", cfg.Field, 0), checkSize("n", cfg.N)); err != nil {
			return nil, err
		}
		values := b4.Map(b4.Lines(), func(t *b4.Task, line []byte, emit b4.Emit[[]byte, uint64]) error {
			value := line
			if cfg.Field > 0 {
				var ok bool
				if value, ok = field(withoutCR(line), cfg.Field, sep); !ok {
					return noField(t.Input(), line, cfg.Field)
				}
			}
			emit(value, 1)
			return nil
		})
		type order struct {
			count b4.Desc[uint64]
			value []byte
		}
		return b4.Top(b4.Combine(values, b4.Sum[uint64]), cfg.N, func(p b4.KV[[]byte, uint64]) order {
			return order{b4.Desc[uint64]{Value: p.Value}, p.Key}
		}), nil
	}, b4.Summary("the most frequent lines, or values of a field"), b4.Example("--input access.log --set field=1 --set sep=space --set n=20"), b4.RecordKinds(lineKinds()...))
}
