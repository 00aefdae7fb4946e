package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/api"
)

type listTasks struct {
	JobPath
	Stage  string `query:"stage" doc:"Only tasks of this stage" maxLength:"100"`
	Status string `query:"status" enum:"open,running,done,dead"`
	Limit  int    `query:"limit" default:"1000" minimum:"1" maximum:"10000"`
	Cursor string `query:"cursor" doc:"next of the previous page" maxLength:"200"`
}

// TaskPath names a task.
type TaskPath struct {
	JobPath
	Stage string `path:"stage" maxLength:"100" example:"map"`
	Index uint64 `path:"i"`
}

type getTimes struct {
	JobPath
	Slowest int `query:"slowest" doc:"Number of slowest tasks to list" default:"0" minimum:"0" maximum:"1000"`
}

type explain struct {
	JobPath
	Task string `query:"task" doc:"STAGE/INDEX or JOB/STAGE/INDEX: explain this task" example:"map/7" maxLength:"200"`
}

func (a *API) addTasks() {
	addRead(a, a.onLeader(operation(http.MethodGet, "/v1/jobs/{n}/tasks", "list-tasks", "jobs", "Tasks of a job, in index order")),
		func(ctx context.Context, in *listTasks) (api.TaskList, error) {
			page, err := a.leader.Tasks(ctx, in.ID, api.TaskQuery{Stage: in.Stage, Status: in.Status, Limit: in.Limit, Cursor: in.Cursor})
			page.Tasks = list(page.Tasks)
			return page, err
		})
	addRead(a, a.onLeader(operation(http.MethodGet, "/v1/jobs/{n}/tasks/{stage}/{i}", "get-task", "jobs", "One task with its failed attempts")),
		func(ctx context.Context, in *TaskPath) (api.Task, error) {
			return a.leader.Task(ctx, in.ID, in.Stage, in.Index)
		})
	addRead(a, operation(http.MethodGet, "/v1/jobs/{n}/times", "get-times", "jobs", "Run times of the done tasks, and the slowest of them"),
		func(ctx context.Context, in *getTimes) (api.Times, error) {
			return a.leader.Times(ctx, in.ID, in.Slowest)
		})
	addRead(a, a.onLeader(operation(http.MethodGet, "/v1/jobs/{n}/explain", "explain", "jobs",
		"Why a job or task is waiting, slow, halted or failed, and what would help")), a.explain)
}

func (a *API) explain(ctx context.Context, in *explain) (e api.Explanation, err error) {
	var stage string
	var task uint64
	if in.Task != "" {
		if stage, task, err = parseTask(in.ID, in.Task); err != nil {
			return e, err
		}
	}
	e, err = a.leader.Explain(ctx, in.ID, stage, task)
	e.Reasons = list(e.Reasons)
	return e, err
}

// parseTask parses STAGE/INDEX, or JOB/STAGE/INDEX of this job.
func parseTask(job uint64, s string) (stage string, index uint64, err error) {
	invalid := func(message string) error {
		return api.Invalid("validation failed").With("query.task", message, s)
	}
	name := s
	if strings.Count(s, "/") == 2 {
		number, rest, _ := strings.Cut(s, "/")
		if number != strconv.FormatUint(job, 10) {
			return "", 0, invalid("task of another job")
		}
		name = rest
	}
	stage, number, _ := strings.Cut(name, "/")
	index, err = strconv.ParseUint(number, 10, 64)
	if stage == "" || err != nil {
		return "", 0, invalid("expected STAGE/INDEX, such as map/7")
	}
	return stage, index, nil
}
