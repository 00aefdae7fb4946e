package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/api"
)

// compatTasksMax bounds the tasks in one answer: the original's answers list every task, and ours may have millions.
const compatTasksMax = api.TaskLimitMax

// jobDetails is the original's JobDetails.
type jobDetails struct {
	JobID            uint64       `json:"jobId"`
	JobConfig        jobConfig    `json:"jobConfig"`
	ExecutionStatus  typed        `json:"executionStatus"`
	AssignmentStatus typed        `json:"assignmentStatus"`
	AssignedTasks    []compatTask `json:"assignedTasks"`
	OpenTasks        []compatTask `json:"openTasks"`
	CompletedTasks   []compatTask `json:"completedTasks"`
}

type jobConfig struct {
	ID           uint64            `json:"id"`
	Name         string            `json:"name"`
	JobClass     string            `json:"jobClass"`
	Input        string            `json:"input"`
	Output       string            `json:"output"`
	UserSettings map[string]string `json:"userSettings"`
}

// compatTask is an assigned task, or, without ids, an open one.
type compatTask struct {
	TaskID       *compatTaskID     `json:"taskId,omitempty"`
	SlotID       *compatSlotID     `json:"slotId,omitempty"`
	Input        string            `json:"input"`
	Output       string            `json:"output"`
	JobClass     string            `json:"jobClass"`
	UserSettings map[string]string `json:"userSettings"`
}

type compatTaskID struct {
	ID    uint64 `json:"id"`
	JobID uint64 `json:"jobId"`
}

type compatSlotID struct {
	ID       uint64 `json:"id"`
	WorkerID uint64 `json:"workerId"`
}

// addCompat registers the original system's routes.
func (a *API) addCompat() {
	const tag = "original"
	// These list the tasks.
	a.forwarded["GET /job/list"], a.forwarded["GET /job/{n}"] = true, true
	for _, r := range []struct {
		method, path, summary string
		handle                func(*http.Request) (any, error)
	}{
		{http.MethodGet, "/job/status/{n}", "Execution status of a job", a.compatStatus},
		{http.MethodGet, "/status/{n}", "Execution status of a job", a.compatStatus},
		{http.MethodGet, "/job/data/{n}", "Collected result, or the status while it is not done", a.compatData},
		{http.MethodGet, "/data/{n}", "Collected result, or the status while it is not done", a.compatData},
		{http.MethodGet, "/job/list", "Jobs that are not over", a.compatList},
		{http.MethodGet, "/job/{n}", "JobDetails", a.compatJob},
		{http.MethodPut, "/job/stop/{n}", "Stop a job", a.compatStop},
		{http.MethodPut, "/stop/{n}", "Stop a job", a.compatStop},
		{http.MethodGet, "/cluster", "Cluster state", a.compatCluster},
		{http.MethodDelete, "/cluster/removeWorker/{w}", "Forget a worker: true, or false where there is none", a.compatRemoveWorker},
		{http.MethodGet, "/raft/state", "Election state", a.compatRaft},
	} {
		a.plain(route{method: r.method, path: r.path, tag: tag, summary: r.summary}, r.handle)
	}
	for _, path := range []string{"/job/start", "/start"} {
		a.describe(route{method: http.MethodPost, path: path, tag: tag, summary: "Submit a job"})
		a.mux.HandleFunc("POST "+path, a.compatStart)
	}
	a.describe(route{method: http.MethodPost, path: "/cluster/addWorker", tag: tag, summary: "Invite an idle worker: WorkerState"})
	a.mux.HandleFunc("POST /cluster/addWorker", a.compatAddWorker)
}

// pathNumber reads a number of the path. What is no number names nothing: the original's answer to that is 404.
func pathNumber(r *http.Request, name string) (uint64, error) {
	n, err := strconv.ParseUint(r.PathValue(name), 10, 64)
	if err == nil {
		return n, nil
	}
	if _, negative := strings.CutPrefix(r.PathValue(name), "-"); negative {
		return 0, nil // a number, but nobody's
	}
	return 0, api.NotFound("%q is not a number", r.PathValue(name))
}

// compatJobOf is the job that the path names; false: Missing.
func (a *API) compatJobOf(r *http.Request) (api.Job, bool, error) {
	id, err := pathNumber(r, "n")
	if err != nil {
		return api.Job{}, false, err
	}
	job, ok := a.leader.Job(id)
	return job, ok, nil
}

