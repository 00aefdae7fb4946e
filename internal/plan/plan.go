package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/bytesize"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/record"
	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/suggest"
)

// Options are the cluster's limits and capabilities.
type Options struct {
	Builtins []Builtin
	// DefaultSplit is the maximum split size unless requested otherwise. Defaults to 64 MiB.
	DefaultSplit uint64
	// Slots are those of the workers, for which the input is divided; 0: unknown. OneByOne: files must not share a task, and splits have DefaultSplit
	// bytes, because some leaders of the cluster are older.
	Slots    uint64
	OneByOne bool
	// Check: a job without an output has a stage that checks what is kept of it. Some leaders or workers of the cluster may be too old for that.
	Check bool
	// TasksMax is the maximum number of tasks of a job: each takes up to 64 bytes of the leader's memory. Defaults to 100 million.
	TasksMax uint64
	// Flow is that of which the job is a part; nil: it is submitted alone.
	Flow *Flow
	// Writes reports whether a job that has not ended, or one of these that is not done, writes at one of these locations, above or below it. Nil: none
	// does.
	Writes func(locations []state.LockName, after []state.Dependency) (bool, error)
	// Spool is the folder of results that nothing else writes to; empty: there is none.
	Spool blob.Location
	// Again means that the same request was accepted before, so that the content of the output may be its own.
	Again bool
	// Stores are the stores of inputs and outputs.
	Stores blob.Stores
	// Lines are the lines of a request that has some; those of the request itself are added to them. Nil: no others.
	Lines *Lines
	// Turn waits for the turn of a request that takes so much memory while it is planned. Nil: there are no others.
	Turn func(bytes uint64) error
	// Reserved are local folders of the cluster itself, apart from which an output must lie.
	Reserved []Reserved
}

// Reserved is a local folder that the cluster uses.
type Reserved struct {
	What string // "the data directory of leader 1"
	Dir  string // absolute
}

const (
	tasksMaxDefault = 100_000_000
	splitDefault    = 64 << 20
)

// Builtin describes a built-in job for planning.
type Builtin struct {
	Name       string
	NeedsInput bool // others have one task without an input
	Collects   bool // the parts are merged into a result
	Divisible  bool // it does not matter how the input is divided
	// FirstSuccess: it is done when one task succeeds, whether the request says so or not.
	FirstSuccess bool
	// Records are the names of the kinds of records that it reads; empty: all.
	Records []string
	// Labels are those of the workers that have the job; empty: all have it.
	Labels map[string]string
	// Check returns what is wrong with settings. Nil: any are accepted.
	Check func(set map[string]string) []string
	// Plan returns the stages with settings. Nil: one that maps.
	Plan func(set map[string]string) (stage.Program, error)
}

// Result is a valid job.
type Result struct {
	Input        state.Input
	SplitMax     uint64 // see state.Spec, as for Pack
	Pack         *state.Packing
	Command      Command           // no arguments: a built-in job
	Labels       map[string]string // of the workers that may run it
	Records      string            // empty: lines
	Header       uint32
	NameParts    string // pattern of the names of the parts; empty: part-NNNNN
	Output       string // clean and absolute; empty if the request names none
	Collects     bool
	FirstSuccess bool
	Stages       []state.StageSpec
	Retries      uint32
	Priority     uint32
	SlotsPerTask uint32
	Timeout      time.Duration // 0: none
	Grace        time.Duration // 0: the default
	RetryDelay   time.Duration // 0: the default
	Delay        time.Duration // between the starts of two tasks
	MaxRunning   uint32        // tasks; 0: any number
	Resources    []state.Resource
	Memory       uint64 // bytes; 0: not limited
	MaxFails     *state.FailLimit
	After        []state.Dependency
	Deferred     *state.Deferred // the input is planned later: there is one task until then
	Locks        []state.LockName
	// Data is where it reads, shared, and where it writes.
	Data           []state.LockName
	FailOnConflict bool
	Warnings       []string // for the user; the job runs anyway
}

// Error is one error of a request.
type Error struct {
	Field   string // as in the JSON: inputs[0], program.builtin; empty: none
	Message string
}

