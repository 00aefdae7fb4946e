package shuffle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Config bounds what a Writer or a Reader takes.
type Config struct {
	// Memory is in bytes. Less than MemoryMin count as that. Records that are longer are held besides, up to two at a time.
	Memory int64
	// Temp is the folder for what does not fit into the memory. Its files have no names, so none is left after a crash.
	Temp string
}

// MemoryMin is the least Config.Memory: two runs can be merged, with what is written of them.
const MemoryMin = 4 << 20

func (c Config) bounded() Config {
	c.Memory = min(max(c.Memory, MemoryMin), memoryMax)
	return c
}

const fanMax = 512

// sized is what can be merged.
type sized interface {
	readBytes() int64 // that reading takes
}

// fit is how many of the first ones are merged at once, at least two if there are: their blocks take half of the memory.
func fit[T sized](c Config, list []T) int {
	n, left := 0, c.Memory/2
	for n < min(len(list), fanMax) && (n < 2 || list[n].readBytes() <= left) {
		left -= list[n].readBytes()
		n++
	}
	return n
}

// Totals describe a segment.
type Totals struct {
	Records uint64
	Stored  uint64 // bytes of the segment
	Spilled uint64 // bytes written to temporary files
}

// Writer makes segments, one after another.
type Writer struct {
	cfg        Config
	partitions int
	buf        buffer
	runs       []*tempRun // what did not fit, in order
	out        segmentWriter
	marker     *marker // nil: the partitions are not ranges
	totals     Totals
}

// NewWriter returns a writer, which takes memory only as it is needed.
func NewWriter(cfg Config) *Writer { return &Writer{cfg: cfg.bounded()} }

// Limit changes Config.Memory, before Begin.
func (w *Writer) Limit(memory int64) {
	before := w.cfg.Memory
	w.cfg.Memory = memory
	if w.cfg = w.cfg.bounded(); w.cfg.Memory < before && w.buf.kept() > w.cfg.Memory {
		w.buf = buffer{}
	}
}

// Begin starts a segment with the given number of partitions, at most PartitionsMax, and drops what was added to another one.
func (w *Writer) Begin(partitions int) {
	w.Close()
	w.partitions, w.totals, w.marker = partitions, Totals{}, nil
}

// BeginSorted is Begin of a segment that is sorted as a whole: ranges of it can be read (Reader.OpenRange). All its records are in partition 0.
func (w *Writer) BeginSorted() {
	w.Begin(1)
	w.marker = &marker{stride: markStride}
}

// Close drops what was added and frees the temporary files. The writer can begin again.
func (w *Writer) Close() {
	w.buf.reset()
	for _, r := range w.runs {
		r.close()
	}
	w.runs = w.runs[:0]
}

// ErrTooLong is of a record that no segment can hold.
var ErrTooLong = errors.New("the record is too long")

// Add adds a record to a partition. One with more than 1 GiB is ErrTooLong.
func (w *Writer) Add(partition int, key, value []byte) error {
	size := encodedBytes(key, value)
	if size > recordMax {
		return fmt.Errorf("%w: %d bytes; the limit is %d", ErrTooLong, size, recordMax)
	}
	w.totals.Records++
	if len(w.buf.entries) > 0 && w.buf.memory()+int64(size)+2*entryBytes > w.cfg.Memory {
		if err := w.spill(); err != nil {
			return err
		}
	}
	if int64(size) > w.cfg.Memory {
		return w.spillLong(partition, key, value)
	}
	w.buf.add(partition, key, value, size)
	return nil
}

// Finish writes the segment. The writer can begin again.
func (w *Writer) Finish(to io.Writer) (Totals, error) {
	defer w.Close()
	if err := w.settle(); err != nil {
		return Totals{}, err
	}
	list := w.buf.sorted(w.partitions)
	counted := &counter{w: to}
	w.out.begin(counted)
	w.out.marker = w.marker
	for p := range w.partitions {
		if err := w.write(p, cutPartition(&list, p)); err != nil {
			return Totals{}, err
		}
	}
	_, err := w.out.end()
	w.totals.Stored = counted.n
	return w.totals, err
}

// settle merges neighbouring runs until all can be merged at once: those with long records take much memory each.
func (w *Writer) settle() error {
	for fit(w.cfg, w.runs) < len(w.runs) {
		var merged []*tempRun
		for rest := w.runs; len(rest) > 0; {
			n := fit(w.cfg, rest)
			run := rest[0]
			if n > 1 {
				var err error
				if run, err = mergeTemp(w.cfg.Temp, rest[:n], &w.out); err != nil {
					w.runs = append(merged, rest...) // to be closed
					return err
				}
				w.totals.Spilled += run.bytes
			}
			merged, rest = append(merged, run), rest[n:]
		}
		w.runs = merged
	}
	return nil
}

// Merge returns what was added to the only partition, in order, to be read once. The writer must not be used before it is closed.
func (w *Writer) Merge() (*Merge, error) {
	if err := w.settle(); err != nil {
		return nil, err
	}
	m := new(merger)
	for _, r := range w.runs {
		m.add(r.blocks(0))
	}
	m.add(&bufferBlocks{&w.buf, w.buf.sorted(1)})
	return &Merge{merger: m}, nil
}

