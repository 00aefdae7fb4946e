package shuffle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

type pair struct{ key, value string }

// keys are kinds of keys; each returns the i-th.
var keys = map[string]func(r *rand.Rand, i int) string{
	"uniform":     func(r *rand.Rand, _ int) string { return fmt.Sprintf("%016x", r.Uint64()) },
	"few":         func(r *rand.Rand, _ int) string { return fmt.Sprint(r.IntN(20)) },
	"zipf":        func(r *rand.Rand, _ int) string { return fmt.Sprint(rand.NewZipf(r, 1.2, 1, 1<<20).Uint64()) },
	"equal":       func(*rand.Rand, int) string { return "the same key, longer than a prefix" },
	"empty":       func(*rand.Rand, int) string { return "" },
	"long prefix": func(r *rand.Rand, _ int) string { return strings.Repeat("p", 100) + fmt.Sprint(r.IntN(1000)) },
	"ascending":   func(_ *rand.Rand, i int) string { return fmt.Sprintf("%09d", i) },
	"descending":  func(_ *rand.Rand, i int) string { return fmt.Sprintf("%09d", 1<<24-i) },
	"zeros":       func(r *rand.Rand, _ int) string { return strings.Repeat("\x00", r.IntN(24)) },
	"zeros inside": func(r *rand.Rand, _ int) string {
		return "ab"[:r.IntN(3)] + strings.Repeat("\x00", r.IntN(20)) + "c"[:r.IntN(2)]
	},
	"any bytes": func(r *rand.Rand, _ int) string {
		key := make([]byte, r.IntN(20))
		for i := range key {
			key[i] = "\x00\x01\t\n \xfe\xff"[r.IntN(7)]
		}
		return string(key)
	},
	"of 7 to 9":    func(r *rand.Rand, _ int) string { return strings.Repeat("x", 7+r.IntN(3)) },
	"long and few": func(r *rand.Rand, _ int) string { return strings.Repeat(fmt.Sprint(r.IntN(3)), 300) },
}

// TestShuffle compares with a stable sort: many kinds of keys, memory that does and does not suffice, few and many segments.
func TestShuffle(t *testing.T) {
	const n, segments, partitions = 20_000, 7, 5
	for name, key := range keys {
		for _, memory := range []int64{64 << 20, 1 << 20, 64 << 10} {
			t.Run(fmt.Sprintf("%s/%dKiB", name, memory>>10), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(1, uint64(memory)))
				cfg := Config{Memory: memory, Temp: t.TempDir()}
				w := &Writer{cfg: cfg}
				want := make([][]pair, partitions)
				var list []Segment
				for s := range segments {
					w.Begin(partitions)
					for i := range n / segments {
						k, v := key(r, i), fmt.Sprint(s, i)
						p := Hash([]byte(k), partitions)
						add(t, w, p, k, v)
						want[p] = append(want[p], pair{k, v})
					}
					segment, _ := finish(t, w)
					list = append(list, segment)
				}
				for p := range partitions {
					slices.SortStableFunc(want[p], func(a, b pair) int { return strings.Compare(a.key, b.key) })
					if got := merged(t, cfg, list, p, partitions); !slices.Equal(got, want[p]) {
						t.Errorf("partition %d: %d records are not the %d sorted ones", p, len(got), len(want[p]))
					}
				}
			})
		}
	}
}

