package state

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
)

// InputKind says what a job's map tasks read.
type InputKind uint8

// The kinds of input.
const (
	InputNone  InputKind = iota // one task that reads nothing
	InputRange                  // task i gets the number From + i
	InputLines                  // task i gets line i
	InputFiles                  // task i gets a split of a file
)

// Input is a job's input in the log. Splits are derived: ten million of a range or of one large file take a few bytes; lists of lines
// or files are compressed blocks, about a tenth of their text.
type Input struct {
	Kind      InputKind
	Tasks     uint64
	Bytes     uint64  // of all files; 0 if unknown
	From      int64   // InputRange
	SplitSize uint64  // InputFiles: longest split; 0: every file is one
	Blocks    []Block // InputLines, InputFiles
}

// Block is a run of lines or files.
type Block struct {
	First uint64 // task index of its first split
	Data  []byte // flate: uvarint length, bytes, then for files uvarint size<<1 | whole
}

// Split is what one map task reads. Path is set for files, Item for lines and ranges.
type Split struct {
	Item           []byte
	Path           []byte
	Offset, Length uint64
	Whole          bool // one split whatever its size: compressed, or cutting is off
}

// blockBytes bounds the text of a block: small enough that reading one split is quick, large enough to compress.
const blockBytes = 64 << 10

// RangeInput is the numbers from first to last, both included.
func RangeInput(first, last int64) (Input, error) {
	if last < first {
		return Input{}, fmt.Errorf("range %d-%d is empty: the first number must not be larger than the last", first, last)
	}
	n := uint64(last) - uint64(first)
	if n >= MaxTasks {
		return Input{}, fmt.Errorf("range %d-%d is too long: a job may have %d tasks", first, last, uint64(MaxTasks))
	}
	return Input{Kind: InputRange, Tasks: n + 1, From: first}, nil
}

// InputBuilder collects lines or files into an Input.
type InputBuilder struct {
	in      Input
	raw     []byte // of the block that is being filled
	first   uint64 // its first task
	deflate *flate.Writer
}

// NewLines starts an input of lines.
func NewLines() *InputBuilder { return &InputBuilder{in: Input{Kind: InputLines}} }

// NewFiles starts an input of files, cut at splitSize bytes; 0: not cut.
func NewFiles(splitSize uint64) *InputBuilder {
	return &InputBuilder{in: Input{Kind: InputFiles, SplitSize: splitSize}}
}

// AddLine adds one task for line, which is copied.
func (b *InputBuilder) AddLine(line []byte) {
	b.raw = binary.AppendUvarint(b.raw, uint64(len(line)))
	b.raw = append(b.raw, line...)
	b.added(1)
}

// AddFile adds the tasks of a file of size bytes; whole files are never cut.
func (b *InputBuilder) AddFile(path []byte, size uint64, whole bool) {
	b.raw = binary.AppendUvarint(b.raw, uint64(len(path)))
	b.raw = append(b.raw, path...)
	tail := size << 1
	if whole {
		tail |= 1
	}
	b.raw = binary.AppendUvarint(b.raw, tail)
	b.in.Bytes += size
	b.added(fileSplits(size, b.in.SplitSize, whole))
}

func (b *InputBuilder) added(splits uint64) {
	b.in.Tasks += splits
	if len(b.raw) >= blockBytes {
		b.flush()
	}
}

func (b *InputBuilder) flush() {
	if len(b.raw) == 0 {
		return
	}
	var out bytes.Buffer
	var err error
	if b.deflate == nil { // it takes a megabyte, so it is reused
		b.deflate, err = flate.NewWriter(&out, flate.BestSpeed)
	} else {
		b.deflate.Reset(&out)
	}
	if err == nil {
		_, err = b.deflate.Write(b.raw)
	}
	if err == nil {
		err = b.deflate.Close()
	}
	if err != nil {
		panic(fmt.Sprintf("compress into memory: %v", err)) // a bytes.Buffer cannot fail
	}
	b.in.Blocks = append(b.in.Blocks, Block{First: b.first, Data: bytes.Clone(out.Bytes())}) // without the buffer's spare room
	b.raw, b.first = b.raw[:0], b.in.Tasks
}

// Input completes the list.
func (b *InputBuilder) Input() (Input, error) {
	b.flush()
	if b.in.Tasks > MaxTasks {
		return Input{}, fmt.Errorf("%d tasks: a job may have %d; use a larger split", b.in.Tasks, uint64(MaxTasks))
	}
	return b.in, nil
}

// fileSplits is the number of splits of a file. An empty file is one: it has an output like any other.
func fileSplits(size, splitSize uint64, whole bool) uint64 {
	if whole || splitSize == 0 || size <= splitSize {
		return 1
	}
	return (size-1)/splitSize + 1
}

