package runner

import (
	"context"
	"io"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// keepStdout sets the end of what the command of a failed attempt has written to its standard output. If that cannot be read back, as from an
// object store, none is kept; and none of other programs, whose output is a part of the result and says nothing about the failure.
func (s *Slot) keepStdout(ctx context.Context, out *Outcome) {
	f := &s.output
	if f.size == 0 || s.keyed.on() || !s.files.opened {
		return
	}
	if s.last == nil {
		s.last = make([]byte, wire.TailMax)
	}
	last := s.last[:min(f.size, wire.TailMax)]
	from, err := f.job.store.Open(context.WithoutCancel(ctx), f.path, int64(f.size)-int64(len(last)))
	if err != nil {
		return
	}
	defer from.Close() //nolint:errcheck // only read from
	if _, err := io.ReadFull(from, last); err == nil {
		out.Stdout, out.StdoutBytes = last, f.size
	}
}