func (e *Error) Error() string { return e.Field + ": " + e.Message }

// Errors are all errors of a request.
type Errors []*Error

func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap lets errors.As find each error.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i, one := range e {
		list[i] = one
	}
	return list
}

// Plan validates req and lists its input. Errors of the request are of type Errors; any other error means that planning did not
// complete.
func Plan(ctx context.Context, req *api.JobRequest, opt Options) (Result, error) {
	p := newPlanner(req, opt)
	p.program()
	p.command()
	p.line()
	p.settings()
	p.description()
	p.numbers()
	p.namePattern()
	p.after()
	p.locks()
	if err := p.output(ctx); err != nil {
		return Result{}, err
	}
	if err := p.input(ctx); err != nil {
		return Result{}, p.with(err)
	}
	if len(p.errs) > 0 {
		return Result{}, p.all()
	}
	if err := p.data(ctx); err != nil {
		return Result{}, err
	}
	p.stages()
	if err := p.names(ctx); err != nil {
		return Result{}, err
	}
	if len(p.errs) > 0 {
		return Result{}, p.all()
	}
	return p.result, nil
}

func newPlanner(req *api.JobRequest, opt Options) *planner {
	opt.DefaultSplit = cmp.Or(opt.DefaultSplit, splitDefault)
	opt.TasksMax = min(cmp.Or(opt.TasksMax, tasksMaxDefault), state.MaxTasks)
	return &planner{req: req, opt: opt, result: Result{Labels: req.Labels, FirstSuccess: req.FirstSuccess}}
}

// planner is one call of Plan.
type planner struct {
	req    *api.JobRequest
	opt    Options
	result Result
	errs   Errors
	more   int // errors beyond errorsMax

	compiled   *placeholder.Command // nil: a built-in job
	splice     bool                 // warnSplice has not found a value yet
	kind       *record.Kind
	needsInput bool
	divisible  bool
	kinds      []string                   // of records that the job reads; empty: all
	checker    stage.InputChecker         // nil: any input will do
	realOutput blob.Location              // Output without links; empty if there is none
	bases      []blob.Location            // where the inputs are: see places
	linked     map[blob.Location]struct{} // where links below them lead
	outputHere bool                       // the output folder exists
}

// Limits of the errors of a request: their answer must stay small, whatever the request is.
const (
	errorsMax     = 20      // later ones are counted
	valueBytesMax = 8 << 10 // of a value in an error, such as a path
)

func (p *planner) fail(field, format string, args ...any) {
	if len(p.errs) == errorsMax {
		p.more++
		return
	}
	p.errs = append(p.errs, failure(field, format, args...)...)
}

// all is the errors, and how many there are beside them.
func (p *planner) all() Errors {
	if p.more == 0 {
		return p.errs
	}
	return append(p.errs, failure("", "and %s", state.Counted(p.more, "more error"))...)
}

// failure is one error, as the errors of a request.
func failure(field, format string, args ...any) Errors {
	for i := range args {
		if text := fmt.Sprint(args[i]); len(text) > valueBytesMax {
			args[i] = strings.ToValidUTF8(text[:valueBytesMax], "") + "…"
		}
	}
	return Errors{{Field: field, Message: fmt.Sprintf(format, args...)}}
}

// with returns err and, if it is of the request, what else is wrong with that.
func (p *planner) with(err error) error {
	if more, ok := errors.AsType[Errors](err); ok {
		p.errs = append(p.errs, more...)
		return p.all()
	}
	return err
}

func (p *planner) warn(format string, args ...any) {
	p.result.Warnings = append(p.result.Warnings, fmt.Sprintf(format, args...))
}

const (
	nameBytesMax = 200 // of a job's name, which is in every list of jobs
	userBytesMax = 100 // of the user that a request names, which is in its log entry at feature level 0
)

