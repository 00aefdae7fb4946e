package httpapitest

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// Ask sends one request without a socket.
func Ask(t *testing.T, h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body)))
	return w
}

// ProblemOf decodes a problem, which every error answer must be.
func ProblemOf(t *testing.T, w *httptest.ResponseRecorder) api.Problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("Content-Type = %q, want a problem; body %.300s", got, w.Body)
	}
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("problem %.300s: %v", w.Body, err)
	}
	if p.Status != w.Code || p.Title == "" {
		t.Errorf("problem = %+v with status %d, want the same status and a title", p, w.Code)
	}
	return p
}

// Decode decodes a successful answer.
func Decode[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if w.Code >= 300 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("decode %.300s: %v", w.Body, err)
	}
	return v
}

var update = flag.Bool("update", false, "rewrite the golden files") //nolint:gochecknoglobals // a flag of every test that imports this

// Golden compares with a file under testdata.
func Golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (rewrite with -update):\n%s\nwant:\n%s", name, got, want)
	}
}

// NewCluster is a cluster as the original's scripts meet it: one worker dead, jobs in every state.
func NewCluster() *Fake {
	l := NewFake()
	l.ClusterState.Status = api.ClusterDegraded
	l.WorkerByID[0] = api.Worker{ID: 0, Status: api.WorkerAlive, Slots: 2, Busy: 1}
	l.WorkerByID[1] = api.Worker{ID: 1, Status: api.WorkerDead, Slots: 2}
	l.WorkerByID[2] = api.Worker{ID: 2, Status: api.WorkerDraining, Slots: 1}
	voted, elected, heard := uint64(1), time.UnixMilli(1700000000123), time.UnixMilli(1700000000456)
	l.ConsensusState = api.Consensus{
		ID: 1, Term: 3, Role: "Leader", VotedFor: &voted, Leader: &voted, LastElection: &elected, LastHeartbeat: &heard,
		Peers: []api.Peer{{ID: 2, Host: "kaladin-02", Port: 6551}},
	}
	status := []string{api.JobWaiting, api.JobRunning, api.JobHalted, api.JobDone, api.JobFailed, api.JobStopped}
	for i, status := range status {
		l.Set(Job(uint64(i)+1, status))
	}
	l.TasksOf[1] = Tasks(api.TaskOpen, api.TaskOpen)
	l.TasksOf[2] = Tasks(api.TaskDone, api.TaskRunning, api.TaskRunning, api.TaskOpen, api.TaskDead)
	l.TasksOf[3] = Tasks(api.TaskDone, api.TaskOpen)
	l.TasksOf[4] = Tasks(api.TaskDone, api.TaskDone)
	l.TasksOf[5] = Tasks(api.TaskDone, api.TaskDead)
	l.TasksOf[6] = Tasks()
	for id, tasks := range l.TasksOf {
		job := l.JobByID[id]
		stage := &job.Stages[0]
		for i := range tasks {
			stage.Tasks++
			*map[string]*uint64{
				api.TaskOpen: &stage.Open, api.TaskRunning: &stage.Running, api.TaskDone: &stage.Done, api.TaskDead: &stage.Dead,
			}[tasks[i].Status]++
		}
	}
	l.OnResult = func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "the,31714\nand,20560\n,16663\nBolkónski,3\n")
		return err
	}
	return l
}

// Job is a job as the original system starts it.
func Job(id uint64, status string) api.Job {
	return api.Job{
		ID: id, Name: "Example job", Program: api.Program{Builtin: "DelayedWordCount"}, Status: status,
		Inputs: []string{"/data/in"}, Output: "/data/out", Set: map[string]string{"timeout": "2"}, Stages: []api.Stage{{Name: "map"}},
	}
}

// Tasks are tasks of its map stage in these states; running ones run on worker 2.
func Tasks(statuses ...string) []api.Task {
	tasks := make([]api.Task, len(statuses))
	for i, status := range statuses {
		tasks[i] = api.Task{Index: uint64(i), Stage: "map", Status: status, Input: fmt.Sprintf("/data/in/war_and_peace.txt.a%c", 'a'+i)}
		if status == api.TaskRunning {
			tasks[i].Worker = 2
		}
	}
	return tasks
}
