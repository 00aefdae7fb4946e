package state

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// axisOf is an axis of values, with its blocks.
func axisOf(tb testing.TB, columns []string, values ...string) (Axis, []Block) {
	tb.Helper()
	b := NewLines()
	for _, v := range values {
		b.AddLine([]byte(v))
	}
	in := mustInput(tb, b)
	return Axis{Columns: columns, Rows: uint64(len(values) / len(columns)), Blocks: uint64(len(in.Blocks))}, in.Blocks
}

func numbersOf(ranges ...Numbers) Axis {
	a := Axis{Columns: []string{""}, Ranges: ranges}
	for _, r := range ranges {
		a.Rows += r.Rows()
	}
	return a
}

// texts are the items of all tasks.
func texts(t fataler, in *Input) []string {
	t.Helper()
	r := NewInputReader(in)
	list := make([]string, in.Tasks)
	for i := range list {
		s := mustSplit(t, r, uint64(i))
		list[i] = string(s.Item)
		for k, v := range s.Values {
			if k > 0 {
				list[i] += [2]string{",", " "}[min(k%s.Columns, 1)]
			}
			list[i] += string(v)
		}
	}
	return list
}

func TestList(t *testing.T) {
	table, tableBlocks := axisOf(t, []string{"id", "path"}, "a", "x y", "b", "", "c", "\xff")
	letters, letterBlocks := axisOf(t, []string{""}, "p", "q")
	both := slices.Concat(tableBlocks, letterBlocks)
	linked := letters
	linked.Linked = true
	steps := numbersOf(Numbers{From: 1, To: 9, Step: 4}, Numbers{From: 8, To: 10, Width: 3}, Numbers{From: -5, To: -5, Width: 3})
	for _, test := range []struct {
		axes                []Axis
		blocks              []Block
		limit, batch, tasks uint64
		kind                InputKind
		want                string
	}{
		{[]Axis{steps}, nil, 0, 0, 7, InputList, "1|5|9|008|009|010|-05"},
		{[]Axis{steps}, nil, 0, 3, 3, InputList, "1,5,9|008,009,010|-05"},
		{[]Axis{steps}, nil, 5, 2, 3, InputList, "1,5|9,008|009"},
		{[]Axis{steps}, nil, 0, 1, 7, InputList, "1|5|9|008|009|010|-05"},
		{[]Axis{table}, tableBlocks, 0, 0, 3, InputList, "a x y|b |c \xff"},
		{[]Axis{table, letters}, both, 0, 0, 6, InputList, "a x y p|a x y q|b  p|b  q|c \xff p|c \xff q"},
		{[]Axis{table, linked}, both, 0, 0, 2, InputList, "a x y p|b  q"},
		{[]Axis{letters, linked, numbersOf(Numbers{From: 1, To: 2})}, slices.Concat(letterBlocks, letterBlocks), 3, 2, 2, InputList, "p p 1,p p 2|q q 1"},
		// What inputs of before feature level 2 can say.
		{[]Axis{letters}, letterBlocks, 0, 0, 2, InputLines, "p|q"},
		{[]Axis{letters}, letterBlocks, 9, 0, 2, InputLines, "p|q"},
		{[]Axis{letters}, letterBlocks, 1, 0, 1, InputList, "p"},
		{[]Axis{numbersOf(Numbers{From: 7, To: 99, Step: 1})}, nil, 3, 0, 3, InputRange, "7|8|9"},
	} {
		in, err := ListInput(test.axes, test.blocks, 0, test.limit, test.batch)
		if err != nil {
			t.Errorf("ListInput(%v) = %v", test.axes, err)
			continue
		}
		if got := strings.Join(texts(t, &in), "|"); got != test.want || in.Kind != test.kind || in.Tasks != test.tasks {
			t.Errorf("ListInput(%v) has kind %d and %d tasks %q, want %d, %d, %q", test.axes, in.Kind, in.Tasks, got, test.kind, test.tasks, test.want)
		}
	}
}

func TestListColumns(t *testing.T) {
	table, blocks := axisOf(t, []string{"id", ""}, "a", "b")
	in, err := ListInput([]Axis{numbersOf(Numbers{}), table}, blocks, 0, 0, 0)
	if got := in.Columns(); err != nil || !slices.Equal(got, []string{"", "id", ""}) {
		t.Errorf("Columns() = %q, %v", got, err)
	}
}

