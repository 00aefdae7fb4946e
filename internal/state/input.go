package state

import (
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"sort"
)

// InputKind says what a job's map tasks read.
type InputKind uint8

// The kinds of input.
const (
	InputNone  InputKind = iota // one task that reads nothing
	InputRange                  // task i gets the number From + i
	InputLines                  // task i gets line i
	InputFiles                  // task i gets a split of a file, or several small files
	InputList                   // task i gets item i of the product of Axes, or Batch items from i*Batch on
)

// Input is a job's input in the log. Splits are derived: ten million of a range or of one large file take a few bytes; lists of lines
// or files are compressed blocks, about a tenth of their text.
type Input struct {
	Kind      InputKind
	Tasks     uint64
	Bytes     uint64  // of all files; 0 if unknown
	Growing   bool    // InputFiles: more of them will come; the first stage, which is the only map stage, is not complete before
	From      int64   // InputRange
	SplitSize uint64  // InputFiles: longest split; 0: every file is one
	Blocks    []Block // InputLines, InputFiles, InputList
	// Changed are the files, none of which is cut, that were read again at a retry because they had changed. By task and file, ascending.
	Changed []FileChange
	// InputList:
	Axes  []Axis
	Items uint64 // of the product; the rest has no tasks
	Seed  uint64 // the items are shuffled with it; 0: they are in order
	Batch uint64 // items of a task; 0: a task has one, and is not made for several
}

// Block is a run of lines or files.
type Block struct {
	First uint64 // task index of its first split
	Data  []byte // flate: uvarint length, bytes, then for files uvarint size<<1 | whole
	// Versions are columns of the files of the block, as flate: Modified as the zigzag difference to the file before, Identity XOR that of
	// the file before, and Tail. The first is relative to zero. Each column is the lowest bytes of all its values, then the next ones: most
	// of the higher bytes are zero. Empty: unknown, as in all inputs of before feature level 2.
	Versions []byte
	// Cuts are the beginnings of the splits of the files that have several, as flate: for each split but the first of a file, uvarint how far
	// it begins behind a multiple of SplitSize. Empty: the splits begin at those multiples.
	Cuts []byte
	// Packs are how many files each task has that has one or more of them as a whole, as flate: uvarint, one after the other; 1 for a file that has
	// several tasks. Empty: 1 for each. A task has files of one block.
	Packs []byte
}

// Version is what is known of the content of a file without reading it. The zero value is unknown.
type Version struct {
	Size     uint64
	Modified int64  // Unix ns
	Identity uint64 // tells the file from others, whatever its name; see blob.Version
	Tail     uint64 // of a file of several splits: blob.TailSum; 0: unknown
}

// Known reports whether there is more than a size to compare.
func (v Version) Known() bool { return v.Modified != 0 || v.Identity != 0 }

// FileChange is the new version of a file that a task reads as a whole.
type FileChange struct {
	Task    uint64
	File    uint64 // of the task, from 0
	Version Version
}

// Split is what one map task reads: a file has a path, an item of a list one value, or several, and several small files are Files.
type Split struct {
	Files          []Split  // each is all of a file, with a path; two at least
	Item           []byte   // the one value
	Values         [][]byte // one item after the other; nil: Item is set
	Columns        int      // of an item in Values
	Path           []byte
	Offset, Length uint64
	Whole          bool    // one split whatever its size: compressed, or cutting is off
	Version        Version // of the file, when the job was submitted, or retried
}

// whole returns the version of a file of the task, of which that reads all.
func (s *Split) whole(file uint64) (v Version, ok bool) {
	switch n := uint64(len(s.Files)); {
	case n > 0 && file < n:
		return s.Files[file].Version, true
	case n > 0 || file > 0:
		return v, false
	}
	return s.Version, s.Path != nil && s.Offset == 0 && s.Length == s.Version.Size
}

