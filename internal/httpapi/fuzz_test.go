package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// post sends a fuzzed body and checks that the answer is JSON and no internal error.
func post(t *testing.T, a *API, target, body string, ok int) bool {
	t.Helper()
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(body)))
	if !json.Valid(w.Body.Bytes()) {
		t.Fatalf("answer is not JSON: %.300q", w.Body)
	}
	if w.Code == ok {
		return true
	}
	if w.Code != http.StatusBadRequest && w.Code != http.StatusUnprocessableEntity {
		t.Fatalf("body %.300q = %d: %.300s", body, w.Code, w.Body)
	}
	httpapitest.ProblemOf(t, w)
	return false
}

func FuzzSubmit(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `null`, `[]`, `{"program":{"builtin":"wordcount"},"inputs":["/a b","/c\n"],"retries":3,"priority":100,"split":"1MiB"}`,
		`{"program":{"command":["grep","{}"]},"lines":{"items":["a"],"raw":"YQo="}}`, `{"program":{},"range":{"from":-9,"to":9}}`,
		`{"PROGRAM":{"builtin":"x"},"labels":{"a":"b"},"set":null}`, "{\"name\":\"\xff\"}", `{"retries":1e3}`, `{"name":"\ud800"}`,
	} {
		f.Add(body)
	}
	l := httpapitest.NewFake()
	a := newAPI(l)
	f.Fuzz(func(t *testing.T, body string) {
		if !post(t, a, "/v1/jobs", body, http.StatusCreated) {
			return
		}
		// An accepted request means the same when it is sent again.
		first := l.Got
		again, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		if !post(t, a, "/v1/jobs", string(again), http.StatusCreated) {
			t.Fatalf("%q was accepted, and %q was not", body, again)
		}
		second, err := json.Marshal(l.Got)
		if err != nil || !reflect.DeepEqual(again, second) {
			t.Fatalf("%s became %s, %v", again, second, err)
		}
	})
}

func FuzzLocks(f *testing.F) {
	for _, body := range []string{
		``, `null`, `{"holder":"a","names":[{"name":"x"},{"name":"x/y","mode":"shared"}],"max":3,"ttl_ms":1000}`, `{"operations":[null]}`,
		`{"operations":[{"op":"acquire","holder":"a","names":[{"name":"x"}]},{"op":"release","holder":"a","names":[{"name":"x"}]},{"op":"steal"}]}`,
	} {
		f.Add(body)
	}
	l := httpapitest.NewFake()
	a := newAPI(l)
	f.Fuzz(func(t *testing.T, body string) {
		l.LoseLocks()                                            // nothing conflicts
		if !strings.Contains(strings.ToLower(body), "wait_ms") { // it would wait
			post(t, a, "/v1/locks", body, http.StatusOK)
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("/v1/jobs/1", "wait=1ms")
	f.Add("/v1/jobs/1/tasks", "status=open&limit=3&cursor=x")
	f.Add("/v1/jobs/1/explain", "task=map/1")
	f.Add("/job/status/1", "")
	l := httpapitest.NewCluster()
	job := fullJob(1)
	job.Status = api.JobDone // no wait lasts
	l.Set(job)
	l.OnLogs = func(context.Context, api.LogQuery, func(api.LogRecord) error) error { return nil }
	a := newAPI(l)
	f.Fuzz(func(t *testing.T, path, query string) {
		if strings.Contains(query, "min_index") {
			return // it would wait for the log
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL.Path, r.URL.RawQuery = "/"+strings.TrimLeft(path, "/"), query
		if !strings.HasPrefix(r.URL.Path, "/v1/jobs/1") && strings.Contains(query, "wait") {
			return // jobs that have not ended
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
			t.Fatalf("%q?%q = %d: %s", path, query, w.Code, w.Body)
		}
	})
}
