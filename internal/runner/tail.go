package runner

import (
	"context"
	"io"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// keepStdout sets the end of what a failed attempt has written to its output. Where that cannot be read back, as in an object store, none
// is kept.
func (s *Slot) keepStdout(ctx context.Context, j *jobState, out *Outcome) {
	path, store, size := s.output.path, j.store, s.output.size
	if s.files.opened {
		written, err := j.stdout.size()
		if err != nil || j.stdout.file == nil {
			return
		}
		path, store, size = j.stdout.path, j.stdout.store, uint64(written)
	}
	if path == "" || size == 0 {
		return
	}
	from := size - min(size, wire.TailMax)
	file, err := store.Open(context.WithoutCancel(ctx), path, int64(from))
	if err != nil {
		return
	}
	defer file.Close() //nolint:errcheck // only read from
	if s.last == nil {
		s.last = make([]byte, wire.TailMax)
	}
	n, err := io.ReadFull(file, s.last[:size-from])
	if err == nil {
		out.Stdout, out.StdoutBytes = s.last[:n], size
	}
}
