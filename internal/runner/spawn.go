package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// exitBadInput is EX_DATAERR of sysexits.h.
const exitBadInput = 65

// run is one attempt of a command.
type run struct {
	slot    *Slot
	command *command
	attempt *Attempt
	item    string
	append  bool // the item becomes the last argument where none asks for it
	stdin   commandInput
	out     *Outcome
}

func (s *Slot) runCommand(ctx context.Context, j *jobState, a *Attempt) Outcome {
	out := new(Outcome)
	r := run{slot: s, command: j.command, attempt: a, out: out}
	if file := a.Split.GetFile(); file != nil {
		r.item = string(file.GetPath())
	} else {
		item := s.takeItem(a)
		r.item, r.append = string(item), a.Split != nil || item != nil
	}
	stdout := &j.command.stdout
	if err := stdout.begin(ctx); err != nil {
		return Outcome{Failure: outputFailure(err).wire()}
	}
	s.log.begin(a.Log)
	stderr, err := s.stderr.begin()
	if err != nil {
		_ = syscall.Close(stdout.given) // nothing was written to it
		return Outcome{Failure: failed(wire.FailureKind_OUTPUT_ERROR, "make the log's file in %q on %s: %v",
			s.runner.scratchDir, s.runner.host, bare(err)).wire()}
	}
	f := r.run(ctx, stdout.given, stderr)
	last := s.stderr.end(f != nil && f.kind != wire.FailureKind_BAD_PROGRAM)
	s.log.finish()
	if f == nil && !out.Canceled {
		f = r.takeOutput(ctx, j)
	}
	if f != nil {
		if len(last) > 0 && !out.Canceled {
			f.message += "\n" + string(last)
		}
		out.Failure = f.wire()
	}
	if f != nil || out.Canceled {
		*out = Outcome{InputBytes: out.InputBytes, Failure: out.Failure, Canceled: out.Canceled}
	}
	if out.Canceled {
		stdout.close(ctx) // the job may be over: nothing of it may stay
	} else {
		stdout.clear(ctx)
	}
	return *out
}

// run starts the command and waits for its end. It closes stdout and stderr.
func (r *run) run(ctx context.Context, stdout, stderr int) *failure {
	s, c := r.slot, r.command
	err := s.openInput(ctx, r)
	var pid int
	var f *failure
	if err == nil {
		pid, f = r.start(stdout, stderr)
	}
	_ = errors.Join(syscall.Close(stdout), syscall.Close(stderr)) // the command has its own
	if err != nil {
		return jobFailure(err)
	}
	if f != nil {
		r.stdin.abandon()
		return f
	}
	s.proc.started(pid)
	r.stdin.feed(s)
	stop := r.watch(ctx, pid)
	status, reason, quiet, err := s.proc.wait()
	stop()
	inputErr := r.stdin.finish(s, r.out)
	if err != nil {
		return failed(wire.FailureKind_PROGRAM_ERROR, "wait for %q: %v", c.argv[0], err)
	}
	return r.verdict(status, reason, inputErr, quiet)
}

// watch stops the command when its time is over, when ctx ends, or when it takes too much memory.
func (r *run) watch(ctx context.Context, pid int) (stop func()) {
	p, j := &r.slot.proc, r.attempt.Job
	if ctx.Done() == nil && j.GetTimeoutMs() == 0 && j.GetMemory() == 0 {
		return func() {}
	}
	forget := context.AfterFunc(ctx, func() { p.stop(stopCanceled) })
	var timer *time.Timer
	if limit := timeout(j); limit > 0 {
		timer = time.AfterFunc(limit, func() { p.stop(stopTimeout) })
	}
	var watcher sync.WaitGroup
	watched, end := context.WithCancel(ctx)
	if limit := j.GetMemory(); limit > 0 {
		watcher.Go(func() { p.watchMemory(watched, pid, limit) })
	}
	return func() {
		forget()
		if timer != nil {
			timer.Stop()
		}
		end()
		watcher.Wait()
	}
}

