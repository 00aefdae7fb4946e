package httpapi

import (
	"context"
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
			if got := w.Header().Get(headerIndex); got != "" {
				t.Errorf("%s of evil.example tells the log position %s", route, got)
			}
		}
	}
	if l.Index != before || worker.got.Leaders != nil {
		t.Error("a request of evil.example was carried out")
	}
}

// TestProtectiveHeaders: every answer keeps its content from pages of other sites.
func TestProtectiveHeaders(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context()) // streams end at once
	cancel()
	leader := newAPI(readAll())
	servers := []http.Handler{leader, newWorker(&fakeWorker{})}
	routes := operations(t, leader, http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete)
	for _, route := range append(routes, "GET /", "GET /nonsense", "POST "+invitePath) {
		method, path, _ := strings.Cut(route, " ")
		for _, server := range servers {
			w := httptest.NewRecorder()
			server.ServeHTTP(w, httptest.NewRequestWithContext(gone, method, path, http.NoBody))
			h := w.Header()
			if policy := h.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; frame-ancestors 'none'") || strings.Contains(policy, "script") {
				t.Errorf("%s: content security policy %q", route, policy)
			}
			for name, want := range map[string]string{
				"Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			} {
				if got := h.Values(name); len(got) != 1 || got[0] != want {
					t.Errorf("%s: %s: %q, want %s", route, name, got, want)
				}
			}
		}
	}
}
