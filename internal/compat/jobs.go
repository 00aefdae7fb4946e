package compat

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/bridgefour/bridgefour/api"
)

// tasksMax bounds the tasks in an answer: the original's answers list every task, and a job may have millions.
const tasksMax = api.TaskLimitMax

// jobDetails is the original's JobDetails.
type jobDetails struct {
	JobID            uint64     `json:"jobId"`
	JobConfig        jobConfig  `json:"jobConfig"`
	ExecutionStatus  typed      `json:"executionStatus"`
	AssignmentStatus typed      `json:"assignmentStatus"`
	AssignedTasks    []taskView `json:"assignedTasks"`
	OpenTasks        []taskView `json:"openTasks"`
	CompletedTasks   []taskView `json:"completedTasks"`
}

type jobConfig struct {
	ID           uint64            `json:"id"`
	Name         string            `json:"name"`
	JobClass     string            `json:"jobClass"`
	Input        string            `json:"input"`
	Output       string            `json:"output"`
	UserSettings map[string]string `json:"userSettings"`
}

// taskView is an assigned task, or, without ids, an open one.
type taskView struct {
	TaskID       *taskID           `json:"taskId,omitempty"`
	SlotID       *slotID           `json:"slotId,omitempty"`
	Input        string            `json:"input"`
	Output       string            `json:"output"`
	JobClass     string            `json:"jobClass"`
	UserSettings map[string]string `json:"userSettings"`
}

type taskID struct {
	ID    uint64 `json:"id"`
	JobID uint64 `json:"jobId"`
}

type slotID struct {
	ID       uint64 `json:"id"`
	WorkerID uint64 `json:"workerId"`
}

// jobOf returns the job in the path; false: Missing.
func (s system) jobOf(r *http.Request) (api.Job, bool, error) {
	id, err := pathNumber(r, "n")
	if err != nil {
		return api.Job{}, false, err
	}
	job, ok := s.node.Job(r.Context(), id)
	return job, ok, nil
}

func (s system) status(r *http.Request, _ func(any) error) (any, error) {
	job, ok, err := s.jobOf(r)
	if err != nil || !ok {
		return typed{missing}, err
	}
	return executionStatus(&job), nil
}

func (s system) job(r *http.Request, _ func(any) error) (any, error) {
	job, ok, err := s.jobOf(r)
	if err != nil || !ok {
		return typed{missing}, err
	}
	details, _, err := s.details(r.Context(), &job, tasksMax)
	return details, err
}

