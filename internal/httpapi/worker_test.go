package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// fakeWorker has number 4.
type fakeWorker struct {
	busy     []bool
	notReady string
	refuse   error // the answer to an invitation
	got      api.Invitation
}

func (*fakeWorker) Number() uint64     { return 4 }
func (w *fakeWorker) Busy() []bool     { return w.busy }
func (w *fakeWorker) NotReady() string { return w.notReady }

func (w *fakeWorker) Invite(_ context.Context, leaders []string, clusterID, clusterName string) error {
	w.got = api.Invitation{Leaders: leaders, ClusterID: clusterID, ClusterName: clusterName}
	return w.refuse
}

func TestWorkerRoutes(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") })
	h := NewWorker(&fakeWorker{busy: []bool{true, false}}, metrics, ownHosts())
	for target, want := range map[string]string{
		"/worker/state":   `{"id":4,"slots":[{"id":0,"status":{"type":"InProgress"}},{"id":1,"status":{"type":"Missing"}}],"status":{"type":"Alive"}}`,
		"/task/status/0":  `{"type":"InProgress"}`,
		"/task/status/1":  `{"type":"Missing"}`,
		"/task/status/2":  `{"type":"Missing"}`,
		"/task/status/-1": `{"type":"Missing"}`,
		"/healthz":        `{"status":"ok"}`,
		"/readyz":         `{"status":"ready"}`,
		"/metrics":        `metrics`,
	} {
		w := httpapitest.Ask(t, h, "GET", target, "")
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != want {
			t.Errorf("%s = %d %s, want %s", target, w.Code, got, want)
		}
	}
	for _, target := range []string{"/task/status/x", "/v1/jobs", "/job/1"} {
		if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, h, "GET", target, "")); p.Status != http.StatusNotFound {
			t.Errorf("%s = %d, want 404", target, p.Status)
		}
	}
}

func TestWorkerThatIsRefused(t *testing.T) {
	why := `cluster "b4": your clock is 7m off`
	h := NewWorker(&fakeWorker{notReady: why}, nil, ownHosts())
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, h, "GET", "/readyz", "")); p.Status != http.StatusServiceUnavailable || p.Detail != why {
		t.Errorf("readyz = %+v, want 503 with the reason", p)
	}
	if w := httpapitest.Ask(t, h, "GET", "/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("healthz = %d, want 200: a restart would not help", w.Code)
	}
}

func TestInvite(t *testing.T) {
	w := &fakeWorker{}
	h := NewWorker(w, nil, ownHosts())
	body := `{"leaders":["10.0.0.1:6550","[::1]:6551"],"cluster_id":"c1","cluster_name":"b4"}`
	want := api.Invitation{Leaders: []string{"10.0.0.1:6550", "[::1]:6551"}, ClusterID: "c1", ClusterName: "b4"}
	if answer := httpapitest.Ask(t, h, "POST", invitePath, body); answer.Code != http.StatusOK || !reflect.DeepEqual(w.got, want) {
		t.Errorf("invitation = %d %s, the worker got %+v; want %+v", answer.Code, answer.Body, w.got, want)
	}
	w.refuse = errors.New("this worker belongs to cluster c2")
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, h, "POST", invitePath, body)); p.Status != http.StatusConflict || p.Detail != "this worker belongs to cluster c2" {
		t.Errorf("refused invitation = %+v, want 409 with what the worker says", p)
	}
	w.refuse = api.Unavailable("the worker is stopping")
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, h, "POST", invitePath, body)); p.Status != http.StatusServiceUnavailable {
		t.Errorf("invitation of a stopping worker = %+v, want its own 503", p)
	}
}