// start makes the process. A script that names no interpreter is given to the shell, as shells and xargs do.
func (r *run) start(stdout, stderr int) (int, *failure) {
	c := r.command
	argv := c.arguments(r.item, r.append)
	path := c.path
	if path == "" {
		var f *failure
		if path, f = c.lookUp(argv[0]); f != nil {
			return 0, f
		}
	}
	attr := syscall.ProcAttr{
		Dir:   c.dir,
		Env:   c.attemptEnv(r.attempt, r.item),
		Files: []uintptr{r.stdin.file.Fd(), uintptr(stdout), uintptr(stderr)},
		Sys:   ownGroup(&r.slot.proc.handle),
	}
	r.slot.proc.handle = -1
	pid, err := syscall.ForkExec(path, argv, &attr)
	if errors.Is(err, syscall.ENOEXEC) {
		pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", path}, argv[1:]...), &attr)
	}
	if err != nil {
		return 0, c.startFailure(path, argv, r.item, err)
	}
	return pid, nil
}

// verdict tells success from failure.
func (r *run) verdict(status syscall.WaitStatus, reason stopReason, inputErr error, quiet bool) *failure {
	j := r.attempt.Job
	switch reason {
	case stopCanceled:
		r.out.Canceled = true
		return nil
	case stopTimeout:
		return failed(wire.FailureKind_TIMEOUT, "not done after %v", timeout(j))
	case stopMemory:
		return failed(wire.FailureKind_OUT_OF_MEMORY, "used %s of memory; the job allows %s (--memory)",
			sizeText(r.slot.proc.rss), sizeText(j.GetMemory()))
	case stopInput, notStopped:
	}
	if inputErr != nil {
		return jobFailure(inputErr)
	}
	switch {
	case !quiet:
		return failed(wire.FailureKind_PROGRAM_ERROR, "the command ended, but a process that it started could not be killed")
	case status.Signaled():
		hint := ""
		if status.Signal() == syscall.SIGKILL {
			hint = "; by the system if %s ran out of memory"
			hint = fmt.Sprintf(hint, r.command.host)
		}
		return failed(wire.FailureKind_PROGRAM_ERROR, "killed by signal %d (%v)%s", int(status.Signal()), status.Signal(), hint)
	case status.ExitStatus() == exitBadInput:
		return failed(wire.FailureKind_BAD_INPUT, "exit status %d (bad input)", exitBadInput)
	case status.ExitStatus() != 0:
		return r.exitFailure(status.ExitStatus())
	}
	return nil
}

// exitFailure looks for a full disk behind an exit status: the command itself can only say that a write failed.
func (r *run) exitFailure(code int) *failure {
	const full = 64 << 10
	folder := r.command.stdout.folder
	if free, total, ok := r.command.stdout.store.Free(folder); ok && free < full {
		return failed(wire.FailureKind_OUTPUT_ERROR, "exit status %d, and the disk under %q is full (%s of %s free); make room, then bridgefour retry",
			code, folder, sizeText(free), sizeText(total))
	}
	return failed(wire.FailureKind_PROGRAM_ERROR, "exit status %d", code)
}

// takeOutput makes what the command wrote the attempt's output. An empty one of a spooled job needs no file.
func (r *run) takeOutput(ctx context.Context, j *jobState) *failure {
	size, err := r.command.stdout.size()
	if err == nil && size == 0 && j.wire.GetSpool() {
		return nil
	}
	path := r.attempt.path(j.folder)
	switch {
	case err != nil:
	case size > 0:
		err = r.command.stdout.take(ctx, path, r.slot.readBuffer(), r.out)
	default:
		var w blob.Writer
		if w, err = j.store.Create(ctx, path, ""); err == nil {
			err = w.Prepare()
			r.out.Checksum = xxhash.Sum64(nil)
		}
	}
	switch {
	case errors.Is(err, errHeld):
		return failed(wire.FailureKind_PROGRAM_ERROR, "%v; wait for its end in the command, or start it with >/dev/null", err)
	case err != nil:
		return outputFailure(err)
	}
	r.out.File = path
	return nil
}

