package program

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// exitBadInput is EX_DATAERR of sysexits.h.
const exitBadInput = 65

// stopReason says why a command was stopped.
type stopReason int

const (
	notStopped stopReason = iota
	stopCanceled
	stopTimeout
	stopFiles // its input could not be read, or its output not be written
)

// run is one attempt of a command.
type run struct {
	command *command
	task    *Task
	item    string // or the input's path
	path    string
	argv    []string

	mu     sync.Mutex
	reason stopReason // the first one
}

// Run runs the command once.
func (c *command) Run(ctx context.Context, t *Task) Result {
	r := &run{command: c, task: t}
	if r.item = string(t.Item); !t.IsItem() {
		r.item = t.Path
	}
	if f := r.start(ctx); f != nil {
		_ = t.Files.Ended() // nothing was read
		return Result{Failure: f}
	}
	t.Files.Started(func() { r.stop(stopFiles) })
	forget := r.watch(ctx)
	end, err := t.Keeper.Wait()
	forget()
	f := t.Files.Ended()
	if end.Left > 0 {
		_, _ = fmt.Fprintf(t.Log, "bridgefour: killed %s that the command left behind\n", processes(end.Left)) // never fails
	}
	switch {
	case r.reason == stopCanceled:
		return Result{Canceled: true}
	case errors.Is(err, keeper.ErrKilled):
		return Result{Failure: Failed(wire.FailureKind_PROGRAM_ERROR,
			"the process that contains the command, its parent, was killed; a task must not kill its parent")}
	case err != nil:
		return Result{Failure: c.startFailure(r.path, r.argv, r.item, err)}
	}
	return Result{Failure: r.verdict(&end, f), Peak: end.Peak}
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

// Collect is not supported.
func (c *command) Collect(context.Context, *Task) Result {
	return Result{Failure: Failed(wire.FailureKind_BAD_PROGRAM, "command %q cannot run a collect stage; only built-in jobs can", c.argv[0])}
}

// start opens the command's files and starts it with them.
func (r *run) start(ctx context.Context) *Failure {
	c, t := r.command, r.task
	stdin, f := t.Files.Open(ctx, c.reads(t))
	if f != nil {
		return f
	}
	r.argv = c.arguments(t)
	if r.path = c.path; r.path == "" {
		if r.path, f = c.lookUp(r.argv[0]); f != nil {
			return f
		}
	}
	start := &keeper.Command{
		Path: r.path, Argv: r.argv, Dir: c.dir, Env: c.env, EnvMore: c.attemptEnv(t, r.item),
		Stdin: stdin, Output: t.Files.Output, Memory: t.Job.GetMemory(), Confinement: c.confined,
	}
	if c.user != nil {
		start.User = c.user.Credential
	}
	err := t.Keeper.Start(start)
	if _, ok := errors.AsType[*keeper.ConfinementError](err); ok {
		return Failed(wire.FailureKind_BAD_PROGRAM, "%s: %v", c.host, err)
	}
	switch {
	case errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.EMFILE):
		return c.startFailure(r.path, r.argv, r.item, err)
	case err != nil: // there is no keeper
		return Failed(wire.FailureKind_PROGRAM_ERROR, "start %q on %s: %v", r.path, c.host, err)
	}
	return nil
}

// watch stops the command when ctx ends. After forget, it does not.
func (r *run) watch(ctx context.Context) (forget func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	stopped := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(stopped)
		if isTimeout(ctx) {
			r.stop(stopTimeout)
		} else {
			r.stop(stopCanceled)
		}
	})
	return func() {
		if !cancel() {
			<-stopped // the next command must not get this one's signal
		}
	}
}

func (r *run) stop(reason stopReason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reason == notStopped {
		r.reason = reason
		r.task.Keeper.Stop(grace(r.task.Job))
	}
}

// verdict returns the failure, if the command has failed.
func (r *run) verdict(end *keeper.End, files *Failure) *Failure {
	j, status := r.task.Job, end.Status
	switch {
	case end.Stuck > 0:
		return Failed(wire.FailureKind_PROGRAM_ERROR, "%s started by the command cannot be killed, such as process %d on %s; "+
			"the slot is used again when they have ended", processes(end.Stuck), end.StuckPID, r.command.host)
	case end.OverMemory > 0:
		return Failed(wire.FailureKind_OUT_OF_MEMORY, "used %s of memory; the job allows %s (--memory)",
			sizeText(end.OverMemory), sizeText(j.GetMemory()))
	case r.reason == stopTimeout:
		f := timedOut(j)
		f.Message += fmt.Sprintf("; its processes used %v of CPU time", end.CPU.Round(time.Millisecond))
		return f
	case files != nil:
		return files
	case status.Signaled():
		hint := ""
		if status.Signal() == syscall.SIGKILL {
			hint = "; by the kernel if %s ran out of memory"
			hint = fmt.Sprintf(hint, r.command.host)
		}
		return Failed(wire.FailureKind_PROGRAM_ERROR, "killed by signal %d (%v)%s", int(status.Signal()), status.Signal(), hint)
	case status.ExitStatus() == exitBadInput:
		return Failed(wire.FailureKind_BAD_INPUT, "exit status %d (bad input)", exitBadInput)
	case status.ExitStatus() != 0:
		return Failed(wire.FailureKind_PROGRAM_ERROR, "exit status %d", status.ExitStatus())
	}
	return nil
}
