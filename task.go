package bridgefour

import (
	"io"
	"log/slog"
)

// A Task is one split of a job's input, the place for its output, and its log. It holds until Map returns, and belongs
// to the goroutine that runs Map.
//
// A task is an io.Reader of its split: whole lines, decompressed. Read it, or scan its [Task.Records], not both.
type Task struct {
	spec    TaskSpec
	out     Output
	records Records
	logger  *slog.Logger
	readErr error
	scanned bool
}

// TaskSpec is what an engine tells a task. Jobs have no need of it.
type TaskSpec struct {
	JobID    uint64
	Index    uint64
	Attempt  uint32
	Settings Settings
	Input    string
	Item     []byte
	// Source reads the split. Where it also has Offset() int64, the place of the next byte in the input, errors name it.
	Source io.Reader
	// Output gets the part in large pieces; it is not written to by a task that has no output.
	Output io.Writer
	Log    io.Writer
}

// Reset makes t a new task, for engines. It keeps the buffers of the one that t was before.
func (t *Task) Reset(spec *TaskSpec) {
	t.spec = *spec
	t.out.reset(spec.Output, 0)
	t.logger = nil
	t.readErr = nil
	t.scanned = false
}

// Finish writes out what is buffered and gives the number of lines in the part, for engines. The error is the first
// thing that went wrong with reading or writing, also where Map did not mind it.
func (t *Task) Finish() (records uint64, err error) {
	if t.readErr != nil {
		return 0, t.readErr
	}
	if t.scanned && t.records.err != nil {
		return 0, t.records.err
	}
	return t.out.finish()
}

// OutputErr is what went wrong with writing the part, for engines.
func (t *Task) OutputErr() error { return t.out.err }

// JobID is the number of the job.
func (t *Task) JobID() uint64 { return t.spec.JobID }

// Index is the number of the task in its stage, from 0.
func (t *Task) Index() uint64 { return t.spec.Index }

// Attempt says how often the task has been started, this time included.
func (t *Task) Attempt() uint32 { return t.spec.Attempt }

// Settings are what the user gave with --set.
func (t *Task) Settings() Settings { return t.spec.Settings }

// Input is the path of the file that the split is part of; empty for items.
func (t *Task) Input() string { return t.spec.Input }

// Item is the line or the number that the task is for, with --lines or --range. Reading such a task gives the item as
// its one record.
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

// Offset is where the next byte that Read gives stands in the input: a byte of the file, or of the text that a
// compressed file holds.
func (t *Task) Offset() int64 {
	if positioned, ok := t.spec.Source.(interface{ Offset() int64 }); ok {
		return positioned.Offset()
	}
	return 0
}

// Records scans the lines of the split.
func (t *Task) Records() *Records {
	if t.scanned {
		return &t.records
	}
	t.scanned = true
	t.records.reset(t.spec.Source, t.spec.Input)
	t.records.limit(t.spec.Settings)
	return &t.records
}

// Out is the writer of the task's part.
func (t *Task) Out() *Output { return &t.out }

// Log is the task's log: bridgefour logs shows it, also while the task runs.
func (t *Task) Log() *slog.Logger {
	if t.logger == nil {
		t.logger = slog.New(slog.NewTextHandler(t.LogWriter(), nil))
	}
	return t.logger
}

// LogWriter is the same log for text of any form.
func (t *Task) LogWriter() io.Writer {
	if t.spec.Log == nil {
		return io.Discard
	}
	return t.spec.Log
}
