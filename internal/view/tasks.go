package view

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/state"
)

// scanMax bounds the tasks that a page or an explanation visits. A page may therefore be short or empty and still have a next one.
const scanMax = 200_000

// pageBytesMax bounds the texts of a page, up to its last element: one may take megabytes. A page may therefore be short.
const pageBytesMax = 8 << 20

// taskRow is a copy of a task's state.
type taskRow struct {
	stage    int
	index    uint64
	status   string
	attempt  uint32
	worker   state.WorkerID
	second   state.WorkerID
	retry    time.Time // of an open one that has failed; zero: at once
	out      state.Output
	failures state.Failures
}

// taskScan collects one page.
type taskScan struct {
	query api.TaskQuery
	stage int // the next task
	index uint64

	job     state.Job // as it was; its stages belong to the goroutine that owns the state
	done    bool      // the job, at the time of the scan
	rows    []taskRow
	visited int // tasks
	next    string
}

// Tasks returns a page of tasks. A task that changes between two pages may be missed or appear in its new status.
func (r *Reader) Tasks(ctx context.Context, id uint64, q api.TaskQuery) (api.TaskList, error) {
	scan := taskScan{query: q}
	if q.Cursor != "" {
		if _, err := fmt.Sscanf(q.Cursor, "%d/%d", &scan.stage, &scan.index); err != nil || scan.stage < 0 {
			return api.TaskList{}, badCursor(q.Cursor)
		}
	}
	if err := r.scan(ctx, id, func(job *state.Job, _ *state.Machine, c *leader.Core) { scan.fill(job, c) }); err != nil {
		return api.TaskList{}, err
	}
	list := api.TaskList{Tasks: make([]api.Task, 0, len(scan.rows)), Next: scan.next}
	names := partname.Of(scan.job.Spec) // read here: a spec never changes, the job may get another
	bytes := 0
	for i := range scan.rows {
		row := &scan.rows[i]
		if bytes > pageBytesMax {
			list.Next = fmt.Sprintf("%d/%d", row.stage, row.index)
			break
		}
		task := publicTask(&scan.job, row, names, scan.done)
		bytes += len(task.Input) + len(task.Part)
		for k := range task.Failures {
			bytes += len(task.Failures[k].Message)
		}
		list.Tasks = append(list.Tasks, task)
	}
	return list, nil
}

// fill collects the page. Called in the goroutine that owns the state.
func (s *taskScan) fill(job *state.Job, c *leader.Core) {
	s.job = *job
	s.done = job.Status == state.JobDone
	running := c.Running(job.ID)
	for ; s.stage < len(job.Stages); s.stage, s.index = s.stage+1, 0 {
		stage := job.Stages[s.stage]
		if s.query.Stage != "" && s.query.Stage != stage.Name || stage.Closed && stage.Role == state.RoleCheck { // there was nothing to check
			continue
		}
		for index := range s.candidates(stage, running) {
			if len(s.rows) == s.query.Limit || s.visited == scanMax {
				s.next = fmt.Sprintf("%d/%d", s.stage, index)
				return
			}
			s.visited++
			row := makeRow(stage, s.stage, index, running)
			row.delay(c, job.ID)
			if s.query.Status == "" || s.query.Status == row.status {
				s.rows = append(s.rows, row)
			}
		}
	}
}

// candidates yields the tasks from s.index on that can have the requested status, in order.
func (s *taskScan) candidates(stage *state.Stage, running map[leader.TaskPlace]leader.Place) iter.Seq[uint64] {
	switch s.query.Status {
	case api.TaskDead:
		return stage.FailedTasks(s.index)
	case api.TaskRunning:
		var list []uint64
		for key := range running {
			if int(key.Stage) == s.stage && key.Task >= s.index {
				list = append(list, key.Task)
			}
		}
		slices.Sort(list)
		return slices.Values(list)
	}
	return func(yield func(uint64) bool) {
		for i := s.index; i < stage.Tasks; i++ {
			if !yield(i) {
				return
			}
		}
	}
}

