package jobs

import (
	b4 "github.com/bridgefour/bridgefour"
)

type distinctConfig struct {
	Field int    `b4:"field,default=0" help:"number of the field whose values are wanted, from 1; 0: the line"`
	Sep   string `b4:"sep,default=tab" help:"what is between fields; tab, or space for any white space"`
}

// Distinct writes each line, or value of a field, once. Each part is sorted.
func Distinct() b4.Job {
	return b4.New("distinct", func(cfg distinctConfig) (b4.Output, error) {
		sep, err := separator(cfg.Sep)
		if err == nil {
			err = checkField("field", cfg.Field, 0)
		}
		if err != nil {
			return nil, err
		}
		lines := b4.Map(b4.Lines(), func(_ *b4.Task, line []byte, emit b4.Emit[[]byte, struct{}]) error {
			ok := true
			if cfg.Field > 0 {
				line, ok = field(line, cfg.Field, sep)
			}
			if ok {
				emit(line, struct{}{})
			}
			return nil
		})
		return b4.Combine(lines, b4.Any), nil
	}, b4.Summary("write each line, or value of a field, once"), b4.Example("--input access.log --set field=1 --set sep=space"))
}
