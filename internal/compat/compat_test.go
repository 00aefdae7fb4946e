package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// newServer serves the routes as a leader does.
func newServer(n httpapi.Leader) http.Handler {
	return httpapi.New(httpapi.Options{
		Leader: n, Routes: Routes(n), Policy: access.NewPolicy(access.Options{Hosts: []string{"example.com"}, Insecure: true}), Log: slog.New(slog.DiscardHandler),
	})
}

func TestAnswers(t *testing.T) {
	a := newServer(httpapitest.NewCluster())
	start := `{"name":"Example job","jobClass":"com.chollinger.bridgefour.jobs.example.DelayedWordCountBridgeFourJob",` +
		`"input":"/data/in","output":"/data/out","userSettings":{"timeout":"2"}}`
	for _, c := range []struct{ file, method, target, body string }{
		{"status_waiting.json", "GET", "/job/status/1", ""},
		{"status_running.json", "GET", "/status/2", ""},
		{"status_halted.json", "GET", "/job/status/3", ""},
		{"status_done.json", "GET", "/status/4", ""},
		{"status_failed.json", "GET", "/job/status/5", ""},
		{"status_stopped.json", "GET", "/job/status/6", ""},
		{"status_missing.json", "GET", "/job/status/-1368283400", ""},
		{"refresh_waiting.json", "GET", "/refresh/1", ""},
		{"status_done.json", "GET", "/refresh/4", ""},
		{"status_missing.json", "GET", "/refresh/99", ""},
		{"job_waiting.json", "GET", "/job/1", ""},
		{"job_running.json", "GET", "/job/2", ""},
		{"job_halted.json", "GET", "/job/3", ""},
		{"job_done.json", "GET", "/job/4", ""},
		{"job_failed.json", "GET", "/job/5", ""},
		{"job_missing.json", "GET", "/job/99", ""},
		{"list.json", "GET", "/job/list", ""},
		{"data_done.json", "GET", "/job/data/4", ""},
		{"data_running.json", "GET", "/data/2", ""},
		{"data_missing.json", "GET", "/data/99", ""},
		{"cluster.json", "GET", "/cluster", ""},
		{"raft_state.json", "GET", "/raft/state", ""},
		{"start.json", "POST", "/job/start", start},
		{"stop_running.json", "PUT", "/job/stop/2", ""},
		{"stop_done.json", "PUT", "/stop/4", ""},
		{"stop_missing.json", "PUT", "/stop/99", ""},
		{"remove_worker.json", "DELETE", "/cluster/removeWorker/1", ""},
		{"remove_no_worker.json", "DELETE", "/cluster/removeWorker/1", ""},
	} {
		w := httpapitest.Ask(t, a, c.method, c.target, c.body)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s = %d %s, want 200 as JSON", c.method, c.target, w.Code, w.Header().Get("Content-Type"))
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, w.Body.Bytes(), "", "  "); err != nil {
			t.Errorf("%s: %v", c.target, err)
		}
		httpapitest.Golden(t, c.file, pretty.String())
	}
}

func TestStart(t *testing.T) {
	settings := map[string]string{"timeout": "2"}
	for body, want := range map[string]api.JobRequest{
		`{"name":"n","jobClass":"DelayedWordCount","input":"/in","output":"/out","userSettings":{"timeout":"2"}}`: {
			Name: "n", Program: api.Program{Builtin: "DelayedWordCount"}, Inputs: []string{"/in"}, Output: "/out", Set: settings, Split: "none",
			Class: `"DelayedWordCount"`,
		},
		`{"jobClass":{"type":"com.example.SampleBridgeFourJob"},"userSettings":[["timeout","2"]],"more":1}`: {
			Program: api.Program{Builtin: "Sample"}, Set: settings, Split: "none", Class: `{"type":"com.example.SampleBridgeFourJob"}`,
		},
		`{"jobClass":"a.b.AlwaysOkJob","userSettings":[{"timeout":2}]}`: {
			Program: api.Program{Builtin: "AlwaysOk"}, Set: settings, Split: "none", Class: `"a.b.AlwaysOkJob"`,
		},
		`{"jobClass":"Job","userSettings":[{"key":"timeout","value":"2"}],"overwrite":true}`: {
			Program: api.Program{Builtin: "Job"}, Set: settings, Split: "none", Class: `"Job"`, Overwrite: true,
		},
	} {
		l := httpapitest.NewFake()
		if w := httpapitest.Ask(t, newServer(l), "POST", "/start", body); w.Code != http.StatusOK {
			t.Errorf("start %s = %d %s", body, w.Code, w.Body)
		}
		if !reflect.DeepEqual(l.Got, want) {
			t.Errorf("start %s submitted %+v, want %+v", body, l.Got, want)
		}
	}
}

// TestStartWithAKey: a request that is sent again is answered with its first job.
func TestStartWithAKey(t *testing.T) {
	a := newServer(httpapitest.NewFake())
	for _, want := range []uint64{1, 1} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/start", strings.NewReader(`{"jobClass":"Sample"}`))
		r.Header.Set("Idempotency-Key", "k")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if got := httpapitest.Decode[jobDetails](t, w); got.JobID != want {
			t.Errorf("start = job %d, want %d", got.JobID, want)
		}
	}
}

