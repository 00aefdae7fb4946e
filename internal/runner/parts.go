package runner

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/hooks"
)

// partReader reads one part after another.
type partReader struct {
	ctx    context.Context //nolint:containedctx // of the attempt; io.Reader has none
	stores blob.Stores
	parts  iter.Seq2[Part, error]
	path   blob.Location
	file   io.ReadCloser
	bytes  uint64
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
			r.path = part.Path
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
		store, err := r.stores.Of(r.path)
		if err == nil {
			r.file, err = store.Open(r.ctx, r.path, 0)
		}
		if err != nil {
			return 0, r.fail(err)
		}
	}
	n, err := r.file.Read(p)
	r.bytes += uint64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.fail(err)
	}
	return n, err
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
