package runner

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/heap"
	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/shuffle"
	"github.com/bridgefour/bridgefour/internal/wire"
)

const logBytesMaxDefault = 1 << 20

// Config configures a Runner.
type Config struct {
	// Jobs are the built-in jobs, found by their names.
	Jobs []bridgefour.Job
	// Users are those that run commands, with the stores of inputs and outputs.
	Users Users
	// DataDir is the worker's data directory, apart from which an output must lie. Defaults to none.
	DataDir string
	// LogBytesMax limits an attempt's log to its first and its last half. Defaults to 1 MiB.
	LogBytesMax int64
	// Held is [keeper.Keeper.Held].
	Held *os.File
	// Nice is added to the nice value of commands.
	Nice int
	// EnvAll gives commands the environment of this process, and not just PATH, HOME, USER, LANG and TZ of it.
	EnvAll bool
	// Confinement is the least of all commands.
	Confinement keeper.Confinement
	// SortMemory is the bytes that each slot takes to sort the output of a task for a reduce, or to merge its input, and as many for tables, if the job has no
	// limit. Defaults to SortMemoryMax.
	SortMemory int64
	// Temp is a folder for temporary files of commands, which need not exist. It is removed when the last slot is closed. Defaults to a
	// new one.
	Temp string
	// Worker returns the worker's number, which is unknown before registration. Defaults to 0.
	Worker func() uint64
	// Logger defaults to discarding.
	Logger *slog.Logger
}

// SortMemoryMax is so much that a split of the default size fits with what sorting it takes, if its lines are not very short.
const SortMemoryMax = 128 << 20

// A Runner creates slots.
type Runner struct {
	loader      program.Loader
	users       Users
	dataDir     string
	logBytesMax int64
	held        *os.File
	nice        int
	sortMemory  int64
	logger      *slog.Logger
	host        string
	temp        string
	slots       atomic.Uint64 // created so far
}

// New returns a runner.
func New(cfg Config) *Runner {
	r := &Runner{
		users:       cfg.Users,
		dataDir:     cfg.DataDir,
		logBytesMax: cfg.LogBytesMax,
		held:        cfg.Held,
		nice:        cfg.Nice,
		sortMemory:  cmp.Or(cfg.SortMemory, SortMemoryMax),
		logger:      cfg.Logger,
		temp:        cmp.Or(cfg.Temp, NewTemp()),
	}
	if r.logBytesMax <= 0 {
		r.logBytesMax = logBytesMaxDefault
	}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if r.host, err = os.Hostname(); err != nil {
		r.host = "this worker"
	}
	r.loader = program.Loader{Jobs: cfg.Jobs, Host: r.host, Worker: cfg.Worker, EnvAll: cfg.EnvAll, Confinement: cfg.Confinement}
	if r.loader.Worker == nil {
		r.loader.Worker = func() uint64 { return 0 }
	}
	return r
}

// TempPrefix begins the names of NewTemp.
const TempPrefix = "bridgefour-"

// NewTemp returns a name for Config.Temp.
func NewTemp() string { return filepath.Join(os.TempDir(), TempPrefix+rand.Text()) }

// An Attempt is one execution of a task.
type Attempt struct {
	Job       *wire.Job
	Stage     uint64
	StageName string
	Role      wire.StageRole
	Index     uint64
	Lease     uint64
	Number    uint32      // of the attempt, from 1
	Slot      uint32      // of the worker, from 1
	Split     *wire.Split // nil: a number of the job's range, or a stage that reads parts
	// Resources are the ids that the attempt has, by name.
	Resources map[string][]string
	// Parts are the inputs of a collect or a reduce stage, in task order. Nil for other stages.
	Parts iter.Seq2[Part, error]
	// Log receives the attempt's log; nil discards it.
	Log LogSink
}

func (a *Attempt) collects() bool { return a.Role == wire.StageRole_STAGE_COLLECT }
func (a *Attempt) reduces() bool  { return a.Role == wire.StageRole_STAGE_REDUCE }

// A Part is the output file of a done task. It need not exist if its size is 0.
type Part struct {
	Stage    uint32 // of its task
	Index    uint64
	Lease    uint64 // of the attempt that made it
	Path     blob.Location
	Size     uint64
	Records  uint64
	Checksum uint64 // xxh64
	Maker    layout.Maker
}

