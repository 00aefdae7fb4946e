package runner

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// runCollect runs the task that merges the parts. Where its outcome has no file, the parts are the result.
func (s *Slot) runCollect(parent context.Context, j *jobState, a *Attempt, out *Outcome) {
	collector, ok := j.builtin.(bridgefour.Collector)
	if !ok {
		out.Failure = failed(wire.FailureKind_BAD_PROGRAM, "this worker's %q cannot collect; is it older than the leader?",
			j.wire.GetProgram().GetBuiltin()).wire()
		return
	}
	ctx, cancel := withTimeout(parent, j.wire)
	defer cancel()
	s.output.begin(ctx, j, a)
	s.log.begin(a.Log)

	current := partReader{stores: s.runner.stores}
	collection := bridgefour.NewCollection(&bridgefour.CollectionSpec{
		JobID:    j.wire.GetId(),
		Settings: j.wire.GetSettings(),
		Parts:    current.all(ctx, a.Parts),
		Output:   &s.output,
		Log:      &s.log,
	})
	records, kept, err := s.callCollect(ctx, collector, collection)
	current.close()
	out.InputBytes = current.bytes
	switch {
	case current.err != nil:
		s.finish(ctx, j, failed(wire.FailureKind_OUTPUT_ERROR, "%v", current.err), out)
	case err != nil && collection.OutputErr() != nil:
		s.finish(ctx, j, outputFailure(collection.OutputErr()), out)
	case err != nil:
		s.finish(ctx, j, jobFailure(err), out)
	case !kept:
		if err := s.output.discard(ctx); err != nil {
			s.finish(ctx, j, outputFailure(err), out)
			return
		}
		s.finish(ctx, j, nil, out)
	default:
		s.finishFile(ctx, j, records, out)
	}
}

func (s *Slot) callCollect(ctx context.Context, job bridgefour.Collector, c *bridgefour.Collection) (records uint64, kept bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.panicked(v)
		}
	}()
	return c.Run(ctx, job)
}

// partReader reads one part after another.
type partReader struct {
	ctx    context.Context //nolint:containedctx // of the attempt; io.Reader has none
	stores blob.Stores
	path   blob.Location
	file   io.ReadCloser
	bytes  uint64
	err    error // the first part that could not be read
}

func (r *partReader) all(ctx context.Context, parts iter.Seq2[Part, error]) iter.Seq2[bridgefour.PartSpec, error] {
	r.ctx = ctx
	return func(yield func(bridgefour.PartSpec, error) bool) {
		for part, err := range parts {
			r.close()
			if err != nil {
				yield(bridgefour.PartSpec{}, err)
				return
			}
			spec := bridgefour.PartSpec{Index: part.Index, Size: int64(part.Size), Records: part.Records, Name: string(part.Path)}
			if part.Size > 0 {
				r.path = part.Path
				spec.Source = r
			}
			if !yield(spec, nil) {
				return
			}
		}
	}
}

// Read opens the part at its first byte: a job need not read all parts.
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
