package plan

import (
	"bytes"
	"cmp"

	"github.com/bridgefour/bridgefour/internal/format"
	"github.com/bridgefour/bridgefour/internal/state"
)

// lineBytesMax limits a line, which is sent to a worker and shown in lists of tasks.
const lineBytesMax = 1 << 20

// Lines is a list of lines that is collected while they arrive: in memory it is compressed.
type Lines struct {
	b                 *state.InputBuilder
	max               uint64
	count, empty, crs uint64
}

// NewLines returns an empty list of at most so many lines, which is the TasksMax of the Options.
func NewLines(tasksMax uint64) *Lines {
	return &Lines{b: state.NewLines(), max: cmp.Or(tasksMax, tasksMaxDefault)}
}

// Add adds a line, which is copied. The first may have a byte order mark, which is dropped. The error, of type Errors, is final.
func (l *Lines) Add(line []byte) error {
	l.count++
	if l.count == 1 {
		if format.Detect(line) == format.UTF16 {
			return failure("lines", "the lines are UTF-16 text: convert them to UTF-8, as with iconv -f UTF-16 -t UTF-8")
		}
		line = line[format.SkipBOM(line):]
	}
	switch {
	case l.count > l.max:
		return failure("lines", "more than %d lines, the most tasks of a job: make several jobs of them", l.max)
	case len(line) > lineBytesMax:
		return failure("lines", "line %d has more than %d bytes: put it into a file, and pass that with --input", l.count, lineBytesMax)
	case l.b.Bytes() > state.InputBytesMax:
		return failure("lines", "the lines take more than %d MiB as compressed: put them into files and pass those with --input, or make several "+
			"jobs of them", state.InputBytesMax>>20)
	case len(line) == 0:
		l.empty++
	case line[len(line)-1] == '\r':
		l.crs++
	}
	l.b.AddLine(line)
	return nil
}

// Bytes is the memory that the list takes.
func (l *Lines) Bytes() uint64 { return l.b.Bytes() }

// lines makes each line a task.
func (p *planner) lines() error {
	items, raw := p.req.Lines.Items, p.req.Lines.Raw
	if len(items) > 0 && len(raw) > 0 {
		p.fail("lines", "give items or raw, not both")
		return nil
	}
	l := p.opt.Lines
	if l == nil {
		l = NewLines(p.opt.TasksMax)
	}
	for _, item := range items {
		if err := l.Add([]byte(item)); err != nil {
			return err
		}
	}
	for line := range bytes.Lines(raw) {
		if err := l.Add(bytes.TrimSuffix(line, []byte{'\n'})); err != nil {
			return err
		}
	}
	if l.count == 0 {
		p.fail("lines", "no lines given: give at least one item, or a file that is not empty")
		return nil
	}
	if l.empty > 0 {
		p.warn("%d of %d lines are empty; they are tasks too", l.empty, l.count)
	}
	if l.crs > 0 {
		p.warn("%d of %d lines end in CR LF; the CR is part of the item", l.crs, l.count)
	}
	var err error
	if p.result.Input, err = l.b.Input(); err != nil {
		p.fail("lines", "%v", err)
	}
	return nil
}
