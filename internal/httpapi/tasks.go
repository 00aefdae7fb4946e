package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

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
	huma.Register(a.huma, a.onLeader(operation(http.MethodGet, "/v1/jobs/{n}/tasks", "list-tasks", "jobs",
		"Tasks of a job, in index order")), a.listTasks)
	huma.Register(a.huma, a.onLeader(operation(http.MethodGet, "/v1/jobs/{n}/tasks/{stage}/{i}", "get-task", "jobs",
		"One task with its failed attempts")), a.getTask)
	huma.Register(a.huma, operation(http.MethodGet, "/v1/jobs/{n}/times", "get-times", "jobs", "Run times of the done tasks, and the slowest of them"), a.times)
	huma.Register(a.huma, a.onLeader(operation(http.MethodGet, "/v1/jobs/{n}/explain", "explain", "jobs",
		"Why a job or task is waiting, slow, halted or failed, and what would help")), a.explain)
}

func (a *API) listTasks(ctx context.Context, in *listTasks) (*answer[api.TaskList], error) {
	index := a.index()
	list, err := a.leader.Tasks(ctx, in.ID, api.TaskQuery{
		Stage: in.Stage, Status: in.Status, Limit: in.Limit, Cursor: in.Cursor,
	})
	if err != nil {
		return nil, a.asProblem(ctx, err)
	}
	if list.Tasks == nil {
		list.Tasks = []api.Task{}
	}
	return &answer[api.TaskList]{Index: index, Body: list}, nil
}

func (a *API) getTask(ctx context.Context, in *TaskPath) (*answer[api.Task], error) {
	index := a.index()
	task, err := a.leader.Task(ctx, in.ID, in.Stage, in.Index)
	if err != nil {
		return nil, a.asProblem(ctx, err)
	}
	return &answer[api.Task]{Index: index, Body: task}, nil
}

func (a *API) times(ctx context.Context, in *getTimes) (*answer[api.Times], error) {
	index := a.index()
	times, err := a.leader.Times(ctx, in.ID, in.Slowest)
	if err != nil {
		return nil, a.asProblem(ctx, err)
	}
	return &answer[api.Times]{Index: index, Body: times}, nil
}

func (a *API) explain(ctx context.Context, in *explain) (*answer[api.Explanation], error) {
	var stage string
	var task uint64
	if in.Task != "" {
		var err error
		if stage, task, err = parseTask(in.ID, in.Task); err != nil {
			return nil, a.asProblem(ctx, err)
		}
	}
	index := a.index()
	explanation, err := a.leader.Explain(ctx, in.ID, stage, task)
	if err != nil {
		return nil, a.asProblem(ctx, err)
	}
	if explanation.Reasons == nil {
		explanation.Reasons = []string{}
	}
	return &answer[api.Explanation]{Index: index, Body: explanation}, nil
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
