package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/hooks"
	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Program runs the tasks of a job. It belongs to one slot and runs one task at a time.
type Program interface {
	// Run runs a task on its split, or on its partition of what the stage before has emitted.
	Run(ctx context.Context, t *Task) Result
	// Collect runs the task that merges the parts. It fails with BAD_PROGRAM if the program has no such role.
	Collect(ctx context.Context, t *Task) Result
}

// Task is an attempt as its program sees it. It is reused by the slot.
type Task struct {
	Job         *wire.Job
	Stage       string
	StageNumber int
	Index       uint64
	Number      uint32      // of the attempt, from 1
	Split       *wire.Split // nil: none, or a number of the job's range
	Path        string      // of the input file, if any
	Item        []byte      // the item of a list as text, or its items, one a line; nil: none
	Slot        uint32      // of the worker, from 1
	// Resources are the ids that the attempt has, by name.
	Resources map[string][]string
	Input     Input
	Parts     iter.Seq2[hooks.PartSpec, error]    // Collect only
	Pairs     stage.Pairs                         // of a stage that reduces, in place of Input; else nil
	Emit      func(key, value []byte) error       // of a stage that another one reduces, in place of Output; else nil
	EmitBy    func(part, key, value []byte) error // Emit, into the partition of part
	Output    io.Writer
	Log       io.Writer
	Memory    int64  // bytes that a built-in job may take for tables of its own
	Temp      string // folder for what does not fit
	// Errors returns the first error of reading Input and Pairs, and the first one of Emit and Output.
	Errors func() (read, write error)
	Files  Files
	Keeper *keeper.Keeper // of the slot; runs commands
}

// IsItem reports whether the task has items of a list.
func (t *Task) IsItem() bool { return t.Split.GetFile() == nil && (t.Split != nil || t.Item != nil) }

// Input is the split: whole records, decompressed.
type Input interface {
	io.Reader
	// Offset returns the offset of the next byte in the input.
	Offset() int64
	// Header returns the first lines of the file, as the job's --header says, which are not read.
	Header() ([]byte, error)
	// Next begins the next file of a task that has several. The error is one of the file before.
	Next() (path string, more bool, err error)
	// Path is the file that is being read, if the task has several; else it is empty.
	Path() string
}

// Files replaces Input, Output and Log for commands.
type Files interface {
	// Open returns the standard input for a process to start; 0: /dev/null. input is false if it does not read the split.
	Open(ctx context.Context, input bool) (stdin uintptr, f *Failure)
	// Started starts to write the split to the process. broken is called from another goroutine if the split cannot be read or the
	// output cannot be written.
	Started(broken func())
	// Output starts to read what the process writes.
	Output(s keeper.Stream, pipe *os.File)
	// Ended must be called after Open, once the process has ended or failed to start. The failure is one of reading the split or of
	// writing the output.
	Ended() *Failure
}

// Result is the end of a task. Failure and Canceled exclude each other.
type Result struct {
	Records  uint64 // lines written to Output; not counted for Files
	NoResult bool   // of Collect: the parts are the result, and Output is to be discarded
	Failure  *Failure
	Canceled bool   // the context ended first, other than by ErrTimeout
	Peak     uint64 // bytes of the largest resident set of a process; 0: unknown
}

// ErrTimeout is the cause of a context that ends because of the job's timeout.
var ErrTimeout = errors.New("the attempt timed out")

// WithTimeout returns the context for an attempt.
func WithTimeout(ctx context.Context, j *wire.Job) (context.Context, context.CancelFunc) {
	if j.GetTimeoutMs() == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, timeout(j), ErrTimeout)
}

func timeout(j *wire.Job) time.Duration { return time.Duration(j.GetTimeoutMs()) * time.Millisecond }

