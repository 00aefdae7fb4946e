package state

import (
	"errors"
	"fmt"
	"math/bits"
	"sort"
	"strconv"
)

// Axis is one dimension of a list, whose items are the product of its axes: the last axis changes first. An axis is a sequence of rows, which
// are computed or read when a task needs them.
type Axis struct {
	Columns []string // names; empty for columns that have none
	Linked  bool     // the axis goes on together with the one before it, as far as the shorter one
	Rows    uint64
	Ranges  []Numbers // of one column, one after the other; or
	Blocks  uint64    // of Input.Blocks, after those of the axes before. Block.First counts values: those of a row are next to each other
}

// Numbers are the numbers From, From+Step, … up to To.
type Numbers struct {
	From, To int64
	Step     uint64 // 0: 1
	Width    uint32 // least number of digits, with zeros before them
}

// WidthMax bounds Numbers.Width.
const WidthMax = 64

// Bounds of a list.
const (
	axesMax    = 64
	columnsMax = 10_000
	rangesMax  = 100_000
	itemsMax   = 1 << 62
)

// Rows is how many numbers there are; math.MaxUint64 stands for one more, too.
func (n *Numbers) Rows() uint64 {
	if n.To < n.From {
		return 0
	}
	steps := (uint64(n.To) - uint64(n.From)) / max(n.Step, 1)
	return max(steps, steps+1)
}

func (n *Numbers) append(buf []byte, i uint64) []byte {
	v := n.From + int64(i*max(n.Step, 1))
	if n.Width == 0 {
		return strconv.AppendInt(buf, v, 10)
	}
	return fmt.Appendf(buf, "%0*d", n.Width, v)
}

// ListInput is the input of a list. The blocks are those of its axes. A seed shuffles the items, a limit keeps the first ones, and batch is
// how many a task has; 0: no. Lists that inputs of before feature level 2 can have are as they were then.
func ListInput(axes []Axis, blocks []Block, seed, limit, batch uint64) (Input, error) {
	in := Input{Kind: InputList, Axes: axes, Blocks: blocks, Seed: seed, Batch: batch}
	l, err := in.list()
	if err != nil {
		return Input{}, err
	}
	in.Items = l.items
	if limit > 0 {
		in.Items = min(in.Items, limit)
	}
	if in.Tasks = (in.Items-1)/max(batch, 1) + 1; in.Tasks > MaxTasks {
		return Input{}, fmt.Errorf("%d tasks are too many: a job may have %d", in.Tasks, uint64(MaxTasks))
	}
	first := &axes[0]
	if len(axes) > 1 || len(first.Columns) > 1 || first.Columns[0] != "" || seed != 0 || batch != 0 {
		return in, nil
	}
	switch {
	case len(first.Ranges) == 1 && first.Ranges[0].Step <= 1 && first.Ranges[0].Width == 0:
		from := first.Ranges[0].From
		return RangeInput(from, from+int64(in.Tasks-1))
	case len(first.Ranges) == 0 && in.Tasks == first.Rows:
		return Input{Kind: InputLines, Tasks: in.Tasks, Blocks: blocks}, nil
	}
	return in, nil
}

// IsList reports whether the tasks have items.
func (in *Input) IsList() bool {
	return in.Kind == InputRange || in.Kind == InputLines || in.Kind == InputList
}

// Columns returns the names of the columns of a list; nil: it is none.
func (in *Input) Columns() []string {
	if in.Kind != InputList {
		if in.IsList() {
			return []string{""}
		}
		return nil
	}
	var names []string
	for i := range in.Axes {
		names = append(names, in.Axes[i].Columns...)
	}
	return names
}

// product is the product of the axes of an input.
type product struct {
	groups  []group
	items   uint64 // of the product
	columns int
}

// axis is an axis of a list, with what precedes its parts.
type axis struct {
	*Axis
	block  int      // its first one
	ranges []uint64 // the first row of each
}

// group is axes that go on together.
type group struct {
	axes []axis
	rows uint64
}

var errList = errors.New("the list is damaged")