// A LostPart is a Part that is missing or damaged.
type LostPart struct {
	Part
	Why error
}

// A LogSink receives an attempt's log, in order, in whole lines unless a line exceeds 64 KiB. Calls are serialized but may come
// from any goroutine, and end before Run returns. It must not retain text.
type LogSink interface {
	Append(text []byte)
}

// An Outcome is the end of an attempt. Failure and Canceled exclude each other; with either, no file remains.
type Outcome struct {
	File       blob.Location // empty: none
	Size       uint64
	Records    uint64 // lines in File
	InputBytes uint64 // read from the split
	Warning    string // for the job's user, of an attempt that succeeds; also in its log
	Checksum   uint64 // xxh64 of File
	Peak       uint64 // bytes of the largest resident set of a process; 0: unknown
	Failure    *wire.Failure
	// Stdout is the end of what the command of a failed attempt wrote to its output, at most wire.TailMax of StdoutBytes. It is valid until the next Run.
	Stdout      []byte
	StdoutBytes uint64
	Canceled    bool // the context of Run ended first, or an input is lost
	// Lost are the inputs of a collect or a reduce stage that are missing or damaged: the tasks that made them must run again.
	Lost []LostPart
	// Segment says that File is for a reduce stage.
	Segment bool
}

// jobsCached is the number of jobs that a slot keeps prepared, for jobs that run in turns.
const jobsCached = 8

// A Slot runs one attempt at a time. It must not be used concurrently.
type Slot struct {
	runner  *Runner
	jobs    []*jobState // the last used first
	task    program.Task
	item    []byte // of the attempt's range
	input   splitReader
	parts   partReader
	keyed   keyedOutput
	groups  groupedInput
	combine combiner
	output  attemptFile
	log     attemptLog
	files   files
	keeper  keeper.Keeper
	share   heap.Share // of the attempt, and then of what the slot keeps of it
	last    []byte     // Outcome.Stdout
}

// NewSlot returns a slot. It acquires resources only when needed.
func (r *Runner) NewSlot() *Slot {
	s := &Slot{runner: r}
	s.input.host = r.host
	s.log.sizeMax = r.logBytesMax
	s.keeper.Nice, s.keeper.Held = r.nice, r.held
	s.keeper.Temp = filepath.Join(r.temp, strconv.FormatUint(r.slots.Add(1), 10))
	s.files.slot, s.files.stdout.file, s.files.stderr.log = s, &s.output, &s.log
	s.combine.files.slot, s.combine.files.stdout.file, s.combine.files.stdout.keyed, s.combine.files.stderr.log = s, &s.output, &s.keyed, &s.log
	s.keyed.cfg = shuffle.Config{Memory: r.sortMemory, Temp: cmp.Or(r.dataDir, os.TempDir())}
	s.groups.cfg, s.combine.sorted.cfg = s.keyed.cfg, s.keyed.cfg
	s.task = program.Task{
		Input: &s.input, Parts: s.parts.each, Output: &s.output, Log: &s.log, Files: &s.files, Keeper: &s.keeper,
		Errors: s.errors,
	}
	return s
}

// Close releases the slot's resources.
func (s *Slot) Close() error {
	s.jobs = nil
	s.input.close()
	s.share.Close()
	return s.keeper.Close()
}

// Run runs an attempt to its end. If ctx ends first, the attempt is stopped: a command gets SIGTERM, and SIGKILL after the
// job's grace; a built-in job sees its own context end.
func (s *Slot) Run(ctx context.Context, a *Attempt) Outcome {
	if ctx.Err() != nil {
		return Outcome{Canceled: true}
	}
	var out Outcome
	j := s.job(ctx, a.Job)
	f := j.broken
	if f == nil {
		f = s.run(ctx, j, a, &out)
	}
	if f != nil {
		out.Failure = &wire.Failure{
			Job: a.Job.GetId(), Stage: uint32(a.Stage), Index: a.Index, Lease: a.Lease,
			Kind: f.Kind, Message: wire.FailureMessage(f.Message), WaitMs: uint64(max(0, f.Wait).Milliseconds()), Cancel: f.Cancel,
		}
	}
	return out
}

