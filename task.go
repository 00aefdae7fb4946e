package bridgefour

import (
	"context"
	"io"
	"log/slog"

	"github.com/bridgefour/bridgefour/internal/hooks"
)

// A Task is one split of a job's input, with its output and its log. It is valid until Map returns, and must be used by the
// goroutine that runs Map only.
//
// A task is an io.Reader of its split: whole records of the kind that the job's --records says, decompressed, without the header of the file.
// Either read it, or scan the lines of its [Task.Records].
type Task struct {
	ctx     context.Context //nolint:containedctx // of the attempt: a function of a typed job gets it with the task
	spec    hooks.TaskSpec
	out     Writer
	records Scanner
	logger  *slog.Logger
	readErr error
	scanned bool
}

// reset makes t a new task. It reuses the buffers.
func (t *Task) reset(ctx context.Context, spec *hooks.TaskSpec) {
	t.ctx, t.spec = ctx, *spec
	t.out.reset(spec.Output, 0)
	t.logger = nil
	t.readErr = nil
	t.scanned = false
}

// finish flushes the output and returns the number of lines in the part. The error is the first read or write error, even if Map has
// ignored it.
func (t *Task) finish() (records uint64, err error) {
	defer t.records.free()
	if t.readErr != nil {
		return 0, t.readErr
	}
	if t.scanned && t.records.err != nil {
		return 0, t.records.err
	}
	return t.out.finish()
}

// Memory is about how many bytes a function may take for tables of its own: a quarter of what the job may use of memory (--memory), or 128 MiB. One that gathers pairs empties its
// table before it is larger, by emitting what it has: the stage after it adds the pieces, as that of [Combine] does.
func (t *Task) Memory() int64 { return t.spec.Memory }

// Context ends if the job was stopped, the attempt has timed out, or the task was assigned to another worker. Then reads from the task fail, so
// that only functions that compute for long without a read need to look at it.
func (t *Task) Context() context.Context { return t.ctx }

// JobID is the number of the job.
func (t *Task) JobID() uint64 { return t.spec.JobID }

// Index is the number of the task in its stage, from 0.
func (t *Task) Index() uint64 { return t.spec.Index }

// Attempt is the number of the attempt, from 1.
func (t *Task) Attempt() uint32 { return t.spec.Attempt }

// Settings are the values given with --set.
func (t *Task) Settings() Settings { return t.spec.Settings }

// NextInput goes on to the next one of the small files that share a task (--pack), so that a function can keep a table for all of them. Input, Read, Records,
// Header and Offset are those of that file then. It returns false if there is none, or after an error of reading, which fails the task. What a function leaves, it is
// called for again.
func (t *Task) NextInput() bool {
	source, ok := t.spec.Source.(interface {
		Next() (path string, more bool, err error)
	})
	if t.scanned && t.readErr == nil {
		t.readErr = t.records.err
	}
	if !ok || t.readErr != nil {
		return false
	}
	path, more, err := source.Next()
	if t.readErr = err; !more || err != nil {
		return false
	}
	t.spec.Input, t.scanned = path, false
	return true
}

// eachInput calls f for each of the files that share the task, or once.
func (t *Task) eachInput(f func() error) error {
	for {
		if err := f(); err != nil {
			return err
		}
		if !t.NextInput() {
			return t.readErr
		}
	}
}

// Input is the path of the file that contains the split; empty for items.
func (t *Task) Input() string { return t.spec.Input }

// Item is the line or the number of the task, with --lines or --range. Reading such a task returns the item as its only record.
func (t *Task) Item() []byte { return t.spec.Item }

// Read reads the split.
func (t *Task) Read(p []byte) (int, error) {
	if t.readErr != nil {
		return 0, t.readErr
	}
	if t.spec.Source == nil {
		return 0, io.EOF
	}
	n, err := t.spec.Source.Read(p)
	if err != nil && err != io.EOF { // io.Reader promises io.EOF itself
		t.readErr = err
	}
	return n, err
}

// Offset is the offset of the next byte of Read in the input: in the file, or in the decompressed text.
func (t *Task) Offset() int64 {
	if positioned, ok := t.spec.Source.(interface{ Offset() int64 }); ok {
		return positioned.Offset()
	}
	return 0
}

// Header is the first lines of the file, if the job was submitted with --header. They are not among its records.
func (t *Task) Header() ([]byte, error) {
	with, ok := t.spec.Source.(interface{ Header() ([]byte, error) })
	if !ok {
		return nil, nil
	}
	header, err := with.Header()
	if err != nil {
		t.readErr = err
	}
	return header, err
}

// Records scans the lines of the split, which end at a newline.
func (t *Task) Records() *Scanner {
	if t.scanned {
		return &t.records
	}
	t.scanned = true
	t.records.reset(t.spec.Source, t.spec.Input)
	t.records.limit(t.spec.Settings)
	return &t.records
}

// Out is the writer for the task's part.
func (t *Task) Out() *Writer { return &t.out }

// Log is the task's log, as shown by bridgefour logs, also while the task runs.
func (t *Task) Log() *slog.Logger {
	if t.logger == nil {
		t.logger = slog.New(slog.NewTextHandler(t.LogWriter(), nil))
	}
	return t.logger
}

// LogWriter is the same log for plain text.
func (t *Task) LogWriter() io.Writer {
	if t.spec.Log == nil {
		return io.Discard
	}
	return t.spec.Log
}
