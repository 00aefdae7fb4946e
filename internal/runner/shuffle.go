package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/heap"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/shuffle"
	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// A record of a command is a line, with its newline left out. The key ends at the first tab; the value begins with it. So a line without a tab
// comes back as it was.

// shares divides the memory of an attempt: what its shuffles take each, and what is for tables of a job in this process. A job in this process has what --memory says, if
// that is given; of commands, that is the limit of their processes.
func (r *Runner) shares(j *jobState, a *Attempt) (shuffle, tables int64) {
	shuffle, tables = r.sortMemory, r.sortMemory
	if given := int64(j.wire.GetMemory()); given > 0 && j.here() { //nolint:gosec // a size
		shuffle, tables = given/2, given/4 // the rest is for what is not collected yet
	}
	if reads, writes := a.reduces(), j.readers[a.Stage].n > 0; reads && writes || writes && j.combine != nil {
		shuffle /= 2
	}
	return shuffle, tables
}

// here reports whether the program runs in this process.
func (j *jobState) here() bool { return j.wire.GetProgram().GetCommand() == nil }

// bound makes the share of a slot that of a job. What a command takes is not of this process.
func (j *jobState) bound(s *heap.Share) {
	switch given := int64(j.wire.GetMemory()); { //nolint:gosec // a size
	case !j.here():
		s.Close()
	case given > 0:
		s.Bound(given)
	default:
		s.Unbound()
	}
}

// partitions are those of a stage that reduces. None: there is no such stage.
type partitions struct {
	n      int
	ranges bool // of keys; otherwise a hash divides them
}

func partitionsOf(s *wire.Stage) partitions {
	return partitions{int(s.GetTasks()), s.GetRanges()} //nolint:gosec // at most shuffle.PartitionsMax
}

// readers returns, for each stage of a plan, the partitions of the stage that reduces its outputs.
func readers(plan []*wire.Stage) []partitions {
	list := make([]partitions, max(1, len(plan)))
	for _, s := range plan {
		for _, from := range s.GetFrom() {
			if s.GetRole() == wire.StageRole_STAGE_REDUCE && int(from) < len(list) {
				list[from] = partitionsOf(s)
			}
		}
	}
	return list
}

// keyedOutput is the output of an attempt whose stage another one reduces: it sorts the pairs by partition and key.
type keyedOutput struct {
	cfg    shuffle.Config
	writer *shuffle.Writer
	of     partitions
	line   []byte // the beginning of one that is not complete
	err    error  // the first one of emit
}

// begin starts an attempt, which sorts in so many bytes.
func (k *keyedOutput) begin(of partitions, memory int64) {
	if k.on() {
		k.writer.Close() // what the last attempt has left, if it failed
	}
	if k.of, k.err = of, nil; !k.on() {
		return
	}
	if k.writer == nil {
		k.writer = shuffle.NewWriter(k.cfg)
	}
	k.writer.Limit(memory)
	if of.ranges {
		k.writer.BeginSorted()
	} else {
		k.writer.Begin(of.n)
	}
	k.line = k.line[:0]
}

func (k *keyedOutput) on() bool { return k.of.n > 0 }

// emit adds a pair.
func (k *keyedOutput) emit(key, value []byte) error { return k.emitBy(key, key, value) }

// emitBy adds a pair to the partition of a part of its key.
func (k *keyedOutput) emitBy(part, key, value []byte) error {
	if k.err != nil {
		return k.err
	}
	p := 0
	if !k.of.ranges {
		p = shuffle.Hash(part, k.of.n)
	}
	if k.err = k.writer.Add(p, key, value); errors.Is(k.err, shuffle.ErrTooLong) {
		k.err = bridgefour.BadInput(k.err) // no retry makes it shorter
	}
	return k.err
}

// Write takes lines in pieces of any size.
func (k *keyedOutput) Write(p []byte) (int, error) {
	n := len(p)
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			k.line = append(k.line, p...)
			return n, nil
		}
		line := p[:end]
		if len(k.line) > 0 {
			k.line = append(k.line, line...)
			line = k.line
		}
		if err := k.add(line); err != nil {
			return 0, err
		}
		if p, k.line = p[end+1:], k.line[:0]; cap(k.line) > lineKept {
			k.line = nil
		}
	}
}

// lineKept bounds the buffer that is kept after a long line.
const lineKept = 1 << 20

func (k *keyedOutput) add(line []byte) error {
	key, value := line, []byte(nil)
	if tab := bytes.IndexByte(line, '\t'); tab >= 0 {
		key, value = line[:tab], line[tab:]
	}
	return k.emit(key, value)
}

// flush adds a last line without an end.
func (k *keyedOutput) flush() error {
	if len(k.line) == 0 {
		return nil
	}
	line := k.line
	k.line = nil
	return k.add(line)
}

