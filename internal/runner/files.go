package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/format"
	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// files implements program.Files for the commands of a slot.
type files struct {
	slot    *Slot
	job     *jobState
	attempt *Attempt
	lines   lineSource // its input; nil: the split
	opened  bool       // in this attempt
	started bool
	stdin   commandInput
	stdout  stdout
	stderr  stderr
	pipes   [2]outputPipe // by keeper.Stream
	broken  func()
}

// begin prepares for an attempt, which may or may not open the files.
func (f *files) begin(j *jobState, a *Attempt) {
	f.job, f.attempt, f.lines = j, a, nil
	if a.reduces() {
		f.lines = &f.slot.groups
	}
	if f.opened {
		f.opened, f.started, f.stdin = false, false, commandInput{}
		f.stdout.lines = 0
		f.stderr.size, f.stderr.end = 0, f.stderr.end[:0]
	}
}

// Open implements program.Files.
func (f *files) Open(ctx context.Context, input bool) (stdin uintptr, failure *program.Failure) {
	f.opened = true
	if err := f.openInput(ctx, input); err != nil {
		return 0, program.JobFailure(err)
	}
	if f.stdin.file == nil {
		return 0, nil
	}
	return f.stdin.file.Fd(), nil
}

// Started implements program.Files.
func (f *files) Started(broken func()) {
	f.started, f.broken = true, broken
	var input io.Reader = &f.slot.input
	if f.lines != nil {
		input = f.lines
	}
	f.stdin.feed(input, broken)
}

// Output implements program.Files.
func (f *files) Output(s keeper.Stream, pipe *os.File) {
	w := io.Writer(&f.stdout)
	if s == keeper.Stderr {
		w = &f.stderr
	}
	f.pipes[s].copy(w, pipe, f.broken)
}

// Ended implements program.Files.
func (f *files) Ended() *program.Failure {
	inputErr := f.stdin.finish()
	outputErr := f.pipes[keeper.Stdout].close()
	_ = f.pipes[keeper.Stderr].close() // the log takes all, and only until now
	switch {
	case !f.started:
		f.stdin.length = 0
	case inputErr != nil:
		return program.JobFailure(inputErr)
	case errors.Is(outputErr, errHeld):
		return program.Failed(wire.FailureKind_PROGRAM_ERROR, "%v; wait for it, or start it with >/dev/null", outputErr)
	case outputErr != nil:
		return program.OutputFailure(outputErr)
	}
	return nil
}

// commandInput is the standard input of a command.
type commandInput struct {
	file   *os.File // the command's end; nil: /dev/null
	opened bool     // file belongs to this attempt
	length uint64   // bytes of input: read by the command, or of the file that it gets by name
	pipe   *os.File // the writing end; nil: file is the input itself
	fed    chan error

	// planned is checked at the end by version: of a file that the command reads itself. Nil: the feeder reads it, or there is none.
	planned plannedFile
	version func() (blob.Version, error)
}

// openInput opens the standard input: the file itself if the split is all of it, a pipe if the split is a part, compressed, or
// has grown, or the items are several of a list, and /dev/null if the command gets the input as an argument.
func (f *files) openInput(ctx context.Context, input bool) error {
	in, stores, file, how := &f.stdin, f.job.reading.stores, f.attempt.Split.GetFile(), f.job.reading
	if f.lines != nil {
		if err := f.lines.openLines(); err != nil {
			return err
		}
		return in.openPipe()
	}
	if file == nil && (!input || !f.attempt.Job.GetBatch()) {
		return nil
	}
	if file == nil {
		f.slot.input.ctx = context.WithoutCancel(ctx) //nolint:fatcontext // as below; each attempt begins with its own
		return in.openPipe()
	}
	in.planned.plan(file, f.slot.runner.host)
	path := in.planned.path
	if !input {
		in.length = file.GetLength()
		in.version = func() (blob.Version, error) {
			store, name, err := stores.Open(path)
			if err != nil {
				return blob.Version{}, err
			}
			info, err := store.Stat(context.WithoutCancel(ctx), name)
			return info.Version, err
		}
		if err := in.check(); err != nil {
			return err
		}
		return nil
	}
	if in.planned.whole && (how.kind.Size() > 0 || !format.NamedCompressed(path)) {
		direct := inputFile{plannedFile: in.planned}
		if err := direct.open(ctx, stores, 0); err != nil {
			direct.close()
			return err
		}
		all := file.GetWhole() || file.GetLength() >= uint64(direct.was.Size)
		if local, ok := direct.file.(blob.LocalFile); ok && all && direct.grown() == "" && how.asItIs(local, direct.was.Size) {
			in.planned, in.version = direct.plannedFile, local.Version
			in.file, in.opened = local.File, true
			return nil
		}
		direct.close()
	}
	in.planned = plannedFile{} // the feeder checks it
	// The feeder ignores ctx: it ends when the command does, because the pipe breaks.
	f.slot.input.begin(context.WithoutCancel(ctx), how, f.attempt.Split, true)
	return in.openPipe()
}

