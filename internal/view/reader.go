package view

import (
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Source is the node whose state is read.
type Source interface {
	// Do runs f in the goroutine that owns the state. f must be quick: it stops everything else.
	Do(ctx context.Context, f func(*leader.Controller)) error
	// DoLeading is Do on the leader, which alone has the core. On a follower it returns an error that names the leader.
	DoLeading(ctx context.Context, f func(*state.Machine, *leader.Core)) error
	// WritesRefused says why the leader refuses writes; empty: it accepts them.
	WritesRefused() string
	Leaders() api.LeaderList
}

// Reader serves the reads of a node.
type Reader struct {
	views  *Views
	source Source
	stores blob.Stores
	spool  string
}

// NewReader returns a reader of views, of the state of source, whose spool folder is spool, and of outputs in stores.
func NewReader(views *Views, source Source, stores blob.Stores, spool string) *Reader {
	return &Reader{views: views, source: source, stores: stores, spool: spool}
}

// Job returns a job as it was last published.
func (r *Reader) Job(id uint64) (api.Job, bool) { return r.views.Job(id) }

// known is Job with an error for an unknown job.
func (r *Reader) known(id uint64) (api.Job, error) {
	job, ok := r.views.Job(id)
	if !ok {
		return api.Job{}, api.NoJob(id)
	}
	return job, nil
}

// Jobs returns a page of jobs.
func (r *Reader) Jobs(q api.JobQuery) (api.JobList, error) {
	before := uint64(math.MaxUint64)
	if q.Cursor != "" {
		var err error
		if before, err = strconv.ParseUint(q.Cursor, 10, 64); err != nil {
			return api.JobList{}, badCursor(q.Cursor)
		}
	}
	list := api.JobList{Jobs: []api.Job{}}
	const chunk = 256
	for bytes := 0; ; {
		jobs := r.views.before(before, chunk)
		for i := range jobs {
			if len(list.Jobs) == q.Limit || bytes > pageBytesMax {
				list.Next = strconv.FormatUint(before, 10)
				return list, nil
			}
			before = jobs[i].ID
			if (len(q.Status) == 0 || slices.Contains(q.Status, jobs[i].Status)) && (q.User == "" || q.User == jobs[i].User) {
				list.Jobs = append(list.Jobs, jobs[i])
				bytes += textBytes(&jobs[i])
			}
		}
		if len(jobs) < chunk {
			return list, nil
		}
	}
}

// textBytes is the size of the texts of a job that users may make long.
func textBytes(j *api.Job) (n int) {
	n += len(j.Program.Shell)
	for _, list := range [][]string{j.Inputs, j.Program.Command, j.Env, j.Secrets} {
		for _, s := range list {
			n += len(s)
		}
	}
	for k, v := range j.Set {
		n += len(k) + len(v)
	}
	return n
}

func badCursor(cursor string) error {
	return api.Invalid("invalid cursor %q: want the next of an earlier page", cursor)
}

// WaitJob returns when the job has ended. It survives changes of leader.
func (r *Reader) WaitJob(ctx context.Context, id uint64) error {
	return r.views.changed.Wait(ctx, func() (bool, error) {
		job, err := r.known(id)
		return err == nil && job.IsEnded(), err
	})
}

// WaitIndex returns when the views reflect at least index. While readers wait, each change is published at once.
func (r *Reader) WaitIndex(ctx context.Context, index uint64) error {
	if r.views.Index() >= index {
		return nil
	}
	r.views.waiting.Add(1)
	defer r.views.waiting.Add(-1)
	if err := r.source.Do(ctx, func(*leader.Controller) {}); err != nil { // wake the publisher, which may be at that state already
		return err
	}
	return r.views.changed.Wait(ctx, func() (bool, error) { return r.views.Index() >= index, nil })
}

// scan runs f with a job, on the leader, in the goroutine that owns the state.
func (r *Reader) scan(ctx context.Context, id uint64, f func(*state.Job, *state.Machine, *leader.Core)) error {
	found := false
	if err := r.source.DoLeading(ctx, func(m *state.Machine, c *leader.Core) {
		if job := m.Job(state.JobID(id)); job != nil {
			found = true
			f(job, m, c)
		}
	}); err != nil {
		return err
	}
	if !found {
		return api.NoJob(id)
	}
	return nil
}