// InputReader reads splits of an Input. It caches the last block, so reading in order is cheap. Not for concurrent use.
type InputReader struct {
	in      *Input
	block   int // index of the decoded block; -1: none
	entries []entry
}

// entry is one line or file of the decoded block.
type entry struct {
	first uint64 // task index of its first split
	name  []byte
	size  uint64
	whole bool
}

// NewInputReader reads in, which must not change.
func NewInputReader(in *Input) *InputReader { return &InputReader{in: in, block: -1} }

// Split returns split i. Its byte slices are shared: do not change them.
func (r *InputReader) Split(i uint64) (Split, error) {
	in := r.in
	if in.Kind == InputNone && i == 0 {
		return Split{}, nil
	}
	if i >= in.Tasks {
		return Split{}, fmt.Errorf("split %d of an input of %d", i, in.Tasks)
	}
	switch in.Kind {
	case InputNone:
		return Split{}, nil
	case InputRange:
		return Split{Item: fmt.Appendf(nil, "%d", in.From+int64(i))}, nil
	case InputLines, InputFiles:
	}
	b := sort.Search(len(in.Blocks), func(b int) bool { return in.Blocks[b].First > i }) - 1
	if b < 0 {
		return Split{}, fmt.Errorf("split %d: no block holds it", i)
	}
	if b != r.block {
		entries, err := in.decode(b)
		if err != nil {
			return Split{}, err
		}
		r.block, r.entries = b, entries
	}
	e := sort.Search(len(r.entries), func(e int) bool { return r.entries[e].first > i }) - 1
	if e < 0 {
		return Split{}, fmt.Errorf("split %d: block %d does not hold it", i, b)
	}
	return in.cut(r.entries[e], i), nil
}

// cut returns split i of its line or file.
func (in *Input) cut(e entry, i uint64) Split {
	if in.Kind == InputLines {
		return Split{Item: e.name}
	}
	if e.whole || in.SplitSize == 0 || e.size <= in.SplitSize {
		return Split{Path: e.name, Length: e.size, Whole: e.whole || in.SplitSize == 0}
	}
	offset := (i - e.first) * in.SplitSize
	return Split{Path: e.name, Offset: offset, Length: min(in.SplitSize, e.size-offset)}
}

var errBlock = errors.New("input block is damaged")

// decode unpacks block b.
func (in *Input) decode(b int) ([]entry, error) {
	raw, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(in.Blocks[b].Data)), math.MaxUint32))
	if err != nil {
		return nil, fmt.Errorf("input block %d: %w", b, err)
	}
	var entries []entry
	first := in.Blocks[b].First
	for len(raw) > 0 {
		n, k := binary.Uvarint(raw)
		if k <= 0 || n > uint64(len(raw)-k) {
			return nil, fmt.Errorf("input block %d: %w", b, errBlock)
		}
		e := entry{first: first, name: raw[k : k+int(n)]}
		raw = raw[k+int(n):]
		splits := uint64(1)
		if in.Kind == InputFiles {
			tail, k := binary.Uvarint(raw)
			if k <= 0 {
				return nil, fmt.Errorf("input block %d: %w", b, errBlock)
			}
			raw = raw[k:]
			e.size, e.whole = tail>>1, tail&1 == 1
			splits = fileSplits(e.size, in.SplitSize, e.whole)
		}
		first += splits
		entries = append(entries, e)
	}
	return entries, nil
}

// Longest returns the tasks of a list of files by descending split length, so that the longest start first and the job does not end
// with one of them; nil if the order of the input is as good (no files, splits of one length, or very many).
func (in *Input) Longest() []uint32 {
	const tasksMax = 1 << 20
	if in.Kind != InputFiles || in.Tasks > tasksMax || in.Tasks < 2 {
		return nil
	}
	lengths := make([]uint64, 0, in.Tasks)
	for b := range in.Blocks {
		entries, err := in.decode(b)
		if err != nil {
			return nil // the tasks report it
		}
		for _, e := range entries {
			if fileSplits(e.size, in.SplitSize, e.whole) > in.Tasks-uint64(len(lengths)) {
				return nil
			}
			for k := range fileSplits(e.size, in.SplitSize, e.whole) {
				lengths = append(lengths, in.cut(e, e.first+k).Length)
			}
		}
	}
	if uint64(len(lengths)) != in.Tasks {
		return nil
	}
	order := make([]uint32, len(lengths))
	for i := range order {
		order[i] = uint32(i)
	}
	sort.SliceStable(order, func(a, b int) bool { return lengths[order[a]] > lengths[order[b]] })
	if lengths[order[0]] == lengths[order[len(order)-1]] {
		return nil
	}
	return order
}
