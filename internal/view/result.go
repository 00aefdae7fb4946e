package view

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/layout"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/state"
)

// inMemoryMax bounds an output that is read into memory, so that it is read once, and the outputs of a job that are.
const inMemoryMax = 4 << 20

// resultPage is how many parts one visit to the state lists.
const resultPage = 4096

// Result writes the collected result of a job or, if there is none, its parts in task order.
func (r *Reader) Result(ctx context.Context, id uint64, w io.Writer) error {
	job, err := r.known(id)
	switch {
	case err != nil:
		return err
	case job.Status == api.JobDone:
	case job.Status == api.JobFailed:
		return api.Conflict("job %d has no result: it failed: %s", id, job.Error)
	case job.IsEnded():
		return api.Conflict("job %d has no result: it was stopped", id)
	default:
		return api.Conflict("job %d is %s: it has no result until it is done; wait for it", id, job.Status)
	}
	parts, err := r.partsOf(&job)
	if err != nil {
		return err
	}
	collected, err := parts.collected(ctx)
	if err != nil {
		return err
	}
	if collected.size > 0 {
		return parts.copy(ctx, w, &collected)
	}
	if _, local := parts.store.(*blob.Files); local {
		// First look at all: an error in the middle can only break the answer off. What is small is kept meanwhile.
		first := &limitedBuffer{}
		if err := parts.copyAll(ctx, first); err != nil {
			return err
		}
		if !first.over {
			_, err := w.Write(first.text)
			return err
		}
	}
	return parts.copyAll(ctx, w)
}

// limitedBuffer keeps what is written to it, up to inMemoryMax.
type limitedBuffer struct {
	text []byte
	over bool // it was more, and nothing is kept
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.over = b.over || len(b.text)+len(p) > inMemoryMax; b.over {
		b.text = nil
	} else {
		b.text = append(b.text, p...)
	}
	return len(p), nil
}

// partsOf returns the reader of a job's outputs.
func (r *Reader) partsOf(job *api.Job) (*resultParts, error) {
	store, output, err := r.stores.Open(job.Output)
	if err != nil {
		return nil, err
	}
	parts := &resultParts{reader: r, store: store, output: output, job: state.JobID(job.ID)}
	if job.Spool {
		parts.spool = job.Output
	}
	return parts, nil
}

// resultParts reads the outputs of tasks.
type resultParts struct {
	reader *Reader
	store  blob.Store
	output blob.Location
	job    state.JobID
	spool  string          // the job's folder in the spool; empty: the job names an output
	names  *partname.Names // of spec
	spec   *state.Spec     // nil before the first visit; its input may grow
	reads  bool            // each part is of a task that reads a part of the input
}

// resultFile is an output as its task has made it.
type resultFile struct {
	name           blob.Location // empty: that of the part of task
	stage          int
	task           uint64
	size, checksum uint64
}

// collected returns the file of the collected result; size 0: there is none, or it exceeded the limit.
func (r *resultParts) collected(ctx context.Context) (file resultFile, err error) {
	err = r.visit(ctx, func(job *state.Job) {
		for i, stage := range job.Stages {
			if stage.Role != state.RoleCollect {
				continue
			}
			if out, ok := stage.Output(0); ok && out.Size > 0 {
				file = r.file(job, i, 0, out)
			}
		}
	})
	return file, err
}

// visit calls f with the job in the goroutine that owns the state.
func (r *resultParts) visit(ctx context.Context, f func(*state.Job)) error {
	gone := false
	if err := r.reader.source.Do(ctx, func(c *leader.Controller) {
		job := c.Machine().Job(r.job)
		if gone = job == nil; !gone {
			if r.spec != job.Spec {
				r.names, r.spec, r.reads = partname.Of(job.Spec), job.Spec, job.Spec.Reads(job.Spec.PartStage())
			}
			f(job)
		}
	}); err != nil {
		return err
	}
	if gone {
		return api.NotFound("job %d no longer exists", r.job)
	}
	return nil
}

// file returns the file of a task's output: the published one or, in the spool, that of the attempt.
func (r *resultParts) file(job *state.Job, stage int, task uint64, out state.Output) resultFile {
	f := resultFile{stage: stage, task: task, size: out.Size, checksum: out.Checksum}
	switch {
	case job.Spec.Spool:
		f.name = r.output.Join(layout.Private(job.UID)).Join(layout.Attempt(job.Stages[stage].Name, task, uint64(out.Winner)))
	case job.Stages[stage].Role == state.RoleCollect:
		f.name = r.output.Join(layout.Result)
	}
	return f
}

