package plan

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/format"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Limits of what is sent to a worker and shown in lists of tasks.
const (
	lineBytesMax  = 1 << 20 // of a line
	itemsBytesMax = 4 << 20 // of the items of a task
)

// Lines is a list of lines that is collected while they arrive: in memory it is compressed.
type Lines struct {
	b                 *state.InputBuilder
	max               uint64
	count, empty, crs uint64
	special           string // the first one that is more than a word for a shell
	longest           int
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
	if l.special == "" && placeholder.IsSpecial(string(line)) {
		l.special = string(line)
	}
	l.longest = max(l.longest, len(line))
	l.b.AddLine(line)
	return nil
}

// Read adds the lines of r, which end in a newline, or in a zero byte; the last one need not.
func (l *Lines) Read(r io.Reader, null bool) error {
	end := byte('\n')
	if null {
		end = 0
	}
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes(end)
		if err == nil || len(line) > 0 {
			if err := l.Add(bytes.TrimSuffix(line, []byte{end})); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// Bytes is the memory that the list takes.
func (l *Lines) Bytes() uint64 { return l.b.Bytes() }

// list makes each item of the product of the lists a task.
func (p *planner) list() error {
	l := &axes{p: p}
	if p.req.Lines != nil {
		if err := l.lines(); err != nil {
			return err
		}
	}
	if p.req.Range != nil {
		l.add("range", &api.List{Ranges: []api.Range{*p.req.Range}})
	}
	for i := range p.req.Each {
		l.add(fmt.Sprintf("each[%d]", i), &p.req.Each[i])
	}
	for i, name := range p.columns() {
		if name != "" && slices.Contains(p.columns()[:i], name) {
			p.fail("each", "two columns have the name %q", name)
		}
	}
	if len(p.errs) > 0 {
		return nil
	}
	var seed uint64
	if p.req.Shuffle {
		var random [8]byte
		_, _ = rand.Read(random[:]) // never fails
		seed = max(1, binary.LittleEndian.Uint64(random[:]))
	}
	in, err := state.ListInput(l.list, l.blocks, seed, p.req.Limit, p.req.Batch)
	field := "each"
	if p.req.Range != nil {
		field = "range"
	}
	// With 16 bytes for each value, as in a message.
	bytes := (float64(l.longest) + 16*float64(len(p.columns()))) * float64(max(1, p.req.Batch))
	switch {
	case err != nil:
		p.fail(field, "%v", err)
	case bytes > itemsBytesMax:
		p.fail("batch", "the items of a task may take up to %.0f MiB, of which %d are possible: give a task fewer items (--batch), or put long ones into files",
			bytes/(1<<20), itemsBytesMax>>20)
	case in.Tasks > p.opt.TasksMax:
		p.tooMany(field, float64(in.Tasks), "split it into several jobs, or give a task several items (--batch)")
	case in.BlockBytes() > state.InputBytesMax:
		p.fail(field, "the lists take more than %d MiB as compressed: make several jobs of them", state.InputBytesMax>>20)
	default:
		p.result.Input = in
	}
	return nil
}

// axes collects the lists of a request.
type axes struct {
	p      *planner
	list   []state.Axis
	blocks []state.Block
	// longest bounds the bytes of an item: it is the sum of the longest values.
	longest int
}

// lines adds the lines of the request.
func (a *axes) lines() error {
	p, given := a.p, a.p.req.Lines
	if len(given.Items) > 0 && len(given.Raw) > 0 {
		p.fail("lines", "give items or raw, not both")
		return nil
	}
	l := p.opt.Lines
	if l == nil {
		l = NewLines(p.opt.TasksMax)
	}
	for _, item := range given.Items {
		if err := l.Add([]byte(item)); err != nil {
			return err
		}
	}
	if err := l.Read(bytes.NewReader(given.Raw), given.Null); err != nil {
		return err
	}
	columns := given.Columns
	if len(columns) == 0 {
		columns = []string{""}
	}
	switch {
	case l.count == 0:
		p.fail("lines", "no lines given: give at least one item, or a file that is not empty")
		return nil
	case l.count%uint64(len(columns)) != 0:
		p.fail("lines", "%d values are no rows of %d columns: each row has a value for each column", l.count, len(columns))
		return nil
	case len(columns) > 1:
	case l.empty > 0:
		p.warn("empty lines: %d of %d; they are tasks too", l.empty, l.count)
	}
	if l.crs > 0 {
		p.warn("lines that end in CR LF: %d of %d; the CR is part of the item", l.crs, l.count)
	}
	p.warnSplice(l.special)
	a.longest += l.longest * len(columns)
	return a.values("lines", &state.Axis{Columns: columns, Rows: l.count / uint64(len(columns))}, l.b)
}

// values adds an axis whose values are in b.
func (a *axes) values(field string, axis *state.Axis, b *state.InputBuilder) error {
	in, err := b.Input()
	if err != nil {
		a.p.fail(field, "%v", err)
		return nil
	}
	axis.Blocks = uint64(len(in.Blocks))
	a.list, a.blocks = append(a.list, *axis), append(a.blocks, in.Blocks...)
	return nil
}

// add adds a list of values or numbers.
func (a *axes) add(field string, given *api.List) {
	p := a.p
	axis := state.Axis{Columns: []string{given.Name}, Linked: given.Linked, Rows: uint64(len(given.Values))}
	switch {
	case (len(given.Values) > 0) == (len(given.Ranges) > 0):
		p.fail(field, "a list has either values or ranges")
		return
	case given.Linked && len(a.list) == 0:
		p.fail(field, "the first list cannot be linked: there is none before it")
		return
	case len(given.Ranges) > 0:
		a.ranges(field, axis, given.Ranges)
		return
	}
	b, longest := state.NewLines(), 0
	for _, value := range given.Values {
		if len(value) > lineBytesMax {
			p.fail(field, "a value has more than %d bytes: put it into a file", lineBytesMax)
			return
		}
		p.warnSplice(value)
		longest = max(longest, len(value))
		b.AddLine([]byte(value))
	}
	a.longest += longest
	_ = a.values(field, &axis, b)
}

// ranges adds a list of numbers.
func (a *axes) ranges(field string, axis state.Axis, ranges []api.Range) {
	rows := 0.0
	for _, r := range ranges {
		n := state.Numbers{From: r.From, To: r.To, Step: r.Step, Width: r.Width}
		if r.To < r.From {
			a.p.fail(field, "range %d-%d is empty: the first number is larger than the last", r.From, r.To)
			return
		}
		if n.Width > state.WidthMax {
			a.p.fail(field, "numbers of %d digits: at most %d digits", n.Width, state.WidthMax)
			return
		}
		rows += float64(n.Rows())
		axis.Rows += n.Rows()
		axis.Ranges = append(axis.Ranges, n)
	}
	a.longest += state.WidthMax
	if len(a.p.req.Each) == 0 && a.p.req.Limit == 0 && a.p.req.Batch == 0 && rows > float64(a.p.opt.TasksMax) {
		a.p.tooMany(field, rows, "split it into several jobs")
		return
	}
	a.list = append(a.list, axis)
}
