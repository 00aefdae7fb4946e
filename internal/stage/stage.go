// Package stage is what the engine and jobs in a line of stages know of each other. It imports nothing of ours, so that the SDK, which is light,
// implements [Job], and both the runner of a worker and an engine for tests can run it.
//
// The first stage reads the splits of the input; each later one reads the pairs that the stage before it has emitted, one partition a task, in order of their
// keys. The last stage writes the parts as text. Keys and values are bytes, and keys are compared as such.
package stage

import (
	"context"
	"io"
)

// Job is a job in a line of stages. The engine finds it by its name, as any built-in job, and by this method.
type Job interface {
	// Plan returns the job for settings. It is called at submit, where its error is one of the user's request, and once in each slot of a worker that runs tasks
	// of the job. Equal settings have equal stages. An error of the job itself is a [DefectError].
	Plan(settings map[string]string) (Program, error)
}

// Program is a job with its settings.
type Program interface {
	// Stages are the stages in their order, at least one, and at most [StagesMax].
	Stages() []Stage
	// Run runs a task. Two tasks of one Program never run at once. Errors of reading Pairs and Split, and of Emit and Part, fail the task also if Run ignores them. An
	// error that says that the input is bad (bridgefour.BadInput) is not tried again.
	Run(ctx context.Context, t *Task) error
}

// InputChecker is a [Program] whose input has files of several kinds.
type InputChecker interface {
	// CheckInput is called at submit with the path of each file of the input.
	CheckInput(path string)
	// MissingInput is called then. An error says which files are missing, and refuses the job.
	MissingInput() error
}

const (
	// StagesMax is the maximum number of stages.
	StagesMax = 32
	// PartitionsMax is the maximum number of tasks of a later stage.
	PartitionsMax = 1 << 16
)

// MemoryMin is the least memory of an attempt, in bytes: a stage that reads and emits pairs has a quarter for each, and the blocks of two runs that are merged fit.
const MemoryMin = 16 << 20

// Stage is one stage of a job.
type Stage struct {
	// Name has the characters a-z, 0-9 and _, and is unique in the job: map, reduce, sort.
	Name string
	// Partition is how the pairs that the stage reads are divided among its tasks. The first stage reads none.
	Partition Partition
	// Partitions is the number of tasks of a later stage, at most [PartitionsMax]; 0: the engine derives it from the size of the input.
	Partitions int
}

// Partition divides pairs among the tasks of a stage.
type Partition uint8

const (
	// ByHash puts each key into one partition, by a hash that never changes.
	ByHash Partition = iota
	// ByRange puts the smallest keys into the first partition, and so on, so that the parts, one after the other, are in order of the keys. Partitions have about as many
	// bytes each, but a key is in one alone.
	ByRange
)

// Pair is a key with a value.
type Pair struct{ Key, Value []byte }

// Pairs are read one at a time, so that a reader can stop at the end of a group and go on from there.
type Pairs interface {
	// Next returns the next pair, which is valid until the following call. The error is io.EOF at the end.
	Next() (Pair, error)
}

// Task is one attempt of a task. It is valid until Run returns, and is used by one goroutine.
type Task struct {
	Job     uint64
	Stage   int // number of its stage in Program.Stages
	Index   uint64
	Attempt uint32 // from 1

	// Path is the file of the split, the first one of several, and Item the item of a list instead; first stage only.
	Path string
	Item []byte
	// Split is whole records of the kind that the job's --records says, decompressed, without the header of the file; first stage only, nil if the job has no input.
	Split Split
	// Pairs are those of the partition, in order of their keys; pairs with equal keys are in the order of the tasks that emitted them, and in which each of them did. They are
	// read once, in bounded memory. Nil in the first stage.
	Pairs Pairs

	// Records is the kind of records of Split, as the job's --records says; empty: lines.
	Records string

	// Settings are those of Job.Plan.
	Settings map[string]string

	// Emit adds a pair for the next stage; it copies key and value, which have 1 GiB together at most. Nil in the last stage.
	Emit func(key, value []byte) error
	// EmitBy is Emit into the partition of part, a beginning of key: pairs whose keys differ after it are in one partition, in order of their keys. Only for a next stage
	// that is ByHash.
	EmitBy func(part, key, value []byte) error
	// Part takes the text of the task's part, in large pieces, in the last stage; nil in the others.
	Part io.Writer

	// Memory is about how many bytes Run may take for tables of its own, beside those that Emit and Pairs take.
	Memory int64
	Temp   string // folder for what does not fit; empty: that of the system
	Log    io.Writer
}

// Split is a split of the input.
type Split interface {
	io.Reader
	// Offset is the offset of the next byte in the file, or in the decompressed text.
	Offset() int64
	// Header is the first lines of the file, as the job's --header says, which are not read.
	Header() ([]byte, error)
	// Next goes on to the next file of a task that has several small ones: Read ends at the end of each. Run must read all of them. The error is that of the file
	// before.
	Next() (path string, more bool, err error)
}
