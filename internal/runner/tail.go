package runner

import (
	"context"
	"io"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// keepStdout sets the end of what a failed attempt has written to its output. If that cannot be read back, as from an object store, none is
// kept.
func (s *Slot) keepStdout(ctx context.Context, j *jobState, out *Outcome) {
	size, open := s.output.size, s.output.open
	if s.files.opened {
		written, err := j.stdout.size()
		if err != nil {
			return
		}
		size, open = uint64(written), j.stdout.open
	}
	if size == 0 {
		return
	}
	if s.last == nil {
		s.last = make([]byte, wire.TailMax)
	}
	last := s.last[:min(size, wire.TailMax)]
	from, err := open(ctx, int64(size)-int64(len(last)))
	if err != nil {
		return
	}
	defer from.Close() //nolint:errcheck // only read from
	if _, err := io.ReadFull(from, last); err == nil {
		out.Stdout, out.StdoutBytes = last, size
	}
}

// open opens what was written so far.
func (f *attemptFile) open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	return f.job.store.Open(context.WithoutCancel(ctx), f.path, offset)
}

// open opens what was written so far.
func (s *stdoutFile) open(_ context.Context, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(s.file, offset, wire.TailMax)), nil
}
