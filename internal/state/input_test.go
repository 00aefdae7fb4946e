package state

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustInput(tb testing.TB, b *InputBuilder) *Input {
	tb.Helper()
	in, err := b.Input()
	if err != nil {
		tb.Fatal(err)
	}
	return &in
}

func mustSplit(t fataler, r *InputReader, i uint64) Split {
	t.Helper()
	s, err := r.Split(i)
	if err != nil {
		t.Fatalf("Split(%d): %v", i, err)
	}
	return s
}

func TestInputNone(t *testing.T) {
	for _, tasks := range []uint64{0, 1} {
		r := NewInputReader(&Input{Tasks: tasks})
		if s := mustSplit(t, r, 0); s.Item != nil || s.Path != nil || s.Length != 0 {
			t.Errorf("Split(0) = %+v, want nothing", s)
		}
		if s, err := r.Split(1); err == nil {
			t.Errorf("Split(1) = %+v, want an error", s)
		}
	}
}

func TestRangeInput(t *testing.T) {
	for _, test := range []struct {
		first, last int64
		tasks       uint64
		items       map[uint64]string
	}{
		{1, 1, 1, map[uint64]string{0: "1"}},
		{1, 10_000_000, 10_000_000, map[uint64]string{0: "1", 9_999_999: "10000000"}},
		{-2, 2, 5, map[uint64]string{0: "-2", 2: "0", 4: "2"}},
		{math.MinInt64, math.MinInt64 + 1, 2, map[uint64]string{0: "-9223372036854775808"}},
		{math.MaxInt64 - 1, math.MaxInt64, 2, map[uint64]string{1: "9223372036854775807"}},
		{0, MaxTasks - 1, MaxTasks, map[uint64]string{MaxTasks - 1: "4294967295"}},
	} {
		in, err := RangeInput(test.first, test.last)
		if err != nil || in.Tasks != test.tasks {
			t.Errorf("RangeInput(%d, %d) = %d tasks, %v, want %d", test.first, test.last, in.Tasks, err, test.tasks)
			continue
		}
		r := NewInputReader(&in)
		for i, want := range test.items {
			if got := mustSplit(t, r, i); string(got.Item) != want || got.Path != nil {
				t.Errorf("%d-%d: Split(%d) = %q, want %q", test.first, test.last, i, got.Item, want)
			}
		}
		if s, err := r.Split(test.tasks); err == nil {
			t.Errorf("%d-%d: Split(%d) = %+v, want an error", test.first, test.last, test.tasks, s)
		}
		if in.Longest() != nil {
			t.Errorf("%d-%d: Longest() gives an order for a range", test.first, test.last)
		}
	}
	for _, test := range []struct {
		first, last int64
		says        string
	}{
		{2, 1, "is empty"},
		{math.MaxInt64, math.MinInt64, "is empty"},
		{0, MaxTasks, "too long"},
		{math.MinInt64, math.MaxInt64, "too long"},
	} {
		if in, err := RangeInput(test.first, test.last); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("RangeInput(%d, %d) = %d tasks, %v, want an error with %q", test.first, test.last, in.Tasks, err, test.says)
		}
	}
}