// TestRanges compares sorted segments with a stable sort: the ranges, one after another, are in order, each key is in one, and they have about as many bytes each.
func TestRanges(t *testing.T) {
	const n, segments = 20_000, 7
	for name, key := range keys {
		for _, memory := range []int64{64 << 20, 64 << 10} {
			t.Run(fmt.Sprintf("%s/%dKiB", name, memory>>10), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(2, uint64(memory)))
				cfg := Config{Memory: memory, Temp: t.TempDir()}
				w := &Writer{cfg: cfg}
				var want []pair
				var list []Segment
				for s := range segments {
					w.BeginSorted()
					for i := range n / segments {
						k, v := key(r, i), fmt.Sprint(s, i)
						add(t, w, 0, k, v)
						want = append(want, pair{k, v})
					}
					segment, _ := finish(t, w)
					list = append(list, segment)
				}
				slices.SortStableFunc(want, func(a, b pair) int { return strings.Compare(a.key, b.key) })
				for _, ranges := range []int{1, 2, 5, 300} {
					var got []pair
					largest := 0
					for i := range ranges {
						before := len(got)
						reader := &Reader{cfg: cfg}
						m, err := reader.OpenRange(list, i, ranges)
						if err != nil {
							t.Fatal(err)
						}
						for record, err := range records(m) {
							if err != nil {
								t.Fatal(err)
							}
							got = append(got, pair{string(record.Key), string(record.Value)})
						}
						if before > 0 && before < len(got) && got[before-1].key == got[before].key {
							t.Errorf("range %d of %d begins within key %q", i, ranges, got[before].key)
						}
						largest = max(largest, len(got)-before)
					}
					if !slices.Equal(got, want) {
						t.Errorf("%d ranges: %d records are not the %d sorted ones", ranges, len(got), len(want))
					}
					if name == "uniform" && ranges <= 5 && largest > len(want)/ranges*5/4 {
						t.Errorf("%d ranges: the largest has %d of %d records", ranges, largest, len(want))
					}
				}
			})
		}
	}
}

// TestSortedLost: a sorted segment that is cut or changed at any place is noticed by the reader of the range, or of all of them.
func TestSortedLost(t *testing.T) {
	w := NewWriter(Config{Temp: t.TempDir()})
	w.BeginSorted()
	for i := range 3000 {
		add(t, w, 0, fmt.Sprint(i%100), strings.Repeat("v", i%50))
	}
	good, _ := finish(t, w)
	whole := content(t, good)
	r := rand.New(rand.NewPCG(5, 6))
	reader := NewReader(Config{Temp: t.TempDir()})
	for range 300 {
		flipped := bytes.Clone(whole)
		at := r.IntN(len(whole))
		flipped[at] ^= byte(1) << r.IntN(8)
		var failed error
		for p := range 3 {
			m, err := reader.OpenRange([]Segment{good, inMemory(flipped)}, p, 3)
			failed = cmp.Or(failed, err)
			if err != nil {
				continue
			}
			for _, err := range records(m) {
				failed = cmp.Or(failed, err)
			}
		}
		if lost, ok := errors.AsType[*LostError](failed); !ok || !slices.Equal(lost.Segments, []int{1}) {
			t.Errorf("a bit of byte %d of %d flipped: error %v, want that segment 1 is lost", at, len(whole), failed)
		}
	}
	w.Begin(1)
	add(t, w, 0, "a", "1")
	other, _ := finish(t, w)
	if _, err := reader.OpenRange([]Segment{other}, 0, 3); !isLost(err) {
		t.Errorf("a segment that is not sorted as a whole: %v, want that it is damaged", err)
	}
}

// TestWriterMerge: what was added is read back in order, from memory and from temporary files.
func TestWriterMerge(t *testing.T) {
	for _, memory := range []int64{64 << 20, 64 << 10} {
		w := &Writer{cfg: Config{Memory: memory, Temp: t.TempDir()}}
		r := rand.New(rand.NewPCG(7, 8))
		w.Begin(1)
		var want, got []pair
		for i := range 20_000 {
			p := pair{fmt.Sprint(r.IntN(1000)), fmt.Sprint(i)}
			want = append(want, p)
			add(t, w, 0, p.key, p.value)
		}
		slices.SortStableFunc(want, func(a, b pair) int { return strings.Compare(a.key, b.key) })
		for record, err := range records(read(t, w)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, pair{string(record.Key), string(record.Value)})
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d bytes of memory: %d records are not the %d sorted ones", memory, len(got), len(want))
		}
		w.Close()
	}
}

