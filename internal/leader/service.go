package leader

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Submit plans the job and adds it to the log. The planning reads the input's folders; it happens in the caller's goroutine.
func (l *Leader) Submit(ctx context.Context, req *api.JobRequest, key string) (api.Job, error) {
	if err := l.acceptsWrites(ctx); err != nil {
		return api.Job{}, err
	}
	again, err := l.submitted(ctx, key)
	if err != nil {
		return api.Job{}, err
	}
	planned, err := plan.Plan(ctx, req, plan.Options{Builtins: l.cfg.Builtins, Again: again})
	if bad, ok := errors.AsType[plan.Errors](err); ok {
		p := api.Invalid("the job cannot be run as it is")
		for _, e := range bad {
			p = p.With("body."+e.Field, e.Message, nil)
		}
		return api.Job{}, p
	}
	if err != nil {
		return api.Job{}, err
	}
	uid := newID()
	spec := l.spec(req, &planned, uid)
	if key == "" {
		key = newID()
	}
	e, err := l.ask(ctx, jobKey(key), func(entry *state.Entry) { entry.Submit(jobKey(key), uid, spec) })
	if err != nil {
		return api.Job{}, err
	}
	job, err := l.known(e.Job)
	job.Warnings = planned.Warnings
	return job, err
}

// jobKey keeps clients' keys apart from the leader's own.
func jobKey(key string) string { return "job/" + key }

// submitted reports whether a job was submitted with this key before.
func (l *Leader) submitted(ctx context.Context, key string) (again bool, err error) {
	if key == "" {
		return false, nil
	}
	err = l.do(ctx, func() { again = l.loop.node.Machine().Submitted(jobKey(key)) })
	return again, err
}

// newID is 16 random bytes in hexadecimal digits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, or ends the process
	return hex.EncodeToString(b[:])
}

// spec is what the log keeps of a planned request.
func (l *Leader) spec(req *api.JobRequest, p *plan.Result, uid string) *state.Spec {
	s := &state.Spec{
		Name: req.Name, User: req.User, Builtin: req.Program.Builtin, Input: p.Input, InputNames: req.Inputs, Output: p.Output,
		Overwrite: req.Overwrite, KeepPartial: req.KeepPartial, FirstSuccess: req.FirstSuccess, Collect: p.Collects,
		Settings: req.Set, Dir: req.Dir, Retries: p.Retries, Priority: p.Priority, SlotsPerTask: p.SlotsPerTask,
		TimeoutMS: uint64(p.Timeout.Milliseconds()), Memory: p.Memory, Labels: req.Labels,
	}
	for _, a := range req.Program.Command {
		s.Argv = append(s.Argv, []byte(a))
	}
	if s.Output == "" {
		s.Spool, s.Output = true, path.Join(l.cfg.Spool, uid)
	}
	if s.Name == "" {
		s.Name = s.Builtin
		if len(req.Program.Command) > 0 {
			s.Name = path.Base(req.Program.Command[0])
		}
	}
	return s
}

// known is the view of a job that the log has just named.
func (l *Leader) known(id state.JobID) (api.Job, error) {
	if job, ok := l.views.job(uint64(id)); ok {
		return job, nil
	}
	return api.Job{}, api.NotFound("there is no job %d", id)
}

// Stop ends a job early.
func (l *Leader) Stop(ctx context.Context, id uint64) (api.Job, error) {
	return l.jobCommand(ctx, id, (*state.Entry).Stop)
}

// Retry runs again what failed of a job.
func (l *Leader) Retry(ctx context.Context, id uint64) (api.Job, error) {
	return l.jobCommand(ctx, id, (*state.Entry).Retry)
}

func (l *Leader) jobCommand(ctx context.Context, id uint64, add func(e *state.Entry, key string, job state.JobID)) (api.Job, error) {
	key := newID()
	e, err := l.ask(ctx, key, func(entry *state.Entry) { add(entry, key, state.JobID(id)) })
	if err != nil {
		return api.Job{}, err
	}
	return l.known(e.Job)
}

// Job is a job as it was last published.
func (l *Leader) Job(id uint64) (api.Job, bool) { return l.views.job(id) }