// finish writes the segment and returns the number of its records.
func (k *keyedOutput) finish(to io.Writer) (records uint64, err error) {
	if err := k.flush(); err != nil {
		return 0, err
	}
	totals, err := k.writer.Finish(to)
	return totals.Records, err
}

// groupedInput is the input of an attempt of a stage that reduces: its partition of the outputs of all tasks, as pairs or lines.
type groupedInput struct {
	cfg    shuffle.Config
	sight  sight
	reader *shuffle.Reader
	ctx    context.Context //nolint:containedctx // of the attempt; io.WriterTo has none
	index  uint64
	of     partitions
	parts  iter.Seq2[Part, error]
	bytes  uint64
	read   uint64         // pairs
	merge  *shuffle.Merge // nil: not open
	list   []Part         // of parts
	lost   []LostPart
	err    error // the first one of Next; io.EOF at the end
}

func (g *groupedInput) begin(ctx context.Context, sees sight, a *Attempt, memory int64) {
	if g.ctx != nil { // the last attempt was one
		*g = groupedInput{cfg: g.cfg, reader: g.reader}
	}
	if !a.reduces() {
		return
	}
	g.ctx, g.sight, g.parts, g.index, g.of = ctx, sees, a.Parts, a.Index, partitionsOf(wire.StageOf(a.Job, uint32(a.Stage)))
	if g.reader == nil {
		g.reader = shuffle.NewReader(g.cfg)
	}
	g.reader.Limit(memory)
}

// Read is not used: io.CopyBuffer prefers WriteTo.
func (*groupedInput) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// openLines opens the input of a command, which ends when the command does, because the pipe breaks, and not before. What is missing is known before the command
// starts.
func (g *groupedInput) openLines() error {
	g.ctx = context.WithoutCancel(g.ctx)
	return g.open()
}

// open reads the indexes of the outputs.
func (g *groupedInput) open() error {
	var segments []shuffle.Segment
	for part, err := range g.parts {
		if err != nil {
			return err
		}
		store, err := g.sight.stores.Of(part.Path)
		if err != nil {
			return err
		}
		g.list = append(g.list, part)
		segments = append(segments, shuffle.Segment{Size: part.Size, Open: func(offset int64) (io.ReadCloser, error) {
			f, err := store.Open(g.ctx, part.Path, offset)
			if blob.IsReplaced(err) {
				err = fmt.Errorf("%w: %w", shuffle.ErrDamaged, err)
			}
			return f, err
		}})
	}
	find := g.reader.Open
	if g.of.ranges {
		find = g.reader.OpenRange
	}
	var err error
	g.merge, err = find(segments, int(g.index), g.of.n) //nolint:gosec // below shuffle.PartitionsMax
	return g.failure(err)
}

// Next returns the next pair, for a program in this process.
func (g *groupedInput) Next() (stage.Pair, error) {
	const often = 1 << 10
	switch {
	case g.err != nil:
		return stage.Pair{}, g.err
	case g.merge == nil:
		if g.err = g.open(); g.err != nil {
			return stage.Pair{}, g.err
		}
	case g.read%often == 0 && g.ctx.Err() != nil:
		g.err = context.Cause(g.ctx)
		return stage.Pair{}, g.err
	}
	record, err := g.merge.Next()
	if err != nil {
		g.err = g.failure(err)
		return stage.Pair{}, g.err
	}
	g.read++
	g.bytes += uint64(len(record.Key) + len(record.Value)) //nolint:gosec // not negative
	return stage.Pair(record), nil
}

// close frees what reading takes.
func (g *groupedInput) close() {
	if g.merge != nil {
		g.merge.Close()
	}
}

// WriteTo writes the lines.
func (g *groupedInput) WriteTo(w io.Writer) (int64, error) {
	n, err := writeLines(w, g.merge.Next)
	g.bytes = uint64(n) //nolint:gosec // not negative
	return n, g.failure(err)
}

// failure remembers the outputs that are lost.
func (g *groupedInput) failure(err error) error {
	gone, ok := errors.AsType[*shuffle.LostError](err)
	if !ok {
		return err
	}
	var lost []LostPart
	missing := map[int]bool{}
	for i, k := range gone.Segments {
		lost = append(lost, LostPart{g.list[k], g.sight.describe(g.list[k], gone.Errs[i])})
		missing[k] = blob.IsMissing(gone.Errs[i])
	}
	var seen layout.Seen
	for k, part := range g.list {
		seen.Add(part.Maker, !missing[k])
	}
	for _, is := range missing {
		if is && !g.sight.lost(g.ctx, &seen) {
			return unseen(lost[0].Why)
		}
	}
	g.lost = lost
	return lost[0].Why
}
