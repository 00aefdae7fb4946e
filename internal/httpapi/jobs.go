package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

// waitMax bounds ?wait=: proxies and NATs drop connections that are idle for longer.
const waitMax = 10 * time.Minute

// JobPath names a job. It is exported because huma skips unexported embedded types.
type JobPath struct {
	ID uint64 `path:"n" doc:"Number of the job" minimum:"1"`
}

type getJob struct {
	JobPath
	Wait string `query:"wait" doc:"Answer once the job has ended, or after this time; at most 10m" example:"30s"`
}

type listJobs struct {
	Status []string `query:"status" doc:"Only these, separated by commas" enum:"waiting,running,halted,done,failed,stopped"`
	User   string   `query:"user" doc:"Only of this user" maxLength:"100"`
	Limit  int      `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Cursor string   `query:"cursor" doc:"next of the previous page" maxLength:"200"`
}

func (a *API) addJobs() {
	a.addSubmit()
	addRead(a, operation(http.MethodGet, "/v1/jobs", "list-jobs", "jobs", "Jobs, newest first"),
		func(ctx context.Context, in *listJobs) (api.JobList, error) {
			page, err := a.leader.Jobs(ctx, api.JobQuery{Status: in.Status, User: in.User, Limit: in.Limit, Cursor: in.Cursor})
			page.Jobs = list(page.Jobs)
			return page, err
		})
	huma.Register(a.huma, describe[api.Job](a, operation(http.MethodGet, "/v1/jobs/{n}", "get-job", "jobs", "One job; can wait for its end")), a.getJob)
	addRemoval(a, operation(http.MethodDelete, "/v1/jobs/{n}", "forget-job", "jobs",
		"Forget a job that has ended, and its result, unless that was published in an output of its own"),
		func(ctx context.Context, in *JobPath) error { return a.leader.Forget(ctx, in.ID) })
	addChange(a, operation(http.MethodPost, "/v1/jobs/{n}/stop", "stop-job", "jobs", "Stop a job"),
		func(ctx context.Context, in *JobPath) error { return a.leader.Stop(ctx, in.ID) }, a.job)
	addChange(a, operation(http.MethodPost, "/v1/jobs/{n}/retry", "retry-job", "jobs",
		"Run dead tasks again, and done ones whose input file has changed, or whose output was kept on the cluster and is lost"),
		func(ctx context.Context, in *JobPath) error { return a.leader.Retry(ctx, in.ID) }, a.job)
}

func (a *API) getJob(ctx context.Context, in *getJob) (*answer, error) {
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.asProblem(ctx, err)
	}
	if wait > 0 {
		release, err := a.wait()
		if err != nil {
			return nil, a.asProblem(ctx, err)
		}
		defer release()
		if err := a.waitJob(ctx, in.ID, wait); err != nil {
			return nil, a.asProblem(ctx, err)
		}
	}
	out := &answer{Index: a.index()}
	if out.Body, err = a.job(ctx, &in.JobPath); err != nil {
		return nil, a.asProblem(ctx, err)
	}
	if wait > 0 {
		_, age, leader := a.leader.Status()
		out.Age, out.Leader = strconv.FormatInt(age, 10), strconv.FormatUint(leader, 10)
	}
	return out, nil
}

// job returns a job from memory.
func (a *API) job(ctx context.Context, in *JobPath) (api.Job, error) {
	job, ok := a.leader.Job(ctx, in.ID)
	if !ok {
		return job, api.NoJob(in.ID)
	}
	return job, nil
}

// waitJob returns nil once the job has ended or the time is up.
func (a *API) waitJob(ctx context.Context, id uint64, wait time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := a.leader.WaitJob(waiting, id)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return nil
	}
	return err
}

// parseWait parses ?wait=.
func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(s)
	if err != nil {
		return 0, api.Invalid("validation failed").With("query.wait", "expected a duration such as 30s or 2m", s)
	}
	if wait < 0 || wait > waitMax {
		return 0, api.Invalid("validation failed").With("query.wait", "expected 0s to 10m", s)
	}
	return wait, nil
}

// jobURL is the path of a job.
func jobURL(id uint64) string { return "/v1/jobs/" + strconv.FormatUint(id, 10) }
