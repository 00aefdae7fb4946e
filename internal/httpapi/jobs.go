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

// answer is a body with its log position.
type answer[T any] struct {
	Index uint64 `header:"X-Bridgefour-Index" doc:"Log position that the answer reflects"`
	// Set by handlers that have waited; otherwise ServeHTTP has set them.
	Age    string `header:"X-Bridgefour-Age" doc:"Milliseconds since this node heard from the leader; 0 on the leader"`
	Leader string `header:"X-Bridgefour-Leader" doc:"Number of the leader"`
	Body   T
}

func (a *API) addJobs() {
	a.addSubmit()
	huma.Register(a.huma, operation(http.MethodGet, "/v1/jobs", "list-jobs", "jobs", "Jobs, newest first"), a.listJobs)
	huma.Register(a.huma, operation(http.MethodGet, "/v1/jobs/{n}", "get-job", "jobs", "One job; can wait for its end"), a.getJob)
	huma.Register(a.huma, operation(http.MethodDelete, "/v1/jobs/{n}", "forget-job", "jobs",
		"Forget a job that has ended, and its result, unless that was published in an output of its own"),
		func(ctx context.Context, in *JobPath) (*removed, error) {
			if err := a.leader.Forget(ctx, in.ID); err != nil {
				return nil, a.asProblem(ctx, err)
			}
			return &removed{Index: a.index()}, nil
		})
	huma.Register(a.huma, operation(http.MethodPost, "/v1/jobs/{n}/stop", "stop-job", "jobs", "Stop a job"),
		func(ctx context.Context, in *JobPath) (*answer[api.Job], error) {
			return a.change(ctx, in.ID, a.leader.Stop)
		})
	huma.Register(a.huma, operation(http.MethodPost, "/v1/jobs/{n}/retry", "retry-job", "jobs",
		"Run dead tasks again, and done ones whose input file has changed"),
		func(ctx context.Context, in *JobPath) (*answer[api.Job], error) {
			return a.change(ctx, in.ID, a.leader.Retry)
		})
}

// operation describes a typed route.
func operation(method, path, id, tag, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Tags: []string{tag}, Summary: summary}
}

func (a *API) listJobs(ctx context.Context, in *listJobs) (*answer[api.JobList], error) {
	index := a.index()
	list, err := a.leader.Jobs(ctx, api.JobQuery{Status: in.Status, User: in.User, Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, a.asProblem(ctx, err)
	}
	if list.Jobs == nil {
		list.Jobs = []api.Job{}
	}
	return &answer[api.JobList]{Index: index, Body: list}, nil
}

func (a *API) getJob(ctx context.Context, in *getJob) (*answer[api.Job], error) {
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, a.asProblem(ctx, err)
	}
	if wait == 0 {
		return a.jobNow(ctx, in.ID)
	}
	release, err := a.wait()
	if err != nil {
		return nil, a.asProblem(ctx, err)
	}
	defer release()
	if err := a.waitJob(ctx, in.ID, wait); err != nil {
		return nil, a.asProblem(ctx, err)
	}
	out, err := a.jobNow(ctx, in.ID)
	if err == nil {
		_, age, leader := a.leader.Status()
		out.Age, out.Leader = strconv.FormatInt(age, 10), strconv.FormatUint(leader, 10)
	}
	return out, err
}

// jobNow answers with a job from memory.
func (a *API) jobNow(ctx context.Context, id uint64) (*answer[api.Job], error) {
	index := a.index()
	job, ok := a.leader.Job(ctx, id)
	if !ok {
		return nil, a.asProblem(ctx, api.NoJob(id))
	}
	return &answer[api.Job]{Index: index, Body: job}, nil
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

// change does a write and answers with the job after it.
func (a *API) change(ctx context.Context, id uint64, write func(context.Context, uint64) error) (*answer[api.Job], error) {
	if err := write(ctx, id); err != nil {
		return nil, a.asProblem(ctx, err)
	}
	return a.jobNow(ctx, id)
}

// jobURL is the path of a job.
func jobURL(id uint64) string { return "/v1/jobs/" + strconv.FormatUint(id, 10) }
