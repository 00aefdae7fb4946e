package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/compat"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

type fakeWorker struct {
	notReady string
	refuse   error // the answer to an invitation
	got      api.Invitation
}

func (w *fakeWorker) NotReady() string { return w.notReady }

func (w *fakeWorker) Invite(_ context.Context, in api.Invitation) error {
	w.got = in
	return w.refuse
}

func newWorker(w *fakeWorker) http.Handler {
	return NewWorker(WorkerOptions{Worker: w, Policy: ownPolicy()})
}

// slots are those of worker 4, by status.
type slots []string

func (slots) ID() uint64             { return 4 }
func (s slots) SlotStatus() []string { return s }

func TestWorkerRoutes(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") })
	h := NewWorker(WorkerOptions{Worker: &fakeWorker{}, Routes: compat.WorkerRoutes(slots{api.SlotRunning, api.SlotUnused, api.SlotDone, api.SlotFailed}), Metrics: metrics, Policy: ownPolicy()})
	for target, want := range map[string]string{
		"/worker/state": `{"id":4,"slots":[{"id":0,"status":{"type":"InProgress"}},{"id":1,"status":{"type":"Missing"}},` +
			`{"id":2,"status":{"type":"Done"}},{"id":3,"status":{"type":"Error"}}],"status":{"type":"Alive"}}`,
		"/worker/status":  ``,
		"/task/status/0":  `{"type":"InProgress"}`,
		"/task/status/1":  `{"type":"Missing"}`,
		"/task/status/2":  `{"type":"Done"}`,
		"/task/status/4":  `{"type":"Missing"}`,
		"/task/status/-1": `{"type":"Missing"}`,
		"/healthz":        `{"status":"ok"}`,
		"/readyz":         `{"status":"ready","insecure":"` + access.InsecureWarning + `"}`,
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

func TestRefusedWorker(t *testing.T) {
	why := `cluster "b4": your clock is 7m off`
	h := newWorker(&fakeWorker{notReady: why})
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, h, "GET", "/readyz", "")); p.Status != http.StatusServiceUnavailable || p.Detail != why {
		t.Errorf("readyz = %+v, want 503 with the reason", p)
	}
	if w := httpapitest.Ask(t, h, "GET", "/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("healthz = %d, want 200: a restart would not help", w.Code)
	}
}

func TestInvite(t *testing.T) {
	w := &fakeWorker{}
	h := newWorker(w)
	body := `{"leaders":["10.0.0.1:6550","[::1]:6551"],"cluster_id":"c1","cluster_name":"b4","claim":0}`
	want := api.Invitation{Leaders: []string{"10.0.0.1:6550", "[::1]:6551"}, ClusterID: "c1", ClusterName: "b4", Claim: new(uint64)}
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

func TestInvalidInvitations(t *testing.T) {
	many := `"a:1"` + strings.Repeat(`,"a:1"`, inviteLeadersMax)
	for body, want := range map[string]int{
		``: 400, `{`: 400, `[]`: 422, `{}`: 422, `{"leaders":[]}`: 422, `{"leaders":["a"]}`: 422, `{"leaders":["a:1",":2"]}`: 422,
		`{"leaders":["a:0"]}`: 422, `{"leaders":["a:65536"]}`: 422, `{"leaders":[` + many + `]}`: 422, `{"leaders":["a:1"],"later":1}`: 200,
		`{"leaders":["a:1"],"claim":2147483647}`: 200, `{"leaders":["a:1"],"claim":2147483648}`: 422, `{"leaders":["a:1"],"claim":-1}`: 422,
		`{"leaders":["a:1"],"cluster_id":"` + strings.Repeat("x", bodyBytesMax) + `"}`: 413,
	} {
		w := &fakeWorker{}
		answer := httpapitest.Ask(t, newWorker(w), "POST", invitePath, body)
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
	newWorker(w).ServeHTTP(answer, r)
	if p := httpapitest.ProblemOf(t, answer); p.Status != http.StatusForbidden || w.got.Leaders != nil {
		t.Errorf("cross-site invitation = %d, want 403", p.Status)
	}
}
