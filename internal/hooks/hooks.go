// Package hooks connects package bridgefour, which users import, with the engines that run its jobs: what only engines call is here and
// not there. It is plain data and interfaces of the standard library, so that both sides stay free of each other.
package hooks

import (
	"context"
	"io"
	"iter"
	"sync/atomic"
)

// Shuffle says how the pairs that a stage emits reach the next one, which reads them sorted by the bytes of their keys.
type Shuffle uint8

// Kinds of shuffles.
const (
	ShuffleNone   Shuffle = iota // the last stage: it writes a part as text
	ShuffleHash                  // all pairs of a key are in one partition
	ShuffleSingle                // one partition
	ShuffleRange                 // partitions are ranges of keys, in order, so that the parts are in order too
)

// Stage is one of a line of stages: the first reads the splits of the input, each other one the pairs that the one before it emits.
type Stage struct {
	Name       string
	Shuffle    Shuffle
	Partitions int // of what it emits; 0: depends on the size of the data
}

// Program is a job as engines run it. It is safe for concurrent use.
type Program interface {
	// Stages returns the line of stages, which depends on the settings, and is the same at each call. An error is one of the settings.
	Stages(settings map[string]string) ([]Stage, error)
	// Collects reports whether a task after the last stage merges the parts.
	Collects() bool
	// NewTask returns a task, for use by one goroutine.
	NewTask() Task
}

// Task runs the tasks of one slot, one after the other. It reuses its buffers.
type Task interface {
	// Run runs a task of a stage. Its output is complete after Finish.
	Run(ctx context.Context, spec *TaskSpec) error
	// Finish flushes the output and returns the number of records: lines of a part, or pairs. The error is the first one of reading or writing,
	// even if the job has ignored it. After a failed Run it saves the end of the output, for the user.
	Finish() (records uint64, err error)
	// OutputErr is the error of writing the output.
	OutputErr() error
	// Collect merges the parts. If kept is false, the parts are the result and the output is to be discarded.
	Collect(ctx context.Context, spec *CollectionSpec) (records uint64, kept bool, err error)
}

// TaskSpec describes a task.
type TaskSpec struct {
	JobID    uint64
	Stage    int // its place in Program.Stages
	Index    uint64
	Attempt  uint32
	Settings map[string]string
	Input    string
	Item     []byte
	// Source reads the split, for the first stage. If it has a method Offset() int64, the offset of the next byte in the input, errors
	// mention it.
	Source io.Reader
	// Pairs are the partition of the task, for the stages after the first one.
	Pairs Pairs
	// Output receives the part in large pieces, for the last stage. It is not called for an empty part.
	Output io.Writer
	// Emit receives the pairs of a stage before the last one. It copies key and value. The engine chooses the partition by Stage.Shuffle.
	Emit func(key, value []byte) error
	Log  io.Writer
}

// Pairs are read in order of the bytes of their keys.
type Pairs interface {
	// Next returns the next pair, which is valid until the following call. The error is io.EOF at the end.
	Next() (key, value []byte, err error)
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
var open atomic.Pointer[func(job any) (Program, error)] //nolint:gochecknoglobals // the connection of two packages of which this one may not import the other

// Register sets what Open calls. Package bridgefour calls it once, when it is initialized.
func Register(f func(job any) (Program, error)) { open.Store(&f) }

// Open returns the program of a bridgefour.Job. The error says that the job has no stages.
func Open(job any) (Program, error) { return (*open.Load())(job) }
