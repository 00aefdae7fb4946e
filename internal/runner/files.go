package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// files gives the slot's commands their standard input, output and error. It implements program.Files.
type files struct {
	slot    *Slot
	job     *jobState
	attempt *Attempt
	opened  bool // by this attempt
	stdin   commandInput
	stderr  int      // the attempt's, until it has started
	null    *os.File // standard input of commands that get none
}

// begin prepares for an attempt that may open the files.
func (f *files) begin(j *jobState, a *Attempt) {
	f.job, f.attempt = j, a
	if f.opened {
		f.opened, f.stdin = false, commandInput{}
	}
}

// close gives back what is kept from attempt to attempt.
func (f *files) close() error {
	if f.null == nil {
		return nil
	}
	err := f.null.Close()
	f.null = nil
	return err
}

// Open implements program.Files.
func (f *files) Open(ctx context.Context, input bool) (stdin, stdout, stderr uintptr, failure *program.Failure) {
	s := f.slot
	if err := f.job.stdout.begin(ctx); err != nil {
		return 0, 0, 0, program.OutputFailure(err)
	}
	var err error
	if f.stderr, err = s.stderr.begin(); err != nil {
		_ = syscall.Close(f.job.stdout.given) // nothing was written to it
		return 0, 0, 0, program.Failed(wire.FailureKind_OUTPUT_ERROR, "make the log's file in %q on %s: %v",
			s.runner.scratchDir, s.runner.host, program.Bare(err))
	}
	f.opened = true
	if err := f.openInput(ctx, input); err != nil {
		return 0, 0, 0, program.JobFailure(err)
	}
	return f.stdin.file.Fd(), uintptr(f.job.stdout.given), uintptr(f.stderr), nil
}

// Started implements program.Files.
func (f *files) Started(broken func()) {
	f.closeGiven()
	f.stdin.feed(&f.slot.input, broken)
}

// closeGiven closes the openings that were the command's.
func (f *files) closeGiven() {
	_ = errors.Join(syscall.Close(f.job.stdout.given), syscall.Close(f.stderr)) // nothing was written through them here
	f.job.stdout.given, f.stderr = -1, -1
}

// Ended implements program.Files.
func (f *files) Ended() error {
	if !f.opened {
		return nil
	}
	started := f.stderr < 0
	if !started {
		f.closeGiven()
	}
	err := f.stdin.finish()
	if !started {
		f.stdin.length = 0
	}
	return err
}

// Room implements program.Files.
func (f *files) Room() (folder string, free, total uint64, ok bool) {
	stdout := &f.job.stdout
	free, total, ok = stdout.store.Free(stdout.folder)
	return string(stdout.folder), free, total, ok
}

// commandInput is a command's standard input.
type commandInput struct {
	file   *os.File // the command's end
	opened bool     // file is this attempt's own
	length uint64   // of a file that the command gets by name, or what it has read of one that it was given
	pipe   *os.File // our end; nil: file is the input itself
	fed    chan error
}

// openInput decides what the command reads: the file itself where the split is all of it, a pipe where it is a part or
// is compressed, nothing where the command gets a name or an item.
func (f *files) openInput(ctx context.Context, input bool) error {
	in, runner, path := &f.stdin, f.slot.runner, f.slot.input.path
	file := f.attempt.Split.GetFile()
	if file == nil || !input {
		in.length = file.GetLength()
		return f.openNull()
	}
	if file.GetOffset() == 0 && (!file.GetWhole() || compression(path) == plainText) {
		store, location, err := runner.stores.Open(path)
		var reader io.ReadCloser
		if err == nil {
			reader, err = store.Open(ctx, location, 0)
		}
		if err != nil {
			return program.InputError(path, runner.host, err)
		}
		if local, ok := reader.(*os.File); ok {
			var st syscall.Stat_t
			if err := syscall.Fstat(int(local.Fd()), &st); err == nil && (file.GetWhole() || st.Size <= int64(file.GetLength())) {
				in.file, in.opened = local, true
				return nil
			}
		}
		_ = reader.Close() // no local file, or it has grown, or is a part only
	}
	// The feeder does not look at ctx: the command's end breaks the pipe.
	f.slot.input.begin(context.WithoutCancel(ctx), f.attempt.Split)
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	in.file, in.opened, in.pipe = reader, true, writer
	return nil
}

func (f *files) openNull() error {
	if f.null == nil {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		f.null = null
	}
	f.stdin.file = f.null
	return nil
}

// feed begins to fill the pipe.
func (in *commandInput) feed(split io.Reader, broken func()) {
	if in.pipe == nil {
		return
	}
	_ = in.file.Close() // the command has its own
	in.fed = make(chan error, 1)
	go func() {
		const pieces = 128 << 10
		_, err := io.CopyBuffer(writerOnly{in.pipe}, split, make([]byte, pieces))
		if path, ok := errors.AsType[*fs.PathError](err); ok && path.Op == "write" {
			err = nil // a command may end before its input does: head, grep -q
		}
		if err != nil {
			broken()
		}
		_ = in.pipe.Close() // closed for finish already, or now for the command to see the end
		in.fed <- err
	}()
}

// writerOnly hides ReadFrom, which would look for a short cut that a splitReader does not have.
type writerOnly struct{ io.Writer }

// finish closes the input after the command's end, or when it could not be started. The error is one of reading the split.
func (in *commandInput) finish() error {
	if in.pipe != nil {
		// A process that left the group may keep the pipe open and not read it: the feeder must not wait for that.
		_ = in.pipe.Close()
	}
	if in.fed != nil {
		err := <-in.fed
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	}
	if !in.opened {
		return nil
	}
	if in.pipe == nil {
		// The command moved the place that it shares with us.
		if at, err := in.file.Seek(0, io.SeekCurrent); err == nil {
			in.length = uint64(at)
		}
	}
	_ = in.file.Close() // only read from
	return nil
}