// cutPartition takes the entries of a partition off sorted ones, which begin with them.
func cutPartition(list *[]entry, partition int) []entry {
	all, n := *list, 0
	for n < len(all) && int(all[n].partition) == partition {
		n++
	}
	*list = all[n:]
	return all[:n]
}

// write writes a partition: the entries in the buffer and what is in the runs.
func (w *Writer) write(partition int, list []entry) error {
	var m merger
	defer m.close()
	for _, r := range w.runs {
		m.add(r.blocks(partition))
	}
	if len(m.runs) == 0 {
		return w.writeBuffer(list)
	}
	m.add(&bufferBlocks{&w.buf, list})
	return m.copyTo(&w.out)
}

func (w *Writer) writeBuffer(list []entry) error {
	for i := range list {
		if err := w.out.add(w.buf.record(&list[i])); err != nil {
			return err
		}
	}
	return w.out.next()
}

// spill writes the buffer to a temporary file and makes room.
func (w *Writer) spill() error {
	list := w.buf.sorted(w.partitions)
	err := w.addRun(func(p int) error { return w.writeBuffer(cutPartition(&list, p)) })
	w.buf.reset()
	return err
}

// spillLong writes a record that does not fit into the buffer, which is empty, to a temporary file.
func (w *Writer) spillLong(partition int, key, value []byte) error {
	return w.addRun(func(p int) error {
		if p == partition {
			if err := w.out.addLong(key, value); err != nil {
				return err
			}
		}
		return w.out.next()
	})
}

// addRun makes a run. Neighbouring ones that were merged equally often become one before they are more than can be merged at once.
func (w *Writer) addRun(write func(partition int) error) error {
	r, err := writeTemp(w.cfg.Temp, w.partitions, &w.out, write)
	if err != nil {
		return err
	}
	w.totals.Spilled += r.bytes
	w.runs = append(w.runs, r)
	for end := len(w.runs); ; {
		from := end - 1
		for from > 0 && w.runs[from-1].level == w.runs[end-1].level {
			from--
		}
		if group := w.runs[from:end]; fit(w.cfg, group) == len(group) {
			return nil
		}
		merged, err := mergeTemp(w.cfg.Temp, w.runs[from:end-1], &w.out)
		if err != nil {
			return err
		}
		w.totals.Spilled += merged.bytes
		w.runs = slices.Replace(w.runs, from, end-1, merged)
		end = from + 1
	}
}

// bufferBlocks yields sorted entries, each as a block.
type bufferBlocks struct {
	buf  *buffer
	list []entry
}

func (b *bufferBlocks) next() ([]byte, error) {
	if len(b.list) == 0 {
		return nil, nil
	}
	record := b.buf.record(&b.list[0])
	b.list = b.list[1:]
	return record, nil
}

func (*bufferBlocks) close() {}

// tempRun is a segment in a file without a name.
type tempRun struct {
	file    *os.File
	extents []extent
	starts  []int64 // of the partitions
	level   int     // how often its records were merged
	bytes   uint64
}

// writeTemp makes a run: write writes one partition after another.
func writeTemp(folder string, partitions int, out *segmentWriter, write func(partition int) error) (*tempRun, error) {
	f, err := os.CreateTemp(folder, "shuffle-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("records that do not fit into memory: %w", err)
	}
	r := &tempRun{file: f}
	err = os.Remove(f.Name())
	out.begin(f)
	for p := 0; p < partitions && err == nil; p++ {
		r.starts = append(r.starts, int64(r.bytes)) //nolint:gosec // of a file
		if err = write(p); err == nil {
			r.bytes += out.extents[p].stored
		}
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("records that do not fit into memory: %w", err)
	}
	r.extents = append([]extent(nil), out.extents...)
	return r, nil
}

// mergeTemp replaces runs by one.
func mergeTemp(folder string, runs []*tempRun, out *segmentWriter) (*tempRun, error) {
	merged, err := writeTemp(folder, len(runs[0].extents), out, func(p int) error {
		var m merger
		defer m.close()
		for _, r := range runs {
			m.add(r.blocks(p))
		}
		return m.copyTo(out)
	})
	if err != nil {
		return nil, err
	}
	merged.level = runs[0].level + 1
	for _, r := range runs {
		r.close()
	}
	return merged, nil
}

func (r *tempRun) blocks(partition int) blocks {
	e := r.extents[partition]
	section := io.NewSectionReader(r.file, r.starts[partition], int64(e.stored)) //nolint:gosec // of a file
	return &blockReader{r: io.NopCloser(section), left: e.stored}
}

func (r *tempRun) readBytes() (most int64) {
	for i := range r.extents {
		most = max(most, r.extents[i].readBytes())
	}
	return most
}

func (r *tempRun) close() { _ = r.file.Close() } // it has no name: nothing is lost

// counter counts what is written.
type counter struct {
	w io.Writer
	n uint64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += uint64(n) //nolint:gosec // not negative
	return n, err
}
