package plan

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/bytesize"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/suggest"
)

// Options are the limits of the cluster and what it can run.
type Options struct {
	Builtins []Builtin
	// DefaultSplit is the longest split where the request does not say. Defaults to 64 MiB.
	DefaultSplit uint64
	// TasksMax is how many tasks a job may have: each takes up to 64 bytes of the leader's memory. Defaults to 100 million.
	TasksMax uint64
	// Again: this very request was accepted before, so what the output holds may be its own and is no obstacle.
	Again bool
	// Stores hold inputs and outputs.
	Stores blob.Stores
}

// Builtin is what planning must know of a built-in job.
type Builtin struct {
	Name       string
	NeedsInput bool // without input it has no sense; others have one task then
	Collects   bool // its parts are merged into a result
}

// Result is a job that can be run.
type Result struct {
	Input        state.Input
	Output       string // clean and absolute; empty if the request names none
	Collects     bool
	Stages       []state.StageSpec
	Retries      uint32
	Priority     uint32
	SlotsPerTask uint32
	Timeout      time.Duration // 0: none
	Memory       uint64        // bytes; 0: not limited
	Warnings     []string      // for people; the job runs all the same
}

// Error is one thing that is wrong with a request.
type Error struct {
	Field   string // as in the JSON: inputs[0], program.builtin
	Message string
}

func (e *Error) Error() string { return e.Field + ": " + e.Message }

// Errors is all that is wrong with a request.
type Errors []*Error

func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap gives errors.As each of them.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i, one := range e {
		list[i] = one
	}
	return list
}

// Plan checks req and lists its input. What is wrong with the request is an error of type Errors; any other means that the
// planning itself did not come to an end.
func Plan(ctx context.Context, req *api.JobRequest, opt Options) (Result, error) {
	opt.DefaultSplit = cmp.Or(opt.DefaultSplit, 64<<20)
	opt.TasksMax = min(cmp.Or(opt.TasksMax, 100_000_000), state.MaxTasks)
	p := &planner{req: req, opt: opt}
	p.program()
	p.settings()
	p.numbers()
	if err := p.output(ctx); err != nil {
		return Result{}, err
	}
	if err := p.input(ctx); err != nil {
		return Result{}, err
	}
	if len(p.errs) > 0 {
		return Result{}, p.errs
	}
	p.result.Stages = state.DefaultPlan(p.result.Input.Tasks, p.result.Collects, p.result.Output != "")
	return p.result, nil
}

// planner is one call of Plan.
type planner struct {
	req    *api.JobRequest
	opt    Options
	result Result
	errs   Errors

	needsInput bool
	realOutput blob.Location // Output without links; empty if there is none
	outputHere bool          // it is there already
}

func (p *planner) fail(field, format string, args ...any) {
	p.errs = append(p.errs, &Error{Field: field, Message: fmt.Sprintf(format, args...)})
}

func (p *planner) warn(format string, args ...any) {
	p.result.Warnings = append(p.result.Warnings, fmt.Sprintf(format, args...))
}

// nameBytesMax bounds a job's name: it is in every list of jobs.
const nameBytesMax = 200

// program checks what is to run.
func (p *planner) program() {
	program := p.req.Program
	switch {
	case program.Builtin != "" && len(program.Command) > 0:
		p.fail("program", "give a built-in job or a command, not both")
	case program.Builtin != "":
		p.builtin(program.Builtin)
	case program.Command == nil:
		p.fail("program", "nothing to run: give a built-in job or a command")
	case len(program.Command) == 0 || program.Command[0] == "":
		p.fail("program.command", "the command is empty; its first word names what to run")
	}
	if n := len(p.req.Name); n > nameBytesMax {
		p.fail("name", "a name of %d bytes is too long: a job's name may have %d", n, nameBytesMax)
	}
	for i, arg := range program.Command {
		if strings.Contains(arg, "\x00") {
			p.fail(fmt.Sprintf("program.command[%d]", i), "argument %q holds a NUL byte, which no program can be given", arg)
		}
	}
	if dir := p.req.Dir; dir != "" && (!path.IsAbs(dir) || strings.Contains(dir, "\x00")) {
		p.fail("dir", "working directory %q is not an absolute path", dir)
	}
}

func (p *planner) builtin(name string) {
	i := slices.IndexFunc(p.opt.Builtins, func(b Builtin) bool { return b.Name == name })
	if i >= 0 {
		p.needsInput, p.result.Collects = p.opt.Builtins[i].NeedsInput, p.opt.Builtins[i].Collects
		return
	}
	var names []string
	for _, b := range p.opt.Builtins {
		names = append(names, b.Name)
	}
	if closest := suggest.Closest(name, names); closest != "" {
		p.fail("program.builtin", "unknown built-in job %q; did you mean %q? A command is written as -- %s", name, closest, name)
		return
	}
	p.fail("program.builtin", "unknown built-in job %q; known: %s. A command is written as -- %s", name, strings.Join(names, ", "), name)
}

// settings checks what programs see in their environment.
func (p *planner) settings() {
	for key, value := range p.req.Set {
		if key == "" || strings.ContainsAny(key, "=\x00") {
			p.fail("set", "setting %q cannot be given to a program: a name is not empty and holds neither = nor NUL", key)
		}
		if strings.Contains(value, "\x00") {
			p.fail("set", "setting %q holds a NUL byte, which no program can be given", key)
		}
	}
	for key := range p.req.Labels {
		if key == "" {
			p.fail("labels", "a label has no name; write it as NAME=VALUE")
		}
	}
	slices.SortFunc(p.errs, func(a, b *Error) int { // maps have no order
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
}

// numbers checks limits and times.
func (p *planner) numbers() {
	p.result.Retries = p.number("retries", p.req.Retries, 3, 100)
	p.result.Priority = p.number("priority", p.req.Priority, 50, 100)
	p.result.SlotsPerTask = max(1, p.number("slots_per_task", &p.req.SlotsPerTask, 1, 1024))
	if text := p.req.Timeout; text != "" && text != "none" {
		d, err := time.ParseDuration(text)
		switch {
		case err != nil:
			p.fail("timeout", "%q is not a time; write it as 90s, 5m or 1h30m, or none", text)
		case d < time.Millisecond:
			p.fail("timeout", "%q is too short; at least 1ms, or none", text)
		}
		p.result.Timeout = d
	}
	if text := p.req.Memory; text != "" && text != "none" {
		size, err := bytesize.Parse(text)
		if err != nil {
			p.fail("memory", "%v, or none", err)
		}
		p.result.Memory = size
	}
}

// number gives a number from 0 to most, or what it defaults to.
func (p *planner) number(field string, value *int, otherwise, most uint32) uint32 {
	if value == nil {
		return otherwise
	}
	if *value < 0 || int64(*value) > int64(most) {
		p.fail(field, "%d is out of range; from 0 to %d", *value, most)
		return otherwise
	}
	return uint32(*value)
}
