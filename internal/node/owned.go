package node

import (
	"context"
	"io"
	"net/http"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
)

// Owned is a node as clients use it: it alone decides who sees what of a job, and who changes it. The principal in the context sees all of
// its own jobs, or of all jobs if it may operate. Of others it sees what outsiders shows.
type Owned struct{ *Node }

// owns returns a problem if a job belongs to another user, or is not known: one that is not published yet has no known owner.
func (o Owned) owns(ctx context.Context, id uint64, what string) error {
	who := access.From(ctx)
	job, ok := o.Node.Job(id)
	switch {
	case !ok:
		return api.NoJob(id)
	case who.Owns(job.User):
		return nil
	}
	err := api.NewProblem(http.StatusForbidden, "job %d belongs to user %q: %s is for that user and for operators, and %s", id, job.User, what, who)
	o.Refused(ctx, err)
	return err
}

// changes is owns for a change. This node may not have the job yet, because it was just elected, or because it was deposed and does not know it:
// before it says that there is no such job, it has everything that was acknowledged before the request.
func (o Owned) changes(ctx context.Context, id uint64, what string) error {
	if _, ok := o.Node.Job(id); !ok {
		if err := o.catchUp(ctx); err != nil {
			return err
		}
	}
	return o.owns(ctx, id, what)
}

// outsiders is what others see of a job. New fields are hidden from them unless they are added here.
func outsiders(j *api.Job) api.Job {
	return api.Job{
		ID: j.ID, Name: j.Name, User: j.User, Program: api.Program{Builtin: j.Program.Builtin}, Status: j.Status, Output: j.Output, Spool: j.Spool,
		Stages: j.Stages, Priority: j.Priority, Retries: j.Retries,
		InputBytes: j.InputBytes, ReadBytes: j.ReadBytes, OutputBytes: j.OutputBytes, Records: j.Records,
		Created: j.Created, Started: j.Started, Ended: j.Ended, After: j.After, Hidden: true,
	}
}

// outsidersTask is the same of a task.
func outsidersTask(t *api.Task) api.Task {
	return api.Task{
		Name: t.Name, Index: t.Index, Stage: t.Stage, Status: t.Status, Attempts: t.Attempts, Worker: t.Worker, Started: t.Started, Seconds: t.Seconds,
		Size: t.Size, Records: t.Records, Part: t.Part,
	}
}

// Job returns a job.
func (o Owned) Job(ctx context.Context, id uint64) (api.Job, bool) {
	job, ok := o.Node.Job(id)
	if ok && !access.From(ctx).Owns(job.User) {
		job = outsiders(&job)
	}
	return job, ok
}

// Jobs returns a page of jobs.
func (o Owned) Jobs(ctx context.Context, q api.JobQuery) (api.JobList, error) {
	list, err := o.Node.Jobs(q)
	who := access.From(ctx)
	for i := range list.Jobs {
		if job := &list.Jobs[i]; !who.Owns(job.User) {
			*job = outsiders(job)
		}
	}
	return list, err
}

// Tasks returns a page of tasks.
func (o Owned) Tasks(ctx context.Context, id uint64, q api.TaskQuery) (api.TaskList, error) {
	list, err := o.Node.Tasks(ctx, id, q)
	if job, _ := o.Node.Job(id); err == nil && !access.From(ctx).Owns(job.User) {
		for i := range list.Tasks {
			list.Tasks[i] = outsidersTask(&list.Tasks[i])
		}
	}
	return list, err
}

// Task returns a task with its failed attempts.
func (o Owned) Task(ctx context.Context, id uint64, stage string, index uint64) (api.Task, error) {
	task, err := o.Node.Task(ctx, id, stage, index)
	if job, _ := o.Node.Job(id); err == nil && !access.From(ctx).Owns(job.User) {
		task = outsidersTask(&task)
	}
	return task, err
}

// Explain explains a job or a task. An explanation has messages of programs.
func (o Owned) Explain(ctx context.Context, id uint64, stage string, index uint64) (api.Explanation, error) {
	if err := o.owns(ctx, id, "its explanation"); err != nil {
		return api.Explanation{}, err
	}
	return o.Node.Explain(ctx, id, stage, index)
}

