package program

import (
	"bytes"
	"context"
	"io"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Planner returns what plans the stages of a built-in job by its settings; nil: it has one, which maps.
func Planner(job bridgefour.Job) func(set map[string]string) (stage.Program, error) {
	if line, ok := job.(stage.Job); ok {
		return line.Plan
	}
	return nil
}

// staged is a job in a line of stages, which runs in this process.
type staged struct {
	name    string
	program stage.Program
	task    stage.Task
	part    partWriter
}

// Run runs a task of any stage of the line. It fails if reading or writing has failed, whatever the job returns.
func (s *staged) Run(ctx context.Context, t *Task) Result {
	if n := len(s.program.Stages()); t.StageNumber >= n {
		return Result{Failure: Failed(wire.FailureKind_BAD_PROGRAM, "built-in job %q of this worker has %d stages, and none of number %d (%s); is the worker older than the leader?",
			s.name, n, t.StageNumber, t.Stage)}
	}
	s.part = partWriter{w: t.Output}
	s.task = stage.Task{
		Job: t.Job.GetId(), Stage: t.StageNumber, Index: t.Index, Attempt: t.Number, Path: t.Path, Item: t.Item,
		Settings: t.Job.GetSettings(), Records: t.Job.GetRecords(), Pairs: t.Pairs, Emit: t.Emit, EmitBy: t.EmitBy, Memory: t.Memory, Temp: t.Temp, Log: t.Log,
	}
	if t.Pairs == nil && (t.Split != nil || t.Item != nil) {
		s.task.Split = t.Input
	}
	if t.Emit == nil {
		s.task.Part = &s.part
	}
	err := catch(t.Log, func() error { return s.program.Run(ctx, &s.task) })
	read, write := t.Errors()
	for _, kept := range []error{read, write} {
		if err == nil {
			err = kept
		}
	}
	return result(ctx, t, Result{Records: s.part.records()}, err, write)
}

// Collect is not supported: what merges is a stage of the line.
func (s *staged) Collect(context.Context, *Task) Result {
	return Result{Failure: Failed(wire.FailureKind_BAD_PROGRAM, "built-in job %q of this worker has no collect stage; is the worker older than the leader?", s.name)}
}

// partWriter counts the lines of a part.
type partWriter struct {
	w     io.Writer
	lines uint64
	open  bool // the last line has no end yet
}

func (p *partWriter) Write(text []byte) (int, error) {
	if len(text) == 0 {
		return 0, nil
	}
	p.lines += uint64(bytes.Count(text, []byte{'\n'})) //nolint:gosec // not negative
	p.open = text[len(text)-1] != '\n'
	return p.w.Write(text)
}

func (p *partWriter) records() uint64 {
	if p.open {
		return p.lines + 1
	}
	return p.lines
}
