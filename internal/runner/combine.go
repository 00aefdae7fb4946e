package runner

import (
	"context"
	"errors"
	"io"

	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/shuffle"
)

// combiner runs a second command on what the command of an attempt has written, sorted by key. What that writes is sorted again and is the output of the attempt.
type combiner struct {
	sorted keyedOutput // what the first command has written
	input  mergedLines
	files  files
	task   program.Task
}

// begin makes the output of the first command that of the combiner. It reports whether the attempt has one.
func (s *Slot) beginCombine(j *jobState, a *Attempt, memory int64) bool {
	c := &s.combine
	on := j.combine != nil && s.keyed.on()
	s.files.stdout.keyed = &s.keyed
	c.sorted.begin(partitions{}, memory)
	if on {
		c.sorted.begin(partitions{n: 1}, memory)
		s.files.stdout.keyed = &c.sorted
		c.files.begin(j, a)
		c.files.lines = &c.input
	}
	return on
}

// runCombine runs the second command, once the first one has succeeded.
func (s *Slot) runCombine(ctx context.Context, j *jobState) program.Result {
	c := &s.combine
	if err := c.sorted.flush(); err != nil {
		return program.Result{Failure: program.OutputFailure(err)}
	}
	defer c.sorted.writer.Close()
	var err error
	if c.input.merge, err = c.sorted.writer.Merge(); err != nil {
		return program.Result{Failure: program.OutputFailure(err)}
	}
	defer c.input.merge.Close()
	c.task = s.task
	c.task.Files, c.task.Split, c.task.Item, c.task.Path = &c.files, nil, nil, ""
	res := j.combine.Run(ctx, &c.task)
	if f := res.Failure; f != nil {
		f.Message = "combine: " + f.Message
	}
	return res
}

// lineSource is the input of a command that is not a split: lines that are made of pairs.
type lineSource interface {
	io.Reader
	io.WriterTo
	// openLines prepares to read, before the command starts.
	openLines() error
}

// mergedLines is what a command has written, sorted by key.
type mergedLines struct{ merge *shuffle.Merge }

func (*mergedLines) openLines() error { return nil }

// Read is not used: io.CopyBuffer prefers WriteTo.
func (*mergedLines) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// WriteTo writes the lines.
func (m *mergedLines) WriteTo(w io.Writer) (int64, error) { return writeLines(w, m.merge.Next) }

// writeLines writes records as lines until next returns io.EOF.
func writeLines(w io.Writer, next func() (shuffle.Record, error)) (written int64, err error) {
	const bufferBytes = 128 << 10
	buf := make([]byte, 0, bufferBytes)
	flush := func() error {
		n, err := w.Write(buf)
		written, buf = written+int64(n), buf[:0]
		return err
	}
	for {
		record, err := next()
		if errors.Is(err, io.EOF) {
			return written, flush()
		}
		if err != nil {
			return written, err
		}
		n := len(record.Key) + len(record.Value) + 1
		if len(buf)+n > cap(buf) && len(buf) > 0 {
			if err := flush(); err != nil {
				return written, err
			}
		}
		if n <= cap(buf) {
			buf = append(append(append(buf, record.Key...), record.Value...), '\n')
			continue
		}
		for _, text := range [][]byte{record.Key, record.Value, {'\n'}} { // not copied: it is long
			n, err := w.Write(text)
			if written += int64(n); err != nil {
				return written, err
			}
		}
	}
}
