package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

func TestSubmit(t *testing.T) {
	l := httpapitest.NewFake()
	a := newAPI(l)
	body := `{"name":"n","program":{"command":["grep","x"]},"lines":{"raw":"YQpiAP8K"},"retries":0,"set":{"k":"v"},"split":"none"}`
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/jobs", strings.NewReader(body))
	r.Header.Set("Idempotency-Key", "once")
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	job := httpapitest.Decode[api.Job](t, w)
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/v1/jobs/1" || job.ID != 1 {
		t.Errorf("submit = %d, Location %q, job %d; want 201, /v1/jobs/1, 1", w.Code, w.Header().Get("Location"), job.ID)
	}
	if got := w.Header().Get("X-Bridgefour-Index"); got != "8" {
		t.Errorf("index = %s, want 8: the position after the write", got)
	}
	zero := 0
	want := api.JobRequest{
		Name: "n", Program: api.Program{Command: []string{"grep", "x"}}, Lines: &api.Lines{Raw: []byte("a\nb\x00\xff\n")},
		Retries: &zero, Set: map[string]string{"k": "v"}, Split: "none",
	}
	if !reflect.DeepEqual(l.Got, want) {
		t.Errorf("leader got %+v, want %+v", l.Got, want)
	}
	r = httptest.NewRequestWithContext(t.Context(), "POST", "/v1/jobs", strings.NewReader(body))
	r.Header.Set("Idempotency-Key", "once")
	w = httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if again := httpapitest.Decode[api.Job](t, w); again.ID != 1 {
		t.Errorf("the same key gave job %d, want 1", again.ID)
	}
}