func TestSplitTable(t *testing.T) {
	for _, test := range []struct {
		size, split uint64
		whole       bool
		want        string
	}{
		{0, 10, false, "0+0"},
		{1, 10, false, "0+1"},
		{10, 10, false, "0+10"},
		{11, 10, false, "0+10 10+1"},
		{25, 10, false, "0+10 10+10 20+5"},
		{25, 10, true, "0+25whole"},
		{25, 0, false, "0+25whole"},
		{0, 0, false, "0+0whole"},
		{0, 10, true, "0+0whole"},
		{3, 1, false, "0+1 1+1 2+1"},
		{1 << 62, 1 << 61, false, "0+2305843009213693952 2305843009213693952+2305843009213693952"},
	} {
		b := NewFiles(test.split)
		b.AddFile([]byte("f"), Version{Size: test.size}, test.whole)
		in := mustInput(t, b)
		r := NewInputReader(in)
		var got []string
		for i := range in.Tasks {
			s := mustSplit(t, r, i)
			text := fmt.Sprintf("%d+%d", s.Offset, s.Length)
			if s.Whole {
				text += "whole"
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != test.want || in.Bytes != test.size {
			t.Errorf("%d bytes cut at %d (whole %v): %v of %d bytes, want %s", test.size, test.split, test.whole, got, in.Bytes, test.want)
		}
	}
}

// file is a file as the properties below know it.
type file struct {
	path     string
	size     uint64
	whole    bool
	modified int64
	identity uint64
}

func files(t *rapid.T) []file {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) file {
		path := rapid.SliceOfN(rapid.Byte(), 1, 8).Draw(t, "path")
		if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
			path = bytes.Repeat(path, 4000) // a few of these fill a block
		}
		return file{string(path), rapid.Uint64Range(0, 300).Draw(t, "size"), rapid.Bool().Draw(t, "whole"), rapid.Int64().Draw(t, "modified"), rapid.Uint64().Draw(t, "identity")}
	}), 1, 60).Draw(t, "files")
}

// TestFilesCovered: the splits of an input cover each file exactly, in order, none is longer than asked, and they are the
// same whether they are read in order or not; Longest names each task once, the longest first, equal ones in order.
func TestFilesCovered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		splitSize := rapid.SampledFrom([]uint64{0, 1, 7, 100, 1000}).Draw(t, "split size")
		list := files(t)
		b := NewFiles(splitSize)
		var total uint64
		for _, f := range list {
			b.AddFile([]byte(f.path), Version{Size: f.size, Modified: f.modified, Identity: f.identity, Tail: f.identity / 3}, f.whole)
			total += f.size
		}
		in, err := b.Input()
		if err != nil || in.Bytes != total {
			t.Fatalf("Input() = %d bytes, %v, want %d", in.Bytes, err, total)
		}
		r := NewInputReader(&in)
		var all []Split
		i := uint64(0)
		for n, f := range list {
			for at := uint64(0); ; i++ {
				s := mustSplit(t, r, i)
				if string(s.Path) != f.path || s.Offset != at || s.Item != nil {
					t.Fatalf("Split(%d) = %q at %d, want file %d, %q, at %d", i, s.Path, s.Offset, n, f.path, at)
				}
				if uncut := f.whole || splitSize == 0; s.Whole != uncut || !uncut && s.Length > splitSize {
					t.Fatalf("Split(%d) has %d bytes, whole %v; cut at %d, whole %v", i, s.Length, s.Whole, splitSize, f.whole)
				}
				if want := (Version{Size: f.size, Modified: f.modified, Identity: f.identity, Tail: f.identity / 3}); s.Version != want {
					t.Fatalf("Split(%d) has version %+v, want %+v", i, s.Version, want)
				}
				if s.Length == 0 && f.size > 0 {
					t.Fatalf("Split(%d) of %q is empty", i, f.path)
				}
				all = append(all, s)
				if at += s.Length; at >= f.size {
					i++
					break
				}
			}
			if last := all[len(all)-1]; last.Offset+last.Length != f.size {
				t.Fatalf("the last split of %q ends at %d, want %d", f.path, last.Offset+last.Length, f.size)
			}
		}
		if i != in.Tasks {
			t.Fatalf("%d splits cover all, and there are %d tasks", i, in.Tasks)
		}
		for _, i := range rapid.SliceOfN(rapid.Uint64Range(0, in.Tasks-1), 1, 20).Draw(t, "any order") {
			if s := mustSplit(t, r, i); string(s.Path) != string(all[i].Path) || s.Offset != all[i].Offset || s.Length != all[i].Length {
				t.Fatalf("Split(%d), read again, = %+v, want %+v", i, s, all[i])
			}
		}
		longest(t, &in, all)
	})
}

