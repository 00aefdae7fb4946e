package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// TestClient calls every method of the client, so that the two sides agree on every path and shape.
func TestClient(t *testing.T) {
	l := httpapitest.NewCluster()
	l.OnLogs = func(_ context.Context, q api.LogQuery, emit func(api.LogRecord) error) error {
		return emit(api.LogRecord{Task: fmt.Sprintf("%d/%s/%d", q.Job, q.Stage, q.Index), Text: []byte{0xff}})
	}
	c, err := client.New([]string{serve(t, newAPI(l))}, client.Options{Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx := t.Context()

	job, err := c.Submit(ctx, &api.JobRequest{Program: api.Program{Builtin: "wordcount"}, Inputs: []string{"/a", "/b"}}, "key")
	if err != nil || job.ID != 7 {
		t.Errorf("Submit = %+v, %v; want job 7", job, err)
	}
	if again, err := c.Submit(ctx, &api.JobRequest{Program: api.Program{Builtin: "wordcount"}}, "key"); err != nil || again.ID != 7 {
		t.Errorf("Submit with the same key = %d, %v; want job 7", again.ID, err)
	}
	if job, err = c.Job(ctx, 7); err != nil || job.ID != 7 {
		t.Errorf("Job = %+v, %v", job, err)
	}
	if job, err = c.Wait(ctx, 4); err != nil || job.Status != api.JobDone {
		t.Errorf("Wait = %+v, %v", job, err)
	}
	var ids []uint64
	for job, err := range c.Jobs(ctx, api.JobQuery{Status: []string{api.JobDone, api.JobFailed, api.JobStopped}, Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	if !reflect.DeepEqual(ids, []uint64{6, 5, 4}) {
		t.Errorf("Jobs = %v, want 6 5 4", ids)
	}
	var indices []uint64
	for task, err := range c.Tasks(ctx, 2, api.TaskQuery{Stage: "map", Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		indices = append(indices, task.Index)
	}
	if !reflect.DeepEqual(indices, []uint64{0, 1, 2, 3, 4}) {
		t.Errorf("Tasks = %v, want 0 to 4", indices)
	}
	if task, err := c.Task(ctx, 2, "map", 3); err != nil || task.Index != 3 {
		t.Errorf("Task = %+v, %v", task, err)
	}
	if e, err := c.Explain(ctx, 2, "map", 3); err != nil || e.Subject != "2/map/3" {
		t.Errorf("Explain = %+v, %v", e, err)
	}
	if e, err := c.Explain(ctx, 2, "", 0); err != nil || e.Subject != "2" {
		t.Errorf("Explain = %+v, %v", e, err)
	}
	result, err := c.Result(ctx, 4)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(result)
	if err := errors.Join(err, result.Close()); err != nil || string(text[:9]) != "the,31714" {
		t.Errorf("Result = %q, %v", text, err)
	}
	for record, err := range c.Logs(ctx, api.LogQuery{Job: 2, OneTask: true, Stage: "map", Index: 3}) {
		if err != nil || record.Task != "2/map/3" || string(record.Text) != "\xff" {
			t.Errorf("Logs = %+v, %v", record, err)
		}
	}
	if job, err = c.Stop(ctx, 2); err != nil || job.Status != api.JobStopped {
		t.Errorf("Stop = %+v, %v", job, err)
	}
	if job, err = c.Retry(ctx, 5); err != nil || job.Status != api.JobRunning {
		t.Errorf("Retry = %+v, %v", job, err)
	}
	if cluster, err := c.Cluster(ctx); err != nil || cluster.Name != "test" {
		t.Errorf("Cluster = %+v, %v", cluster, err)
	}
	if workers, err := c.Workers(ctx); err != nil || len(workers) != 3 {
		t.Errorf("Workers = %+v, %v", workers, err)
	}
	if w, err := c.DrainWorker(ctx, 0); err != nil || w.Status != api.WorkerDraining {
		t.Errorf("DrainWorker = %+v, %v", w, err)
	}
	if w, err := c.Worker(ctx, 0); err != nil || w.Slots != 2 {
		t.Errorf("Worker = %+v, %v", w, err)
	}
	if err := c.RemoveWorker(ctx, 0); err != nil {
		t.Errorf("RemoveWorker = %v", err)
	}
	if node, err := c.AddLeader(ctx, "10.0.0.2:6550"); err != nil || node.ID != 1 {
		t.Errorf("AddLeader = %+v, %v", node, err)
	}
	if list, err := c.Leaders(ctx); err != nil || len(list.Leaders) != 1 || list.Leaders[0].Address != "10.0.0.2:6550" {
		t.Errorf("Leaders = %+v, %v", list, err)
	}
	if err := c.RemoveLeader(ctx, 1, true); err != nil {
		t.Errorf("RemoveLeader = %v", err)
	}
	emitThree(l)
	var told []string
	for event, err := range c.Events(ctx, &api.Position{Index: 8}) {
		if err != nil {
			t.Fatal(err)
		}
		if told = append(told, event.Type); len(told) == 2 {
			break
		}
	}
	if !reflect.DeepEqual(told, []string{api.EventStageStarted, api.EventTaskDied}) {
		t.Errorf("Events = %q", told)
	}
	raw, err := c.Raw(ctx, client.WorkersPath)
	if w := httpapitest.Ask(t, newAPI(l), http.MethodGet, client.WorkersPath, ""); err != nil || string(raw) != w.Body.String() {
		t.Errorf("Raw = %s, %v; want %s", raw, err, w.Body)
	}
	_, err = c.Job(ctx, 99)
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Status != http.StatusNotFound {
		t.Errorf("Job(99) = %v, want a 404 problem", err)
	}
}

// TestFlowClient submits several jobs, and then too much of them: the answer comes though the body is not read.
func TestFlowClient(t *testing.T) {
	c, err := client.New([]string{serve(t, newAPI(httpapitest.NewFake()))}, client.Options{Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	flow := api.FlowRequest{Jobs: []api.JobRequest{{Name: "a"}, {Name: "b", After: []string{"a"}}}}
	for range 2 {
		if jobs, err := c.SubmitFlow(t.Context(), &flow, "key"); err != nil || len(jobs) != 2 || jobs[0].ID != 1 || jobs[1].Name != "b" {
			t.Errorf("SubmitFlow = %+v, %v", jobs, err)
		}
	}
	flow.Jobs[0].Lines = &api.Lines{Raw: make([]byte, 8<<20)}
	if _, err := c.SubmitFlow(t.Context(), &flow, ""); !api.IsStatus(err, http.StatusRequestEntityTooLarge) || !strings.Contains(err.Error(), "larger than 4194304 bytes") {
		t.Errorf("SubmitFlow of 8 MiB = %v, want 413", err)
	}
}