func TestBadRequests(t *testing.T) {
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	a := newAPI(l)
	for _, c := range []struct {
		name, method, target, body string
		status                     int
		says                       string // in the problem
	}{
		{"no body", "POST", "/v1/jobs", ``, 400, "empty"},
		{"cut off", "POST", "/v1/jobs", `{"program":`, 400, "not JSON"},
		{"garbage", "POST", "/v1/jobs", "\x00\x01", 400, "not JSON"},
		{"two values", "POST", "/v1/jobs", `{"program":{"builtin":"x"}} {}`, 400, "data after"},
		{"not UTF-8", "POST", "/v1/jobs", "{\"inputs\":[\"/a\xff\"]}", 400, "UTF-8"},
		{"not an object", "POST", "/v1/jobs", `[1]`, 422, "expected object"},
		{"unknown field", "POST", "/v1/jobs", `{"program":{"builtin":"x"},"inptus":["a"]}`, 422, "body.inptus"},
		{"unknown inner field", "POST", "/v1/jobs", `{"program":{"wasm":"x"}}`, 422, "wasm"},
		{"wrong type", "POST", "/v1/jobs", `{"program":{"command":"ls"}}`, 422, "body.program.command"},
		{"retries no whole number", "POST", "/v1/jobs", `{"program":{"builtin":"x"},"retries":1.5}`, 422, "body.retries"},
		{"retries huge", "POST", "/v1/jobs", `{"program":{"builtin":"x"},"retries":1e99}`, 422, "body.retries"},
		{"range over 64 bits", "POST", "/v1/jobs", `{"program":{"builtin":"x"},"range":{"from":0,"to":9223372036854775808}}`, 422, "body.range.to"},
		{"bad base64", "POST", "/v1/jobs", `{"program":{"builtin":"x"},"lines":{"raw":"!!"}}`, 422, "base64"},
		{"job not a number", "GET", "/v1/jobs/x", "", 422, "path.n"},
		{"job zero", "GET", "/v1/jobs/0", "", 422, "path.n"},
		{"no such job", "GET", "/v1/jobs/99", "", 404, "no job 99"},
		{"wait for no such job", "GET", "/v1/jobs/99?wait=1s", "", 404, "no job 99"},
		{"bad wait", "GET", "/v1/jobs/1?wait=soon", "", 422, "query.wait"},
		{"negative wait", "GET", "/v1/jobs/1?wait=-1s", "", 422, "query.wait"},
		{"long wait", "GET", "/v1/jobs/1?wait=11m", "", 422, "query.wait"},
		{"unknown query", "GET", "/v1/jobs/1?wiat=1s", "", 422, "wiat"},
		{"limit over", "GET", "/v1/jobs?limit=1001", "", 422, "query.limit"},
		{"limit under", "GET", "/v1/jobs?limit=0", "", 422, "query.limit"},
		{"unknown status", "GET", "/v1/jobs?status=done,lost", "", 422, "query.status"},
		{"bad cursor", "GET", "/v1/jobs?cursor=zz", "", 422, "cursor"},
		{"tasks of no job", "GET", "/v1/jobs/99/tasks", "", 404, "no job 99"},
		{"unknown task status", "GET", "/v1/jobs/1/tasks?status=lost", "", 422, "query.status"},
		{"no such task", "GET", "/v1/jobs/1/tasks/map/5", "", 404, "1/map/5"},
		{"task not a number", "GET", "/v1/jobs/1/tasks/map/-5", "", 422, "path.i"},
		{"task of another job", "GET", "/v1/jobs/1/explain?task=2/map/0", "", 422, "another job"},
		{"task without a number", "GET", "/v1/jobs/1/logs?task=map", "", 422, "query.task"},
		{"result too early", "GET", "/v1/jobs/1/result", "", 409, "running"},
		{"result of no job", "GET", "/v1/jobs/99/result", "", 404, "no job 99"},
		{"logs of no job", "GET", "/v1/jobs/99/logs", "", 404, "no job 99"},
		{"stop no job", "POST", "/v1/jobs/99/stop", "", 404, "no job 99"},
		{"no such worker", "GET", "/v1/workers/9", "", 404, "no worker 9"},
		{"drain no worker", "POST", "/v1/workers/9/drain", "", 404, "no worker 9"},
		{"remove no worker", "DELETE", "/v1/workers/9", "", 404, "no worker 9"},
		{"no route", "GET", "/v2/jobs", "", 404, "/docs"},
		{"wrong method", "DELETE", "/v1/jobs", "", 405, "GET, POST"},
		{"start without class", "POST", "/job/start", `{}`, 422, "body.jobClass"},
		{"start with a strange class", "POST", "/job/start", `{"jobClass":[1]}`, 422, "body.jobClass"},
		{"start with strange settings", "POST", "/job/start", `{"jobClass":"Sample","userSettings":"x"}`, 422, "body.userSettings"},
		{"start not JSON", "POST", "/start", `name=x`, 400, "not JSON"},
		{"status of no number", "GET", "/job/status/x", "", 404, "not a number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httpapitest.Ask(t, a, c.method, c.target, c.body)
			if w.Code != c.status {
				t.Fatalf("%s %s = %d, want %d: %.300s", c.method, c.target, w.Code, c.status, w.Body)
			}
			p := httpapitest.ProblemOf(t, w)
			if !strings.Contains(p.Error(), c.says) {
				t.Errorf("problem %q does not say %q", p.Error(), c.says)
			}
			if w.Body.Len() > 2000 {
				t.Errorf("problem has %d bytes: it echoes the request", w.Body.Len())
			}
			if w.Header().Get("X-Bridgefour-Index") == "" {
				t.Error("no X-Bridgefour-Index")
			}
		})
	}
	if w := httpapitest.Ask(t, a, "DELETE", "/v1/jobs", ""); w.Header().Get("Allow") != "GET, POST" {
		t.Errorf("Allow = %q, want GET, POST", w.Header().Get("Allow"))
	}
}

func TestBodyLimits(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	w := httpapitest.Ask(t, a, "POST", "/job/start", `{"jobClass":"Sample","name":"`+strings.Repeat("x", bodyBytesMax)+`"}`)
	if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("large start = %d, want 413", p.Status)
	}
	// The limit itself is allowed.
	for size, want := range map[int]bool{99: true, 100: true, 101: false} {
		body := `"` + strings.Repeat("x", size-2) + `"`
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(body))
		var s string
		err := decodeBody(httptest.NewRecorder(), r, 100, true, &s)
		if (err == nil) != want {
			t.Errorf("decodeBody(%d bytes, limit 100) = %v, want success %v", size, err, want)
		}
		if err != nil && !api.IsStatus(err, http.StatusRequestEntityTooLarge) {
			t.Errorf("decodeBody(%d bytes, limit 100) = %v, want 413", size, err)
		}
	}
}