func longest(t *rapid.T, in *Input, all []Split) {
	want := make([]uint32, len(all))
	for i := range want {
		want[i] = uint32(i)
	}
	length := func(i uint32) int {
		if len(in.Blocks) > 1 {
			return bits.Len64(all[i].Length)
		}
		return int(all[i].Length)
	}
	slices.SortStableFunc(want, func(a, b uint32) int { return length(b) - length(a) })
	if length(want[0]) == length(want[len(want)-1]) {
		want = nil
	}
	if got := in.Longest(); !slices.Equal(got, want) {
		t.Fatalf("Longest() = %v, want %v", got, want)
	}
}

// TestCutFiles: files that are cut at given offsets, among others, have these splits.
func TestCutFiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 10
		b := NewFiles(size)
		var want []Split
		for range rapid.IntRange(1, 10).Draw(t, "files") {
			v := Version{Size: rapid.Uint64Range(0, 100).Draw(t, "size"), Modified: 1}
			if v.Size <= size || rapid.Bool().Draw(t, "whole") {
				b.AddFile([]byte("whole"), v, true)
				want = append(want, Split{Path: []byte("whole"), Length: v.Size, Whole: true, Version: v})
				continue
			}
			var cuts []int64
			last := uint64(0)
			for at := uint64(size); at < v.Size; at += size {
				cut := max(last, rapid.Uint64Range(at, v.Size).Draw(t, "cut"))
				cuts = append(cuts, int64(cut))
				want = append(want, Split{Path: []byte("cut"), Offset: last, Length: cut - last, Version: v})
				last = cut
			}
			want = append(want, Split{Path: []byte("cut"), Offset: last, Length: v.Size - last, Version: v})
			b.AddCutFile([]byte("cut"), v, cuts)
			if rapid.Bool().Draw(t, "flush") {
				b.flush()
			}
		}
		in, err := b.Input()
		if err != nil || in.Tasks != uint64(len(want)) {
			t.Fatalf("Input() = %d tasks, %v, want %d", in.Tasks, err, len(want))
		}
		r := NewInputReader(&in)
		for i := range in.Tasks {
			if s := mustSplit(t, r, i); !reflect.DeepEqual(s, want[i]) {
				t.Fatalf("Split(%d) = %+v, want %+v", i, s, want[i])
			}
		}
		for i := range in.Blocks {
			if len(in.Blocks[i].Cuts) > 0 {
				in.Blocks[i].Cuts = b.compress(nil)
				if _, err := in.decode(i); err == nil {
					t.Fatal("decode of a block without its cuts succeeds")
				}
			}
		}
	})
}

// TestChangedFiles: the files that were read again have their new version, and each still has one split.
func TestChangedFiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewFiles(10)
		var starts []uint64
		list := rapid.SliceOfN(rapid.Uint64Range(0, 25), 1, 30).Draw(t, "sizes")
		for i, size := range list {
			starts = append(starts, b.in.Tasks)
			b.AddFile(fmt.Appendf(nil, "f%d", i), Version{Size: size, Modified: 1, Identity: 1}, i%5 == 0)
			if rapid.Bool().Draw(t, "flush") {
				b.flush()
			}
		}
		in, err := b.Input()
		if err != nil {
			t.Fatal(err)
		}
		want := map[uint64]Version{}
		for i, size := range list {
			if (size <= 10 || i%5 == 0) && rapid.Bool().Draw(t, "changed") {
				v := Version{Size: rapid.Uint64Range(0, 100).Draw(t, "new size"), Modified: 2, Identity: uint64(i)}
				want[starts[i]] = v
				in.Changed = append(in.Changed, FileChange{Task: starts[i], Version: v})
			}
		}
		r := NewInputReader(&in)
		for i := range in.Tasks {
			s := mustSplit(t, r, i)
			switch v, changed := want[i]; {
			case changed && (s.Version != v || s.Offset != 0 || s.Length != v.Size):
				t.Fatalf("Split(%d) = %+v, want all of a file of version %+v", i, s, v)
			case !changed && s.Version.Modified != 1:
				t.Fatalf("Split(%d) = %+v, want its old version", i, s)
			}
		}
	})
}