// copyAll writes the parts in task order. Tasks without output have no file in the spool.
func (r *resultParts) copyAll(ctx context.Context, w io.Writer) error {
	for first, tasks := uint64(0), uint64(1); first < tasks; first += resultPage {
		var files []resultFile
		if err := r.visit(ctx, func(job *state.Job) {
			stage := job.Parts()
			tasks = stage.Tasks
			for i := first; i < min(first+resultPage, tasks); i++ {
				if out, ok := stage.Output(i); ok && out.Size > 0 {
					files = append(files, r.file(job, job.Spec.PartStage(), i, out))
				}
			}
		}); err != nil {
			return err
		}
		for i := range files {
			if err := r.copy(ctx, w, &files[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *resultParts) copy(ctx context.Context, w io.Writer, file *resultFile) (err error) {
	in, err := r.open(ctx, file, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if first, ok := w.(*limitedBuffer); ok && first.over {
		return nil // it was checked
	}
	_, err = io.Copy(w, in)
	return err
}

// open opens a task's output at an offset. Whoever owns the folder may have put a link there, to a file that only this leader can read: a
// local file must have the recorded checksum. It is read into memory for that if it is small, and otherwise again later.
func (r *resultParts) open(ctx context.Context, f *resultFile, offset int64) (io.ReadCloser, error) {
	if f.name == "" {
		name, err := r.names.Name(f.task)
		if err != nil {
			return nil, fmt.Errorf("result of job %d: %w", r.job, err)
		}
		f.name = r.output.Join(name)
	}
	file := f.name
	in, err := r.store.Open(ctx, file, offset)
	if local, ok := in.(blob.LocalFile); ok && err == nil {
		var text []byte
		if text, err = f.check(ctx, local); err == nil && text != nil {
			return io.NopCloser(bytes.NewReader(text[offset:])), in.Close()
		}
		if err == nil {
			_, err = local.Seek(offset, io.SeekStart)
		}
		if err != nil {
			err = errors.Join(err, in.Close())
		}
	}
	switch {
	case err == nil:
		return in, nil
	case r.spool != "" && (errors.Is(err, errChanged) || blob.IsReplaced(err)):
		return nil, api.Gone("%s is not what its task has written: it was changed or replaced since; a retry of job %d makes it again", file, r.job)
	case errors.Is(err, errChanged):
		return nil, api.NewProblem(410, "%s is not what job %d has published: it was changed or replaced since", file, r.job)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("result of job %d: %w", r.job, err)
	case r.spool != "":
		return nil, r.unreachable(file)
	}
	return nil, api.NewProblem(410, "%s is gone: it was removed after job %d published it", file, r.job)
}

var errChanged = errors.New("it has changed")

// check reads all of a local file and compares it with what the task has made. It returns the content of a small one; nil: it is not small.
func (f *resultFile) check(ctx context.Context, in io.ReadSeeker) (text []byte, err error) {
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if f.size <= inMemoryMax {
		text = make([]byte, 0, f.size)
	}
	digest, buf, size := xxhash.New(), make([]byte, min(f.size+1, 256<<10)), uint64(0)
	for {
		n, err := in.Read(buf)
		_, _ = digest.Write(buf[:n]) // cannot fail
		if text != nil {
			text = append(text, buf[:n]...)
		}
		switch size += uint64(n); {
		case size > f.size, errors.Is(err, io.EOF) && (size < f.size || digest.Sum64() != f.checksum):
			return nil, errChanged
		case errors.Is(err, io.EOF):
			return text, nil
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
	}
}

// unreachable is the error for a file that is missing in the spool: the leader that accepted the job may have another spool folder.
func (r *resultParts) unreachable(file blob.Location) error {
	node := "this leader"
	var others []string
	for _, l := range r.reader.source.Leaders().Leaders {
		switch {
		case !l.Self:
			others = append(others, fmt.Sprintf("leader %d at %s", l.ID, l.Address))
		case l.Address != "":
			node = fmt.Sprintf("leader %d (%s)", l.ID, l.Address)
		default:
			node = fmt.Sprintf("leader %d", l.ID)
		}
	}
	if len(others) == 0 {
		return api.Gone("%s is missing, or not reachable from %s: job %[4]d wrote it to the spool %[3]s; a retry of the job makes it again", file, node, r.spool, r.job)
	}
	return api.Gone("%s is not reachable from %s, whose spool is %s: job %d was accepted by a leader with another spool, or the file was removed. "+
		"Ask another leader (%s), give all leaders one --spool that they share, or submit with --output",
		file, node, r.reader.spool, r.job, strings.Join(others, ", "))
}
