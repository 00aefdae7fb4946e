package runner

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/wire"
)

const logBytesMaxDefault = 1 << 20

// Config of a Runner.
type Config struct {
	// Jobs are the built-in jobs, found by their names.
	Jobs []bridgefour.Job
	// Stores hold inputs and outputs.
	Stores blob.Stores
	// ScratchDir takes the logs of running commands. It must exist, and be private to this process.
	ScratchDir string
	// LogBytesMax is what is kept of one attempt's log: its first and its last half. Defaults to 1 MiB.
	LogBytesMax int64
	// Worker gives the worker's number, which is not known before the worker is registered. Defaults to 0.
	Worker func() uint64
	// Logger defaults to none.
	Logger *slog.Logger
}

// A Runner makes slots.
type Runner struct {
	jobs        map[string]bridgefour.Job
	stores      blob.Stores
	scratchDir  string
	logBytesMax int64
	worker      func() uint64
	logger      *slog.Logger
	host        string
}

// New makes a runner.
func New(cfg Config) *Runner {
	r := &Runner{
		jobs:        make(map[string]bridgefour.Job, len(cfg.Jobs)),
		stores:      cfg.Stores,
		scratchDir:  cfg.ScratchDir,
		logBytesMax: cfg.LogBytesMax,
		worker:      cfg.Worker,
		logger:      cfg.Logger,
	}
	for _, job := range cfg.Jobs {
		r.jobs[job.Name()] = job
	}
	if r.logBytesMax <= 0 {
		r.logBytesMax = logBytesMaxDefault
	}
	if r.worker == nil {
		r.worker = func() uint64 { return 0 }
	}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if r.host, err = os.Hostname(); err != nil {
		r.host = "this worker"
	}
	return r
}

// An Attempt is what a slot runs.
type Attempt struct {
	Job       *wire.Job
	Stage     uint64
	StageName string
	Index     uint64
	Lease     uint64
	Number    uint32      // of the attempt, from 1
	Split     *wire.Split // nil: item Index of the job's range, or a stage that reads parts
	// Parts are the parts that the collect stage reads, in the order of their tasks. Nil for other stages.
	Parts iter.Seq2[Part, error]
	// Log gets the attempt's log. Nil: nobody wants it.
	Log LogSink
}

// A Part is a winner's file of the map stage. One of size 0 need not exist.
type Part struct {
	Index   uint64
	Path    blob.Location
	Size    uint64
	Records uint64
}

// A LogSink takes an attempt's log, in order, in whole lines unless a line is over 64 KiB. It is called from one
// goroutine at a time, not always from the one that called Run, and never after Run has returned. It must not keep text.
type LogSink interface {
	Append(text []byte)
}

// An Outcome is how an attempt ended. Failure and Canceled exclude each other; with either, no file is left.
type Outcome struct {
	File       blob.Location // the attempt's file; empty if it made none
	Size       uint64
	Records    uint64 // lines in File
	InputBytes uint64 // of the split that were read
	Checksum   uint64 // xxh64 of File
	Failure    *wire.Failure
	Canceled   bool // the context given to Run ended first
}

// jobsKept is how many jobs a slot remembers: enough for jobs that take turns in it.
const jobsKept = 8

// A Slot runs one attempt at a time. It is not for use from several goroutines.
type Slot struct {
	runner *Runner
	jobs   []*jobState // the last used first
	item   []byte      // of the attempt's range
	input  splitReader
	output attemptFile
	task   bridgefour.Task
	spec   bridgefour.TaskSpec
	log    attemptLog
	stderr scratchLog
	null   *os.File // standard input of commands that get none
	proc   process
	buf    []byte // for reading outputs back
}

// NewSlot makes a slot. It takes no resources before it needs them.
func (r *Runner) NewSlot() *Slot {
	s := &Slot{runner: r}
	s.input.host, s.input.stores = r.host, r.stores
	s.log.sizeMax = r.logBytesMax
	s.stderr.dir = r.scratchDir
	s.stderr.log = &s.log
	return s
}

// Close gives back what the slot holds.
func (s *Slot) Close() error {
	for _, j := range s.jobs {
		j.close(context.Background())
	}
	s.jobs = nil
	s.input.close()
	err := s.stderr.close()
	if s.null != nil {
		err = errors.Join(err, s.null.Close())
		s.null = nil
	}
	return err
}

// Run runs an attempt to its end. When ctx ends first, the attempt is stopped: a command gets SIGTERM, and SIGKILL two
// seconds later; a built-in job sees it in its own context.
func (s *Slot) Run(ctx context.Context, a *Attempt) Outcome {
	if ctx.Err() != nil {
		return Outcome{Canceled: true}
	}
	j := s.job(ctx, a.Job)
	var out Outcome
	switch {
	case j.broken != nil:
		out.Failure = j.broken.wire()
	case a.Parts != nil:
		s.runCollect(ctx, j, a, &out)
	case j.builtin != nil:
		s.runBuiltin(ctx, j, a, &out)
	default:
		out = s.runCommand(ctx, j, a)
	}
	if f := out.Failure; f != nil {
		f.Job, f.Stage, f.Index, f.Lease = a.Job.GetId(), uint32(a.Stage), a.Index, a.Lease
	}
	return out
}

// job gives what the slot knows of a job, prepared at its first attempt here. Jobs are told apart by pointer: the worker
// keeps one wire.Job for all attempts of a job.
func (s *Slot) job(ctx context.Context, j *wire.Job) *jobState {
	for i, known := range s.jobs {
		if known.wire == j {
			if i > 0 {
				copy(s.jobs[1:i+1], s.jobs[:i])
				s.jobs[0] = known
			}
			return known
		}
	}
	fresh := s.runner.prepare(j)
	if fresh.broken != nil {
		return fresh // not kept: the next attempt may find the command installed
	}
	if len(s.jobs) == jobsKept {
		s.jobs[jobsKept-1].close(ctx)
		s.jobs = s.jobs[:jobsKept-1]
	}
	s.jobs = append([]*jobState{fresh}, s.jobs...)
	return fresh
}

// jobState is what all attempts of a job in one slot share.
type jobState struct {
	wire    *wire.Job
	store   blob.Store    // of the output
	folder  blob.Location // attempt-private
	builtin bridgefour.Job
	command *command
	broken  *failure // no attempt can be started
}

func (r *Runner) prepare(j *wire.Job) *jobState {
	store, output, err := r.stores.Open(j.GetOutput())
	state := &jobState{wire: j, store: store, folder: output.Join(layout.Private(j.GetUid()))}
	if err != nil {
		state.broken = failed(wire.FailureKind_OUTPUT_ERROR, "output %v", err)
		return state
	}
	switch program := j.GetProgram().GetKind().(type) {
	case *wire.Program_Builtin:
		job, ok := r.jobs[program.Builtin]
		if !ok {
			state.broken = failed(wire.FailureKind_BAD_PROGRAM, "no built-in job is named %q on this worker; it has %s",
				program.Builtin, r.jobNames())
		}
		state.builtin = job
	case *wire.Program_Command:
		state.command, state.broken = r.newCommand(state, program.Command)
	default:
		state.broken = failed(wire.FailureKind_BAD_PROGRAM,
			"this worker does not know the job's kind of program; is it older than the leader?")
	}
	return state
}

func (r *Runner) jobNames() string {
	names := make([]string, 0, len(r.jobs))
	for name := range r.jobs {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (j *jobState) close(ctx context.Context) {
	if j.command != nil {
		j.command.stdout.close(ctx)
	}
}