func TestLongestOfTooMany(t *testing.T) {
	b := NewFiles(1)
	b.AddFile([]byte("f"), Version{Size: 1 << 20}, false)
	b.AddFile(nil, Version{Size: 0}, false)
	in := mustInput(t, b)
	if n := allocated(func() {
		if in.Longest() != nil {
			t.Errorf("Longest() orders %d tasks", in.Tasks)
		}
	}); n > 1<<20 {
		t.Errorf("Longest() of %d tasks, which it does not order, allocates %d bytes", in.Tasks, n)
	}
}

// TestLines: arbitrary bytes, empty lines, and lines longer than a block come back as they went in.
func TestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) []byte {
			line := rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "line")
			if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
				line = bytes.Repeat(line, 6000)
			}
			return line
		}), 0, 50).Draw(t, "lines")
		b := NewLines()
		for _, line := range lines {
			b.AddLine(line)
		}
		in, err := b.Input()
		if err != nil || in.Tasks != uint64(len(lines)) {
			t.Fatalf("Input() = %d tasks, %v, want %d", in.Tasks, err, len(lines))
		}
		r := NewInputReader(&in)
		for i, line := range lines {
			if s := mustSplit(t, r, uint64(i)); !bytes.Equal(s.Item, line) || s.Path != nil {
				t.Fatalf("Split(%d) = %q, want %q", i, s.Item, line)
			}
		}
		if s, err := r.Split(in.Tasks); err == nil {
			t.Fatalf("Split(%d) of %d = %+v, want an error", in.Tasks, in.Tasks, s)
		}
	})
}

// TestManyLines: lines that are alike take a fraction of their text. BenchmarkLines has ten million.
func TestManyLines(t *testing.T) {
	const lines = uint64(300_000)
	b := NewLines()
	line := func(i uint64) []byte { return fmt.Appendf(nil, "https://example.org/page/%d", i) }
	for i := range lines {
		b.AddLine(line(i))
	}
	in := mustInput(t, b)
	size := 0
	for _, block := range in.Blocks {
		size += len(block.Data)
	}
	if in.Tasks != lines || uint64(size) > 6*lines {
		t.Errorf("%d lines in %d bytes, want %d lines in at most %d", in.Tasks, size, lines, 6*lines)
	}
	r := NewInputReader(in)
	for i := uint64(0); i < lines; i += 1 + i%301 {
		if s := mustSplit(t, r, i); !bytes.Equal(s.Item, line(i)) {
			t.Fatalf("Split(%d) = %q, want %q", i, s.Item, line(i))
		}
	}
}

func TestTooManyTasks(t *testing.T) {
	b := NewFiles(1)
	b.AddFile([]byte("f"), Version{Size: MaxTasks}, false)
	if in, err := b.Input(); err != nil || in.Tasks != MaxTasks {
		t.Errorf("Input() = %d tasks, %v, want %d", in.Tasks, err, uint64(MaxTasks))
	}
	b = NewFiles(1)
	b.AddFile([]byte("f"), Version{Size: MaxTasks + 1}, false)
	if in, err := b.Input(); err == nil || !strings.Contains(err.Error(), "larger split") {
		t.Errorf("Input() = %d tasks, %v, want an error that names the way out", in.Tasks, err)
	}
}

