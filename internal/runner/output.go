package runner

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/program"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// path returns the location of the attempt's file.
func (a *Attempt) path(folder blob.Location) blob.Location {
	return folder.Join(layout.Attempt(a.StageName, a.Index, a.Lease))
}

// final returns the location at which a commit publishes the attempt's file if it wins. It is empty if the file is never
// published, if a later stage reads it before, or if the leader is too old to send the number of tasks.
func (a *Attempt) final(j *jobState) blob.Location {
	plan := wire.PlanOf(a.Job)
	if a.Job.GetSpool() || a.Stage >= uint64(len(plan)) {
		return ""
	}
	for _, later := range plan {
		if later.GetRole() != wire.StageRole_STAGE_COMMIT && slices.Contains(later.GetFrom(), uint32(a.Stage)) {
			return ""
		}
	}
	switch tasks := plan[a.Stage].GetTasks(); {
	case a.collects():
		return j.output.Join(layout.Result)
	case tasks > 0:
		return j.output.Join(layout.Part(a.Index, tasks))
	}
	return ""
}

// attemptFile is the output of an attempt. It is created by the first Write, which also computes the checksum.
type attemptFile struct {
	ctx     context.Context //nolint:containedctx // of the attempt; io.Writer has none
	job     *jobState
	attempt *Attempt
	path    blob.Location // empty: not created
	writer  blob.Writer   // nil: not created, or discarded
	size    uint64
	digest  xxhash.Digest
	err     error // the first one of Write
}

func (f *attemptFile) begin(ctx context.Context, j *jobState, a *Attempt) {
	f.ctx, f.job, f.attempt = ctx, j, a
	f.path, f.writer, f.size, f.err = "", nil, 0, nil
}

func (f *attemptFile) create() error {
	// The job of an attempt that is stopped may have ended, and its folder must not come again.
	if cause := context.Cause(f.ctx); cause != nil && !errors.Is(cause, program.ErrTimeout) {
		return cause
	}
	path := f.attempt.path(f.job.folder)
	writer, err := f.job.store.Create(f.ctx, path, f.attempt.final(f.job))
	if err != nil {
		return err
	}
	f.path, f.writer = path, writer
	f.digest.Reset()
	return nil
}

// Write appends p. After an error all calls have it.
func (f *attemptFile) Write(p []byte) (n int, err error) {
	if f.err != nil {
		return 0, f.err
	}
	n, f.err = f.write(p)
	return n, f.err
}

func (f *attemptFile) write(p []byte) (int, error) {
	switch {
	case f.path == "":
		if err := f.create(); err != nil {
			return 0, err
		}
	case f.writer == nil:
		return 0, fs.ErrClosed
	}
	n, err := f.writer.Write(p)
	_, _ = f.digest.Write(p[:n]) // never fails
	f.size += uint64(n)
	return n, err
}

// finish ends the file and fills in out. Unless the job is spooled, an empty output is a file too: it becomes an empty part.
func (f *attemptFile) finish(records uint64, out *Outcome) error {
	if f.path == "" {
		if f.attempt.Job.GetSpool() {
			return nil
		}
		if err := f.create(); err != nil {
			return err
		}
	}
	if err := f.writer.Prepare(); err != nil {
		return err
	}
	out.File, out.Size, out.Records, out.Checksum = f.path, f.size, records, f.digest.Sum64()
	return nil
}

// discard removes the file.
func (f *attemptFile) discard(ctx context.Context) error {
	if f.writer == nil {
		return nil
	}
	f.writer.Abort()
	f.writer = nil
	return f.job.store.Remove(context.WithoutCancel(ctx), f.path) // if it was ended already
}

func countLines(p []byte) uint64 { return uint64(bytes.Count(p, []byte{'\n'})) }