// readBuffer is for reading outputs back.
func (s *Slot) readBuffer() []byte {
	const size = 128 << 10
	if s.buf == nil {
		s.buf = make([]byte, size)
	}
	return s.buf
}

// commandInput is a command's standard input.
type commandInput struct {
	file   *os.File // the command's end
	opened bool     // file is this attempt's own
	length uint64   // of a file that the command gets by name
	pipe   *os.File // our end; nil: file is the input itself
	fed    chan error
}

// openInput decides what the command reads: the file itself where the split is all of it, a pipe where it is a part or
// is compressed, nothing where the command gets a name or an item.
func (s *Slot) openInput(ctx context.Context, r *run) error {
	file := r.attempt.Split.GetFile()
	if file == nil || r.command.asks {
		r.stdin.length = file.GetLength()
		return s.openNull(&r.stdin)
	}
	if file.GetOffset() == 0 && (!file.GetWhole() || compression(r.item) == plainText) {
		store, path, err := s.runner.stores.Open(r.item)
		var reader io.ReadCloser
		if err == nil {
			reader, err = store.Open(ctx, path, 0)
		}
		if err != nil {
			return inputError(r.item, s.runner.host, err)
		}
		if input, ok := reader.(*os.File); ok {
			var st syscall.Stat_t
			if err := syscall.Fstat(int(input.Fd()), &st); err == nil && (file.GetWhole() || st.Size <= int64(file.GetLength())) {
				r.stdin.file, r.stdin.opened = input, true
				return nil
			}
		}
		_ = reader.Close() // no local file, or it has grown, or is a part only
	}
	// The feeder does not look at ctx: the command's end breaks the pipe.
	s.input.begin(context.WithoutCancel(ctx), r.attempt.Split)
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	r.stdin.file, r.stdin.opened, r.stdin.pipe = reader, true, writer
	return nil
}

func (s *Slot) openNull(in *commandInput) error {
	if s.null == nil {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		s.null = null
	}
	in.file = s.null
	return nil
}

// abandon closes the input of a command that did not start.
func (in *commandInput) abandon() {
	if in.opened {
		_ = in.file.Close() // only read from
	}
	if in.pipe != nil {
		_ = in.pipe.Close() // nobody reads it
	}
}

// feed begins to fill the pipe.
func (in *commandInput) feed(s *Slot) {
	if in.pipe == nil {
		return
	}
	_ = in.file.Close() // the command has its own
	in.fed = make(chan error, 1)
	go func() {
		const pieces = 128 << 10
		_, err := io.CopyBuffer(writerOnly{in.pipe}, &s.input, make([]byte, pieces))
		if path, ok := errors.AsType[*fs.PathError](err); ok && path.Op == "write" {
			err = nil // a command may end before its input does: head, grep -q
		}
		if err != nil {
			s.proc.stop(stopInput)
		}
		_ = in.pipe.Close() // closed for finish already, or now for the command to see the end
		in.fed <- err
	}()
}

// writerOnly hides ReadFrom, which would look for a short cut that a splitReader does not have.
type writerOnly struct{ io.Writer }

// finish closes the input after the command's end. The error is one of reading the split.
func (in *commandInput) finish(s *Slot, out *Outcome) error {
	if in.fed != nil {
		// A process that left the group may keep the pipe open and not read it: the feeder must not wait for that.
		_ = in.pipe.Close()
		err := <-in.fed
		out.InputBytes = s.input.finish()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	}
	out.InputBytes = in.length
	if in.opened {
		// The command moved the place that it shares with us.
		if at, err := in.file.Seek(0, io.SeekCurrent); err == nil {
			out.InputBytes = uint64(at)
		}
		_ = in.file.Close() // only read from
	}
	return nil
}