func TestLeaderErrors(t *testing.T) {
	l := httpapitest.NewFake()
	a := newAPI(l)
	for _, c := range []struct {
		err    error
		status int
		retry  string
	}{
		{api.Invalid("input %q matches no file", "x").With("body.inputs[0]", "no file", "x"), 422, ""},
		{api.Unavailable("the disk is full"), 503, "1"},
		{api.TooFast("too many submits"), 429, "1"},
		{api.OverQuota("too many open jobs"), 429, ""},
		{errors.Join(errors.New("plan"), &api.Problem{Status: 409, Detail: "output is not empty"}), 409, ""},
		{errors.New("broken"), 500, ""},
	} {
		l.OnSubmit = func(*api.JobRequest) error { return c.err }
		w := httpapitest.Ask(t, a, "POST", "/v1/jobs", `{"program":{"builtin":"x"}}`)
		if w.Code != c.status || w.Header().Get("Retry-After") != c.retry {
			t.Errorf("%v = %d, Retry-After %q; want %d, %q", c.err, w.Code, w.Header().Get("Retry-After"), c.status, c.retry)
		}
		httpapitest.ProblemOf(t, w)
	}
	l.OnSubmit = func(*api.JobRequest) error { panic("a secret") }
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "POST", "/v1/jobs", `{"program":{"builtin":"x"}}`)); p.Status != 500 || strings.Contains(p.Detail, "secret") {
		t.Errorf("a panic = %+v, want 500 without its text", p)
	}
}

func TestCrossSiteRequests(t *testing.T) {
	l := httpapitest.NewFake()
	a := newAPI(l)
	r := httptest.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1:6550/v1/jobs", strings.NewReader(`{"program":{"builtin":"x"}}`))
	r.Header.Set("Origin", "https://evil.example")
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusForbidden || len(l.JobByID) != 0 {
		t.Errorf("cross-site submit = %d with %d jobs, want 403 and none", p.Status, len(l.JobByID))
	}
}

func TestWait(t *testing.T) {
	t.Run("ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := httpapitest.NewFake()
			l.Set(fullJob(1))
			a := newAPI(l)
			go func() {
				time.Sleep(3 * time.Second)
				job := fullJob(1)
				job.Status = api.JobDone
				l.Set(job)
			}()
			begun := time.Now()
			job := httpapitest.Decode[api.Job](t, httpapitest.Ask(t, a, "GET", "/v1/jobs/1?wait=30s", ""))
			if waited := time.Since(begun); job.Status != api.JobDone || waited != 3*time.Second {
				t.Errorf("wait gave %s after %v, want done after 3s", job.Status, waited)
			}
		})
	})
	t.Run("time is up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := httpapitest.NewFake()
			l.Set(fullJob(1))
			begun := time.Now()
			job := httpapitest.Decode[api.Job](t, httpapitest.Ask(t, newAPI(l), "GET", "/v1/jobs/1?wait=30s", ""))
			if waited := time.Since(begun); job.Status != api.JobRunning || waited != 30*time.Second {
				t.Errorf("wait gave %s after %v, want running after 30s", job.Status, waited)
			}
		})
	})
	t.Run("the server stops", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := httpapitest.NewFake()
			l.Set(fullJob(1))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			w := httptest.NewRecorder()
			newAPI(l).ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v1/jobs/1?wait=30s", nil))
			if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusServiceUnavailable {
				t.Errorf("wait on a stopping leader = %d, want 503", p.Status)
			}
		})
	})
	t.Run("too many wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := httpapitest.NewFake()
			l.Set(fullJob(1))
			a := newAPI(l)
			a.waiting = make(chan struct{}, 1)
			go httpapitest.Ask(t, a, "GET", "/v1/jobs/1?wait=30s", "")
			synctest.Wait()
			for _, path := range []string{"/v1/jobs/1?wait=30s", "/v1/events", "/v1/jobs/1/logs?follow=true"} {
				w := httpapitest.Ask(t, a, "GET", path, "")
				if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
					t.Errorf("GET %s beside another wait = %d, want 503 with Retry-After", path, p.Status)
				}
			}
			if w := httpapitest.Ask(t, a, "GET", "/v1/jobs/1", ""); w.Code != http.StatusOK {
				t.Errorf("a read that does not wait = %d, want 200", w.Code)
			}
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if w := httpapitest.Ask(t, a, "GET", "/v1/jobs/1?wait=1s", ""); w.Code != http.StatusOK {
				t.Errorf("the next wait = %d, want 200", w.Code)
			}
		})
	})
	t.Run("says how fresh it is at the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := httpapitest.NewFake()
			l.Set(fullJob(1))
			a := newAPI(l)
			go func() {
				time.Sleep(time.Second)
				l.Change(func() { l.Age = 900 })
			}()
			w := httpapitest.Ask(t, a, "GET", "/v1/jobs/1?wait=2s", "")
			if w.Header().Get(headerAge) != "900" || w.Header().Get(headerIndex) != "9" || len(w.Header()[headerAge]) != 1 {
				t.Errorf("wait ends with headers %v, want age 900 at 9", w.Header())
			}
		})
	})
}

