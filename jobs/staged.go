package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/pages"
	"github.com/bridgefour/bridgefour/internal/stage"
)

// staged is a job in a line of stages that works on bytes, below the typed SDK: what it does for a record costs about as much as the shuffle of
// the record, so a call and a copy more would show. C are its settings.
type staged[C any] struct {
	name        string
	description bridgefour.Description
	program     func(config C) (stage.Program, error)
}

// newStaged returns a job that reads lines. The description needs no settings.
func newStaged[C any](name, summary, example string, program func(config C) (stage.Program, error)) bridgefour.Job {
	return &staged[C]{name, bridgefour.Description{Summary: summary, Example: example, Records: lineKinds(), Settings: bridgefour.DescribeSettings[C]()}, program}
}

// Name is the name on the command line.
func (j *staged[C]) Name() string { return j.name }

// Describe lists the settings.
func (j *staged[C]) Describe() bridgefour.Description { return j.description }

// Plan decodes the settings.
func (j *staged[C]) Plan(settings map[string]string) (stage.Program, error) {
	config, err := bridgefour.DecodeSettings[C](settings)
	if err != nil {
		return nil, err
	}
	p, err := j.program(config)
	if err != nil {
		return nil, bridgefour.BadInput(fmt.Errorf("job %s: %w", j.name, err))
	}
	return p, nil
}

// twoStages are one that reads the input, and one that reads what it emits.
func twoStages(name string, by stage.Partition) []stage.Stage {
	return []stage.Stage{{Name: "map"}, {Name: name, Partition: by}}
}

const (
	blockBytes = 256 << 10 // of reads and writes
	blockKept  = 4 << 20   // larger buffers are not kept for the next task
	blockSlack = 8         // bytes after a block that can be read
	lineMax    = 1 << 30   // what stage.Task.Emit takes
)

// lineBlocks reads the lines of a split, or of several files, many at a time.
type lineBlocks struct {
	task   *stage.Task
	max    int64 // bytes of a line
	buf    []byte
	filled int
	given  int // end of the last block
	ended  bool
}

// begin starts a split.
func (b *lineBlocks) begin(t *stage.Task) (err error) {
	const maxDefault = 64 << 20
	if b.end(); len(b.buf) < blockBytes {
		b.buf = make([]byte, blockBytes, blockBytes+1+blockSlack)
	}
	*b = lineBlocks{task: t, buf: b.buf, ended: t.Split == nil}
	b.max, err = bridgefour.Settings(t.Settings).Size(bridgefour.SettingRecordMax, maxDefault)
	b.max = min(b.max, lineMax)
	return err
}

// next returns the next lines, each with its end, also if the last one of the split has none. They are valid until the next call. It returns nil at the end.
// Their slice has a capacity of blockSlack more bytes. They are of one file: that of Task.Path.
func (b *lineBlocks) next() ([]byte, error) {
	b.filled = copy(b.buf, b.buf[b.given:b.filled])
	b.given = 0
	for !b.ended {
		if b.filled == len(b.buf) {
			if int64(b.filled) > b.max {
				return nil, b.tooLong()
			}
			n := pages.Longer(len(b.buf))
			b.buf = append(make([]byte, 0, n+1+blockSlack), b.buf...)[:n]
		}
		n, err := b.task.Split.Read(b.buf[b.filled:])
		end := bytes.LastIndexByte(b.buf[b.filled:b.filled+n], '\n') + 1
		if end > 0 {
			b.given = b.filled + end
		}
		b.filled += n
		if b.ended = errors.Is(err, io.EOF); err != nil && !b.ended {
			return nil, err
		}
		if b.given > 0 {
			return b.buf[:b.given], nil
		}
	}
	if b.filled == 0 && b.task.Split == nil {
		return nil, nil
	}
	if b.filled == 0 {
		path, more, err := b.task.Split.Next()
		if !more || err != nil {
			b.end()
			return nil, err
		}
		b.task.Path, b.ended = path, false
		return b.next()
	}
	last := append(b.buf[:b.filled], '\n')
	b.filled = 0
	return last, nil
}

// end frees the buffer if long lines have made it large: what comes after the split needs the memory.
func (b *lineBlocks) end() {
	if len(b.buf) > blockKept {
		b.buf = nil
	}
}

func (b *lineBlocks) tooLong() error {
	return bridgefour.BadInput(fmt.Errorf("%s: a line before byte %d exceeds %d bytes; raise the limit with --set %s=SIZE",
		b.task.Path, b.task.Split.Offset(), b.max, bridgefour.SettingRecordMax))
}

// cutLine takes the first line off a block.
func cutLine(block []byte) (line, rest []byte) {
	end := bytes.IndexByte(block, '\n')
	return block[:end:end], block[end+1:]
}

// eachLine calls f for each line of a split, or of several files. A line is valid until f returns.
func (b *lineBlocks) eachLine(t *stage.Task, f func(line []byte) error) error {
	if err := b.begin(t); err != nil {
		return err
	}
	for {
		block, err := b.next()
		if block == nil {
			return err
		}
		for len(block) > 0 {
			var line []byte
			line, block = cutLine(block)
			if int64(len(line)) > b.max {
				return b.tooLong()
			}
			if err := f(line); err != nil {
				return err
			}
		}
	}
}

// partText collects the text of a part, and writes it in large pieces.
type partText struct {
	part io.Writer
	buf  []byte
}

// begin starts a part.
func (p *partText) begin(t *stage.Task) {
	if cap(p.buf) > blockKept {
		p.buf = nil
	}
	p.part, p.buf = t.Part, p.buf[:0]
}

// grown writes what was appended to buf, if it is much.
func (p *partText) grown() error {
	if len(p.buf) < blockBytes {
		return nil
	}
	return p.flush()
}

// line adds a line.
func (p *partText) line(line []byte) error {
	if len(line) > blockBytes { // not copied: it is long
		if err := p.flush(); err != nil {
			return err
		}
		if _, err := p.part.Write(line); err != nil {
			return err
		}
		line = nil
	}
	p.buf = append(append(p.buf, line...), '\n')
	return p.grown()
}

func (p *partText) flush() error {
	_, err := p.part.Write(p.buf)
	p.buf = p.buf[:0]
	return err
}

// eachPair calls f for each pair of a partition.
func eachPair(t *stage.Task, f func(pair stage.Pair) error) error {
	for {
		pair, err := t.Pairs.Next()
		if err == nil {
			err = f(pair)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
