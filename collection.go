package bridgefour

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"

	"github.com/bridgefour/bridgefour/internal/hooks"
)

// A Collection is the input and the output of a Collect: the parts of a job and their result. It is valid until Collect returns.
type Collection struct {
	spec    hooks.CollectionSpec
	out     Writer
	records Scanner
	readErr error
	sizeMax int64
	setErr  error
}

func newCollection(spec *hooks.CollectionSpec) *Collection {
	c := &Collection{spec: *spec}
	c.sizeMax, c.setErr = c.Settings().Size(SettingResultMax, resultMaxDefault)
	c.out.reset(spec.Output, c.sizeMax)
	return c
}

// run calls the job's Collect. If kept is false, the parts are the result and the output is to be discarded.
func (c *Collection) run(ctx context.Context, job Collector) (records uint64, kept bool, err error) {
	if c.setErr != nil {
		return 0, false, c.setErr
	}
	err = job.Collect(ctx, c)
	if err == nil && c.readErr != nil {
		err = c.readErr
	}
	if err == nil {
		records, err = c.out.finish()
	}
	tooLarge := errors.Is(err, ErrResultTooLarge) || errors.Is(c.out.err, ErrResultTooLarge)
	if tooLarge {
		c.Log().InfoContext(ctx, "the result is over its size limit; the parts are the result",
			"bytes_max", c.sizeMax, "setting", SettingResultMax)
	}
	if tooLarge || errors.Is(err, ErrPartsAreResult) {
		return 0, false, nil
	}
	return records, err == nil, err
}

// JobID is the number of the job.
func (c *Collection) JobID() uint64 { return c.spec.JobID }

// Settings are the values given with --set.
func (c *Collection) Settings() Settings { return c.spec.Settings }

// SizeMax is the size limit of the result in bytes. A Collect whose memory grows with its result may stop early with
// [ErrResultTooLarge].
func (c *Collection) SizeMax() int64 { return c.sizeMax }

// Parts yields the parts in task order. A part is valid until the next one is requested.
func (c *Collection) Parts() iter.Seq2[*Part, error] {
	return func(yield func(*Part, error) bool) {
		if c.spec.Parts == nil {
			return
		}
		for spec, err := range c.spec.Parts {
			if err != nil {
				c.readErr = err
				yield(nil, err)
				return
			}
			more := yield(&Part{spec: spec, collection: c}, nil)
			if c.readErr == nil {
				c.readErr = c.records.err
			}
			if !more {
				return
			}
		}
	}
}

// Out is the writer for the result.
func (c *Collection) Out() *Writer { return &c.out }

// Log is the log of the task that collects.
func (c *Collection) Log() *slog.Logger {
	if c.spec.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(c.spec.Log, nil))
}

// A Part is the output of one task. It is an io.Reader: either read it, or scan its [Part.Records].
type Part struct {
	spec       hooks.PartSpec
	collection *Collection
}

// Index is the number of the task, from 0.
func (p *Part) Index() uint64 { return p.spec.Index }

// Size is the size of the part in bytes.
func (p *Part) Size() int64 { return p.spec.Size }

// Read reads the part.
func (p *Part) Read(b []byte) (int, error) {
	if p.spec.Source == nil {
		return 0, io.EOF
	}
	n, err := p.spec.Source.Read(b)
	if err != nil && err != io.EOF { // io.Reader promises io.EOF itself
		p.collection.readErr = err
	}
	return n, err
}

// Records scans the lines of the part. All parts share one buffer.
func (p *Part) Records() *Scanner {
	records := &p.collection.records
	records.reset(p, p.spec.Name)
	records.limit(p.collection.spec.Settings)
	return records
}