// list returns the unfinished jobs, newest first, with at most tasksMax tasks in all.
func (s system) list(r *http.Request, _ func(any) error) (any, error) {
	list := []jobDetails{}
	left := tasksMax
	q := api.JobQuery{Status: []string{api.JobWaiting, api.JobRunning, api.JobHalted}, Limit: api.JobLimitMax}
	for {
		page, err := s.node.Jobs(r.Context(), q)
		if err != nil {
			return nil, err
		}
		for i := range page.Jobs {
			details, used, err := s.details(r.Context(), &page.Jobs[i], left)
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

func (s system) stop(r *http.Request, _ func(any) error) (any, error) {
	job, ok, err := s.jobOf(r)
	if err != nil || !ok {
		return typed{missing}, err
	}
	if !job.IsEnded() {
		err := s.node.Stop(r.Context(), job.ID)
		if err != nil && !api.IsStatus(err, http.StatusConflict) { // a conflict: it has just ended
			return nil, err
		}
		if now, ok := s.node.Job(r.Context(), job.ID); ok {
			job = now
		}
	}
	return executionStatus(&job), nil
}

// details lists at most limit tasks, and returns how many.
func (s system) details(ctx context.Context, job *api.Job, limit int) (jobDetails, int, error) {
	config := jobConfig{
		ID: job.ID, Name: job.Name, JobClass: jobClassOf(job), Input: strings.Join(job.Inputs, ","), Output: job.Output,
		UserSettings: job.Set,
	}
	if config.UserSettings == nil {
		config.UserSettings = map[string]string{}
	}
	out := jobDetails{
		JobID: job.ID, JobConfig: config, ExecutionStatus: executionStatus(job), AssignmentStatus: assignmentStatus(job),
		AssignedTasks: []taskView{}, OpenTasks: []taskView{}, CompletedTasks: []taskView{},
	}
	if limit <= 0 || len(job.Stages) == 0 {
		return out, 0, nil
	}
	page, err := s.node.Tasks(ctx, job.ID, api.TaskQuery{Stage: job.PartStage().Name, Limit: limit})
	if err != nil {
		return jobDetails{}, 0, err
	}
	out.addTasks(page.Tasks)
	return out, len(page.Tasks), nil
}

// addTasks sorts tasks into the lists. Only a worker knows the slots of its tasks, so its tasks are numbered in order.
func (d *jobDetails) addTasks(tasks []api.Task) {
	slots := map[uint64]uint64{}
	for i := range tasks {
		task := &tasks[i]
		view := taskView{
			Input: task.Input, Output: d.JobConfig.Output, JobClass: d.JobConfig.JobClass, UserSettings: d.JobConfig.UserSettings,
		}
		switch task.Status {
		case api.TaskRunning:
			view.TaskID = &taskID{ID: task.Index, JobID: d.JobID}
			view.SlotID = &slotID{ID: slots[task.Worker], WorkerID: task.Worker}
			slots[task.Worker]++
			d.AssignedTasks = append(d.AssignedTasks, view)
		case api.TaskDone:
			view.TaskID = &taskID{ID: task.Index, JobID: d.JobID}
			view.SlotID = &slotID{WorkerID: task.Worker}
			d.CompletedTasks = append(d.CompletedTasks, view)
		default: // open, or dead, which the original does not know
			d.OpenTasks = append(d.OpenTasks, view)
		}
	}
}

// jobClassOf is the name of a job's program.
func jobClassOf(job *api.Job) string {
	return job.Program.Text()
}

// startRequest is the original's UserJobConfig.
type startRequest struct {
	Name         string       `json:"name"`
	JobClass     jobClass     `json:"jobClass"`
	Input        string       `json:"input"`
	Output       string       `json:"output"`
	UserSettings userSettings `json:"userSettings"`
}

func (s system) start(r *http.Request, body func(any) error) (any, error) {
	var in startRequest
	if err := body(&in); err != nil {
		return nil, err
	}
	if in.JobClass == "" {
		return nil, api.Invalid("validation failed").With("body.jobClass", "expected the class of a built-in job, such as DelayedWordCount", nil)
	}
	req := api.JobRequest{
		Name: in.Name, Program: api.Program{Builtin: in.JobClass.builtin()}, Set: in.UserSettings,
		Split: "none", // one task per file
	}
	if in.Input != "" {
		input, err := filepath.Abs(in.Input) // the original took paths relative to the leader's working directory
		if err != nil {
			return nil, err
		}
		req.Inputs = []string{input}
	}
	if in.Output != "" {
		output, err := filepath.Abs(in.Output)
		if err != nil {
			return nil, err
		}
		req.Output = output
	}
	id, _, err := s.node.Submit(r.Context(), &req, "")
	if err != nil {
		return nil, err
	}
	job, ok := s.node.Job(r.Context(), id)
	if !ok { // forgotten already
		return typed{missing}, nil
	}
	details, _, err := s.details(r.Context(), &job, tasksMax)
	return details, err
}

// jobClass is a string, or {"type": string}.
type jobClass string

// UnmarshalJSON accepts both forms.
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

// builtin is the built-in job of a class: com.example.DelayedWordCountBridgeFourJob is DelayedWordCount.
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

// userSettings is an object, or a list of pairs: ["k","v"], {"key":"k","value":"v"} or {"k":"v"}. Numbers and booleans become
// strings as they are written.
type userSettings map[string]string

// UnmarshalJSON accepts all forms.
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

// UnmarshalJSON keeps numbers and booleans as they are written.
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