func TestReads(t *testing.T) {
	l := httpapitest.NewFake()
	for id := range uint64(5) {
		job := fullJob(id + 1)
		if id%2 == 0 {
			job.Status = api.JobDone
		}
		l.Set(job)
	}
	l.TasksOf[1] = []api.Task{{Name: "1/map/0", Stage: "map", Status: api.TaskDone}, {Name: "1/map/1", Index: 1, Stage: "map", Status: api.TaskDead}}
	l.WorkerByID[3] = api.Worker{ID: 3, Status: api.WorkerAlive, Slots: 2}
	a := newAPI(l)

	w := httpapitest.Ask(t, a, "GET", "/v1/jobs/2", "")
	if got := httpapitest.Decode[api.Job](t, w); !reflect.DeepEqual(got, fullJob(2)) {
		t.Errorf("job = %+v, want %+v", got, fullJob(2))
	}
	for header, want := range map[string]string{"X-Bridgefour-Index": "12", "X-Bridgefour-Age": "0", "X-Bridgefour-Leader": "1"} {
		if got := w.Header().Get(header); got != want {
			t.Errorf("%s = %q, want %q", header, got, want)
		}
	}
	page := httpapitest.Decode[api.JobList](t, httpapitest.Ask(t, a, "GET", "/v1/jobs?status=done,failed&limit=2", ""))
	if len(page.Jobs) != 2 || page.Jobs[0].ID != 5 || page.Jobs[1].ID != 3 || page.Next == "" {
		t.Fatalf("page = %+v, want jobs 5 and 3 and a next", page)
	}
	if page = httpapitest.Decode[api.JobList](t, httpapitest.Ask(t, a, "GET", "/v1/jobs?status=done,failed&limit=2&cursor="+page.Next, "")); len(page.Jobs) != 1 || page.Jobs[0].ID != 1 {
		t.Errorf("second page = %+v, want job 1", page)
	}
	if got := httpapitest.Ask(t, newAPI(httpapitest.NewFake()), "GET", "/v1/jobs", "").Body.String(); got != `{"jobs":[]}`+"\n" {
		t.Errorf("no jobs = %s, want an empty list", got)
	}
	if tasks := httpapitest.Decode[api.TaskList](t, httpapitest.Ask(t, a, "GET", "/v1/jobs/1/tasks?status=dead", "")); len(tasks.Tasks) != 1 || tasks.Tasks[0].Index != 1 {
		t.Errorf("dead tasks = %+v, want task 1", tasks)
	}
	if task := httpapitest.Decode[api.Task](t, httpapitest.Ask(t, a, "GET", "/v1/jobs/1/tasks/map/1", "")); task.Name != "1/map/1" {
		t.Errorf("task = %+v, want 1/map/1", task)
	}
	for target, want := range map[string]string{
		"/v1/jobs/1/explain": "1", "/v1/jobs/1/explain?task=map/7": "1/map/7", "/v1/jobs/1/explain?task=1/map/7": "1/map/7",
	} {
		if e := httpapitest.Decode[api.Explanation](t, httpapitest.Ask(t, a, "GET", target, "")); e.Subject != want || e.Reasons == nil {
			t.Errorf("%s = %+v, want subject %s and a list of reasons", target, e, want)
		}
	}
	if c := httpapitest.Decode[api.Cluster](t, httpapitest.Ask(t, a, "GET", "/v1/cluster", "")); c.Name != "test" {
		t.Errorf("cluster = %+v", c)
	}
	if list := httpapitest.Decode[api.WorkerList](t, httpapitest.Ask(t, a, "GET", "/v1/workers", "")); len(list.Workers) != 1 {
		t.Errorf("workers = %+v, want one", list)
	}
}

