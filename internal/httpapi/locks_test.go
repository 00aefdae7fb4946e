package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

func TestLocks(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	if got := httpapitest.Ask(t, a, "GET", "/v1/locks", "").Body.String(); !strings.Contains(got, `"locks":[]`) {
		t.Errorf("no locks = %s, want an empty list", got)
	}
	put := func(name, body string) (api.LockGrant, *api.Problem) {
		t.Helper()
		w := httpapitest.Ask(t, a, "PUT", "/v1/locks/"+name, body)
		if w.Code == http.StatusOK {
			return httpapitest.Decode[api.LockGrant](t, w), nil
		}
		p := httpapitest.ProblemOf(t, w)
		return api.LockGrant{}, &p
	}
	grant, p := put("licence%2Fmatlab", `{"holder":"one","ttl_ms":5000,"note":"nightly"}`)
	if p != nil || grant.Fence == 0 || grant.ExpiresInMillis != 5000 {
		t.Errorf("acquire = %+v, %v; want a grant for 5 s", grant, p)
	}
	if _, p := put("licence", `{"holder":"two"}`); p == nil || p.Status != http.StatusConflict || p.Lock == nil || p.Lock.Place != 1 || p.Lock.Holders[0].Holder != "one" {
		t.Errorf("acquire what is held = %+v, want the holder and the place", p)
	}
	one := httpapitest.Decode[api.Lock](t, httpapitest.Ask(t, a, "GET", "/v1/locks/licence%2Fmatlab", ""))
	if one.Name != "licence/matlab" || len(one.Holders) != 1 || one.Holders[0].Note != "nightly" || one.Holders[0].Fence != grant.Fence {
		t.Errorf("lock = %+v, want its holder", one)
	}
	for body, says := range map[string]string{
		`{}`: "holder", `{"holder":"x","mode":"both"}`: "mode", `{"holder":"x","ttl_ms":3600001}`: "ttl_ms", `{"holder":"x","wait":3}`: "wait", `{`: "",
		`{"holder":"` + strings.Repeat("x", 257) + `"}`: "holder",
	} {
		if _, p := put("n", body); p == nil || p.Status/100 != 4 || !strings.Contains(p.Error(), says) {
			t.Errorf("acquire %s = %v, want a refusal with %q", body, p, says)
		}
	}
	if _, p := put(strings.Repeat("x", 1025), `{"holder":"x"}`); p == nil || p.Status != http.StatusUnprocessableEntity {
		t.Errorf("acquire a long name = %v, want 422", p)
	}
	if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "DELETE", "/v1/locks/licence%2Fmatlab", "")); p.Status != http.StatusUnprocessableEntity {
		t.Errorf("release without a holder = %+v, want 422", p)
	}
	if w := httpapitest.Ask(t, a, "DELETE", "/v1/locks/licence%2Fmatlab?holder=one", ""); w.Code != http.StatusNoContent {
		t.Errorf("release = %d, want 204", w.Code)
	}
	if _, p := put("licence", `{"holder":"two"}`); p != nil {
		t.Errorf("acquire what was released = %v", p)
	}
}

// TestLockContentType: 'curl -d' sends the content type of a form.
func TestLockContentType(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	for path, method := range map[string]string{"/v1/locks/a": "PUT", "/v1/locks": "POST"} {
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(`{"holder":"one","names":[{"name":"a"}]}`))
		if method == "PUT" {
			r.Body = io.NopCloser(strings.NewReader(`{"holder":"one"}`))
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		if a.ServeHTTP(w, r); w.Code != http.StatusOK {
			t.Errorf("%s %s = %d %s, want 200", method, path, w.Code, w.Body)
		}
	}
}

func TestLockBatch(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	post := func(body string) (int, string) {
		t.Helper()
		w := httpapitest.Ask(t, a, "POST", "/v1/locks", body)
		return w.Code, w.Body.String()
	}
	if code, body := post(`{"holder":"one","names":[{"name":"a"},{"name":"b","mode":"shared"}]}`); code != http.StatusOK || !strings.Contains(body, `"fence":`) {
		t.Errorf("two names = %d %s, want a grant", code, body)
	}
	code, body := post(`{"operations":[{"op":"acquire","holder":"two","names":[{"name":"b"}]},{"op":"release","holder":"one","names":[{"name":"b"}]},` +
		`{"op":"acquire","holder":"two","names":[{"name":"b"}]}]}`)
	if code != http.StatusOK || strings.Count(body, `"problem"`) != 1 || !strings.Contains(body, `"place":1`) {
		t.Errorf("batch = %d %s, want three results, the first with a problem", code, body)
	}
	many := strings.TrimSuffix(strings.Repeat(`{"op":"release","holder":"x","names":[{"name":"n"}]},`, api.LockOperationsMax+1), ",")
	for body, says := range map[string]string{
		`{}`:                            "operations",
		`{"operations":[]}`:             "operations",
		`{"op":"acquire"}`:              "op",
		`{"operations":[` + many + `]}`: "more than 1000",
		`{"holder":"x","operations":[` + many[:len(many)/2] + `"`:                                                   "",
		`{"holder":"x","names":[{"name":"n"}],"operations":[{"op":"release","holder":"x","names":[{"name":"n"}]}]}`: "operations",
	} {
		if code, answer := post(body); code/100 != 4 || !strings.Contains(answer, says) {
			t.Errorf("post %s = %d %s, want a refusal with %q", shorten(body), code, answer, says)
		}
	}
}

// TestLockWaitsAreBounded: a request that waits is a long poll, and there are not more of these than others leave.
func TestLockWaitsAreBounded(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	for range lockWaitsMax {
		a.lockWaits <- struct{}{}
	}
	w := httpapitest.Ask(t, a, "PUT", "/v1/locks/n", `{"holder":"x","wait_ms":1}`)
	if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("acquire beyond the limit = %+v, want 429 and when to try again", p)
	}
	for range cap(a.waiting) {
		if _, err := a.wait(); err != nil {
			t.Fatal(err)
		}
	}
	for wait, want := range map[int]int{0: http.StatusOK, 1: http.StatusServiceUnavailable} {
		if w := httpapitest.Ask(t, a, "PUT", "/v1/locks/n", fmt.Sprintf(`{"holder":"x","wait_ms":%d}`, wait)); w.Code != want {
			t.Errorf("acquire with wait_ms %d = %d %s, want %d", wait, w.Code, w.Body, want)
		}
	}
}