func makeRow(stage *state.Stage, number int, index uint64, running map[leader.TaskPlace]leader.Place) taskRow {
	row := taskRow{stage: number, index: index, failures: stage.Failures(index), attempt: stage.Attempt(index) - 1}
	switch stage.Status(index) {
	case state.TaskDone:
		row.status = api.TaskDone
		row.attempt++
		if row.out, _ = stage.Output(index); row.out.Second {
			row.attempt++
		}
		row.worker = row.out.Worker
	case state.TaskDead:
		row.status = api.TaskDead
	case state.TaskOpen:
		row.status = api.TaskOpen
		if place, ok := running[leader.TaskPlace{Stage: uint32(number), Task: index}]; ok {
			row.status, row.worker, row.second = api.TaskRunning, place.Worker, place.Second
			row.attempt++
		}
	}
	return row
}

// delay notes when the task may be leased again.
func (r *taskRow) delay(c *leader.Core, job state.JobID) {
	if r.status != api.TaskOpen || r.attempt == 0 {
		return
	}
	if at, ok := c.RetryAt(job, leader.TaskPlace{Stage: uint32(r.stage), Task: r.index}); ok {
		r.retry = at
	}
}

// publicTask returns the public form of a row. Done: the job is done.
func publicTask(job *state.Job, row *taskRow, names *partname.Names, done bool) api.Task {
	stage := &job.Spec.Stages[row.stage]
	t := api.Task{
		Name: fmt.Sprintf("%d/%s/%d", job.ID, stage.Name, row.index), Index: row.index, Stage: stage.Name, Status: row.status,
		Attempts: row.attempt, Worker: uint64(row.worker), Second: uint64(row.second), Overtook: row.out.Second, Read: row.out.Read, Size: row.out.Size, Records: row.out.Records,
	}
	if row.out.Worker != 0 {
		t.Started = new(time.UnixMilli(job.Created + int64(row.out.Started)).UTC())
		t.Seconds = new(float64(row.out.Millis) / 1000)
	}
	if !row.retry.IsZero() {
		t.Retry = new(row.retry.UTC())
	}
	t.Memory = uint64(row.out.PeakKiB) << 10
	if job.Spec.Reads(row.stage) {
		r := partname.Reads(names.Input(), row.index)
		t.Offset, t.Length = r.Offset, r.Length
		if r.Len() > 1 {
			t.Inputs = r.Names()
		} else if r.Len() == 1 {
			t.Input = r.Name(0)
		}
	}
	if done && row.status == api.TaskDone && row.stage == job.Spec.PartStage() && !job.Spec.Spool {
		if name, err := names.Name(row.index); err == nil { // the task reports a damaged input
			t.Part = strings.TrimSuffix(job.Spec.Output, "/") + "/" + name
		}
	}
	for _, f := range row.failures.Last {
		t.Failures = append(t.Failures, api.Failure{
			Attempt: f.Attempt, Worker: uint64(f.Worker), Kind: f.Kind.String(), Message: f.Message, Time: time.UnixMilli(f.Time).UTC(),
			Seconds: float64(f.Millis) / 1000,
		})
	}
	return t
}

// Task returns one task.
func (r *Reader) Task(ctx context.Context, id uint64, stage string, index uint64) (api.Task, error) {
	var job state.Job // as it was
	var row *taskRow
	done := false
	if err := r.scan(ctx, id, func(j *state.Job, _ *state.Machine, c *leader.Core) {
		job, done = *j, j.Status == state.JobDone
		for i, s := range job.Stages {
			if s.Name == stage && index < s.Tasks {
				r := makeRow(s, i, index, c.Running(job.ID))
				r.delay(c, job.ID)
				row = &r
			}
		}
	}); err != nil {
		return api.Task{}, err
	}
	if row == nil {
		return api.Task{}, api.NotFound("job %d has no task %s/%d", id, stage, index)
	}
	return publicTask(&job, row, partname.Of(job.Spec), done), nil
}