// packed reports whether a task may have several files.
func (in *Input) packed() bool {
	return slices.ContainsFunc(in.Blocks, func(b Block) bool { return len(b.Packs) > 0 })
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

	versions []Version // of its files
	known    bool      // one of them
	cuts     []byte
	packs    []byte
	packed   bool // one of them has several files

	bytes   uint64 // of the first counted blocks
	counted int
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

// AddFile adds the tasks of a file; whole files are never cut.
func (b *InputBuilder) AddFile(path []byte, v Version, whole bool) {
	b.file(path, v, whole)
	b.packs = append(b.packs, 1)
	b.added(fileSplits(v.Size, b.in.SplitSize, whole))
}

// Pack adds one task for several files, each of one split.
func (b *InputBuilder) Pack(files []Split) {
	for i := range files {
		b.file(files[i].Path, files[i].Version, files[i].Whole)
	}
	b.packs = binary.AppendUvarint(b.packs, uint64(len(files)))
	b.packed = b.packed || len(files) > 1
	b.added(1)
}

func (b *InputBuilder) file(path []byte, v Version, whole bool) {
	b.raw = binary.AppendUvarint(b.raw, uint64(len(path)))
	b.raw = append(b.raw, path...)
	tail := v.Size << 1
	if whole {
		tail |= 1
	}
	b.raw = binary.AppendUvarint(b.raw, tail)
	b.versions = append(b.versions, v)
	b.known = b.known || v.Known()
	b.in.Bytes += v.Size
}

// AddCutFile adds the tasks of a file whose splits begin at 0 and at the cuts: ascending, one for each multiple of the split size below the
// file's size, and not before it.
func (b *InputBuilder) AddCutFile(path []byte, v Version, cuts []int64) {
	for i, at := range cuts {
		b.cuts = binary.AppendUvarint(b.cuts, uint64(at)-uint64(i+1)*b.in.SplitSize)
	}
	b.AddFile(path, v, false)
}

func (b *InputBuilder) added(splits uint64) {
	b.in.Tasks += splits
	if len(b.raw)+len(b.cuts) >= blockBytes {
		b.flush()
	}
}

func (b *InputBuilder) flush() {
	if len(b.raw) == 0 {
		return
	}
	block := Block{First: b.first, Data: b.compress(b.raw)}
	if b.known {
		block.Versions = b.compress(packVersions(b.versions))
	}
	if len(b.cuts) > 0 {
		block.Cuts = b.compress(b.cuts)
	}
	if b.packed {
		block.Packs = b.compress(b.packs)
	}
	b.in.Blocks = append(b.in.Blocks, block)
	b.raw, b.cuts, b.packs, b.first = b.raw[:0], b.cuts[:0], b.packs[:0], b.in.Tasks
	b.versions, b.known, b.packed = b.versions[:0], false, false
}

func (b *InputBuilder) compress(raw []byte) []byte {
	var out bytes.Buffer
	var err error
	if b.deflate == nil { // it takes a megabyte, so it is reused
		b.deflate, err = flate.NewWriter(&out, flate.BestSpeed)
	} else {
		b.deflate.Reset(&out)
	}
	if err == nil {
		_, err = b.deflate.Write(raw)
	}
	if err == nil {
		err = b.deflate.Close()
	}
	if err != nil {
		panic(fmt.Sprintf("compress into memory: %v", err)) // a bytes.Buffer cannot fail
	}
	return bytes.Clone(out.Bytes()) // without the buffer's spare room
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

// InputReader reads splits of an Input. It keeps the last block of files, and many of a list (BlockCache). Not for concurrent use.
type InputReader struct {
	in      *Input
	block   int // index of the decoded block of files; -1: none
	entries []entry
	list    *product    // nil until it is read
	cache   *BlockCache // of the list; nil until it is read
}

// entry is one file of the decoded block.
type entry struct {
	first   uint64 // task index of its first split
	name    []byte
	version Version
	whole   bool
	cuts    []uint64 // the beginnings of its splits but the first; nil: at multiples of the split size
	place   uint64   // among the files of its task
}

// splits is the number of splits of a file as it was when the job was submitted: a changed one keeps its one.
func (e *entry) splits(in *Input) uint64 { return fileSplits(e.version.Size, in.SplitSize, e.whole) }

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
	case InputRange, InputLines, InputList:
		values, err := r.items(i)
		if err == nil && len(values) == 1 {
			return Split{Item: values[0]}, nil
		}
		if err != nil {
			return Split{}, fmt.Errorf("split %d: %w", i, err)
		}
		return Split{Values: values, Columns: r.list.columns}, nil
	case InputFiles:
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
	last := &r.entries[e]
	if last.place == 0 {
		return in.cut(*last, i), nil
	}
	var s Split
	for _, e := range r.entries[e-int(last.place) : e+1] {
		s.Files = append(s.Files, in.cut(e, i))
		s.Length += e.version.Size
	}
	return s, nil
}

// cut returns split i of its file.
func (in *Input) cut(e entry, i uint64) Split {
	size := e.version.Size
	if e.whole || in.SplitSize == 0 || size <= in.SplitSize {
		return Split{Path: e.name, Length: size, Whole: e.whole || in.SplitSize == 0, Version: e.version}
	}
	if k := i - e.first; e.cuts != nil {
		bounds := [2]uint64{0, size}
		if k > 0 {
			bounds[0] = e.cuts[k-1]
		}
		if k < uint64(len(e.cuts)) {
			bounds[1] = e.cuts[k]
		}
		return Split{Path: e.name, Offset: bounds[0], Length: bounds[1] - bounds[0], Version: e.version}
	}
	offset := (i - e.first) * in.SplitSize
	return Split{Path: e.name, Offset: offset, Length: min(in.SplitSize, size-offset), Version: e.version}
}

var errBlock = errors.New("input block is damaged")

// decode unpacks block b.
func (in *Input) decode(b int) ([]entry, error) {
	entries, err := in.unpack(&in.Blocks[b])
	if err != nil {
		return nil, fmt.Errorf("input block %d: %w", b, err)
	}
	return entries, nil
}

func (in *Input) unpack(block *Block) ([]entry, error) {
	raw, err := inflate(block.Data)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for len(raw) > 0 {
		e := entry{}
		if e.name, raw, err = cutBytes(raw); err != nil {
			return nil, err
		}
		tail, k := binary.Uvarint(raw)
		if k <= 0 {
			return nil, errBlock
		}
		raw = raw[k:]
		e.version.Size, e.whole = tail>>1, tail&1 == 1
		entries = append(entries, e)
	}
	if err := in.number(block, entries); err != nil {
		return nil, err
	}
	if len(block.Versions) > 0 {
		if err := unpackVersions(block.Versions, entries); err != nil {
			return nil, err
		}
	}
	if len(block.Cuts) > 0 {
		if err := in.unpackCuts(block.Cuts, entries); err != nil {
			return nil, err
		}
	}
	in.change(entries)
	return entries, nil
}

// number sets the tasks of the files of a block.
func (in *Input) number(block *Block, entries []entry) error {
	var packs []byte
	if len(block.Packs) > 0 {
		var err error
		if packs, err = inflate(block.Packs); err != nil {
			return err
		}
	}
	task := block.First
	for len(entries) > 0 {
		n := uint64(1)
		if len(block.Packs) > 0 {
			var k int
			if n, k = binary.Uvarint(packs); k <= 0 || n == 0 || n > uint64(len(entries)) {
				return errBlock
			}
			packs = packs[k:]
		}
		pack := entries[:n]
		for i := range pack {
			if n > 1 && pack[i].splits(in) > 1 {
				return errBlock
			}
			pack[i].first, pack[i].place = task, uint64(i)
		}
		task += pack[0].splits(in)
		entries = entries[n:]
	}
	return nil
}

// cutBytes returns the bytes that raw begins with, after their length, and the rest.
func cutBytes(raw []byte) (b, rest []byte, err error) {
	n, k := binary.Uvarint(raw)
	if k <= 0 || n > uint64(len(raw)-k) {
		return nil, nil, errBlock
	}
	return raw[k : k+int(n)], raw[k+int(n):], nil
}

func inflate(data []byte) ([]byte, error) {
	return io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), math.MaxUint32))
}