// list returns the product. Inputs of before feature level 2 are lists of one axis.
func (in *Input) list() (*product, error) {
	axes, items := in.Axes, in.Items
	if in.Kind != InputList {
		one := Axis{Columns: []string{""}, Rows: in.Tasks, Blocks: uint64(len(in.Blocks))}
		if in.Kind == InputRange {
			one.Ranges = []Numbers{{From: in.From, To: in.From + int64(in.Tasks-1)}}
		}
		axes, items = []Axis{one}, in.Tasks
	}
	l := &product{items: 1}
	block := 0
	for i := range axes {
		a := axis{Axis: &axes[i], block: block}
		if !a.valid() || a.Linked && i == 0 {
			return nil, errList
		}
		l.columns += len(a.Columns)
		block += int(a.Blocks)
		first := uint64(0)
		for k := range a.Ranges {
			a.ranges = append(a.ranges, first)
			first += a.Ranges[k].Rows()
		}
		if a.Linked {
			g := &l.groups[len(l.groups)-1]
			g.axes, g.rows = append(g.axes, a), min(g.rows, a.Rows)
		} else {
			l.groups = append(l.groups, group{axes: []axis{a}, rows: a.Rows})
		}
	}
	for _, g := range l.groups {
		high, low := bits.Mul64(l.items, g.rows)
		if l.items = low; high > 0 || low > itemsMax {
			return nil, fmt.Errorf("too many items: the lists have more than %d together", uint64(itemsMax))
		}
	}
	if len(l.groups) == 0 || len(axes) > axesMax || l.columns > columnsMax || l.items == 0 || items > l.items {
		return nil, errList
	}
	return l, nil
}

func (a *axis) valid() bool {
	if len(a.Columns) == 0 || len(a.Ranges) > rangesMax || a.Blocks > MaxTasks || len(a.Ranges) > 0 && (a.Blocks > 0 || len(a.Columns) > 1) {
		return false
	}
	rows := uint64(0)
	for i := range a.Ranges {
		r := &a.Ranges[i]
		if rows += r.Rows(); r.Rows() == 0 || rows < r.Rows() || r.Width > WidthMax {
			return false
		}
	}
	return len(a.Ranges) == 0 || rows == a.Rows
}

// valid reports whether what was read is a list. Its blocks may be staged.
func (in *Input) valid() bool {
	if in.Growing && in.Kind != InputFiles {
		return false
	}
	if in.Kind != InputList {
		return in.Kind < InputList
	}
	_, err := in.list()
	return err == nil && in.Items > 0 && in.Tasks == (in.Items-1)/max(in.Batch, 1)+1
}

// items returns the values of the items of a task, one item after the other.
func (r *InputReader) items(task uint64) ([][]byte, error) {
	if r.list == nil {
		var err error
		if r.list, err = r.in.list(); err != nil {
			return nil, err
		}
	}
	if r.in.Kind != InputList {
		return r.list.appendItem(nil, r, task)
	}
	batch := max(r.in.Batch, 1)
	var values [][]byte
	for i := task * batch; i < min((task+1)*batch, r.in.Items); i++ {
		item := i
		if r.in.Seed != 0 {
			item = permute(i, r.list.items, r.in.Seed)
		}
		var err error
		if values, err = r.list.appendItem(values, r, item); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// appendItem appends the columns of an item: a digit of its number for each group is the row.
func (l *product) appendItem(values [][]byte, r *InputReader, item uint64) ([][]byte, error) {
	rows := make([]uint64, len(l.groups))
	for i := len(l.groups) - 1; i >= 0; i-- {
		rows[i] = item % l.groups[i].rows
		item /= l.groups[i].rows
	}
	for i := range l.groups {
		for k := range l.groups[i].axes {
			a := &l.groups[i].axes[k]
			for column := range a.Columns {
				v, err := a.value(r, rows[i], column)
				if err != nil {
					return nil, err
				}
				values = append(values, v)
			}
		}
	}
	return values, nil
}

func (a *axis) value(r *InputReader, row uint64, column int) ([]byte, error) {
	if len(a.Ranges) > 0 {
		i := sort.Search(len(a.ranges), func(i int) bool { return a.ranges[i] > row }) - 1
		return a.Ranges[i].append(nil, row-a.ranges[i]), nil
	}
	if a.block+int(a.Blocks) > len(r.in.Blocks) {
		return nil, errList
	}
	i := row*uint64(len(a.Columns)) + uint64(column)
	blocks := r.in.Blocks[a.block : a.block+int(a.Blocks)]
	b := sort.Search(len(blocks), func(b int) bool { return blocks[b].First > i }) - 1
	if b < 0 {
		return nil, errList
	}
	if r.cache == nil {
		r.cache = NewBlockCache(blocksBytes)
	}
	var v []byte
	values, err := r.cache.get(blocks[b].Data)
	if err == nil {
		v, err = values.value(i - blocks[b].First)
	}
	if err != nil {
		return nil, fmt.Errorf("input block %d: %w", a.block+b, err)
	}
	return v, nil
}

// permute returns where i is in a permutation of the numbers below n: a Feistel network over the least even number of bits that holds n, walked
// until the result is below n. That is less than four steps on average.
func permute(i, n, seed uint64) uint64 {
	half := uint(bits.Len64(n-1)+1) / 2
	mask := uint64(1)<<half - 1
	for {
		left, right := i>>half, i&mask
		for round := range uint64(4) {
			left, right = right, left^mix(right^mix(seed+round))&mask
		}
		if i = left<<half | right; i < n {
			return i
		}
	}
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