// program validates the program.
func (p *planner) program() {
	program := p.req.Program
	switch {
	case program.Builtin != "" && (len(program.Command) > 0 || program.Shell != ""):
		p.fail("program", "give a built-in job or a command, not both")
	case len(program.Command) > 0 && program.Shell != "":
		p.fail("program", "give a command or a command line for a shell, not both")
	case program.Builtin != "":
	case program.Shell != "":
		if strings.Contains(program.Shell, "\x00") {
			p.fail("program.shell", "the command line contains a NUL byte")
		}
	case program.Command == nil:
		p.fail("program", "no program given: name a built-in job or a command")
	case len(program.Command) == 0 || program.Command[0] == "":
		p.fail("program.command", "the command is empty: its first word must name a program")
	}
	if n := len(p.req.Name); n > nameBytesMax {
		p.fail("name", "a name of %d bytes is too long: at most %d", n, nameBytesMax)
	}
	if n := len(p.req.User); n > userBytesMax {
		p.fail("user", "a user of %d bytes is too long: at most %d", n, userBytesMax)
	}
	for i, arg := range program.Command {
		if strings.Contains(arg, "\x00") {
			p.fail(fmt.Sprintf("program.command[%d]", i), "argument %q contains a NUL byte", arg)
		}
	}
	if dir := p.req.Dir; dir != "" && (!path.IsAbs(dir) || strings.Contains(dir, "\x00")) {
		p.fail("dir", "working directory %q is not an absolute path", dir)
	}
}

// builtin validates the settings of a built-in job and returns its stages.
func (p *planner) builtin(name string) []stage.Stage {
	line := []stage.Stage{{Name: "map"}}
	i := slices.IndexFunc(p.opt.Builtins, func(b Builtin) bool { return b.Name == name })
	if i >= 0 {
		b := &p.opt.Builtins[i]
		p.needsInput, p.divisible, p.result.Collects = b.NeedsInput, b.Divisible, b.Collects
		p.kinds = b.Records
		p.result.FirstSuccess = p.result.FirstSuccess || b.FirstSuccess
		if len(b.Labels) > 0 {
			p.result.Labels = maps.Clone(b.Labels)
			maps.Copy(p.result.Labels, p.req.Labels)
		}
		before := len(p.errs)
		if b.Check != nil && p.req.Class == "" { // the original system ignored settings that its job did not have
			for _, wrong := range b.Check(p.req.Set) {
				p.fail("set", "%s", wrong)
			}
		}
		if b.Plan == nil || len(p.errs) > before { // the job would refuse the settings again
			return line
		}
		job, err := b.Plan(p.req.Set)
		if err != nil {
			p.failPlan(err)
			return line
		}
		p.checker, _ = job.(stage.InputChecker)
		stages := job.Stages()
		if len(stages) == 0 || len(stages) > stage.StagesMax {
			p.fail("program.builtin", "job %q has %d stages; want 1 to %d", name, len(stages), stage.StagesMax)
			return line
		}
		return stages
	}
	var names []string
	for _, b := range p.opt.Builtins {
		names = append(names, b.Name)
	}
	meant := ";"
	if closest := suggest.Closest(name, names); closest != "" {
		meant = fmt.Sprintf("; did you mean %q?", closest)
	}
	p.fail("program.builtin", "unknown built-in job %q%s known: %s. A job of your own program needs leaders that are this program, too: start each one as "+
		"'./PROGRAM leader', with the same flags and data. A command is written as -- %[1]s", name, meant, strings.Join(names, ", "))
	return line
}

// failPlan refuses a built-in job that does not make its stages, because of its settings or of a defect.
func (p *planner) failPlan(err error) {
	field := "set"
	if _, defect := errors.AsType[*stage.DefectError](err); defect {
		field = "program.builtin"
	}
	for wrong := range strings.SplitSeq(err.Error(), "\n") {
		p.fail(field, "%s", wrong)
	}
}