func read(t *testing.T, w *Writer) *Merge {
	t.Helper()
	m, err := w.Merge()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestLongRecordsAreMergedInPasses: as many runs and segments are open at once as have room for their longest records.
func TestLongRecordsAreMergedInPasses(t *testing.T) {
	cfg := Config{Memory: MemoryMin, Temp: t.TempDir()}
	w := NewWriter(cfg)
	var want []pair
	var list []Segment
	for s := range 6 {
		w.Begin(1)
		for i := range 5 {
			p := pair{fmt.Sprint(i), strings.Repeat(fmt.Sprint(s), 3<<20)}
			want = append(want, p)
			add(t, w, 0, p.key, p.value)
		}
		if n := len(w.runs); n < 2 || fit(w.cfg, w.runs) != 2 {
			t.Errorf("%d runs, of which %d are merged at once; want that two are", n, fit(w.cfg, w.runs))
		}
		segment, _ := finish(t, w)
		list = append(list, segment)
	}
	sources, err := findSources(list, 0, 1)
	if n := fit(cfg, sources); err != nil || n != 2 {
		t.Errorf("%d of %d segments are merged at once, %v; want 2", n, len(sources), err)
	}
	slices.SortStableFunc(want, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	if got := merged(t, cfg, list, 0, 1); !slices.Equal(got, want) {
		t.Errorf("%d records are not the %d sorted ones", len(got), len(want))
	}
}

// TestRecordsLongerThanTheMemory: they are not copied into the buffer, keep their place among those of their key, and are never all merged at once.
func TestRecordsLongerThanTheMemory(t *testing.T) {
	const partitions = 3
	cfg := Config{Memory: MemoryMin, Temp: t.TempDir()}
	w := NewWriter(cfg)
	w.Begin(partitions)
	want := make([][]pair, partitions)
	long := strings.Repeat("v", MemoryMin)
	for i := range 8 {
		for p := range partitions {
			for _, value := range []string{fmt.Sprint(i), long[:MemoryMin-i], ""} {
				if len(value) > 1 && p != i%partitions {
					continue
				}
				one := pair{fmt.Sprint("key", i%2), value}
				want[p] = append(want[p], one)
				add(t, w, p, one.key, one.value)
			}
		}
		if n := int64(len(w.buf.chunks) * chunkBytes); n > w.cfg.Memory/2 {
			t.Fatalf("the buffer has %d bytes", n)
		}
		if n := len(w.runs); n > 6 {
			t.Fatalf("%d runs after %d long records", n, i+1)
		}
	}
	segment, totals := finish(t, w)
	if total := len(slices.Concat(want...)); totals.Records != uint64(total) {
		t.Errorf("%d records, want %d", totals.Records, total)
	}
	for p := range partitions {
		slices.SortStableFunc(want[p], func(a, b pair) int { return strings.Compare(a.key, b.key) })
		if got := merged(t, cfg, []Segment{segment}, p, partitions); !slices.Equal(got, want[p]) {
			t.Errorf("partition %d: %d records are not the %d sorted ones", p, len(got), len(want[p]))
		}
	}
}

// TestLargeRecords: records longer than a chunk of the buffer, than a block, and than the memory.
func TestLargeRecords(t *testing.T) {
	cfg := Config{Memory: 1 << 20, Temp: t.TempDir()}
	w := &Writer{cfg: cfg}
	w.Begin(1)
	r := rand.New(rand.NewPCG(3, 4))
	var want []pair
	for i, size := range []int{0, 127, 128, blockBytes, chunkBytes - 9, chunkBytes, chunkBytes + 1, 5 << 20, 3, 40 << 20, 1} {
		value := make([]byte, size)
		for k := 0; k < size; k += 8 {
			value[k] = byte(r.Uint32())
		}
		want = append(want, pair{fmt.Sprint(20 - i), string(value)}, pair{string(value), ""})
	}
	for _, p := range want {
		add(t, w, 0, p.key, p.value)
	}
	segment, totals := finish(t, w)
	slices.SortStableFunc(want, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	if got := merged(t, cfg, []Segment{segment}, 0, 1); !slices.Equal(got, want) {
		t.Errorf("%d records are not the %d sorted ones", len(got), len(want))
	}
	if totals.Stored != segment.Size || totals.Records != uint64(len(want)) || totals.Spilled == 0 {
		t.Errorf("totals %+v; the segment has %d bytes", totals, segment.Size)
	}
	if w.buf.memory() != 0 || len(w.buf.free) > 4 {
		t.Errorf("the buffer keeps %d bytes and %d chunks", w.buf.memory(), len(w.buf.free))
	}
}

// TestLost: every segment that is cut or changed at any place is noticed, as is a missing one, and no record is invented.
func TestLost(t *testing.T) {
	w := NewWriter(Config{Temp: t.TempDir()})
	w.Begin(3)
	for i := range 2000 {
		add(t, w, i%3, fmt.Sprint(i%100), strings.Repeat("v", i%9))
	}
	good, _ := finish(t, w)
	whole := content(t, good)
	r := rand.New(rand.NewPCG(5, 6))
	reader := NewReader(Config{Temp: t.TempDir()})
	check := func(what string, s Segment) {
		t.Helper()
		var failed error
		for p := range 3 {
			for _, err := range all(reader, []Segment{good, s, good}, p, 3) {
				if err != nil {
					failed = err
				}
			}
		}
		if lost, ok := errors.AsType[*LostError](failed); !ok || !slices.Equal(lost.Segments, []int{1}) {
			t.Errorf("%s: error %v, want that segment 1 is lost", what, failed)
		}
	}
	for range 300 {
		at, bit := r.IntN(len(whole)), byte(1)<<r.IntN(8)
		flipped := bytes.Clone(whole)
		flipped[at] ^= bit
		check(fmt.Sprintf("bit %d of byte %d of %d flipped", bit, at, len(whole)), inMemory(flipped))
		cut := inMemory(whole[:at])
		check(fmt.Sprintf("cut to %d bytes", at), cut)
		cut.Size = good.Size
		check(fmt.Sprintf("cut to %d bytes after it was written", at), cut)
	}
	check("empty", inMemory(nil))
	check("missing", Segment{Size: good.Size, Open: func(int64) (io.ReadCloser, error) { return nil, fs.ErrNotExist }})
	check("other partitions", func() Segment { w.Begin(4); s, _ := finish(t, w); return s }())
	check("text", inMemory([]byte(strings.Repeat("no segment\n", 100))))

	var failed error
	for _, err := range all(reader, []Segment{{Size: 100, Open: func(int64) (io.ReadCloser, error) { return nil, fs.ErrPermission }}}, 0, 3) {
		failed = err
	}
	if _, ok := errors.AsType[*LostError](failed); ok || !errors.Is(failed, fs.ErrPermission) {
		t.Errorf("a segment that may not be read: %v; it is not lost", failed)
	}
}

// TestAllLostAreNamed: what the indexes say is known before the first record is read.
func TestAllLostAreNamed(t *testing.T) {
	w := NewWriter(Config{})
	w.Begin(1)
	add(t, w, 0, "a", "1")
	good, _ := finish(t, w)
	gone := Segment{Size: good.Size, Open: func(int64) (io.ReadCloser, error) { return nil, fs.ErrNotExist }}
	_, err := NewReader(Config{}).Open([]Segment{gone, good, inMemory(content(t, good)[1:]), gone}, 0, 1)
	if lost, ok := errors.AsType[*LostError](err); !ok || !slices.Equal(lost.Segments, []int{0, 2, 3}) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open() = %v, want that the segments 0, 2 and 3 are lost", err)
	}
}

// all opens a partition and yields its records, or the error.
func all(r *Reader, segments []Segment, partition, partitions int) iter.Seq2[Record, error] {
	m, err := r.Open(segments, partition, partitions)
	if err != nil {
		return func(yield func(Record, error) bool) { yield(Record{}, err) }
	}
	return records(m)
}

// records yields what a merge reads, or its error.
func records(m *Merge) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		defer m.Close()
		for {
			record, err := m.Next()
			if errors.Is(err, io.EOF) || !yield(record, err) || err != nil {
				return
			}
		}
	}
}