// TestStartOfAnUnknownClass: the problem is about the field of the original, and names the class and what there is.
func TestStartOfAnUnknownClass(t *testing.T) {
	l := httpapitest.NewFake()
	l.OnSubmit = func(*api.JobRequest) error {
		return api.Invalid("invalid job").With("body.program.builtin", `unknown built-in job "My"; known: Sample`, nil)
	}
	p := httpapitest.ProblemOf(t, httpapitest.Ask(t, newServer(l), "POST", "/start", `{"jobClass":"com.acme.MyJob"}`))
	want := api.ProblemField{Location: "body.jobClass", Message: `class "com.acme.MyJob": unknown built-in job "My"; known: Sample`}
	if p.Status != http.StatusUnprocessableEntity || len(p.Errors) != 1 || p.Errors[0] != want {
		t.Errorf("start = %+v, want %+v", p, want)
	}
}

// TestDataOfSample: the original's job of that name has its own number as its result.
func TestDataOfSample(t *testing.T) {
	l := httpapitest.NewFake()
	l.Set(api.Job{ID: 7, Program: api.Program{Builtin: "Sample"}, Status: api.JobDone})
	if got := strings.TrimSpace(httpapitest.Ask(t, newServer(l), "GET", "/data/7", "").Body.String()); got != "7" {
		t.Errorf("data = %s, want 7", got)
	}
}

func TestStopOfAJobThatHasJustEnded(t *testing.T) {
	l := httpapitest.NewCluster()
	racing := &racingLeader{Fake: l}
	w := httpapitest.Ask(t, newServer(racing), "PUT", "/job/stop/2", "")
	if got := strings.TrimSpace(w.Body.String()); got != `{"type":"Done"}` {
		t.Errorf("stop = %s, want Done", got)
	}
}

// racingLeader's jobs end between the read and the stop.
type racingLeader struct{ *httpapitest.Fake }

func (l *racingLeader) Stop(_ context.Context, id uint64) error {
	if err := l.Turn(id, api.JobDone); err != nil {
		return err
	}
	return api.Conflict("job %d is done", id)
}

func TestDataIsBounded(t *testing.T) {
	l := httpapitest.NewCluster()
	l.OnResult = func(_ context.Context, w io.Writer) error {
		chunk := bytes.Repeat([]byte("word,1\n"), 1<<17)
		for {
			if _, err := w.Write(chunk); err != nil {
				return fmt.Errorf("write result: %w", err)
			}
		}
	}
	p := httpapitest.ProblemOf(t, httpapitest.Ask(t, newServer(l), "GET", "/job/data/4", ""))
	if p.Status != http.StatusUnprocessableEntity || !strings.Contains(p.Detail, "/v1/jobs/4/result") {
		t.Errorf("data = %+v, want 422 with the other route", p)
	}
}

func TestListIsBounded(t *testing.T) {
	l := httpapitest.NewFake()
	for id := range uint64(3) {
		l.Set(httpapitest.Job(id+1, api.JobRunning))
		l.TasksOf[id+1] = make([]api.Task, tasksMax*2/3)
		for i := range l.TasksOf[id+1] {
			l.TasksOf[id+1][i] = api.Task{Index: uint64(i), Stage: "map", Status: api.TaskOpen}
		}
	}
	list := httpapitest.Decode[[]jobDetails](t, httpapitest.Ask(t, newServer(l), "GET", "/job/list", ""))
	var tasks int
	for i := range list {
		tasks += len(list[i].OpenTasks)
	}
	if len(list) != 3 || tasks != tasksMax {
		t.Errorf("list has %d jobs with %d tasks, want 3 with %d", len(list), tasks, tasksMax)
	}
}

func FuzzStart(f *testing.F) {
	for _, body := range []string{
		`{"name":"n","jobClass":"DelayedWordCount","input":"/in","output":"/out","userSettings":{"timeout":"2"}}`, `{"jobClass":{"type":"x.SampleJob"}}`,
		`{"jobClass":"A","userSettings":[["k","v"],{"k":1},{"key":"k","value":true}]}`, `{"jobClass":null}`, `{"jobClass":"A","userSettings":null}`, `[`,
	} {
		f.Add(body)
	}
	l := httpapitest.NewFake()
	a := newServer(l)
	f.Fuzz(func(t *testing.T, body string) {
		w := httpapitest.Ask(t, a, http.MethodPost, "/start", body)
		switch {
		case w.Code != http.StatusOK:
			if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusBadRequest && p.Status != http.StatusUnprocessableEntity {
				t.Fatalf("body %.300q = %d: %.300s", body, w.Code, w.Body)
			}
		case !json.Valid(w.Body.Bytes()) || l.Got.Program.Builtin == "":
			t.Fatalf("%q was submitted without a program, and answered %s", body, w.Body)
		}
	})
}
