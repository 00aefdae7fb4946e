package program

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Program is what the tasks of a job run, in one method for each role that a stage can have. It is made for one slot, and
// runs one task at a time.
type Program interface {
	// Map runs a task on its split.
	Map(ctx context.Context, t *Task) Result
	// Collect runs the task that merges the parts. A program that cannot do that is a bad program.
	Collect(ctx context.Context, t *Task) Result
}

// Task is one attempt as a program sees it. A slot uses it again.
type Task struct {
	Job    *wire.Job
	Stage  string
	Index  uint64
	Number uint32      // of the attempt, from 1
	Split  *wire.Split // nil: the task has none, or a number of the job's range
	Path   string      // of the file that the task reads, if it does
	Item   []byte      // the line or the number, if the task is for one
	Input  Input
	Parts  iter.Seq2[bridgefour.PartSpec, error] // Collect only
	Output io.Writer
	Log    io.Writer
	Files  Files

	task bridgefour.Task // keeps its buffers
}

// Input reads the split: whole records, decompressed.
type Input interface {
	io.Reader
	// Offset is the place of the next byte in the input.
	Offset() int64
}

// Files stands for Input, Output and Log where a program needs files of the operating system.
type Files interface {
	// Open gives the descriptors of a process to start. input is false if it does not read the split.
	Open(ctx context.Context, input bool) (stdin, stdout, stderr uintptr, f *Failure)
	// Started closes the descriptors, which the process has by now, and feeds it with the split. broken is called, from another
	// goroutine, when the split cannot be read to its end.
	Started(broken func())
	// Ended is called after Open when the process has ended, or could not be started. The error is one of reading the split.
	Ended() error
	// Room tells how much room there is for standard output, and where.
	Room() (folder string, free, total uint64, ok bool)
}

// Result is how a task ended. Of Failure and Canceled at most one is set.
type Result struct {
	Records  uint64 // lines that a program in this process has written to Output
	NoResult bool   // Collect leaves it at the parts; what Output got is to be thrown away
	Failure  *Failure
	Canceled bool // the context ended first, and not because of ErrTimeout
}

// ErrTimeout is the cause of a context that ends because the attempt's time is over.
var ErrTimeout = errors.New("the attempt's time is over")

// WithTimeout is a context for an attempt of the job.
func WithTimeout(ctx context.Context, j *wire.Job) (context.Context, context.CancelFunc) {
	if j.GetTimeoutMs() == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, timeout(j), ErrTimeout)
}

func timeout(j *wire.Job) time.Duration { return time.Duration(j.GetTimeoutMs()) * time.Millisecond }

func isTimeout(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrTimeout) }

func timedOut(j *wire.Job) *Failure {
	return Failed(wire.FailureKind_TIMEOUT, "not done after %v", timeout(j))
}

// Loader makes programs.
type Loader struct {
	Jobs   []bridgefour.Job // the built-in ones
	Host   string           // for messages
	Worker func() uint64    // number of the worker, which is not known before it is registered
}

// Load prepares the program of a job for a slot.
func (l *Loader) Load(j *wire.Job) (Program, *Failure) {
	switch p := j.GetProgram().GetKind().(type) {
	case *wire.Program_Builtin:
		return l.builtin(p.Builtin)
	case *wire.Program_Command:
		return l.command(j, p.Command)
	}
	return nil, Failed(wire.FailureKind_BAD_PROGRAM, "this worker does not know the job's kind of program; is it older than the leader?")
}

func (l *Loader) builtin(name string) (Program, *Failure) {
	i := slices.IndexFunc(l.Jobs, func(job bridgefour.Job) bool { return job.Name() == name })
	if i < 0 {
		names := make([]string, 0, len(l.Jobs))
		for _, job := range l.Jobs {
			names = append(names, job.Name())
		}
		slices.Sort(names)
		return nil, Failed(wire.FailureKind_BAD_PROGRAM, "no built-in job is named %q on this worker; it has %s", name, strings.Join(names, ", "))
	}
	return builtin{l.Jobs[i]}, nil
}
