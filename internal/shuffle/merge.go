package shuffle

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"syscall"
)

// blocks are the records of a partition of a run.
type blocks interface {
	// next returns the next block, valid until the following call; nil at the end.
	next() ([]byte, error)
	close()
}

func (b *blockReader) close() { _ = b.r.Close() } // only read

// cursor is at a record of a run.
type cursor struct {
	prefix uint64
	key    []byte
	value  []byte
	record []byte // key and value, encoded
	rest   []byte // of the block
	blocks blocks
	number int // of the run
	ended  bool
}

// advance goes to the next record.
func (c *cursor) advance() error {
	for len(c.rest) == 0 {
		c.record, c.key, c.value, c.rest = nil, nil, nil, nil // the block is not held beside the next one
		block, err := c.blocks.next()
		if err != nil {
			return err
		}
		if block == nil {
			c.ended = true
			return nil
		}
		c.rest = block
	}
	key, value, rest, err := cutRecord(c.rest)
	if err != nil {
		return err
	}
	c.record, c.key, c.value, c.rest, c.prefix = c.rest[:len(c.rest)-len(rest)], key, value, rest, prefix(key)
	return nil
}

// before reports whether c comes before d in the merged order.
func (c *cursor) before(d *cursor) bool {
	switch {
	case c.ended || d.ended:
		return d.ended && (!c.ended || c.number < d.number)
	case c.prefix != d.prefix:
		return c.prefix < d.prefix
	}
	order := bytes.Compare(c.key, d.key)
	return order < 0 || order == 0 && c.number < d.number
}

// merger merges runs with a tree of losers: Knuth, The Art of Computer Programming, volume 3, 5.4.1.
type merger struct {
	runs   []*cursor
	losers []int32 // inner nodes 1 to len(runs)-1; 0 is the winner
	failed int     // the run of the last error
}

// add adds a run, before the first call of first. Of equal keys, those of the run added first come first.
func (m *merger) add(b blocks) { m.runs = append(m.runs, &cursor{blocks: b, number: len(m.runs)}) }

func (m *merger) close() {
	for _, c := range m.runs {
		c.blocks.close()
	}
	m.runs = m.runs[:0]
}

// first goes to the first record; nil at the end.
func (m *merger) first() (*cursor, error) {
	n := len(m.runs)
	if n == 0 {
		return nil, nil
	}
	for i, c := range m.runs {
		if err := c.advance(); err != nil {
			m.failed = i
			return nil, err
		}
	}
	m.losers = make([]int32, n)
	winners := make([]int32, 2*n) // of the subtrees; leaves are n and up
	for i := range n {
		winners[n+i] = int32(i) //nolint:gosec // few
	}
	for i := n - 1; i > 0; i-- {
		a, b := winners[2*i], winners[2*i+1]
		if m.runs[b].before(m.runs[a]) {
			a, b = b, a
		}
		winners[i], m.losers[i] = a, b
	}
	m.losers[0] = winners[1]
	return m.winner(), nil
}

func (m *merger) winner() *cursor {
	if c := m.runs[m.losers[0]]; !c.ended {
		return c
	}
	return nil
}

// next goes to the record after the one that first or next has returned.
func (m *merger) next() (*cursor, error) {
	at := m.losers[0]
	c := m.runs[at]
	if err := c.advance(); err != nil {
		m.failed = int(at)
		return nil, err
	}
	for node := (int(at) + len(m.runs)) / 2; node > 0; node /= 2 {
		if other := m.losers[node]; m.runs[other].before(m.runs[at]) {
			m.losers[node], at = at, other
		}
	}
	m.losers[0] = at
	return m.winner(), nil
}