func TestBadInvitations(t *testing.T) {
	many := `"a:1"` + strings.Repeat(`,"a:1"`, inviteLeadersMax)
	for body, want := range map[string]int{
		``: 400, `{`: 400, `[]`: 422, `{}`: 422, `{"leaders":[]}`: 422, `{"leaders":["a"]}`: 422, `{"leaders":["a:1",":2"]}`: 422,
		`{"leaders":["a:0"]}`: 422, `{"leaders":["a:65536"]}`: 422, `{"leaders":[` + many + `]}`: 422, `{"leaders":["a:1"],"later":1}`: 200,
		`{"leaders":["a:1"],"cluster_id":"` + strings.Repeat("x", bodyBytesMax) + `"}`: 413,
	} {
		w := &fakeWorker{}
		answer := httpapitest.Ask(t, NewWorker(w, nil, ownHosts()), "POST", invitePath, body)
		if answer.Code != want || (w.got.Leaders != nil) != (want == 200) {
			t.Errorf("invitation %.60s = %d %.200s, passed on %v; want %d", body, answer.Code, answer.Body, w.got.Leaders != nil, want)
		}
		if want != 200 {
			httpapitest.ProblemOf(t, answer)
		}
	}
	w := &fakeWorker{}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1:5555"+invitePath, strings.NewReader(`{"leaders":["a:1"]}`))
	r.Header.Set("Origin", "https://evil.example")
	answer := httptest.NewRecorder()
	NewWorker(w, nil, ownHosts()).ServeHTTP(answer, r)
	if p := httpapitest.ProblemOf(t, answer); p.Status != http.StatusForbidden || w.got.Leaders != nil {
		t.Errorf("cross-site invitation = %d, want 403", p.Status)
	}
}

func TestAddWorker(t *testing.T) {
	l := httpapitest.NewFake()
	l.Idle["10.0.0.7:5555"] = api.Worker{ID: 9, Status: api.WorkerAlive, Slots: 2, Busy: 1}
	l.Idle["[::1]:5556"] = api.Worker{ID: 10, Status: api.WorkerAlive}
	a := newAPI(l)
	for body, want := range map[string]string{
		`{"id":3,"schema":"http","host":"10.0.0.7","port":5555}`: `{"id":9,"slots":[{"id":0,"status":{"type":"InProgress"}},{"id":1,"status":{"type":"Missing"}}],"status":{"type":"Alive"}}`,
		`{"host":"::1","port":5556,"more":true}`:                 `{"id":10,"slots":[],"status":{"type":"Alive"}}`,
	} {
		w := httpapitest.Ask(t, a, "POST", "/cluster/addWorker", body)
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != want {
			t.Errorf("addWorker %s = %d %s, want %s", body, w.Code, got, want)
		}
	}
	for body, want := range map[string]int{
		``: 400, `{"host":"a"}`: 422, `{"port":1}`: 422, `{"host":"a","port":0}`: 422, `{"host":"a","port":65536}`: 422, `{"host":"a","port":"x"}`: 422,
		`{"schema":"https","host":"a","port":1}`: 422, `{"host":"10.0.0.8","port":5555}`: 409,
	} {
		w := httpapitest.Ask(t, a, "POST", "/cluster/addWorker", body)
		if p := httpapitest.ProblemOf(t, w); p.Status != want {
			t.Errorf("addWorker %s = %+v, want %d", body, p, want)
		}
	}
}

// TestIdleWorkersAreNoMembers: the original's cluster state is a map by number, and they have none.
func TestIdleWorkersAreNoMembers(t *testing.T) {
	l := httpapitest.NewFake()
	l.WorkerByID[1] = api.Worker{ID: 1, Status: api.WorkerAlive, Slots: 2}
	l.WorkerByID[99] = api.Worker{Status: api.WorkerIdle, Address: "10.0.0.7:5555", Slots: 8}
	a := newAPI(l)
	want := `{"status":{"type":"Healthy"},"workers":{"1":{"id":1,"slots":[{"id":0,"status":{"type":"Missing"}},{"id":1,"status":{"type":"Missing"}}],` +
		`"status":{"type":"Alive"}}},"slots":{"open":2,"total":2}}`
	if got := strings.TrimSpace(httpapitest.Ask(t, a, "GET", "/cluster", "").Body.String()); got != want {
		t.Errorf("cluster = %s, want %s", got, want)
	}
	if list := httpapitest.Decode[api.WorkerList](t, httpapitest.Ask(t, a, "GET", "/v1/workers", "")); len(list.Workers) != 2 {
		t.Errorf("workers = %+v, want both", fmt.Sprint(list.Workers))
	}
}
