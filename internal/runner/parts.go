package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/hooks"
	"github.com/bridgefour/bridgefour/internal/layout"
)

// partReader reads one part after another. One that is read to its end is compared with what its task wrote.
type partReader struct {
	ctx    context.Context //nolint:containedctx // of the attempt; io.Reader has none
	sight  sight
	parts  iter.Seq2[Part, error]
	part   Part // that is read
	file   io.ReadCloser
	read   uint64 // of part
	digest xxhash.Digest
	bytes  uint64
	lost   []LostPart
	err    error // the first read error
}

// each yields the parts; r reads the one yielded last.
func (r *partReader) each(yield func(hooks.PartSpec, error) bool) {
	for part, err := range r.parts {
		r.close()
		if err != nil {
			yield(hooks.PartSpec{}, err)
			return
		}
		spec := hooks.PartSpec{Index: part.Index, Size: int64(part.Size), Records: part.Records, Name: string(part.Path)}
		if part.Size > 0 {
			r.part = part
			spec.Source = r
		}
		if !yield(spec, nil) {
			return
		}
	}
}

// Read opens the part on its first call: a job need not read all parts.
func (r *partReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.file == nil {
		if err := r.open(); err != nil {
			return 0, r.fail(err)
		}
	}
	n, err := r.file.Read(p)
	r.bytes += uint64(n)
	r.read += uint64(n)
	_, _ = r.digest.Write(p[:n]) // never fails
	switch {
	case r.read > r.part.Size, errors.Is(err, io.EOF) && r.read < r.part.Size:
		return n, r.lose(fmt.Errorf("has %d bytes or more instead of %d", r.read, r.part.Size))
	case errors.Is(err, io.EOF) && r.digest.Sum64() != r.part.Checksum:
		return n, r.lose(errors.New("is damaged: its checksum is not that of what the task wrote"))
	case err != nil && !errors.Is(err, io.EOF):
		err = r.fail(err)
	}
	return n, err
}

func (r *partReader) open() error {
	store, err := r.sight.stores.Of(r.part.Path)
	if err != nil {
		return err
	}
	r.file, err = store.Open(r.ctx, r.part.Path, 0)
	r.read = 0
	r.digest.Reset()
	switch {
	case blob.IsReplaced(err):
		return r.lose(err)
	case blob.IsMissing(err):
		return r.missing(err)
	}
	return err
}

// missing looks at the other parts: they tell whether this one is lost.
func (r *partReader) missing(why error) error {
	var seen layout.Seen
	for part, err := range r.parts {
		if err != nil {
			return err
		}
		if part.Size > 0 && seen.Add(part.Maker, r.sight.has(r.ctx, part.Path)) {
			break
		}
	}
	if !r.sight.lost(r.ctx, &seen) {
		return unseen(r.sight.describe(r.part, why))
	}
	return r.lose(why)
}

func (r *partReader) lose(why error) error {
	r.lost = []LostPart{{r.part, r.sight.describe(r.part, why)}}
	return r.fail(r.lost[0].Why)
}

func (r *partReader) fail(err error) error {
	if r.err == nil {
		r.err = err
	}
	return err
}

func (r *partReader) close() {
	if r.file != nil {
		_ = r.file.Close() // only read from
		r.file = nil
	}
}

// sight is how an attempt sees the outputs of other tasks.
type sight struct {
	stores blob.Stores
	output blob.Location // of the job
	host   string
}

// has reports whether a file is there. It may be if that is not known.
func (s *sight) has(ctx context.Context, path blob.Location) bool {
	store, err := s.stores.Of(path)
	if err == nil {
		_, err = store.Stat(ctx, path)
	}
	return !blob.IsMissing(err)
}

// lost reports whether outputs that are missing are lost: see layout.Seen.
func (s *sight) lost(ctx context.Context, seen *layout.Seen) bool {
	return seen.Lost(func() bool { return s.has(ctx, s.output) })
}

func (s *sight) describe(part Part, why error) error {
	return fmt.Errorf("output %q of task %d: %w (on %s)", part.Path, part.Index, why, s.host)
}

// unseen is the error for outputs that are missing, perhaps only for this worker.
func unseen(err error) error {
	return fmt.Errorf("%w; does this worker see the folder that the others write to?", err)
}
