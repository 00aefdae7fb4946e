package httpapi

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

func TestTokens(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	w := httpapitest.Ask(t, a, "POST", "/v1/access/tokens", `{"role":"submit","user":"ann","ttl":"2h"}`)
	token := httpapitest.Decode[api.NewToken](t, w)
	if w.Code != http.StatusCreated || token.Role != "submit" || token.User != "ann" || token.Expires.Sub(token.Created) != 2*time.Hour || token.Join == "" {
		t.Errorf("create = %d %+v, want 201 and the token", w.Code, token)
	}
	for body, want := range map[string]struct {
		user string
		ttl  time.Duration
	}{
		`{"role":"admin"}`:             {ownPolicyUser(t, a), 90 * 24 * time.Hour},
		`{"role":"worker"}`:            {"", 24 * time.Hour},
		`{"role":"leader","ttl":"0s"}`: {"", 0},
	} {
		got := httpapitest.Decode[api.NewToken](t, httpapitest.Ask(t, a, "POST", "/v1/access/tokens", body))
		var ttl time.Duration
		if got.Expires != nil {
			ttl = got.Expires.Sub(got.Created)
		}
		if got.User != want.user || ttl != want.ttl {
			t.Errorf("create %s: user %q for %v, want %+v", body, got.User, ttl, want)
		}
	}
	for body, says := range map[string]string{
		`{}`: "role", `{"role":"root"}`: "role", `{"role":"worker","user":"ann"}`: "have no user", `{"role":"read","user":"a\u001b[2J"}`: "printable", `{"role":"read","ttl":"soon"}`: "such as 24h",
		`{"role":"read","ttl":"-1h"}`: "such as 24h", `{"role":"read","ttl":"1ms"}`: "such as 24h", `{"role":"read","user":"` + strings.Repeat("x", 101) + `"}`: "length",
	} {
		if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "POST", "/v1/access/tokens", body)); p.Status != http.StatusUnprocessableEntity || !strings.Contains(p.Error(), says) {
			t.Errorf("create %s = %d %s, want 422 with %q", body, p.Status, p.Error(), says)
		}
	}
	list := httpapitest.Ask(t, a, "GET", "/v1/access/tokens", "")
	if got := httpapitest.Decode[api.TokenList](t, list); len(got.Tokens) != 4 || got.Tokens[0].ID != token.ID || strings.Contains(list.Body.String(), "SECRET") {
		t.Errorf("list = %s, want all tokens without their secrets", list.Body)
	}
	if w := httpapitest.Ask(t, a, "DELETE", "/v1/access/tokens/"+token.ID, ""); w.Code != http.StatusNoContent {
		t.Errorf("revoke = %d %s, want 204", w.Code, w.Body)
	}
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "DELETE", "/v1/access/tokens/"+token.ID, "")); p.Status != http.StatusNotFound {
		t.Errorf("revoke again = %+v, want 404", p)
	}
}

// ownPolicyUser is the user whom the API takes the tests' requests to be from.
func ownPolicyUser(t *testing.T, a *API) string {
	t.Helper()
	who := httpapitest.Decode[api.Identity](t, httpapitest.Ask(t, a, "GET", "/v1/access", ""))
	if who.User == "" || who.Role != "admin" || who.Cluster != "test" {
		t.Errorf("identity = %+v, want the user of the process as admin", who)
	}
	return who.User
}

// TestAuthenticate: a 401 says how to authenticate, as RFC 9110 wants it.
func TestAuthenticate(t *testing.T) {
	policy := access.NewPolicy(access.Options{})
	leader := New(Options{Leader: readAll(), Metrics: http.NotFoundHandler(), Policy: policy, Log: slog.New(slog.DiscardHandler)})
	worker := NewWorker(WorkerOptions{Worker: &fakeWorker{}, Metrics: http.NotFoundHandler(), Policy: policy})
	for name, h := range map[string]http.Handler{"leader": leader, "worker": worker} {
		for authorization, says := range map[string]string{"": "without a token", "Bearer x_y": "not complete", "Basic eDp5": ""} {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1/metrics", http.NoBody)
			r.Header.Set("Authorization", authorization)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			p := httpapitest.ProblemOf(t, w)
			if got := w.Header().Get("WWW-Authenticate"); p.Status != http.StatusUnauthorized || got != "Bearer" || !strings.Contains(p.Detail, says) {
				t.Errorf("%s: %q = %d %s, WWW-Authenticate %q; want 401 and Bearer", name, authorization, p.Status, p.Detail, got)
			}
		}
	}
}