// Result writes the result of an ended job.
func (o Owned) Result(ctx context.Context, id uint64, w io.Writer) error {
	if err := o.owns(ctx, id, "its result"); err != nil {
		return err
	}
	return o.Node.Result(ctx, id, w)
}

// StreamParts emits the outputs of a job's tasks.
func (o Owned) StreamParts(ctx context.Context, q api.PartQuery, emit func(api.Part) error) error {
	if err := o.owns(ctx, q.Job, "its result"); err != nil {
		return err
	}
	return o.Node.StreamParts(ctx, q, emit)
}

// Joblog writes a line for each settled task of a job.
func (o Owned) Joblog(ctx context.Context, id uint64, w io.Writer) error {
	if err := o.owns(ctx, id, "its job log"); err != nil {
		return err
	}
	return o.Node.Joblog(ctx, id, w)
}

// Times returns the run times of a job's tasks.
func (o Owned) Times(ctx context.Context, id uint64, slowest int) (api.Times, error) {
	times, err := o.Node.Times(ctx, id, slowest)
	if job, _ := o.Node.Job(id); err == nil && !access.From(ctx).Owns(job.User) {
		for i := range times.Slowest {
			times.Slowest[i] = outsidersTask(&times.Slowest[i])
		}
	}
	return times, err
}

// Logs emits the log of a job or a task.
func (o Owned) Logs(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error {
	if err := o.owns(ctx, q.Job, "its log"); err != nil {
		return err
	}
	return o.Node.Logs(ctx, q, emit)
}

// Stop stops a job.
func (o Owned) Stop(ctx context.Context, id uint64) error {
	if err := o.changes(ctx, id, "stopping it"); err != nil {
		return err
	}
	return o.Node.Stop(ctx, id)
}

// Forget removes an ended job.
func (o Owned) Forget(ctx context.Context, id uint64) error {
	if err := o.changes(ctx, id, "removing it"); err != nil {
		return err
	}
	return o.Node.Forget(ctx, id)
}

// Pin keeps a job whatever the retention is, or ends that.
func (o Owned) Pin(ctx context.Context, id uint64, pinned bool) error {
	if err := o.changes(ctx, id, "keeping it"); err != nil {
		return err
	}
	return o.Node.Pin(ctx, id, pinned)
}

// Retry runs the dead tasks of a job again.
func (o Owned) Retry(ctx context.Context, id uint64) error {
	if err := o.changes(ctx, id, "retrying it"); err != nil {
		return err
	}
	return o.Node.Retry(ctx, id)
}

// AddLeader invites the fresh node at address.
func (o Owned) AddLeader(ctx context.Context, address string) (api.LeaderNode, error) {
	l, err := o.Node.AddLeader(ctx, address)
	o.audited(ctx, err)
	return l, err
}

// RemoveLeader removes a leader.
func (o Owned) RemoveLeader(ctx context.Context, id uint64, force bool) error {
	err := o.Node.RemoveLeader(ctx, id, force)
	o.audited(ctx, err)
	return err
}

// InviteWorker invites the idle worker at address.
func (o Owned) InviteWorker(ctx context.Context, address string, id *uint64) (api.Worker, error) {
	w, err := o.Node.InviteWorker(ctx, address, id)
	o.audited(ctx, err)
	return w, err
}

// Events emits the events after a position. Details of a job other than its name are errors and messages of programs. Audit records are
// for admins.
func (o Owned) Events(ctx context.Context, after api.Position, emit func(api.Event) error) error {
	who := access.From(ctx)
	return o.Node.Events(ctx, after, func(e api.Event) error {
		if e.Type == api.EventAudited && who.Permissions&access.Manage == 0 {
			return nil
		}
		if e.Type == api.EventLockLost && !who.Owns(e.User) { // it names the holder
			e.Detail = ""
		}
		if e.Job != 0 && e.Type != api.EventJobSubmitted && e.Detail != "" {
			if job, _ := o.Node.Job(e.Job); !who.Owns(job.User) {
				e.Detail = ""
			}
		}
		return emit(e)
	})
}