func TestWrites(t *testing.T) {
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	l.WorkerByID[3] = api.Worker{ID: 3, Status: api.WorkerAlive, Slots: 2}
	a := newAPI(l)
	for range 2 { // the second time by a client that did not hear the first answer
		if job := httpapitest.Decode[api.Job](t, httpapitest.Ask(t, a, "POST", "/v1/jobs/1/stop", "")); job.Status != api.JobStopped {
			t.Errorf("stop = %s", job.Status)
		}
	}
	l.Set(httpapitest.Job(2, api.JobDone))
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "POST", "/v1/jobs/2/stop", "")); p.Status != http.StatusConflict {
		t.Errorf("stop of a done job = %d, want 409", p.Status)
	}
	if job := httpapitest.Decode[api.Job](t, httpapitest.Ask(t, a, "POST", "/v1/jobs/1/retry", "")); job.Status != api.JobRunning {
		t.Errorf("retry = %s", job.Status)
	}
	if w := httpapitest.Decode[api.Worker](t, httpapitest.Ask(t, a, "POST", "/v1/workers/3/drain", "")); w.Status != api.WorkerDraining {
		t.Errorf("drain = %s", w.Status)
	}
	if w := httpapitest.Ask(t, a, "DELETE", "/v1/workers/3", ""); w.Code != http.StatusNoContent || w.Header().Get("X-Bridgefour-Index") != fmt.Sprint(l.Index) {
		t.Errorf("remove = %d at %s, want 204 at %d", w.Code, w.Header().Get("X-Bridgefour-Index"), l.Index)
	}
}

// leavingLeader's workers leave as soon as they are drained.
type leavingLeader struct{ *httpapitest.Fake }

func (l leavingLeader) DrainWorker(ctx context.Context, id uint64) (api.Worker, error) {
	w, err := l.Fake.DrainWorker(ctx, id)
	return w, errors.Join(err, l.RemoveWorker(ctx, id))
}

func TestDrainOfAnIdleWorker(t *testing.T) {
	l := httpapitest.NewFake()
	l.WorkerByID[3] = api.Worker{ID: 3, Status: api.WorkerAlive, Slots: 2}
	w := httpapitest.Decode[api.Worker](t, httpapitest.Ask(t, newAPI(leavingLeader{l}), "POST", "/v1/workers/3/drain", ""))
	if w.ID != 3 || w.Status != api.WorkerDraining {
		t.Errorf("drain = %+v, want worker 3, draining", w)
	}
}

func TestProbes(t *testing.T) {
	l := httpapitest.NewFake()
	a := newAPI(l)
	for _, target := range []string{"/healthz", "/readyz"} {
		if w := httpapitest.Ask(t, a, "GET", target, ""); w.Code != http.StatusOK {
			t.Errorf("%s = %d, want 200", target, w.Code)
		}
	}
	l.Unready = "no space left under /var/lib"
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "GET", "/readyz", "")); p.Status != 503 || p.Detail != l.Unready {
		t.Errorf("readyz = %+v, want 503 with the reason", p)
	}
	if w := httpapitest.Ask(t, a, "GET", "/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("healthz of a full disk = %d, want 200: a restart would not help", w.Code)
	}
}