// run runs the job's program and turns what it has written into the attempt's output.
func (s *Slot) run(parent context.Context, j *jobState, a *Attempt, out *Outcome) *program.Failure {
	ctx, cancel := program.WithTimeout(parent, a.Job)
	defer cancel()
	combines, last := s.begin(ctx, j, a), &s.files
	var res program.Result
	switch {
	case a.collects():
		res = j.programs[a.Stage].Collect(ctx, &s.task)
	default:
		res = j.programs[a.Stage].Run(ctx, &s.task)
	}
	if combines && res.Failure == nil && !res.Canceled {
		peak := res.Peak
		res, last = s.runCombine(ctx, j), &s.combine.files
		res.Peak = max(res.Peak, peak)
	}
	f := res.Failure
	out.Peak = res.Peak
	var inputErr error
	if inputErr = s.endInput(out); inputErr != nil && !res.Canceled && (f == nil || f.Kind == wire.FailureKind_PROGRAM_ERROR) {
		f = program.JobFailure(inputErr)
	}
	if f != nil && f.Kind != wire.FailureKind_TIMEOUT && s.parts.err != nil {
		f = program.Failed(wire.FailureKind_OUTPUT_ERROR, "%v", s.parts.err) // not the job's fault
	}
	if lost := slices.Concat(s.groups.lost, s.parts.lost); lost != nil {
		f, res.Canceled, out.Lost = nil, true, lost
	}
	if f != nil && last.opened && f.Kind != wire.FailureKind_BAD_PROGRAM {
		if lines := last.stderr.lastLines(); len(lines) > 0 {
			f.Message += "\n" + string(lines)
		}
	}
	s.log.finish()
	if n := len(s.input.rest); n > 0 && f == nil && !res.Canceled {
		f = program.Failed(wire.FailureKind_PROGRAM_ERROR, "the program has not read %d of the %d files of the task", n, len(s.input.pack))
	}
	if f == nil && !res.Canceled {
		f = s.finishOutput(ctx, res, out)
	}
	if out.Canceled = res.Canceled; f != nil || out.Canceled {
		*out = Outcome{InputBytes: out.InputBytes, Canceled: out.Canceled, Lost: out.Lost}
		if f != nil {
			s.keepStdout(ctx, out)
		}
		if err := s.output.discard(ctx); err != nil {
			s.runner.logger.WarnContext(ctx, "attempt's output not removed", "job", a.Job.GetId(), "error", err)
		}
	}
	return f
}

// begin prepares the slot for an attempt. It reports whether a combine follows.
func (s *Slot) begin(ctx context.Context, j *jobState, a *Attempt) (combines bool) {
	s.input.begin(ctx, j.reading, a.Split, false)
	sees := sight{j.outputs, j.output, s.runner.host}
	if a.Parts != nil || s.parts.parts != nil {
		s.parts = partReader{ctx: ctx, sight: sees, parts: a.Parts}
	}
	j.bound(&s.share)
	memory, tables := s.runner.shares(j, a)
	s.task.Memory, s.task.Temp = tables, s.keyed.cfg.Temp
	if s.keyed.begin(j.readers[a.Stage], memory); a.reduces() && !s.keyed.on() {
		s.keyed.writer = nil // the merge takes its memory
	}
	s.groups.begin(ctx, sees, a, memory)
	s.output.begin(ctx, j, a)
	s.log.begin(a.Log)
	s.files.begin(j, a)
	combines = s.beginCombine(j, a, memory)
	t := &s.task
	t.StageNumber, t.Pairs, t.Emit, t.EmitBy = int(a.Stage), nil, nil, nil //nolint:gosec // of the plan
	if a.reduces() {
		t.Pairs = &s.groups
	}
	if s.keyed.on() {
		t.Emit, t.EmitBy = s.keyed.emit, s.keyed.emitBy
	}
	t.Job, t.Stage, t.Index, t.Number, t.Split, t.Path = a.Job, a.StageName, a.Index, a.Number, a.Split, s.input.file.path
	t.Slot, t.Resources, t.Item = a.Slot, a.Resources, a.Split.GetItem()
	if items := a.Split.GetItems(); items != nil {
		t.Item = placeholder.Text(items.GetValues(), len(a.Job.GetColumns()))
	} else if a.Split == nil && a.Parts == nil && a.Job.GetRange() {
		s.item = strconv.AppendInt(s.item[:0], a.Job.GetRangeFrom()+int64(a.Index), 10)
		t.Item = s.item
	}
	s.input.item = t.Item
	return combines
}

