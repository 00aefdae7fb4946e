package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// operations lists the routes of the OpenAPI document that have one of the methods, with values for the path parameters.
func operations(t *testing.T, a *API, methods ...string) []string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(httpapitest.Ask(t, a, http.MethodGet, "/openapi.json", "").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	var found []string
	for path, item := range doc.Paths {
		for method := range item {
			if slices.Contains(methods, strings.ToUpper(method)) {
				found = append(found, strings.ToUpper(method)+" "+strings.NewReplacer("{n}", "4", "{w}", "2", "{id}", "2", "{user}", "ann", "{stage}", "map", "{i}", "0", "{name}", "a").Replace(path))
			}
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		t.Fatalf("no routes with %v", methods)
	}
	return found
}

// readAll returns a leader that answers every read of operations.
func readAll() *httpapitest.Fake {
	l := httpapitest.NewCluster()
	l.TasksOf[4] = httpapitest.Tasks(api.TaskDone)
	l.OnLogs = func(context.Context, api.LogQuery, func(api.LogRecord) error) error { return nil }
	return l
}

// read requests the header of an unbounded answer.
func read(t *testing.T, a *API, target string) *httptest.ResponseRecorder {
	t.Helper()
	method := http.MethodGet
	if strings.HasPrefix(target, "/v1/events") {
		method = http.MethodHead
	}
	return httpapitest.Ask(t, a, method, target, "")
}

func TestConsistencyOfEveryRead(t *testing.T) {
	for _, route := range operations(t, newAPI(readAll()), http.MethodGet) {
		path := strings.TrimPrefix(route, "GET ")
		for _, c := range []struct {
			query  string
			strong int    // rounds that confirm what is current
			moves  uint64 // of the log, that the answer shows
			says   string // the problem; empty: there is none
		}{
			{"", 0, 0, ""},
			{"consistency=stale", 0, 0, ""},
			{"consistency=strong", 1, 1, ""},
			{"consistency=index&min_index=3", 0, 0, ""},
			{"min_index=3", 0, 0, ""},
			{"min_index=0", 0, 0, ""},
			{"consistency=strong&min_index=3", 1, 1, ""},
			{"consistency=eventual", 0, 0, "stale, index or strong"},
			{"consistency=", 0, 0, "stale, index or strong"},
			{"consistency=STRONG", 0, 0, "stale, index or strong"},
			{"consistency=strong&consistency=stale", 0, 0, "query.consistency: is given twice"},
			{"consistency=index", 0, 0, "requires min_index"},
			{"consistency=stale&min_index=3", 0, 0, "query.min_index"},
			{"consistency=index&min_index=x", 0, 0, "query.min_index: expected a log position"},
			{"min_index=-1", 0, 0, "query.min_index"},
			{"min_index=18446744073709551616", 0, 0, "query.min_index"},
			{"min_index=1&min_index=2", 0, 0, "query.min_index: is given twice"},
		} {
			l := readAll()
			before := l.Index
			rounds := 0
			l.OnReadIndex = func(context.Context) (uint64, error) {
				rounds++
				l.Change(func() {}) // a write meanwhile
				return before + 1, nil
			}
			w := read(t, newAPI(l), path+"?"+c.query)
			if rounds != c.strong {
				t.Errorf("%s?%s confirmed %d times what is current, want %d", path, c.query, rounds, c.strong)
			}
			if c.says != "" {
				if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusUnprocessableEntity || !strings.Contains(p.Error(), c.says) {
					t.Errorf("%s?%s = %v, want 422 with %q", path, c.query, p.Error(), c.says)
				}
				continue
			}
			// The tests' metrics are not there, and the login is an invalid one.
			if w.Code >= http.StatusBadRequest && path != "/metrics" && !strings.HasPrefix(path, access.BrowserPath) {
				t.Errorf("%s?%s = %d %s", path, c.query, w.Code, w.Body)
			}
			if got, want := w.Header().Get(headerIndex), strconv.FormatUint(before+c.moves, 10); got != want {
				t.Errorf("%s?%s at log position %s, want %s", path, c.query, got, want)
			}
		}
	}
}

func TestReadTimesOutOnAStaleNode(t *testing.T) {
	for _, route := range operations(t, newAPI(readAll()), http.MethodGet) {
		path := strings.TrimPrefix(route, "GET ")
		for query, says := range map[string]string{
			"min_index=999":      "did not reach 999",
			"consistency=strong": "no majority",
		} {
			synctest.Test(t, func(t *testing.T) {
				l := readAll()
				l.OnReadIndex = func(ctx context.Context) (uint64, error) {
					<-ctx.Done()
					return 0, context.Cause(ctx)
				}
				begun := time.Now()
				w := httpapitest.Ask(t, newAPI(l), http.MethodGet, path+"?"+query, "")
				if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusServiceUnavailable || !strings.Contains(p.Detail, says) || time.Since(begun) != freshMax {
					t.Errorf("%s?%s = %d %q after %v, want 503 with %q after %v", path, query, p.Status, p.Detail, time.Since(begun), says, freshMax)
				}
				if w.Header().Get("Retry-After") != "1" {
					t.Errorf("%s?%s does not say when to come again", path, query)
				}
			})
		}
	}
}

func TestReadWaitsForItsIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := httpapitest.NewFake()
		l.Set(fullJob(1)) // index 8
		l.Age = 700
		a := newAPI(l)
		go func() {
			time.Sleep(time.Second)
			job := fullJob(1)
			job.Name = "later"
			l.Change(func() { l.JobByID[1], l.Age = job, 0 })
		}()
		w := httpapitest.Ask(t, a, "GET", "/v1/jobs/1?min_index=9", "")
		if job := httpapitest.Decode[api.Job](t, w); job.Name != "later" || w.Header().Get(headerIndex) != "9" || w.Header().Get(headerAge) != "0" {
			t.Errorf("min_index=9 gave %q at %s with age %s, want later at 9 with age 0", job.Name, w.Header().Get(headerIndex), w.Header().Get(headerAge))
		}
	})
}

func TestStrongReadWaitsForTheReadIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := httpapitest.NewFake()
		l.Set(fullJob(1)) // index 8
		l.OnReadIndex = func(context.Context) (uint64, error) { return 9, nil }
		go func() {
			time.Sleep(time.Second)
			job := fullJob(1)
			job.Name = "later"
			l.Set(job)
		}()
		w := httpapitest.Ask(t, newAPI(l), "GET", "/v1/jobs/1?consistency=strong", "")
		if job := httpapitest.Decode[api.Job](t, w); job.Name != "later" || w.Header().Get(headerIndex) != "9" {
			t.Errorf("strong read gave %q at %s, want later at 9", job.Name, w.Header().Get(headerIndex))
		}
	})
}

func TestStrongReadReturnsTheLeadersError(t *testing.T) {
	l := httpapitest.NewFake()
	l.OnReadIndex = func(context.Context) (uint64, error) {
		return 0, errors.Join(errors.New("read"), api.Unavailable("no quorum"))
	}
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, newAPI(l), "GET", "/v1/cluster?consistency=strong", "")); p.Status != 503 || p.Detail != "no quorum" {
		t.Errorf("strong read = %+v, want the leader's own 503", p)
	}
}

func TestOpenAPIDescribesConsistency(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name   string `json:"name"`
				Schema struct {
					Enum []string `json:"enum"`
				} `json:"schema"`
			} `json:"parameters"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(httpapitest.Ask(t, newAPI(httpapitest.NewFake()), "GET", "/openapi.json", "").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for method, op := range item {
			var modes []string
			index := 0
			for _, p := range op.Parameters {
				switch p.Name {
				case queryConsistency:
					modes = append(modes, p.Schema.Enum...)
				case queryMinIndex:
					index++
				}
			}
			want, wantIndex := []string(nil), 0
			if method == "get" {
				want, wantIndex = []string{consistencyStale, consistencyIndex, consistencyStrong}, 1
			}
			if !slices.Equal(modes, want) || index != wantIndex {
				t.Errorf("%s %s takes consistency %v and %d min_index, want %v and %d", method, path, modes, index, want, wantIndex)
			}
		}
	}
}
