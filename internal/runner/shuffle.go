package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/shuffle"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// A record of a command is a line, with its newline left out. The key ends at the first tab; the value begins with it. So a line without a tab
// comes back as it was.

// keyedOutput is the output of an attempt whose stage a reduce follows: it sorts the lines by partition and key.
type keyedOutput struct {
	cfg        shuffle.Config
	writer     *shuffle.Writer
	partitions int    // 0: no reduce follows
	line       []byte // the beginning of one that is not complete
}

// begin starts an attempt.
func (k *keyedOutput) begin(a *Attempt) {
	if k.partitions > 0 {
		k.writer.Close() // what the last attempt has left, if it failed
	}
	if k.partitions = partitions(a); k.partitions == 0 {
		return
	}
	if k.writer == nil {
		k.writer = shuffle.NewWriter(k.cfg)
	}
	k.writer.Begin(k.partitions)
	k.line = k.line[:0]
}

// partitions is the number of partitions of an attempt's output; 0: no reduce stage reads it.
func partitions(a *Attempt) int {
	if a.Job.GetReduce() == "" {
		return 0
	}
	for _, s := range wire.PlanOf(a.Job) {
		if s.GetRole() == wire.StageRole_STAGE_REDUCE && slices.Contains(s.GetFrom(), uint32(a.Stage)) {
			return int(s.GetTasks()) //nolint:gosec // at most shuffle.PartitionsMax
		}
	}
	return 0
}

func (k *keyedOutput) on() bool { return k.partitions > 0 }

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
		p, k.line = p[end+1:], k.line[:0]
	}
}

func (k *keyedOutput) add(line []byte) error {
	key, value := line, []byte(nil)
	if tab := bytes.IndexByte(line, '\t'); tab >= 0 {
		key, value = line[:tab], line[tab:]
	}
	return k.writer.Add(shuffle.Hash(key, k.partitions), key, value)
}

// finish writes the segment and returns the number of its records.
func (k *keyedOutput) finish(to io.Writer) (records uint64, err error) {
	if len(k.line) > 0 { // without an end
		if err := k.add(k.line); err != nil {
			return 0, err
		}
	}
	totals, err := k.writer.Finish(to)
	return totals.Records, err
}

// groupedInput is the input of an attempt of a reduce stage: its partition of the outputs of all tasks, as lines.
type groupedInput struct {
	cfg    shuffle.Config
	reader *shuffle.Reader
	ctx    context.Context //nolint:containedctx // of the attempt; io.WriterTo has none
	job    *jobState
	index  uint64
	of     int // partitions
	parts  iter.Seq2[Part, error]
	bytes  uint64
	merge  *shuffle.Merge
	list   []Part // of parts
	lost   []Part
}

func (g *groupedInput) begin(ctx context.Context, j *jobState, a *Attempt) {
	if g.ctx != nil { // the last attempt was one
		*g = groupedInput{cfg: g.cfg, reader: g.reader}
	}
	if !a.reduces() {
		return
	}
	g.ctx, g.job, g.parts, g.index = context.WithoutCancel(ctx), j, a.Parts, a.Index // as for the feeder of a split
	g.of = int(wire.StageOf(a.Job, uint32(a.Stage)).GetTasks())                      //nolint:gosec // at most shuffle.PartitionsMax
	if g.reader == nil {
		g.reader = shuffle.NewReader(g.cfg)
	}
}

// Read is not used: io.CopyBuffer prefers WriteTo.
func (*groupedInput) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// open reads the indexes of the outputs: what is missing is known before the command starts.
func (g *groupedInput) open() error {
	var segments []shuffle.Segment
	for part, err := range g.parts {
		if err != nil {
			return err
		}
		store, err := g.job.outputs.Of(part.Path)
		if err != nil {
			return err
		}
		g.list = append(g.list, part)
		segments = append(segments, shuffle.Segment{Size: part.Size, Open: func(offset int64) (io.ReadCloser, error) {
			return store.Open(g.ctx, part.Path, offset)
		}})
	}
	var err error
	g.merge, err = g.reader.Open(segments, int(g.index), g.of) //nolint:gosec // below shuffle.PartitionsMax
	return g.failure(err)
}

// WriteTo writes the lines.
func (g *groupedInput) WriteTo(w io.Writer) (int64, error) {
	const bufferBytes = 128 << 10
	buf := make([]byte, 0, bufferBytes)
	for record, err := range g.merge.Records() {
		if err != nil {
			return int64(g.bytes), g.failure(err) //nolint:gosec // far below
		}
		if n := len(record.Key) + len(record.Value) + 1; len(buf)+n > cap(buf) && len(buf) > 0 {
			if err := g.write(w, buf); err != nil {
				return int64(g.bytes), err //nolint:gosec // as above
			}
			buf = buf[:0]
		}
		buf = append(append(append(buf, record.Key...), record.Value...), '\n')
	}
	return int64(g.bytes), g.write(w, buf) //nolint:gosec // as above
}

func (g *groupedInput) write(w io.Writer, p []byte) error {
	n, err := w.Write(p)
	g.bytes += uint64(n) //nolint:gosec // not negative
	return err
}

// failure remembers the outputs that are lost. They are not if this worker does not see the folder of the job: then another one may.
func (g *groupedInput) failure(err error) error {
	gone, ok := errors.AsType[*shuffle.LostError](err)
	if !ok {
		return err
	}
	part := &g.list[gone.Segments[0]]
	err = fmt.Errorf("output %q of task %d: %w", part.Path, part.Index, gone.Err)
	if errors.Is(gone.Err, fs.ErrNotExist) && !g.sees(part.Path.Dir()) {
		return fmt.Errorf("%w; does this worker see the folder that the others write to?", err)
	}
	for _, i := range gone.Segments {
		g.lost = append(g.lost, g.list[i])
	}
	return err
}

func (g *groupedInput) sees(dir blob.Location) bool {
	store, err := g.job.outputs.Of(dir)
	if err != nil {
		return false
	}
	_, local := store.(*blob.Files)
	_, err = store.Stat(g.ctx, dir)
	return err == nil || !local
}