// versionBytes are three columns of eight bytes.
const versionBytes = 24

// packVersions makes the columns of Block.Versions.
func packVersions(list []Version) []byte {
	n := len(list)
	columns := make([]byte, versionBytes*n)
	var last Version
	for i, v := range list {
		delta := v.Modified - last.Modified
		putColumn(columns, n, i, uint64(delta<<1^delta>>63))
		putColumn(columns[8*n:], n, i, v.Identity^last.Identity)
		putColumn(columns[16*n:], n, i, v.Tail)
		last = v
	}
	return columns
}

func putColumn(column []byte, n, i int, v uint64) {
	for ; v != 0; i, v = i+n, v>>8 {
		column[i] = byte(v)
	}
}

func column(column []byte, n, i int) (v uint64) {
	for k := range 8 {
		v |= uint64(column[i+k*n]) << (8 * k)
	}
	return v
}

// unpackVersions sets the versions of the files of a block.
func unpackVersions(data []byte, entries []entry) error {
	columns, err := inflate(data)
	if err != nil {
		return err
	}
	if len(columns) != versionBytes*len(entries) {
		return errBlock
	}
	var last Version
	n := len(entries)
	for i := range entries {
		delta := column(columns, n, i)
		last.Modified += int64(delta>>1) ^ -int64(delta&1)
		last.Identity ^= column(columns[8*n:], n, i)
		v := &entries[i].version
		v.Modified, v.Identity, v.Tail = last.Modified, last.Identity, column(columns[16*n:], n, i)
	}
	return nil
}

