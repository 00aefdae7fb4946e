package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/compat"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// TestRebinding sends what a web page could send once its name was rebound to a server's address.
func TestRebinding(t *testing.T) {
	l := readAll()
	leader := newAPI(l)
	worker := &fakeWorker{}
	servers := []http.Handler{leader, NewWorker(WorkerOptions{
		Worker: worker, Routes: compat.WorkerRoutes(slots{}), Metrics: http.NotFoundHandler(), Policy: ownPolicy(),
	})}
	routes := operations(t, leader, http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete)
	routes = append(routes, "GET /", "GET /nonsense", "POST "+invitePath, "GET /worker/state", "OPTIONS /v1/jobs")
	before := l.Index
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		for _, server := range servers {
			r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(`{"leaders":["evil.example:1"]}`))
			r.Host = "evil.example:6550"
			w := httptest.NewRecorder()
			server.ServeHTTP(w, r)
			if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusMisdirectedRequest || !strings.Contains(p.Detail, "evil.example") {
				t.Errorf("%s of evil.example = %+v, want 421", route, p)
			}
		}
	}
	if l.Index != before || worker.got.Leaders != nil {
		t.Error("a request of evil.example was carried out")
	}
}