// settings validates settings and labels.
func (p *planner) settings() {
	for key, value := range p.req.Set {
		if key == "" || strings.ContainsAny(key, "=\x00") {
			p.fail("set", "invalid setting name %q: it must not be empty or contain = or NUL", key)
		}
		if strings.Contains(value, "\x00") {
			p.fail("set", "setting %q contains a NUL byte", key)
		}
	}
	for _, confined := range []struct {
		field string
		asked bool
	}{{"sandbox", p.req.Sandbox}, {"no_network", p.req.NoNetwork}} {
		if confined.asked && p.req.Program.Builtin != "" {
			p.fail(confined.field, "confines the commands of tasks, and a built-in job starts none: it runs in the worker itself")
		}
	}
	p.variables("env", p.req.Env)
	p.variables("secrets", p.req.Secrets)
	for name := range p.req.Secrets {
		if _, both := p.req.Env[name]; both {
			p.fail("secrets", "variable %q is also in the environment of the request; give it once", name)
		}
	}
	for key := range p.req.Labels {
		if key == "" {
			p.fail("labels", "label without a name: want NAME=VALUE")
		}
	}
	slices.SortFunc(p.errs, func(a, b *Error) int { // map order is random
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
}

// variables validates variables of the tasks' environment.
func (p *planner) variables(field string, variables map[string]string) {
	if len(variables) > 0 && p.req.Program.Builtin != "" {
		p.fail(field, "built-in jobs have no environment; pass settings (--set)")
	}
	for name, value := range variables {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			p.fail(field, "invalid name of a variable %q: it must not be empty or contain = or NUL", name)
		case strings.HasPrefix(name, "B4_"):
			p.fail(field, "variable %q: names that begin with B4_ are given by the worker; pass a setting (--set)", name)
		case strings.Contains(value, "\x00"):
			p.fail(field, "variable %q contains a NUL byte", name)
		}
	}
}

// description bounds what describes the job to the log and to each worker, besides its input.
func (p *planner) description() {
	size := func(m map[string]string) (n int) {
		for k, v := range m {
			n += len(k) + len(v)
		}
		return n
	}
	type part struct {
		field, what, wayOut string
		size                int
	}
	parts := []part{
		{"program.command", "the command", "put what is long into a file, and name that", 0},
		{"set", "its settings", "put what is long into a file, and name that in a setting", size(p.req.Set)},
		{"env", "its environment", "pass single variables (--env NAME), not all of them", size(p.req.Env)},
		{"secrets", "its secrets", "pass the path of a file", size(p.req.Secrets)},
		{"labels", "its labels", "labels are short names", size(p.req.Labels)},
	}
	total := 0
	for _, arg := range p.result.Command.Argv {
		parts[0].size += len(arg)
	}
	for _, part := range parts {
		total += part.size
	}
	if total > state.DescriptionBytesMax {
		largest := slices.MaxFunc(parts, func(a, b part) int { return cmp.Compare(a.size, b.size) })
		p.fail(largest.field, "the command, settings, environment, secrets and labels take %d bytes, of which %s %d; the limit is %d: %s", total, largest.what, largest.size,
			state.DescriptionBytesMax, largest.wayOut)
	}
	names := 0
	for _, name := range p.req.Inputs {
		names += len(name)
	}
	if names > state.NamesBytesMax {
		p.fail("inputs", "the names of the inputs take %d bytes; the limit is %d: pass folders or patterns, or the names as lines (--lines)", names,
			state.NamesBytesMax)
	}
}

// numbers validates limits and times.
func (p *planner) numbers() {
	p.result.Retries = p.number("retries", p.req.Retries, 3, 0, 100)
	p.result.Priority = p.number("priority", p.req.Priority, 50, 0, 100)
	p.result.SlotsPerTask = p.number("slots_per_task", given(p.req.SlotsPerTask), 1, 1, 1024)
	p.result.Timeout = p.duration("timeout", p.req.Timeout, time.Millisecond)
	p.result.RetryDelay = p.delay("retry_delay", p.req.RetryDelay)
	p.result.Delay = p.delay("delay", p.req.Delay)
	p.result.MaxRunning = p.number("max_running", given(p.req.MaxRunning), 0, 1, 1<<20)
	if p.req.Grace != "" {
		// At least 1 ms: 0 stands for the default in the log.
		p.result.Grace = max(time.Millisecond, p.duration("grace", p.req.Grace, 0))
	}
	p.memory()
	p.resources()
	if text := p.req.MaxFails; text != "" && text != "none" {
		digits, percent := strings.CutSuffix(text, "%")
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || percent && n > 100 {
			p.fail("max_fails", "%q: want a number of tasks, such as 10, a percentage of them, such as 5%%, or none", text)
		}
		p.result.MaxFails = &state.FailLimit{N: n, Percent: percent}
	}
}

// memory parses the memory of an attempt. Less than the engine needs in a slot, or any process, is refused.
func (p *planner) memory() {
	text := p.req.Memory
	if text == "" || text == "none" {
		return
	}
	size, err := bytesize.Parse(text)
	least, of := uint64(stage.MemoryMin), "a job in the worker's process, for its sort buffers and merges"
	if p.req.Program.Builtin == "" {
		const processLeast = 1 << 20
		least, of = processLeast, "a command"
	}
	switch {
	case err != nil:
		p.fail("memory", "%v, or none", err)
	case size < least:
		p.fail("memory", "%q is too little for an attempt of %s: want at least %dMiB, or none", text, of, least>>20)
	}
	p.result.Memory = size
}

// after parses the jobs that this one comes after. One that is named twice must be done if it must be once.
func (p *planner) after() {
	if n := len(p.req.After); n > state.AfterMax {
		p.fail("after", "it comes after %d jobs, which are too many: at most %d; put a job between them that comes after some", n, state.AfterMax)
		return
	}
	for i, text := range p.req.After {
		number, how, _ := strings.Cut(text, ":")
		peer := p.opt.Flow.peer(number)
		id, err := strconv.ParseUint(number, 10, 64)
		if peer == 0 && (err != nil || id == 0) || how != "" && how != "ok" && how != "any" {
			p.fail(fmt.Sprintf("after[%d]", i), "%q: want the number of a job, as 12 or 12:ok (which must be done), or 12:any (however it ends); names are those of jobs in one file", text)
			continue
		}
		d := state.Dependency{Job: state.JobID(id), Peer: peer, Any: how == "any"}
		same := func(other state.Dependency) bool { return other.Job == d.Job && other.Peer == d.Peer }
		if at := slices.IndexFunc(p.result.After, same); at >= 0 {
			p.result.After[at].Any = p.result.After[at].Any && d.Any
		} else {
			p.result.After = append(p.result.After, d)
		}
	}
}

// duration parses a duration; 0: none.
func (p *planner) duration(field, text string, least time.Duration) time.Duration {
	if text == "" || text == "none" {
		return 0
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		p.fail(field, "invalid duration %q: want 90s, 5m or 1h30m, or none", text)
	case d < least:
		p.fail(field, "duration %q is too short: at least %v, or none", text, least)
	}
	return d
}

// resources validates what a task needs of the resources of a worker.
func (p *planner) resources() {
	if n := len(p.req.Resources); n > state.ResourcesMax {
		p.fail("resources", "%d kinds: want at most %d", n, state.ResourcesMax)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(p.req.Resources)) {
		n := p.req.Resources[name]
		if err := state.CheckResourceName(name); err != nil {
			p.fail("resources", "%v", err)
		} else if n < 0 || n > state.ResourceMax {
			p.fail("resources", "%d of %s is out of range: want 0 to %d", n, name, state.ResourceMax)
		}
	}
	p.result.Resources = state.Resources(p.req.Resources)
}

// delay parses a delay of tasks; 0: none.
func (p *planner) delay(field, text string) time.Duration {
	const delayMax = 7 * 24 * time.Hour
	d := p.duration(field, text, time.Millisecond)
	if d > delayMax {
		p.fail(field, "delay %v is too long: at most %v", d, delayMax)
	}
	return d
}

// given returns a number of which 0 stands for none.
func given(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// number returns a number from least to most, or its default.
func (p *planner) number(field string, value *int, otherwise, least, most uint32) uint32 {
	if value == nil {
		return otherwise
	}
	if int64(*value) < int64(least) || int64(*value) > int64(most) {
		p.fail(field, "%d is out of range: want %d to %d", *value, least, most)
		return otherwise
	}
	return uint32(*value)
}