// grace is the time between SIGTERM and SIGKILL.
func grace(j *wire.Job) time.Duration {
	if j.GetGraceMs() == 0 {
		return 2 * time.Second
	}
	return time.Duration(j.GetGraceMs()) * time.Millisecond //nolint:gosec // checked by the leader
}

func isTimeout(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrTimeout) }

func timedOut(j *wire.Job) *Failure {
	return Failed(wire.FailureKind_TIMEOUT, "timed out after %v", timeout(j))
}

// naming adds the file that was being read to an error, if the task has several, and the error does not name it.
func (t *Task) naming(err error) error {
	path := t.Input.Path()
	if err == nil || path == "" || strings.Contains(err.Error(), path) {
		return err
	}
	return fmt.Errorf("input %q: %w", path, err)
}

// Loader loads programs.
type Loader struct {
	Jobs   []bridgefour.Job // the built-in ones
	Host   string           // for messages
	Worker func() uint64    // the worker's number, unknown before registration
	// EnvAll gives commands all variables of this process, and not just those in inherited.
	EnvAll bool
	// Confinement is the least of all commands.
	Confinement keeper.Confinement
}

// User is a user of the operating system.
type User struct {
	Name, Home string
	Credential *syscall.Credential
}

// Load prepares the program of a job for a slot: that of each stage, by number. Commands are run by user; nil: that of this process.
func (l *Loader) Load(j *wire.Job, user *User) ([]Program, *Failure) {
	var first, reduce Program
	var f *Failure
	switch p := j.GetProgram().GetKind().(type) {
	case *wire.Program_Builtin:
		first, f = l.builtin(j, p.Builtin)
		reduce = first
	case *wire.Program_Command:
		if first, f = l.command(j, user, p.Command); f == nil && j.GetReduce() != "" {
			reduce, f = l.commandLine(j, user, j.GetReduce())
		}
	default:
		f = Failed(wire.FailureKind_BAD_PROGRAM, "unknown kind of program; is this worker older than the leader?")
	}
	if f != nil {
		return nil, f
	}
	plan := wire.PlanOf(j)
	list := slices.Repeat([]Program{first}, max(1, len(plan)))
	for i, s := range plan {
		if s.GetRole() != wire.StageRole_STAGE_REDUCE {
			continue
		}
		if list[i] = reduce; reduce == nil {
			return nil, Failed(wire.FailureKind_BAD_PROGRAM, "stage %q reduces, but the job has no command for it; is this worker older than the leader?", s.GetName())
		}
	}
	return list, nil
}

// LoadCombine prepares what the outputs of the first stage go through.
func (l *Loader) LoadCombine(j *wire.Job, user *User) (Program, *Failure) {
	return l.commandLine(j, user, j.GetCombine())
}

func (l *Loader) commandLine(j *wire.Job, user *User, line string) (Program, *Failure) {
	return l.command(j, user, &wire.Command{Argv: [][]byte{[]byte("sh"), []byte("-c"), []byte(line)}, Placeholders: uint32(placeholder.Off)})
}

func (l *Loader) builtin(j *wire.Job, name string) (Program, *Failure) {
	i := slices.IndexFunc(l.Jobs, func(job bridgefour.Job) bool { return job.Name() == name })
	if i < 0 {
		names := make([]string, 0, len(l.Jobs))
		for _, job := range l.Jobs {
			names = append(names, job.Name())
		}
		slices.Sort(names)
		return nil, Failed(wire.FailureKind_BAD_PROGRAM, "unknown built-in job %q on this worker; known: %s", name, strings.Join(names, ", "))
	}
	if line, ok := l.Jobs[i].(stage.Job); ok {
		p, err := line.Plan(j.GetSettings())
		if err != nil {
			return nil, JobFailure(err)
		}
		return &staged{name: name, program: p}, nil
	}
	p, err := hooks.Open(l.Jobs[i])
	if err != nil {
		return nil, Failed(wire.FailureKind_BAD_PROGRAM, "%v", err)
	}
	return newBuiltin(name, p), nil
}