// copyTo writes what is merged as a partition.
func (m *merger) copyTo(out *segmentWriter) error {
	c, err := m.first()
	for ; c != nil; c, err = m.next() {
		if err := out.add(c.record); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return out.next()
}

// Segment is a segment to read from.
type Segment struct {
	Size uint64
	// Open opens it at an offset.
	Open func(offset int64) (io.ReadCloser, error)
}

// LostError says that segments can no longer be read as they were written.
type LostError struct {
	Segments []int // their places in the list
	Errs     []error
}

func (e *LostError) Error() string { return "the segment is lost: " + e.Errs[0].Error() }

func (e *LostError) Unwrap() []error { return e.Errs }

// isLost reports whether an error of reading a segment says that it is missing or damaged.
func isLost(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Reader merges a partition of many segments.
type Reader struct {
	cfg Config
	out segmentWriter
}

// NewReader returns a reader.
func NewReader(cfg Config) *Reader { return &Reader{cfg: cfg.bounded()} }

// Limit changes Config.Memory, before Open.
func (r *Reader) Limit(memory int64) {
	r.cfg.Memory = memory
	r.cfg = r.cfg.bounded()
}

// Record is a record of a partition. It is valid until the next one is read.
type Record struct{ Key, Value []byte }

// Merge is a partition of many segments, read in order.
type Merge struct {
	reader  *Reader
	sources []source
	merger  *merger // nil: the sources are not open
	begun   bool
	err     error // the first one; io.EOF at the end
}

// Open finds a partition in segments, each of which has the given number of partitions. The error is a LostError, of all that are lost as far as
// their indexes say, if some are.
func (r *Reader) Open(segments []Segment, partition, partitions int) (*Merge, error) {
	sources, err := findSources(segments, partition, partitions)
	return &Merge{reader: r, sources: sources}, err
}

// OpenRange finds one of so many ranges of keys in sorted segments, as Open. With the same segments, each record is in one range, whatever readers there are.
func (r *Reader) OpenRange(segments []Segment, n, ranges int) (*Merge, error) {
	sources, err := findRange(segments, n, ranges)
	return &Merge{reader: r, sources: sources}, err
}

// Next returns the next record. The error is io.EOF at the end, and a LostError if a segment is lost.
func (m *Merge) Next() (Record, error) {
	if m.err != nil {
		return Record{}, m.err
	}
	if m.merger == nil {
		if m.sources, m.err = m.reader.passes(m.sources); m.err == nil {
			m.merger, m.err = openSources(m.sources)
		}
		if m.err != nil {
			return Record{}, m.err
		}
	}
	next := m.merger.next
	if !m.begun {
		m.begun, next = true, m.merger.first
	}
	c, err := next()
	switch {
	case err != nil:
		if m.err = err; len(m.sources) > 0 {
			m.err = m.sources[m.merger.failed].failure(err)
		}
		return Record{}, m.err
	case c == nil:
		m.err = io.EOF
		return Record{}, m.err
	}
	return Record{c.key, c.value}, nil
}

// Close frees what reading takes. It may be called before the end.
func (m *Merge) Close() {
	if m.merger != nil {
		m.merger.close()
	}
	for _, s := range m.sources {
		s.close()
	}
	m.sources, m.err = nil, fs.ErrClosed
}

// passes merges sources until all can be merged at once.
func (r *Reader) passes(sources []source) (_ []source, err error) {
	for err == nil && fit(r.cfg, sources) < len(sources) {
		sources, err = r.pass(sources)
	}
	return sources, err
}

// source is records of a partition that are in order.
type source struct {
	segment int // its place in the list
	open    func() (blocks, error)
	bytes   int64    // that reading it takes
	temp    *tempRun // nil: a segment
}

func (s source) readBytes() int64 { return s.bytes }

func (s source) close() {
	if s.temp != nil {
		s.temp.close()
	}
}

// readIndexes reads the indexes of segments. The error is a LostError of all that are lost, if some are.
func readIndexes[T any](segments []Segment, read func(s *Segment) (T, error)) ([]T, error) {
	list := make([]T, len(segments))
	var lost LostError
	for i := range segments {
		index, err := read(&segments[i])
		switch {
		case err == nil:
			list[i] = index
		case isLost(err):
			lost.Segments, lost.Errs = append(lost.Segments, i), append(lost.Errs, err)
		default:
			return nil, err
		}
	}
	if lost.Errs != nil {
		return nil, &lost
	}
	return list, nil
}

// findSources returns the segments that have records in a partition.
func findSources(segments []Segment, partition, partitions int) ([]source, error) {
	indexes, err := readIndexes(segments, func(s *Segment) ([]extent, error) { return readIndex(s, partitions) })
	if err != nil {
		return nil, err
	}
	var list []source
	for i, extents := range indexes {
		at := int64(0)
		for _, e := range extents[:partition] {
			at += int64(e.stored) //nolint:gosec // readIndex has compared it with the size
		}
		stored := extents[partition].stored
		if stored == 0 {
			continue
		}
		s := &segments[i]
		list = append(list, source{segment: i, bytes: extents[partition].readBytes(), open: func() (blocks, error) {
			f, err := s.Open(at)
			return &blockReader{r: f, left: stored}, err
		}})
	}
	return list, nil
}

// findRange returns the sorted segments that may have records in a range.
func findRange(segments []Segment, n, ranges int) ([]source, error) {
	indexes, err := readIndexes(segments, readSorted)
	if err != nil {
		return nil, err
	}
	of := rangeOf(bounds(indexes, ranges), n)
	if of.empty() {
		return nil, nil
	}
	var list []source
	for i := range indexes {
		from, safe, to := indexes[i].within(&of)
		if from == to {
			continue
		}
		s := &segments[i]
		list = append(list, source{segment: i, bytes: indexes[i].all.readBytes(), open: func() (blocks, error) {
			f, err := s.Open(int64(from)) //nolint:gosec // readSorted has compared it with the size
			return &rangeBlocks{blockReader: blockReader{r: f, left: to - from}, of: of, near: to - min(safe, to)}, err
		}})
	}
	return list, nil
}

// pass merges neighbouring sources to one, in a temporary file, as many as can be merged at once.
func (r *Reader) pass(sources []source) (merged []source, err error) {
	for rest := sources; len(rest) > 0; {
		n := fit(r.cfg, rest)
		group := rest[:n]
		rest = rest[n:]
		if err != nil || len(group) == 1 {
			merged = append(merged, group...) // to be closed
			continue
		}
		var t *tempRun
		t, err = writeTemp(r.cfg.Temp, 1, &r.out, func(int) error {
			m, err := openSources(group)
			if err != nil {
				return err
			}
			defer m.close()
			if err := m.copyTo(&r.out); err != nil {
				return group[m.failed].failure(err)
			}
			return nil
		})
		if err != nil {
			merged = append(merged, group...)
			continue
		}
		for _, s := range group {
			s.close()
		}
		merged = append(merged, source{temp: t, bytes: t.readBytes(), open: func() (blocks, error) { return t.blocks(0), nil }})
	}
	return merged, err
}

// openSources prepares to merge sources. The caller closes the merger.
func openSources(sources []source) (*merger, error) {
	m := new(merger)
	for _, s := range sources {
		b, err := s.open()
		if err != nil {
			m.close()
			return nil, s.failure(err)
		}
		m.add(b)
	}
	return m, nil
}

// failure is a LostError if err says that a segment is missing or damaged.
func (s source) failure(err error) error {
	if s.temp != nil || !isLost(err) {
		return err
	}
	return &LostError{[]int{s.segment}, []error{err}}
}