// serve runs a real server, as the cli does.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func fetch(t *testing.T, target string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return http.DefaultClient.Do(r)
}

func TestResult(t *testing.T) {
	l := httpapitest.NewFake()
	job := fullJob(1)
	job.Status = api.JobDone
	l.Set(job)
	base := serve(t, newAPI(l))
	for _, c := range []struct {
		name   string
		result func(context.Context, io.Writer) error
		status int
		body   string
		whole  bool
	}{
		{"whole", func(_ context.Context, w io.Writer) error {
			_, err := io.Copy(w, strings.NewReader("a\t1\n\xff\t2\n"))
			return err
		}, 200, "a\t1\n\xff\t2\n", true},
		{"empty", func(context.Context, io.Writer) error { return nil }, 200, "", true},
		{"error before the first byte", func(context.Context, io.Writer) error {
			return api.NewProblem(http.StatusGone, "part 3 of job 1 is gone")
		}, 410, "part 3 of job 1 is gone", true},
		{"error after it", func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, strings.Repeat("x", 10_000))
			return errors.Join(err, errors.New("read part 4: input/output error"))
		}, 200, "xxx", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.OnResult = c.result
			answer, err := fetch(t, base+"/v1/jobs/1/result")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if answer.StatusCode != c.status || !bytes.Contains(body, []byte(c.body)) || (err == nil) != c.whole {
				t.Errorf("result = %d %.100q, %v; want %d %q, whole %v", answer.StatusCode, body, err, c.status, c.body, c.whole)
			}
		})
	}
}

func TestParts(t *testing.T) {
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	l.PartList = []api.Part{{Task: 3, Bytes: 3, Input: "b\xff", Text: []byte("\xff\n{")}, {Task: 3, Offset: 3, Bytes: 1, Text: []byte("}")}}
	answer, err := fetch(t, serve(t, newAPI(l))+"/v1/jobs/1/parts?inputs=true")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if want := "{\"task\":3,\"bytes\":3,\"input\":\"b\\ufffd\"}\n\xff\n{{\"task\":3,\"offset\":3,\"bytes\":1}\n}"; err != nil || string(body) != want {
		t.Errorf("parts = %q, %v; want %q", body, err, want)
	}
}

func TestFollowedLogsAreFlushed(t *testing.T) {
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	read := make(chan struct{})
	l.OnLogs = func(ctx context.Context, q api.LogQuery, emit func(api.LogRecord) error) error {
		want := api.LogQuery{Job: 1, OneTask: true, Stage: "map", Index: 7, Follow: true}
		if q != want {
			t.Errorf("query = %+v, want %+v", q, want)
		}
		if err := emit(api.LogRecord{Task: "1/map/7", Text: []byte("a\xff\n")}); err != nil {
			return err
		}
		select {
		case <-read: // the first record has reached the client
		case <-ctx.Done():
			return ctx.Err()
		}
		return emit(api.LogRecord{Task: "1/map/7", Text: []byte("b\n")})
	}
	answer, err := fetch(t, serve(t, newAPI(l))+"/v1/jobs/1/logs?task=map/7&follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(answer.Body)
	var texts []string
	for lines.Scan() {
		var record api.LogRecord
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(record.Text))
		if len(texts) == 1 {
			close(read)
		}
	}
	if err := lines.Err(); err != nil || !reflect.DeepEqual(texts, []string{"a\xff\n", "b\n"}) {
		t.Errorf("logs = %q, %v", texts, err)
	}
}