func (a *API) compatStatus(r *http.Request) (any, error) {
	job, ok, err := a.compatJobOf(r)
	if err != nil || !ok {
		return typed{missing}, err
	}
	return executionStatus(&job), nil
}

func (a *API) compatJob(r *http.Request) (any, error) {
	job, ok, err := a.compatJobOf(r)
	if err != nil || !ok {
		return typed{missing}, err
	}
	details, _, err := a.details(r.Context(), &job, compatTasksMax)
	return details, err
}

// compatList gives the unfinished jobs, newest first, with at most compatTasksMax tasks in all.
func (a *API) compatList(r *http.Request) (any, error) {
	list := []jobDetails{}
	left := compatTasksMax
	q := api.JobQuery{Status: []string{api.JobWaiting, api.JobRunning, api.JobHalted}, Limit: api.JobLimitMax}
	for {
		page, err := a.leader.Jobs(q)
		if err != nil {
			return nil, err
		}
		for i := range page.Jobs {
			details, used, err := a.details(r.Context(), &page.Jobs[i], left)
			if err != nil {
				return nil, err
			}
			left -= used
			list = append(list, details)
		}
		if page.Next == "" {
			return list, nil
		}
		q.Cursor = page.Next
	}
}

func (a *API) compatStop(r *http.Request) (any, error) {
	job, ok, err := a.compatJobOf(r)
	if err != nil || !ok {
		return typed{missing}, err
	}
	if !job.IsEnded() {
		_, err := a.leader.Stop(r.Context(), job.ID)
		if err != nil && !isStatus(err, http.StatusConflict) { // a conflict: it ended meanwhile
			return nil, err
		}
		if now, ok := a.leader.Job(job.ID); ok {
			job = now
		}
	}
	return executionStatus(&job), nil
}

func isStatus(err error, status int) bool {
	p, ok := errors.AsType[*api.Problem](err)
	return ok && p.Status == status
}

// details lists at most tasksMax tasks, and says how many.
func (a *API) details(ctx context.Context, job *api.Job, tasksMax int) (jobDetails, int, error) {
	config := jobConfig{
		ID: job.ID, Name: job.Name, JobClass: jobClassOf(job), Input: strings.Join(job.Inputs, ","), Output: job.Output,
		UserSettings: job.Set,
	}
	if config.UserSettings == nil {
		config.UserSettings = map[string]string{}
	}
	out := jobDetails{
		JobID: job.ID, JobConfig: config, ExecutionStatus: executionStatus(job), AssignmentStatus: assignmentStatus(job),
		AssignedTasks: []compatTask{}, OpenTasks: []compatTask{}, CompletedTasks: []compatTask{},
	}
	if tasksMax <= 0 || len(job.Stages) == 0 {
		return out, 0, nil
	}
	page, err := a.leader.Tasks(ctx, job.ID, api.TaskQuery{Stage: job.PartStage().Name, Limit: tasksMax})
	if err != nil {
		return jobDetails{}, 0, err
	}
	out.addTasks(page.Tasks)
	return out, len(page.Tasks), nil
}

// addTasks puts each task into its list. The leader does not know in which slot of a worker a task runs (the worker chooses),
// so the tasks of a worker are numbered in order.
func (d *jobDetails) addTasks(tasks []api.Task) {
	slots := map[uint64]uint64{}
	for i := range tasks {
		task := &tasks[i]
		view := compatTask{
			Input: task.Input, Output: d.JobConfig.Output, JobClass: d.JobConfig.JobClass, UserSettings: d.JobConfig.UserSettings,
		}
		switch task.Status {
		case api.TaskRunning:
			view.TaskID = &compatTaskID{ID: task.Index, JobID: d.JobID}
			view.SlotID = &compatSlotID{ID: slots[task.Worker], WorkerID: task.Worker}
			slots[task.Worker]++
			d.AssignedTasks = append(d.AssignedTasks, view)
		case api.TaskDone:
			view.TaskID = &compatTaskID{ID: task.Index, JobID: d.JobID}
			view.SlotID = &compatSlotID{WorkerID: task.Worker}
			d.CompletedTasks = append(d.CompletedTasks, view)
		default: // open, and dead: the original knows no task that is given up
			d.OpenTasks = append(d.OpenTasks, view)
		}
	}
}

// jobClassOf names what a job runs.
func jobClassOf(job *api.Job) string {
	if job.Program.Builtin != "" {
		return job.Program.Builtin
	}
	return strings.Join(job.Program.Command, " ")
}