// TestListRefused: nothing of a damaged or too large list is used.
func TestListRefused(t *testing.T) {
	wide := numbersOf(Numbers{From: math.MinInt64, To: math.MaxInt64})
	half := numbersOf(Numbers{From: 1, To: 1 << 40})
	for name, axes := range map[string][]Axis{
		"none": {}, "no rows": {{Columns: []string{""}}}, "no columns": {{Rows: 1}}, "the first is linked": {{Columns: []string{""}, Rows: 1, Linked: true}},
		"64 bits": {wide}, "a product": {half, half}, "wrong rows": {{Columns: []string{""}, Rows: 2, Ranges: []Numbers{{}}}},
		"numbers and blocks": {{Columns: []string{""}, Rows: 1, Blocks: 1, Ranges: []Numbers{{}}}}, "an empty range": {{Columns: []string{""}, Ranges: []Numbers{{From: 1}}}},
	} {
		if in, err := ListInput(axes, nil, 0, 0, 0); err == nil {
			t.Errorf("%s: ListInput() = %+v, want an error", name, in)
		}
	}
	// A part of a product that is too large for a job.
	in, err := ListInput([]Axis{half, numbersOf(Numbers{From: 1, To: 1 << 20})}, nil, 5, 3, 0)
	if err != nil || in.Tasks != 3 || len(texts(t, &in)) != 3 {
		t.Errorf("ListInput() = %+v, %v, want 3 tasks", in, err)
	}
	// Blocks that are not there.
	in = Input{Kind: InputList, Tasks: 1, Items: 1, Axes: []Axis{{Columns: []string{""}, Rows: 1, Blocks: 1}}}
	if s, err := NewInputReader(&in).Split(0); err == nil {
		t.Errorf("Split(0) = %+v, want an error", s)
	}
}

// TestShuffle: a shuffled list has each item once, and another order with each seed.
func TestShuffle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(1, 3000).Draw(t, "n")
		seed := rapid.Uint64().Draw(t, "seed")
		seen := make([]bool, n)
		for i := range n {
			at := permute(i, n, seed)
			if at >= n || seen[at] {
				t.Fatalf("permute(%d, %d, %d) = %d, again or too large", i, n, seed, at)
			}
			seen[at] = true
		}
	})
	lines := make([]string, 6000) // two blocks
	for i := range lines {
		lines[i] = fmt.Sprintf("line %d", i)
	}
	axis, blocks := axisOf(t, []string{""}, lines...)
	var orders [3][]string
	for i, seed := range []uint64{1, 1, 2} {
		in, err := ListInput([]Axis{axis}, blocks, seed, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		orders[i] = texts(t, &in)
	}
	if !slices.Equal(orders[0], orders[1]) || slices.Equal(orders[0], orders[2]) || slices.Equal(orders[0], lines) {
		t.Error("the order does not depend on the seed alone")
	}
	sorted := slices.Sorted(slices.Values(orders[0]))
	if !slices.Equal(sorted, slices.Sorted(slices.Values(lines))) {
		t.Error("a shuffled list has other items")
	}
}

// TestListIsSmall: ten million combinations take a few bytes of the log.
func TestListIsSmall(t *testing.T) {
	in, err := ListInput([]Axis{numbersOf(Numbers{From: 1, To: 10_000}), numbersOf(Numbers{From: 1, To: 1000})}, nil, 9, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	e := NewEntry(1, FeatureLevel)
	e.Submit("key", "uid", "", &Spec{Output: "/out", Input: in})
	if n := len(e.Data()); n > 200 || in.Tasks != 10_000_000 {
		t.Errorf("%d tasks take %d bytes", in.Tasks, n)
	}
}

// BenchmarkListSplit reads shuffled items: of a product of numbers, and of lines in many blocks, which are kept or are not.
func BenchmarkListSplit(b *testing.B) {
	lines := make([]string, 1_000_000)
	for i := range lines {
		lines[i] = fmt.Sprintf("https://example.org/path/%d", i)
	}
	values, blocks := axisOf(b, []string{""}, lines...)
	numbers := []Axis{numbersOf(Numbers{From: 1, To: 10_000}), numbersOf(Numbers{From: 1, To: 1000, Width: 4})}
	for _, list := range []struct {
		name string
		axes []Axis
		kept int
	}{{"numbers", numbers, 0}, {"kept", []Axis{values}, 64 << 20}, {"inflated", []Axis{values}, 0}} {
		b.Run(list.name, func(b *testing.B) {
			in, err := ListInput(list.axes, blocks, 9, 0, 0)
			if err != nil {
				b.Fatal(err)
			}
			r := NewBlockCache(list.kept).NewReader(&in)
			for i := range uint64(10 * len(blocks)) { // most blocks are kept then
				_, _ = r.Split(i)
			}
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				if _, err := r.Split(i % in.Tasks); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
