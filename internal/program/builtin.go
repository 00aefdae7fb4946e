package program

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/bridgefour/bridgefour/internal/hooks"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// builtin is a job that runs in this process.
type builtin struct {
	name     string
	collects bool
	task     hooks.Task // of the slot; keeps its buffers
	spec     hooks.TaskSpec
}

func newBuiltin(name string, p hooks.Mapper) *builtin {
	return &builtin{name: name, collects: p.Collects(), task: p.NewTask()}
}

// Run calls the job's Map. A task that reads and writes nothing does not allocate.
func (b *builtin) Run(ctx context.Context, t *Task) Result {
	b.spec = hooks.TaskSpec{
		JobID:    t.Job.GetId(),
		Index:    t.Index,
		Attempt:  t.Number,
		Settings: t.Job.GetSettings(),
		Input:    t.Path,
		Item:     t.Item,
		Source:   t.Input,
		Output:   t.Output,
		Log:      t.Log,
		Memory:   t.Memory,
	}
	err := catch(t.Log, func() error { return b.task.Run(ctx, &b.spec) })
	var records uint64
	if err == nil {
		records, err = b.task.Finish()
	}
	res := result(ctx, t, Result{Records: records}, err, b.task.OutputErr())
	if res.Failure != nil {
		_, _ = b.task.Finish() // the end of a failed attempt's output is kept for the user
	}
	return res
}

// Collect runs the task that merges the parts.
func (b *builtin) Collect(ctx context.Context, t *Task) Result {
	if !b.collects {
		return Result{Failure: Failed(wire.FailureKind_BAD_PROGRAM, "built-in job %q of this worker has no collect stage; is the worker older than the leader?", b.name)}
	}
	var records uint64
	var kept bool
	err := catch(t.Log, func() (err error) {
		records, kept, err = b.task.Collect(ctx, &hooks.CollectionSpec{
			JobID: t.Job.GetId(), Settings: t.Job.GetSettings(), Parts: t.Parts, Output: t.Output, Log: t.Log,
		})
		return err
	})
	return result(ctx, t, Result{Records: records, NoResult: !kept}, err, b.task.OutputErr())
}

// result is the result of a task in this process. The end of the context takes precedence over the job's result, because its
// input may have been cut short.
func result(ctx context.Context, t *Task, done Result, err, outputErr error) Result {
	switch {
	case ctx.Err() != nil && isTimeout(ctx):
		f := timedOut(t.Job)
		if path := t.Input.Path(); path != "" {
			f.Message += fmt.Sprintf("; it was reading %q", path)
		}
		return Result{Failure: f}
	case ctx.Err() != nil:
		return Result{Canceled: true}
	case err == nil:
		return done
	case outputErr != nil:
		return Result{Failure: OutputFailure(outputErr)}
	}
	return Result{Failure: JobFailure(t.naming(err))}
}

// catch turns a panic of f into an error, and logs the stack.
func catch(log io.Writer, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			_, _ = fmt.Fprintf(log, "panic: %v\n\n%s", v, debug.Stack()) // never fails
			err = fmt.Errorf("panic: %v (the stack is in the task's log)", v)
		}
	}()
	return f()
}
