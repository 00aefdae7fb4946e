package compat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	JobClass     json.RawMessage   `json:"jobClass"`
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
	JobClass     json.RawMessage   `json:"jobClass"`
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

// refresh is status for the scripts of v0.1 and v0.2, which take NotStarted for the end of a job: the original's refresh assigned its tasks.
func (s system) refresh(r *http.Request, _ func(any) error) (any, error) {
	job, ok, err := s.jobOf(r)
	if err != nil || !ok {
		return typed{missing}, err
	}
	if status := executionStatus(&job); status.Type != notStarted {
		return status, nil
	}
	return typed{halted}, nil
}

// either is the original's Either[ExecutionStatus, JobDetails]: one of the two.
type either struct {
	Left  *typed      `json:",omitempty"`
	Right *jobDetails `json:",omitempty"`
}

func (s system) job(r *http.Request, _ func(any) error) (any, error) {
	job, ok, err := s.jobOf(r)
	if err != nil || !ok {
		return either{Left: &typed{missing}}, err
	}
	details, _, err := s.details(r.Context(), &job, tasksMax)
	return either{Right: &details}, err
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
	if job.Status == api.JobWaiting { // the tasks may be of a later moment
		for i := range page.Tasks {
			page.Tasks[i].Status = api.TaskOpen
		}
	}
	out.addTasks(page.Tasks, newWorkerIDs(s.node.Workers()))
	return out, len(page.Tasks), nil
}

// addTasks sorts tasks into the lists. Only a worker knows the slots of its tasks, so its tasks are numbered in order.
func (d *jobDetails) addTasks(tasks []api.Task, ids workerIDs) {
	slots := map[uint64]uint64{}
	for i := range tasks {
		task := &tasks[i]
		view := taskView{
			Input: task.Input, Output: d.JobConfig.Output, JobClass: d.JobConfig.JobClass, UserSettings: d.JobConfig.UserSettings,
		}
		switch task.Status {
		case api.TaskRunning:
			view.TaskID = &taskID{ID: task.Index, JobID: d.JobID}
			view.SlotID = &slotID{ID: slots[task.Worker], WorkerID: ids.of(task.Worker)}
			slots[task.Worker]++
			d.AssignedTasks = append(d.AssignedTasks, view)
		case api.TaskDone:
			view.TaskID = &taskID{ID: task.Index, JobID: d.JobID}
			view.SlotID = &slotID{WorkerID: ids.of(task.Worker)}
			d.CompletedTasks = append(d.CompletedTasks, view)
		default: // open, or dead, which the original does not know
			d.OpenTasks = append(d.OpenTasks, view)
		}
	}
}

// jobClassOf is the class as it was sent, or the program of a job that was submitted without one.
func jobClassOf(job *api.Job) json.RawMessage {
	if job.Class != "" {
		return json.RawMessage(job.Class)
	}
	name, _ := json.Marshal(job.Program.Text()) // a string has a form in JSON
	return name
}

// startRequest is the original's UserJobConfig.
type startRequest struct {
	Name         string       `json:"name"`
	JobClass     jobClass     `json:"jobClass"`
	Input        string       `json:"input"`
	Output       string       `json:"output"`
	UserSettings userSettings `json:"userSettings"`
	Overwrite    bool         `json:"overwrite"` // not of the original, whose jobs always do
}

func (s system) start(r *http.Request, body func(any) error) (any, error) {
	var in startRequest
	if err := body(&in); err != nil {
		return nil, err
	}
	if in.JobClass.name == "" {
		return nil, api.Invalid("validation failed").With("body.jobClass", "expected the class of a built-in job, such as DelayedWordCount", nil)
	}
	req := api.JobRequest{
		Name: in.Name, Program: api.Program{Builtin: in.JobClass.builtin()}, Set: in.UserSettings,
		Split: "none", // one task per file
		Class: in.JobClass.sent, Overwrite: in.Overwrite,
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
	id, _, err := s.node.Submit(r.Context(), &req, r.Header.Get("Idempotency-Key"))
	if err != nil {
		return nil, inTermsOf(&in, err)
	}
	job, ok := s.node.Job(r.Context(), id)
	if !ok { // forgotten already
		return typed{missing}, nil
	}
	job.Status = api.JobWaiting // as it was accepted
	details, _, err := s.details(r.Context(), &job, tasksMax)
	return details, err
}

// inTermsOf names the class in the problem of a request for a program that is not known.
func inTermsOf(in *startRequest, err error) error {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		for i := range p.Errors {
			if f := &p.Errors[i]; f.Location == "body.program.builtin" {
				f.Location, f.Message = "body.jobClass", fmt.Sprintf("class %q: %s", in.JobClass.name, f.Message)
			}
		}
	}
	return err
}

// classBytesMax bounds a class, which is in the job's entry of the log.
const classBytesMax = 1 << 10

// jobClass is a string, or {"type": string}.
type jobClass struct {
	name string
	sent string // in JSON
}

// UnmarshalJSON accepts both forms.
func (c *jobClass) UnmarshalJSON(data []byte) error {
	var form any = &c.name
	if err := json.Unmarshal(data, form); err != nil {
		var tagged typed
		if err := json.Unmarshal(data, &tagged); err != nil {
			return api.Invalid("validation failed").With("body.jobClass", `expected a string or {"type": string}`, nil)
		}
		c.name, form = tagged.Type, tagged
	}
	if len(c.name) > classBytesMax {
		return api.Invalid("validation failed").With("body.jobClass", fmt.Sprintf("expected at most %d bytes", classBytesMax), nil)
	}
	sent, err := json.Marshal(form)
	c.sent = string(sent)
	return err
}

// builtin is the built-in job of a class: com.example.DelayedWordCountBridgeFourJob is DelayedWordCount.
func (c jobClass) builtin() string {
	name := c.name
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