// startRequest is the original's UserJobConfig.
type startRequest struct {
	Name         string       `json:"name"`
	JobClass     jobClass     `json:"jobClass"`
	Input        string       `json:"input"`
	Output       string       `json:"output"`
	UserSettings userSettings `json:"userSettings"`
}

func (a *API) compatStart(w http.ResponseWriter, r *http.Request) {
	var in startRequest
	if err := decodeBody(w, r, bodyBytesMax, false, &in); err != nil {
		a.writeError(w, r, err)
		return
	}
	details, err := a.start(r.Context(), &in)
	if err != nil {
		a.writeError(w, r, err)
		return
	}
	a.stamp(w.Header())
	writeJSON(w, http.StatusOK, "application/json", details)
}

func (a *API) start(ctx context.Context, in *startRequest) (jobDetails, error) {
	if in.JobClass == "" {
		return jobDetails{}, api.Invalid("validation failed").With("body.jobClass", "expected the class of a built-in job, such as DelayedWordCount", nil)
	}
	req := api.JobRequest{
		Name: in.Name, Program: api.Program{Builtin: in.JobClass.builtin()}, Set: in.UserSettings,
		Split: "none", // one task is one file
	}
	if in.Input != "" {
		input, err := filepath.Abs(in.Input) // the original took paths from where the leader stands
		if err != nil {
			return jobDetails{}, err
		}
		req.Inputs = []string{input}
	}
	if in.Output != "" {
		output, err := filepath.Abs(in.Output)
		if err != nil {
			return jobDetails{}, err
		}
		req.Output = output
	}
	job, err := a.leader.Submit(ctx, &req, "")
	if err != nil {
		return jobDetails{}, err
	}
	details, _, err := a.details(ctx, &job, compatTasksMax)
	return details, err
}

// jobClass is a string, or {"type": string}.
type jobClass string

// UnmarshalJSON reads either form.
func (c *jobClass) UnmarshalJSON(data []byte) error {
	var name string
	if err := json.Unmarshal(data, &name); err == nil {
		*c = jobClass(name)
		return nil
	}
	var tagged typed
	if err := json.Unmarshal(data, &tagged); err != nil {
		return api.Invalid("validation failed").With("body.jobClass", `expected a string or {"type": string}`, nil)
	}
	*c = jobClass(tagged.Type)
	return nil
}

// builtin is the built-in job that a class means: com.example.DelayedWordCountBridgeFourJob is DelayedWordCount.
func (c jobClass) builtin() string {
	name := string(c)
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		name = name[dot+1:]
	}
	for _, suffix := range []string{"BridgeFourJob", "Job"} {
		if short, ok := strings.CutSuffix(name, suffix); ok && short != "" {
			return short
		}
	}
	return name
}

// userSettings is an object, or a list of pairs: ["k","v"], {"key":"k","value":"v"} or {"k":"v"}. Values that are numbers or
// booleans are taken as they are written.
type userSettings map[string]string

// UnmarshalJSON reads every form.
func (s *userSettings) UnmarshalJSON(data []byte) error {
	*s = userSettings{}
	if string(data) == "null" {
		return nil
	}
	var object map[string]scalar
	if err := json.Unmarshal(data, &object); err == nil {
		s.add(object)
		return nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return badSettings()
	}
	for _, item := range list {
		var pair []scalar
		var object map[string]scalar
		switch {
		case json.Unmarshal(item, &pair) == nil && len(pair) == 2:
			(*s)[string(pair[0])] = string(pair[1])
		case json.Unmarshal(item, &object) == nil:
			if key, ok := object["key"]; ok && len(object) == 2 {
				object = map[string]scalar{string(key): object["value"]}
			}
			s.add(object)
		default:
			return badSettings()
		}
	}
	return nil
}

func (s *userSettings) add(object map[string]scalar) {
	for k, v := range object {
		(*s)[k] = string(v)
	}
}

func badSettings() error {
	return api.Invalid("validation failed").With("body.userSettings", "expected an object of strings", nil)
}

// scalar is a string, number or boolean, as text.
type scalar string

// UnmarshalJSON takes numbers and booleans as they are written.
func (s *scalar) UnmarshalJSON(data []byte) error {
	switch data[0] {
	case '{', '[':
		return badSettings()
	case '"':
		return json.Unmarshal(data, (*string)(s))
	}
	*s = scalar(data)
	return nil
}