func TestDamagedBlock(t *testing.T) {
	b := NewFiles(10)
	b.AddFile([]byte("file"), Version{Size: 25, Modified: 1, Identity: 2}, false)
	in := mustInput(t, b)
	good := in.Blocks[0].Data
	for n := range good {
		in.Blocks[0].Data = good[:n]
		if s, err := NewInputReader(in).Split(0); err == nil {
			t.Errorf("Split(0) of %d of %d bytes = %+v, want an error", n, len(good), s)
		}
	}
	in.Blocks[0].Data = good
	for n := range len(in.Blocks[0].Versions) - 1 { // without any, they are unknown
		damaged := *in
		damaged.Blocks = []Block{{Data: good, Versions: in.Blocks[0].Versions[:n+1]}}
		if s, err := NewInputReader(&damaged).Split(0); err == nil {
			t.Errorf("Split(0) with %d of %d bytes of versions = %+v, want an error", n+1, len(in.Blocks[0].Versions), s)
		}
	}
	in.Blocks = nil
	if s, err := NewInputReader(in).Split(0); err == nil {
		t.Errorf("Split(0) without blocks = %+v, want an error", s)
	}
}

// TestPacks: files that share a task come back in order, whatever their versions have become, and blocks that say otherwise are damaged.
func TestPacks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 10
		b := NewFiles(size)
		var want [][]Split
		for range rapid.IntRange(1, 20).Draw(t, "groups") {
			if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
				v := Version{Size: 25, Modified: 3}
				b.AddFile([]byte("cut"), v, false)
				for at := uint64(0); at < 25; at += size {
					want = append(want, []Split{{Path: []byte("cut"), Offset: at, Length: min(size, 25-at), Version: v}})
				}
				continue
			}
			var pack []Split
			for range rapid.IntRange(1, 5).Draw(t, "files") {
				n := rapid.Uint64Range(0, size).Draw(t, "size")
				f := Split{Path: fmt.Appendf(nil, "f%d", len(want)), Length: n, Version: Version{Size: n, Modified: int64(n), Identity: 7}}
				if f.Whole = rapid.Bool().Draw(t, "whole"); f.Whole {
					f.Version.Size, f.Length = 5*n, 5*n
				}
				pack = append(pack, f)
			}
			b.Pack(pack)
			want = append(want, pack)
			if rapid.Bool().Draw(t, "flush") {
				b.flush()
			}
		}
		tasks := uint64(len(want))
		in, err := b.Input()
		if err != nil || in.Tasks != tasks {
			t.Fatalf("Input() = %d tasks, %v, want %d", in.Tasks, err, tasks)
		}
		for i, files := range want { // in order
			for k := range files {
				if f := &files[k]; f.Length == f.Version.Size && rapid.IntRange(0, 3).Draw(t, "change") == 0 {
					f.Version = Version{Size: rapid.Uint64Range(0, 30).Draw(t, "new size"), Modified: 9}
					f.Length, f.Whole = f.Version.Size, f.Whole || f.Version.Size > size
					in.Changed = append(in.Changed, FileChange{Task: uint64(i), File: uint64(k), Version: f.Version})
				}
			}
		}
		r := NewInputReader(&in)
		var lengths []uint64
		for i, files := range want {
			s, length := mustSplit(t, r, uint64(i)), uint64(0)
			for _, f := range files {
				length += f.Length
			}
			lengths = append(lengths, length)
			if got := s.Files; len(files) > 1 && (!reflect.DeepEqual(got, files) || s.Length != length) || len(files) == 1 && !reflect.DeepEqual(s, files[0]) {
				t.Fatalf("Split(%d) = %+v, want %+v", i, s, files)
			}
		}
		if order := in.Longest(); order != nil && len(in.Blocks) == 1 && !slices.IsSortedFunc(order, func(a, b uint32) int { return cmp.Compare(lengths[b], lengths[a]) }) {
			t.Fatalf("Longest() = %v of lengths %v", order, lengths)
		}
		for i := range in.Blocks {
			for _, packs := range [][]byte{{0}, {255, 1}, {}} {
				damaged := in
				damaged.Blocks = slices.Clone(in.Blocks)
				damaged.Blocks[i].Packs = b.compress(packs)
				if _, err := damaged.decode(i); err == nil {
					t.Fatalf("decode of a block with packs %v succeeds", packs)
				}
			}
		}
	})
}