// Jobs is a page of jobs.
func (l *Leader) Jobs(q api.JobQuery) (api.JobList, error) {
	before := uint64(math.MaxUint64)
	if q.Cursor != "" {
		var err error
		if before, err = strconv.ParseUint(q.Cursor, 10, 64); err != nil {
			return api.JobList{}, api.Invalid("cursor %q is not one of ours: pass the next of an earlier page", q.Cursor)
		}
	}
	list := api.JobList{Jobs: []api.Job{}}
	const chunk = 256
	for {
		jobs := l.views.before(before, chunk)
		for i := range jobs {
			if len(list.Jobs) == q.Limit {
				list.Next = strconv.FormatUint(before, 10)
				return list, nil
			}
			before = jobs[i].ID
			if len(q.Status) == 0 || slices.Contains(q.Status, jobs[i].Status) {
				list.Jobs = append(list.Jobs, jobs[i])
			}
		}
		if len(jobs) < chunk {
			return list, nil
		}
	}
}

// WaitJob returns when the job has ended. It goes on whoever leads.
func (l *Leader) WaitJob(ctx context.Context, id uint64) error {
	return l.wait(ctx, l.views.news, func() (bool, error) {
		job, ok := l.views.job(id)
		if !ok {
			return false, api.NotFound("there is no job %d", id)
		}
		return job.IsEnded(), nil
	})
}

// WaitIndex returns when the views reflect at least index. They are published at once when they do.
func (l *Leader) WaitIndex(ctx context.Context, index uint64) error {
	if l.views.index.Load() >= index {
		return nil
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	if err := l.do(ctx, func() {}); err != nil { // the loop may have it, and not know that anybody waits
		return err
	}
	return l.wait(ctx, l.views.news, func() (bool, error) { return l.views.index.Load() >= index, nil })
}

// wait looks at each news until done says so.
func (l *Leader) wait(ctx context.Context, news *news, done func() (bool, error)) error {
	for {
		next := news.next()
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.stopped:
			return l.stopping()
		}
	}
}

// Cluster is the cluster's health.
func (l *Leader) Cluster() api.Cluster {
	view, members, status := l.views.cluster.Load(), l.members.Load(), l.cfg.Log.Status()
	c := view.cluster
	c.ID, c.Node, c.Leader, c.Leaders, c.Term, c.Index = members.Cluster, status.ID, status.LeaderID, len(members.List), status.Term, l.views.index.Load()
	switch why := l.notReady.Load(); {
	case l.leading.Load():
		if why != nil {
			c.NotReady = *why
		}
	case !l.hasBegun():
		c.NotReady = "the leader is starting"
	case status.LeaderID == 0:
		c.NotReady = "no leader is known: an election is under way, or no majority of the leaders can be reached"
	case status.Leader:
		c.NotReady = "this node was elected just now"
	default:
		c.NotReady = view.notReady
	}
	return c
}

// Workers are all workers, by number, and then those that wait to be invited.
func (l *Leader) Workers() []api.Worker {
	workers := l.views.cluster.Load().workers
	return append(slices.Clip(workers), l.idleWorkers()...)
}

// Worker is one worker.
func (l *Leader) Worker(id uint64) (api.Worker, bool) {
	for _, w := range l.views.cluster.Load().workers {
		if w.ID == id {
			return w, true
		}
	}
	return api.Worker{}, false
}

// DrainWorker has a worker finish what it runs and take nothing new.
func (l *Leader) DrainWorker(ctx context.Context, id uint64) (api.Worker, error) {
	before, known := l.Worker(id)
	if err := l.setWorker(ctx, id, state.WorkerDraining); err != nil {
		return api.Worker{}, err
	}
	w, ok := l.Worker(id)
	switch {
	case ok:
		return w, nil
	case known: // it held nothing, and has left already
		before.Status = state.WorkerDraining.String()
		return before, nil
	}
	return w, api.NotFound("there is no worker %d any more", id)
}

// RemoveWorker forgets a worker. Its attempts go to others.
func (l *Leader) RemoveWorker(ctx context.Context, id uint64) error {
	return l.setWorker(ctx, id, state.WorkerRemoved)
}

func (l *Leader) setWorker(ctx context.Context, id uint64, status state.WorkerStatus) error {
	key := newID()
	_, err := l.ask(ctx, key, func(e *state.Entry) { e.SetWorker(key, state.WorkerID(id), status) })
	return err
}

// Status is the log position that reads reflect, their age, and the leader's id.
func (l *Leader) Status() (index uint64, ageMillis int64, leader uint64) {
	status := l.cfg.Log.Status()
	if !l.leading.Load() {
		heard := status.Heard
		if heard.IsZero() {
			heard = l.born
		}
		ageMillis = max(0, time.Since(heard).Milliseconds())
	}
	return l.views.index.Load(), ageMillis, status.LeaderID
}
