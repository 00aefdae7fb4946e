package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
	"github.com/bridgefour/bridgefour/internal/worker/tasklog"
)

// attemptRunner runs attempts one at a time: a [runner.Slot], or a test's.
type attemptRunner interface {
	Run(ctx context.Context, a *runner.Attempt) runner.Outcome
	io.Closer
}

// slot is the goroutine of a slot and its state. It gets chunks from the driver, one at a time.
type slot struct {
	id     int
	work   chan slotWork // holds one: the driver does not wait for a slot
	fresh  func() attemptRunner
	runner attemptRunner
	broken bool // the runner panicked: its state is unknown
	warned bool // of the limit of open files
	stages *stages
	sink   *tasklog.Sink
	tails  *tailLimit
	meters *meters
	last   runner.Outcome // of the last attempt; its Stdout is for keepTail
	logger *slog.Logger

	attempt runner.Attempt // reused: a runner keeps no attempt
	// What the goroutine of the slot works on, for the one that follows if a task ends it.
	now     slotWork
	running int       // the attempt of now.chunk that runs; -1: none
	begun   time.Time // when its time began
	// For [Worker.Slots]: nil, the slot is idle, and how its last attempt has ended (wire.SlotStatus).
	chunk   atomic.Pointer[core.Chunk]
	endedIn atomic.Int32
}

type slotWork struct {
	ctx    context.Context //nolint:containedctx // passed with its chunk through a channel
	cancel context.CancelCauseFunc
	chunk  *core.Chunk
}

// errChunkEnd is the cause of the end of a finished chunk's context.
var errChunkEnd = errors.New("the attempt has ended")

// run works until its channel is closed. idle is called after each chunk. A program that ends the goroutine of its task (runtime.Goexit) fails this attempt alone:
// another goroutine goes on.
func (s *slot) run(idle func()) {
	s.runner, s.running = s.fresh(), -1
	defer func() { s.closeRunner() }()
	for closed := false; !closed; {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.runChunks(idle)
			closed = true
		}()
		<-ended
	}
}

// runChunks runs what is left of the present chunk, and those that come, until the channel is closed.
func (s *slot) runChunks(idle func()) {
	for {
		if s.now.chunk == nil {
			w, ok := <-s.work
			if !ok {
				return
			}
			s.now = w
			s.chunk.Store(w.chunk)
		}
		s.runChunk(s.now.ctx, s.now.chunk)
		s.chunk.Store(nil)
		s.now.cancel(errChunkEnd)
		s.now = slotWork{}
		idle()
	}
}

func (s *slot) runChunk(ctx context.Context, ch *core.Chunk) {
	a := &s.attempt
	stage := wire.StageOf(ch.Job, ch.Stage)
	var counts attemptCounts
	defer func() { s.meters.add(&counts) }()
	if s.running >= 0 {
		s.broken = true
		s.finish(ctx, ch, &counts, core.Result{Failure: &wire.Failure{
			Kind: wire.FailureKind_PROGRAM_ERROR, Message: "the program has ended the goroutine of its task (runtime.Goexit, or a FailNow of package testing): return an error instead",
		}})
	}
	*a = runner.Attempt{Job: ch.Job, Stage: uint64(ch.Stage), StageName: stage.GetName(), Role: stage.GetRole(), Slot: uint32(s.id) + 1, Resources: ch.Resources, Log: s.sink}
	for s.begun = time.Now(); ; {
		i, ok := ch.Claim()
		if !ok {
			return
		}
		a.Index, a.Lease, a.Number, a.Split = ch.Index[i], ch.Lease(i), ch.AttemptNumber(i), ch.Split(i)
		s.sink.Begin(tasklog.Attempt{
			Job: ch.Job.GetId(), Stage: ch.Stage, Index: a.Index, Number: a.Number, Lease: a.Lease,
		})
		s.running = i
		s.finish(ctx, ch, &counts, s.runAttempt(ctx, a, stage, ch.Action))
	}
}

// finish ends the attempt that runs.
func (s *slot) finish(ctx context.Context, ch *core.Chunk, counts *attemptCounts, res core.Result) {
	res = s.returnForFiles(ctx, res)
	s.sink.End()
	if res.Failure != nil {
		s.keepTail(ctx, res.Failure)
	}
	end := time.Now()
	res.Nanos = int64(end.Sub(s.begun))
	s.begun = end
	counts.add(&res)
	s.endedIn.Store(int32(res.SlotStatus()))
	ch.Finish(s.running, res)
	s.running = -1
	if s.broken {
		s.replaceRunner()
	}
}

// runAttempt turns a panic into the failure of this attempt: a poison input must not end the worker.
func (s *slot) runAttempt(ctx context.Context, a *runner.Attempt, stage *wire.Stage, action wire.CommitAction) (res core.Result) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		stack := debug.Stack()
		s.logger.ErrorContext(ctx, "attempt panicked", "job", a.Job.GetId(), "stage", a.StageName, "task", a.Index,
			"lease", a.Lease, "panic", fmt.Sprint(p), "stack", string(stack))
		s.broken = true
		res = core.Result{Failure: &wire.Failure{
			Kind:    wire.FailureKind_PROGRAM_ERROR,
			Message: wire.FailureMessage(fmt.Sprintf("panic: %v\n\n%s", p, stack)),
		}}
	}()
	var out runner.Outcome
	switch stage.GetRole() {
	case wire.StageRole_STAGE_COMMIT:
		return s.stages.ended(ctx, a.Job, stage, s.stages.commit(ctx, a.Job, stage, action))
	case wire.StageRole_STAGE_CHECK:
		return s.stages.ended(ctx, a.Job, stage, s.stages.check(ctx, a.Job, stage))
	case wire.StageRole_STAGE_COLLECT, wire.StageRole_STAGE_REDUCE:
		a.Parts = s.stages.inputs(ctx, a.Job, stage)
		out = s.runner.Run(ctx, a)
		a.Parts = nil
	case wire.StageRole_STAGE_MAP:
		out = s.runner.Run(ctx, a)
	case wire.StageRole_STAGE_ROLE_UNSPECIFIED:
		fallthrough
	default:
		return core.Result{Failure: &wire.Failure{
			Kind:    wire.FailureKind_BAD_PROGRAM,
			Message: fmt.Sprintf("stage %q has the unknown role %v; is this worker older than the leader?", stage.GetName(), stage.GetRole()),
		}}
	}
	s.last = out
	if len(out.Lost) > 0 {
		res.Canceled = true
		for _, p := range out.Lost {
			res.Lost = append(res.Lost, &wire.OutputLost{Job: a.Job.GetId(), Stage: p.Stage, Index: p.Index, Lease: p.Lease, Message: wire.FailureMessage(p.Why.Error())})
		}
		return res
	}
	return core.Result{
		Size: out.Size, Records: out.Records, Input: out.InputBytes, Checksum: out.Checksum,
		Peak: out.Peak, Failure: out.Failure, Canceled: out.Canceled, File: out.File != "", Segment: out.Segment, Warning: out.Warning,
	}
}

func (s *slot) replaceRunner() {
	s.closeRunner()
	s.runner, s.broken = s.fresh(), false
}

// closeRunner recovers from a panic: the runner may have panicked before.
func (s *slot) closeRunner() {
	defer func() {
		if p := recover(); p != nil {
			s.logger.Error("slot not closed", "slot", s.id, "panic", fmt.Sprint(p))
		}
	}()
	if err := s.runner.Close(); err != nil {
		s.logger.Warn("slot not closed", "slot", s.id, "error", err)
	}
}