// openPipe makes the standard input a pipe, which feed fills.
func (in *commandInput) openPipe() error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("create pipe: %w", err)
	}
	in.file, in.opened, in.pipe = reader, true, writer
	return nil
}

// asItIs reports whether the reader of a whole file would return it unchanged. In doubt it does not.
func (how *reading) asItIs(file io.ReaderAt, size int64) bool {
	if n := how.kind.Size(); n > 0 {
		return size%n == 0
	}
	var prefix [format.MagicSize]byte
	n, err := file.ReadAt(prefix[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return !format.Detect(prefix[:n]).Compressed() && (!how.kind.DropsBOM() || format.SkipBOM(prefix[:n]) == 0)
}

// check checks a file that the command reads itself.
func (in *commandInput) check() error {
	now, err := in.version()
	if err != nil {
		return program.InputError(in.planned.path, in.planned.host, err)
	}
	return in.planned.check(now)
}

// checkEnd checks it after the command has ended. A command may remove the file that it gets by name, but not change it: that
// cannot be told from a change by another process.
func (in *commandInput) checkEnd() error {
	if in.version == nil {
		return nil
	}
	err := in.check()
	switch byName := !in.opened; {
	case byName && errors.Is(err, fs.ErrNotExist):
		return nil
	case byName && err != nil:
		return fmt.Errorf("%w; a command that changes its files must get their names with --lines", err)
	case err == nil && !byName && in.planned.grown() != "":
		return fmt.Errorf("%s, while the command read it: the next attempt reads as far as it was", in.planned.grown())
	}
	return err
}

// feed starts to write the split to the pipe.
func (in *commandInput) feed(split io.Reader, broken func()) {
	if in.pipe == nil {
		return
	}
	_ = in.file.Close() // inherited by the command
	in.fed = make(chan error, 1)
	go func() {
		const pieces = 128 << 10
		_, err := copyAll(writerOnly{in.pipe}, split, make([]byte, pieces))
		if path, ok := errors.AsType[*fs.PathError](err); ok && path.Op == "write" {
			err = nil // commands such as head end before their input
		}
		if err != nil {
			broken()
		}
		_ = in.pipe.Close() // end of input for the command; finish may have closed it
		in.fed <- err
	}()
}

// copyAll turns a panic into an error: a poison input must not end the worker.
func copyAll(w io.Writer, r io.Reader, buf []byte) (n int64, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n\n%s", p, debug.Stack())
		}
	}()
	return io.CopyBuffer(w, r, buf)
}

// writerOnly hides ReadFrom, whose fast paths do not apply to a splitReader.
type writerOnly struct{ io.Writer }

// finish closes the input after the command has ended or failed to start. The error is one of reading the split.
func (in *commandInput) finish() error {
	if in.pipe != nil {
		// A daemon that was given the pipe may hold it open without reading it: do not wait for the feeder to finish writing.
		_ = in.pipe.Close()
	}
	if in.fed != nil {
		err := <-in.fed
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	}
	err := in.checkEnd()
	if !in.opened {
		return err
	}
	if in.pipe == nil {
		// The command shares the file offset.
		if at, err := in.file.Seek(0, io.SeekCurrent); err == nil {
			in.length = uint64(at)
		}
	}
	_ = in.file.Close() // only read from
	return err
}