// errors returns the first errors of reading the input and of writing the output.
func (s *Slot) errors() (read, write error) {
	for _, err := range []error{s.groups.err, s.input.err} {
		if err != nil && !errors.Is(err, io.EOF) {
			read = cmp.Or(read, err)
		}
	}
	return read, cmp.Or(s.keyed.err, s.output.err)
}

// endInput closes the input. The error is that it has changed meanwhile.
func (s *Slot) endInput(out *Outcome) error {
	s.parts.close()
	s.groups.close()
	read, err := s.input.finish()
	if grown := s.input.grown; len(grown) > 0 {
		if out.Warning = grown[0] + ": it was read as far as it was"; len(grown) > 1 {
			out.Warning += fmt.Sprintf("; and of the task's other files, %d", len(grown)-1)
		}
	} else if grown := s.files.stdin.planned.grown(); grown != "" {
		out.Warning = grown + ": the command could read all of it"
	}
	if out.Warning != "" {
		_, _ = fmt.Fprintf(&s.log, "bridgefour: %s\n", out.Warning) // never fails
	}
	out.InputBytes = max(read, s.parts.bytes, s.groups.bytes, s.files.stdin.length)
	return err
}

// finishOutput turns what the program has written into the attempt's output. An empty output of a spooled job has no file.
func (s *Slot) finishOutput(ctx context.Context, res program.Result, out *Outcome) *program.Failure {
	var err error
	switch {
	case s.keyed.on():
		if out.Records, err = s.keyed.finish(&s.output); err == nil {
			err = s.output.finish(out.Records, out)
		}
		out.Segment = true
	case s.files.opened:
		err = s.output.finish(s.files.stdout.records(), out)
	case res.NoResult:
		err = s.output.discard(ctx)
	default:
		err = s.output.finish(res.Records, out)
	}
	if err != nil {
		return program.OutputFailure(err)
	}
	return nil
}

// job returns the slot's state of a job, which is prepared by the first attempt. Jobs are identified by pointer: the worker has
// one wire.Job for all attempts of a job.
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
	fresh := s.runner.prepare(ctx, j)
	if fresh.broken != nil {
		return fresh // not cached: the command may be installed later
	}
	s.jobs = append([]*jobState{fresh}, s.jobs[:min(len(s.jobs), jobsCached-1)]...)
	return fresh
}

// jobState is shared by all attempts of a job in one slot.
type jobState struct {
	wire    *wire.Job
	outputs blob.Stores
	store   blob.Store // of the output
	output  blob.Location
	folder  blob.Location // attempt-private
	// By the number of the stage: the programs, and who reads the outputs.
	programs []program.Program
	readers  []partitions
	combine  program.Program // nil: none
	reading  reading
	broken   *program.Failure // no attempt can be started
}

func (r *Runner) prepare(ctx context.Context, j *wire.Job) *jobState {
	access, err := r.users.Of(j)
	if err != nil {
		return &jobState{broken: program.Failed(wire.FailureKind_BAD_PROGRAM, "%v", err)}
	}
	store, output, err := access.Outputs.Open(j.GetOutput())
	if err != nil {
		return &jobState{broken: program.Failed(wire.FailureKind_OUTPUT_ERROR, "output %v", err)}
	}
	if r.dataDir != "" && !j.GetSpool() {
		if relation := blob.Relation(ctx, output, blob.Location(r.dataDir)); relation != "" {
			return &jobState{broken: program.Failed(wire.FailureKind_BAD_INPUT, "output %q %s the data directory of this worker on %s, %q; "+
				"use a folder apart from it", output, relation, r.host, r.dataDir)}
		}
	}
	if _, local := store.(*blob.Files); local && j.GetSpool() {
		store = blob.NewPrivateFiles()
	}
	state := &jobState{wire: j, outputs: access.Outputs, store: store, output: output, folder: output.Join(layout.Private(j.GetUid()))}
	if state.programs, state.broken = r.loader.Load(j, access.User); state.broken == nil && j.GetCombine() != "" {
		state.combine, state.broken = r.loader.LoadCombine(j, access.User)
	}
	state.readers = readers(wire.PlanOf(j))
	if state.broken == nil {
		state.reading, state.broken = newReading(j, access.Inputs)
	}
	return state
}
