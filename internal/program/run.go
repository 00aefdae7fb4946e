package program

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// exitBadInput is EX_DATAERR of sysexits.h.
const exitBadInput = 65

// run is one attempt of a command.
type run struct {
	command *command
	task    *Task
	item    string
	append  bool // append the item if no argument contains the placeholder
}

// Map runs the command once.
func (c *command) Map(ctx context.Context, t *Task) Result {
	r := run{command: c, task: t}
	if t.Split.GetFile() != nil {
		r.item = t.Path
	} else {
		r.item, r.append = string(t.Item), t.Split != nil || t.Item != nil
	}
	pid, f := r.open(ctx)
	if f != nil {
		_ = t.Files.Ended() // nothing was read
		return Result{Failure: f}
	}
	c.proc.started(pid)
	t.Files.Started(func() { c.proc.stop(stopInput) })
	stop := r.watch(ctx, pid)
	status, reason, quiet, err := c.proc.wait()
	stop()
	inputErr := t.Files.Ended()
	switch {
	case err != nil:
		return Result{Failure: Failed(wire.FailureKind_PROGRAM_ERROR, "wait for %q: %v", c.argv[0], err)}
	case reason == stopCanceled:
		return Result{Canceled: true}
	}
	return Result{Failure: r.verdict(status, reason, inputErr, quiet)}
}

// Collect is not supported.
func (c *command) Collect(context.Context, *Task) Result {
	return Result{Failure: Failed(wire.FailureKind_BAD_PROGRAM, "command %q cannot run a collect stage; only built-in jobs can", c.argv[0])}
}

// open opens the command's files and starts it with them.
func (r *run) open(ctx context.Context) (pid int, f *Failure) {
	stdin, stdout, stderr, f := r.task.Files.Open(ctx, !r.command.replaces)
	if f != nil {
		return 0, f
	}
	return r.start(stdin, stdout, stderr)
}

// watch stops the command when ctx ends or when it exceeds the memory limit.
func (r *run) watch(ctx context.Context, pid int) (stop func()) {
	p, limit := &r.command.proc, r.task.Job.GetMemory()
	if ctx.Done() == nil && limit == 0 {
		return func() {}
	}
	forget := context.AfterFunc(ctx, func() {
		if isTimeout(ctx) {
			p.stop(stopTimeout)
		} else {
			p.stop(stopCanceled)
		}
	})
	var watcher sync.WaitGroup
	watched, end := context.WithCancel(context.WithoutCancel(ctx))
	if limit > 0 {
		watcher.Go(func() { p.watchMemory(watched, pid, limit) })
	}
	return func() {
		forget()
		end()
		watcher.Wait()
	}
}

// start starts the process. A script without an interpreter line is run by the shell, as shells and xargs do.
func (r *run) start(stdin, stdout, stderr uintptr) (int, *Failure) {
	c := r.command
	argv := c.arguments(r.item, r.append)
	path := c.path
	if path == "" {
		var f *Failure
		if path, f = c.lookUp(argv[0]); f != nil {
			return 0, f
		}
	}
	attr := syscall.ProcAttr{
		Dir:   c.dir,
		Env:   c.attemptEnv(r.task, r.item),
		Files: []uintptr{stdin, stdout, stderr},
		Sys:   ownGroup(&c.proc.handle),
	}
	c.proc.handle = -1
	pid, err := syscall.ForkExec(path, argv, &attr)
	if errors.Is(err, syscall.ENOEXEC) {
		pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", path}, argv[1:]...), &attr)
	}
	if err != nil {
		return 0, c.startFailure(path, argv, r.item, err)
	}
	return pid, nil
}

// verdict returns the failure, if the command has failed.
func (r *run) verdict(status syscall.WaitStatus, reason stopReason, inputErr error, quiet bool) *Failure {
	j := r.task.Job
	switch reason {
	case stopTimeout:
		return timedOut(j)
	case stopMemory:
		return Failed(wire.FailureKind_OUT_OF_MEMORY, "used %s of memory; the job allows %s (--memory)",
			sizeText(r.command.proc.rss), sizeText(j.GetMemory()))
	case stopCanceled, stopInput, notStopped:
	}
	if inputErr != nil {
		return JobFailure(inputErr)
	}
	switch {
	case !quiet:
		return Failed(wire.FailureKind_PROGRAM_ERROR, "the command ended, but a process started by it could not be killed")
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
		return r.exitFailure(status.ExitStatus())
	}
	return nil
}

// exitFailure checks for a full disk: the command itself can only report that a write failed.
func (r *run) exitFailure(code int) *Failure {
	const full = 64 << 10
	if folder, free, total, ok := r.task.Files.Room(); ok && free < full {
		return Failed(wire.FailureKind_OUTPUT_ERROR, "exit status %d, and the disk under %q is full (%s of %s free); make room, then bridgefour retry",
			code, folder, sizeText(free), sizeText(total))
	}
	return Failed(wire.FailureKind_PROGRAM_ERROR, "exit status %d", code)
}