// unpackCuts sets the beginnings of the splits of the files of a block.
func (in *Input) unpackCuts(data []byte, entries []entry) error {
	raw, err := inflate(data)
	if err != nil {
		return err
	}
	for i := range entries {
		e := &entries[i]
		cuts, last := e.splits(in)-1, uint64(0)
		if cuts > uint64(len(raw)) {
			return errBlock
		}
		for k := range cuts {
			behind, n := binary.Uvarint(raw)
			at := (k+1)*in.SplitSize + behind
			if n <= 0 || at < last || at > e.version.Size {
				return errBlock
			}
			raw, last = raw[n:], at
			e.cuts = append(e.cuts, at)
		}
	}
	return nil
}

// change applies Changed to the files of a block, which keep their one split whatever their new size.
func (in *Input) change(entries []entry) {
	if len(entries) == 0 {
		return
	}
	at := sort.Search(len(in.Changed), func(i int) bool { return in.Changed[i].Task >= entries[0].first })
	changed := in.Changed[at:]
	for i := range entries {
		if len(changed) == 0 {
			return
		}
		if e := &entries[i]; e.first == changed[0].Task && e.place == changed[0].File {
			e.version = changed[0].Version
			e.whole = e.whole || in.SplitSize > 0 && e.version.Size > in.SplitSize
			changed = changed[1:]
		}
	}
}

// File is a file of an input.
type File struct {
	Task    uint64 // its first split
	Place   uint64 // among the files of its task
	Splits  uint64
	Path    []byte
	Version Version
	Whole   bool // it is not cut, whatever its size
}

// Files returns the files of block b.
func (in *Input) Files(b int) ([]File, error) {
	entries, err := in.decode(b)
	files := make([]File, len(entries))
	for i, e := range entries {
		files[i] = File{Task: e.first, Place: e.place, Splits: e.splits(in), Path: e.name, Version: e.version, Whole: e.whole}
	}
	return files, err
}

// Longest returns the tasks of a list of files by descending split length, so that the longest start first and the job does not end
// with one of them; nil if the order of the input is as good (no files, splits of one length, or very many).
//
// Of several blocks, lengths count as powers of two: in the order of exact lengths, nearly each task would be in another block than the one before, and decoding that takes a
// thousand times as long as the lease. So many tasks are short beside the job, and so is half of one.
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
		for i := range entries {
			e := &entries[i]
			if n := len(lengths); e.place > 0 && n > 0 {
				lengths[n-1] += e.version.Size
				continue
			}
			if e.splits(in) > in.Tasks-uint64(len(lengths)) {
				return nil
			}
			for k := range e.splits(in) {
				lengths = append(lengths, in.cut(*e, e.first+k).Length)
			}
		}
	}
	if uint64(len(lengths)) != in.Tasks {
		return nil
	}
	order := make([]uint32, len(lengths))
	for i := range order {
		order[i] = uint32(i)
		if len(in.Blocks) > 1 {
			lengths[i] = uint64(bits.Len64(lengths[i]))
		}
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Or(cmp.Compare(lengths[b], lengths[a]), cmp.Compare(a, b)) })
	if lengths[order[0]] == lengths[order[len(order)-1]] {
		return nil
	}
	return order
}