// TestLogForms: logs are sent as the client accepts them, and as ever to one that says nothing.
func TestLogForms(t *testing.T) {
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	l.OnLogs = func(_ context.Context, q api.LogQuery, emit func(api.LogRecord) error) error {
		if want := (api.LogQuery{Job: 1, Failed: true, Since: at}); q != want {
			t.Errorf("query = %+v, want %+v", q, want)
		}
		return errors.Join(
			emit(api.LogRecord{Task: "1/map/7", Attempt: 2, Winner: true, Time: &at, Text: []byte("ä\nb")}),
			emit(api.LogRecord{Task: "1/map/7", Attempt: 1, Output: true, Text: []byte("\xff\n")}),
			emit(api.LogRecord{Worker: 3, Missing: "it is away"}),
		)
	}
	url := serve(t, newAPI(l)) + "/v1/jobs/1/logs?failed=true&since=2026-01-02T03:04:05.678Z"
	readable := `{"task":"1/map/7","attempt":2,"worker":0,"lease":0,"winner":true,"time":"2026-01-02T03:04:05.678Z","text":"ä\nb"}
{"task":"1/map/7","attempt":1,"worker":0,"lease":0,"output":true,"base64":"/wo="}
{"task":"","attempt":0,"worker":3,"lease":0,"missing":"it is away"}
`
	encoded := `{"task":"1/map/7","attempt":2,"worker":0,"lease":0,"winner":true,"time":"2026-01-02T03:04:05.678Z","text":"w6QKYg=="}
{"task":"1/map/7","attempt":1,"worker":0,"lease":0,"text":"/wo=","output":true}
{"task":"","attempt":0,"worker":3,"lease":0,"text":null,"missing":"it is away"}
`
	plain := "2026-01-02T03:04:05.678Z 1/map/7: ä\n2026-01-02T03:04:05.678Z 1/map/7: b\n1/map/7#1 stdout: \xff\nlogs missing: it is away\n"
	for accept, want := range map[string][2]string{
		"":                          {"application/jsonl", encoded},
		"*/*":                       {"application/jsonl", readable},
		"application/jsonl":         {"application/jsonl", readable},
		"text/plain":                {"text/plain; charset=utf-8", plain},
		"text/html, text/plain;q=1": {"text/plain; charset=utf-8", plain},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if got := [2]string{answer.Header.Get("Content-Type"), string(body)}; err != nil || got != want {
			t.Errorf("Accept %q: %q, %v; want %q", accept, got, err, want)
		}
	}
}

func TestLogReaderDisconnects(t *testing.T) {
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	gone := make(chan error, 1)
	l.OnLogs = func(ctx context.Context, _ api.LogQuery, emit func(api.LogRecord) error) error {
		if err := emit(api.LogRecord{Text: []byte("a")}); err != nil {
			return err
		}
		<-ctx.Done()
		gone <- ctx.Err()
		return ctx.Err()
	}
	answer, err := fetch(t, serve(t, newAPI(l))+"/v1/jobs/1/logs?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("leader's context ended with %v, want canceled", err)
	}
}

func TestShutdownEndsWaits(t *testing.T) {
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	ctx, cancel := context.WithCancel(t.Context())
	server := Server(ctx, newAPI(l), newAPI(l).log)
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = server
	ts.Start()
	defer ts.Close()
	waiting := make(chan int)
	go func() {
		answer, err := fetch(t, ts.URL+"/v1/jobs/1?wait=10m")
		if err != nil {
			t.Error(err)
			waiting <- 0
			return
		}
		_ = answer.Body.Close()
		waiting <- answer.StatusCode
	}()
	cancel()
	if status := <-waiting; status != http.StatusServiceUnavailable {
		t.Errorf("wait on a stopping server = %d, want 503", status)
	}
}

// deadlineWriter records the read deadlines that a handler sets.
type deadlineWriter struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
}

func (w *deadlineWriter) SetReadDeadline(t time.Time) error {
	w.deadlines = append(w.deadlines, t)
	return nil
}

func TestSlowBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pieces = 3
		w := &deadlineWriter{ResponseRecorder: httptest.NewRecorder()}
		body := `"` + strings.Repeat("x", pieces*bodyPiece-2) + `"`
		var s string
		if err := decodeBody(w, httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(body)), 1<<20, true, &s); err != nil {
			t.Fatal(err)
		}
		if n := len(w.deadlines); n < pieces+1 || n > pieces+2 {
			t.Fatalf("%d deadlines for %d pieces", n, pieces)
		}
		for i, deadline := range w.deadlines {
			last := i == len(w.deadlines)-1
			if last != deadline.IsZero() || !last && time.Until(deadline) != bodyPieceTime {
				t.Errorf("deadline %d of %d = %v", i, len(w.deadlines), deadline)
			}
		}
	})
}
