package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// errTimeout is the cause of a context that ended because the attempt's time was over.
var errTimeout = errors.New("the attempt's time is over")

// runBuiltin runs one attempt of a job in this process. An attempt that reads and writes nothing costs no allocation and
// no system call.
func (s *Slot) runBuiltin(parent context.Context, j *jobState, a *Attempt, out *Outcome) {
	ctx, cancel := withTimeout(parent, j.wire)
	defer cancel()
	s.input.begin(ctx, a.Split)
	s.output.begin(ctx, j, a)
	s.log.begin(a.Log)

	s.spec = bridgefour.TaskSpec{
		JobID:    j.wire.GetId(),
		Index:    a.Index,
		Attempt:  a.Number,
		Settings: j.wire.GetSettings(),
		Input:    s.input.path,
		Item:     s.takeItem(a),
		Source:   &s.input,
		Output:   &s.output,
		Log:      &s.log,
	}
	s.task.Reset(&s.spec)
	err := s.callMap(ctx, j.builtin)
	var records uint64
	if err == nil {
		records, err = s.task.Finish()
	}
	out.InputBytes = s.input.finish()
	if s.task.OutputErr() != nil {
		s.finish(ctx, j, outputFailure(s.task.OutputErr()), out)
	} else if err != nil {
		s.finish(ctx, j, jobFailure(err), out)
	} else {
		s.finishFile(ctx, j, records, out)
	}
}

// finishFile ends an attempt whose job had nothing to complain of.
func (s *Slot) finishFile(ctx context.Context, j *jobState, records uint64, out *Outcome) {
	var f *failure
	if err := s.output.finish(records, out); err != nil {
		f = outputFailure(err)
	}
	s.finish(ctx, j, f, out)
}

// finish ends an attempt in this process. A context that has ended overrules what the job says: what it read may have
// been cut short.
func (s *Slot) finish(ctx context.Context, j *jobState, f *failure, out *Outcome) {
	canceled := false
	if ctx.Err() != nil {
		if errors.Is(context.Cause(ctx), errTimeout) {
			f = failed(wire.FailureKind_TIMEOUT, "not done after %v", timeout(j.wire))
		} else {
			canceled = true
		}
	}
	if f != nil || canceled {
		if err := s.output.discard(ctx); err != nil {
			s.runner.logger.WarnContext(ctx, "attempt's output not removed", "job", j.wire.GetId(), "error", err)
		}
		*out = Outcome{InputBytes: out.InputBytes, Canceled: canceled}
		if !canceled {
			out.Failure = f.wire()
		}
	}
	s.log.finish()
}

func (s *Slot) callMap(ctx context.Context, job bridgefour.Job) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.panicked(v)
		}
	}()
	return job.Map(ctx, &s.task)
}

// panicked makes a panic of the job an error, and logs its stack.
func (s *Slot) panicked(v any) error {
	_, _ = fmt.Fprintf(&s.log, "panic: %v\n\n%s", v, debug.Stack()) // never fails
	return fmt.Errorf("panic: %v (the stack is in the task's log)", v)
}

// takeItem gives the line or the number that the attempt is for; nil for the one task of a job that reads nothing.
func (s *Slot) takeItem(a *Attempt) []byte {
	if a.Split == nil {
		if !a.Job.GetRange() {
			return nil
		}
		s.item = strconv.AppendInt(s.item[:0], a.Job.GetRangeFrom()+int64(a.Index), 10)
		s.input.item = s.item
		return s.item
	}
	return a.Split.GetItem()
}

func timeout(j *wire.Job) time.Duration { return time.Duration(j.GetTimeoutMs()) * time.Millisecond }

func withTimeout(ctx context.Context, j *wire.Job) (context.Context, context.CancelFunc) {
	if j.GetTimeoutMs() == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, timeout(j), errTimeout)
}
