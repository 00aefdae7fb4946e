// Package hooks connects package bridgefour, which users import, with the engines that run its jobs: what only engines call of a job with a Map is here and not there.
// Jobs in a line of stages have package stage for that.
package hooks

import (
	"context"
	"io"
	"iter"
	"sync/atomic"
)

// Mapper is a bridgefour.Mapper as engines run it. It is safe for concurrent use.
type Mapper interface {
	// Collects reports whether a task after the others merges the parts.
	Collects() bool
	// NewTask returns a task, for use by one goroutine.
	NewTask() Task
}

// Task runs the tasks of one slot, one after the other. It reuses its buffers.
type Task interface {
	// Run calls Map, once for each file of Source. The output is complete after Finish.
	Run(ctx context.Context, spec *TaskSpec) error
	// Finish flushes the output and returns the number of its lines. The error is the first one of reading or writing, even if the job has
	// ignored it. After a failed Run it saves the end of the output, for the user.
	Finish() (records uint64, err error)
	// OutputErr is the error of writing the output.
	OutputErr() error
	// Collect merges the parts. If kept is false, the parts are the result and the output is to be discarded.
	Collect(ctx context.Context, spec *CollectionSpec) (records uint64, kept bool, err error)
}

// TaskSpec describes a task.
type TaskSpec struct {
	JobID    uint64
	Index    uint64
	Attempt  uint32
	Settings map[string]string
	Input    string
	Item     []byte
	// Source reads the split. It may have three more methods: Offset() int64, the offset of the next byte in the input, for errors;
	// Header() ([]byte, error), for Task.Header; and Next() (path string, more bool, err error), for Task.NextInput.
	Source io.Reader
	// Output receives the part in large pieces. It is not called for an empty part.
	Output io.Writer
	Log    io.Writer
	// Records is the kind of the records of Source, as --records says; empty: lines.
	Records string
	Memory  int64 // see Task.Memory
}

// CollectionSpec describes the input and output of a task that merges parts.
type CollectionSpec struct {
	JobID    uint64
	Settings map[string]string
	// Parts yields the parts in task order. A part is read before the next one is requested.
	Parts  iter.Seq2[PartSpec, error]
	Output io.Writer
	Log    io.Writer
}

// PartSpec describes one part.
type PartSpec struct {
	Index   uint64
	Size    int64 // bytes
	Records uint64
	Name    string // for messages
	Source  io.Reader
}

// open is set by package bridgefour.
var open atomic.Pointer[func(job any) (Mapper, error)] //nolint:gochecknoglobals // the connection of two packages of which this one may not import the other

// Register sets what Open calls. Package bridgefour calls it when it is initialized.
func Register(f func(job any) (Mapper, error)) { open.Store(&f) }

// Open returns the mapper of a bridgefour.Job. The error says that the job has no Map.
func Open(job any) (Mapper, error) { return (*open.Load())(job) }