func FuzzReader(f *testing.F) {
	w := NewWriter(Config{})
	w.Begin(2)
	add(f, w, 0, "a", "1")
	add(f, w, 1, "b", strings.Repeat("2", 1000))
	segment, _ := finish(f, w)
	f.Add(content(f, segment))
	f.Fuzz(func(_ *testing.T, text []byte) {
		for p := range 2 {
			for _, err := range all(NewReader(Config{}), []Segment{inMemory(text)}, p, 2) {
				_ = err // it must not panic
			}
		}
	})
}

func TestPartitions(t *testing.T) {
	// Fixed for good: outputs of jobs that have run are joined by them.
	for key, want := range map[string]int{"": 934, "a": 821, "bridgefour": 556, "\x00": 910} {
		if got := Hash([]byte(key), 1000); got != want {
			t.Errorf("Hash(%q) = %d, want %d", key, got, want)
		}
	}
	counts := make([]int, 10)
	for i := range 100_000 {
		counts[Hash(fmt.Append(nil, i), len(counts))]++
	}
	if slices.Min(counts) < 9_500 || slices.Max(counts) > 10_500 {
		t.Errorf("Hash distributes 100,000 keys as %v", counts)
	}
}

// BenchmarkSort sorts records of 100 bytes with keys of 10 and merges them.
func BenchmarkSort(b *testing.B) {
	const n = 1_000_000
	r := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 100*n)
	for i := 0; i < len(text); i += 8 {
		for k := range min(8, len(text)-i) {
			text[i+k] = byte(' ' + r.Uint32N(95))
		}
	}
	w := NewWriter(Config{Memory: 1 << 30})
	var segment bytes.Buffer
	b.SetBytes(100 * n)
	for b.Loop() {
		w.Begin(8)
		for i := range n {
			record := text[100*i : 100*i+100]
			if err := w.Add(Hash(record[:10], 8), record[:10], record[10:]); err != nil {
				b.Fatal(err)
			}
		}
		segment.Reset()
		if _, err := w.Finish(&segment); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	const n, runs = 1_000_000, 16
	r := rand.New(rand.NewPCG(1, 2))
	w := NewWriter(Config{Memory: 1 << 30})
	var list []Segment
	for range runs {
		w.Begin(1)
		for range n / runs {
			key := make([]byte, 10)
			for i := range key {
				key[i] = byte(' ' + r.Uint32N(95))
			}
			add(b, w, 0, string(key), strings.Repeat("v", 90))
		}
		s, _ := finish(b, w)
		list = append(list, s)
	}
	reader := NewReader(Config{Memory: 64 << 20})
	b.SetBytes(100 * n)
	for b.Loop() {
		for _, err := range all(reader, list, 0, 1) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func add(tb testing.TB, w *Writer, partition int, key, value string) {
	tb.Helper()
	if err := w.Add(partition, []byte(key), []byte(value)); err != nil {
		tb.Fatal(err)
	}
}

func finish(tb testing.TB, w *Writer) (Segment, Totals) {
	tb.Helper()
	var text bytes.Buffer
	totals, err := w.Finish(&text)
	if err != nil {
		tb.Fatal(err)
	}
	return inMemory(text.Bytes()), totals
}

func inMemory(text []byte) Segment {
	return Segment{Size: uint64(len(text)), Open: func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text[min(int(offset), len(text)):])), nil
	}}
}

func content(tb testing.TB, s Segment) []byte {
	tb.Helper()
	r, err := s.Open(0)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func merged(t *testing.T, cfg Config, list []Segment, partition, partitions int) (got []pair) {
	t.Helper()
	reader := &Reader{cfg: cfg}
	for record, err := range all(reader, list, partition, partitions) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, pair{string(record.Key), string(record.Value)})
	}
	return got
}
