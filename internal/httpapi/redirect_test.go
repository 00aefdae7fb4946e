package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// pair is a leader and a follower on real sockets.
type pair struct {
	leader, follower *httpapitest.Fake
	address          string // of the leader
	url              string // of the follower

	mu    sync.Mutex
	asked []*http.Request // what has reached the leader
}

// reached returns the requests that have reached the leader since the last call.
func (p *pair) reached() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

// newPair starts a leader and a follower with the same state, and records the leader's requests.
func newPair(t *testing.T, state func() *httpapitest.Fake) *pair {
	t.Helper()
	p := &pair{leader: state(), follower: state()}
	leading := newAPI(p.leader)
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.Clone(r.Context()))
		p.mu.Unlock()
		leading.ServeHTTP(w, r)
		if !isRead(r) { // the follower gets the log
			index, _, _ := p.leader.Status()
			p.follower.Change(func() { p.follower.Index = max(p.follower.Index, index) })
		}
	}))
	p.address = strings.TrimPrefix(server, "http://")
	p.leader.Address, p.follower.Age = p.address, 40
	p.follower.Follow(p.address)
	following := newAPI(p.follower)
	t.Cleanup(following.Close)
	p.url = serve(t, following)
	return p
}

// TestPreferRedirect: every write of a client that prefers a redirect is redirected, but the login of a browser, which the node keeps.
func TestPreferRedirect(t *testing.T) {
	l := readAll()
	l.Follow("10.0.0.2:6551")
	a := newAPI(l)
	before := l.Index
	for _, route := range operations(t, a, http.MethodPost, http.MethodPut, http.MethodDelete) {
		method, path, _ := strings.Cut(route, " ")
		r := httptest.NewRequestWithContext(t.Context(), method, path+"?a=%2F&b", strings.NewReader("{}"))
		if path == access.BrowserPath {
			continue
		}
		if path != access.CertificatesPath { // a key is proven to the leader itself
			r.Header.Set("Prefer", preferRedirect)
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if got, want := w.Header().Get("Location"), "http://10.0.0.2:6551"+path+"?a=%2F&b"; w.Code != http.StatusTemporaryRedirect || got != want {
			t.Errorf("%s = %d to %q, want 307 to %q", route, w.Code, got, want)
		}
		if w.Header().Get(headerIndex) == "" || w.Header().Get(headerLeader) == "" {
			t.Errorf("%s is not stamped: %v", route, w.Header())
		}
	}
	if l.Index != before {
		t.Error("a write was carried out by a follower")
	}
	// The path is kept as it was written.
	r := httptest.NewRequestWithContext(t.Context(), "DELETE", "http://localhost/v1/workers/1%2f2", nil)
	r.Header.Set("Prefer", preferRedirect)
	w := httptest.NewRecorder()
	if a.ServeHTTP(w, r); w.Header().Get("Location") != "http://10.0.0.2:6551/v1/workers/1%2f2" {
		t.Errorf("Location = %q", w.Header().Get("Location"))
	}
	// Requests without a route are answered here.
	for target, want := range map[string]int{"POST /nonsense": 404, "DELETE /v1/jobs": 405, "PATCH /v1/jobs/1": 405, "POST /": 405} {
		method, path, _ := strings.Cut(target, " ")
		if w := httpapitest.Ask(t, a, method, path, ""); w.Code != want {
			t.Errorf("%s on a follower = %d, want %d", target, w.Code, want)
		}
	}
}

// send sends a request, follows no redirect, and returns the answer with its body.
func send(t *testing.T, method, target string, body io.Reader, header ...string) (code int, answered http.Header, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(all)
}

// TestEveryWriteIsForwarded: through a follower, each write has the same answer and the same effect as at the leader.
func TestEveryWriteIsForwarded(t *testing.T) {
	bodies := map[string]string{
		"POST /v1/jobs": `{"program":{"builtin":"x"}}`, "POST /start": `{"jobClass":"Sample"}`, "POST /job/start": `{"jobClass":"Sample"}`, "POST /v1/leaders": `{"address":"10.0.0.7:6550"}`,
		"POST /v1/access/tokens": `{"role":"read"}`, "PUT /v1/quotas/ann": `{"slots":3}`, "PUT /v1/retention/ann": `{"jobs":5}`,
		"POST /cluster/addWorker": `{"id":7,"schema":"http","host":"10.0.0.7","port":6551}`,
	}
	done := 0
	for _, route := range operations(t, newAPI(readAll()), http.MethodPost, http.MethodPut, http.MethodDelete) {
		method, path, _ := strings.Cut(route, " ")
		if path == access.BrowserPath || path == access.CertificatesPath {
			continue
		}
		straight, through := newPair(t, readAll), newPair(t, readAll)
		want, wantHeader, wantBody := send(t, method, "http://"+straight.address+path, strings.NewReader(bodies[route]))
		got, gotHeader, gotBody := send(t, method, through.url+path, strings.NewReader(bodies[route]))
		for _, h := range []http.Header{wantHeader, gotHeader} {
			h.Del("Date")
		}
		wantBody = strings.ReplaceAll(wantBody, straight.address, through.address) // in a join string
		if got != want || gotBody != wantBody || !reflect.DeepEqual(gotHeader, wantHeader) {
			t.Errorf("%s of a follower = %d %v %s\nwant as the leader's %d %v %s", route, got, gotHeader, gotBody, want, wantHeader, wantBody)
		}
		asked := through.reached()
		if len(asked) != 1 || asked[0].Header.Get(headerForwarded) == "" || asked[0].URL.Path != path {
			t.Errorf("%s reached the leader as %v", route, asked)
		}
		if want < http.StatusMultipleChoices {
			done++
		}
	}
	if done < 12 {
		t.Errorf("%d writes have succeeded, want most", done)
	}
}

// TestForwardedWrites: once, with the key, and in bounds.
func TestForwardedWrites(t *testing.T) {
	p := newPair(t, httpapitest.NewFake)
	for path, body := range map[string]string{"/start": `{"jobClass":"Sample"}`, "/v1/jobs": `{"program":{"builtin":"x"}}`} {
		for range 2 {
			if code, _, text := send(t, "POST", p.url+path, strings.NewReader(body), "Idempotency-Key", path); code >= 300 {
				t.Fatalf("%s = %d %s", path, code, text)
			}
		}
		if code, _, _ := send(t, "POST", p.url+path, strings.NewReader(body), headerForwarded, "3"); code != http.StatusServiceUnavailable {
			t.Errorf("a forwarded %s = %d, want 503", path, code)
		}
	}
	if asked := p.reached(); len(asked) != 4 || len(p.leader.JobByID) != 2 || len(p.follower.JobByID) != 0 {
		t.Errorf("%d requests, %d jobs at the leader, %d at the follower; want 4, 2, 0", len(asked), len(p.leader.JobByID), len(p.follower.JobByID))
	}
	large := strings.Repeat(" ", bodyBytesMax+1)
	for _, path := range []string{"/start", "/v1/leaders"} {
		if code, _, _ := send(t, "POST", p.url+path, io.MultiReader(strings.NewReader(large))); code != http.StatusRequestEntityTooLarge { // without a length
			t.Errorf("a large body of %s = %d, want 413", path, code)
		}
	}
}

// TestForwardedWriteIsVisible: a client that knows only a follower reads its own write there.
func TestForwardedWriteIsVisible(t *testing.T) {
	p := newPair(t, httpapitest.NewFake)
	leading := newAPI(p.leader)
	late := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leading.ServeHTTP(w, r)
		index, _, _ := p.leader.Status()
		time.AfterFunc(50*time.Millisecond, func() { p.follower.Change(func() { p.follower.Index = index }) })
	}))
	p.follower.Follow(strings.TrimPrefix(late, "http://"))
	if code, _, text := send(t, "POST", p.url+"/v1/jobs", strings.NewReader(`{"program":{"builtin":"x"}}`)); code != http.StatusCreated {
		t.Fatalf("submit = %d %s", code, text)
	}
	index, _, _ := p.leader.Status()
	if got, _, _ := p.follower.Status(); got < index {
		t.Errorf("the follower is at %d when it passes on the answer of %d", got, index)
	}
}

// TestForwardedWriteBreaks: the leader may have carried out a write whose connection breaks, and the answer says so.
func TestForwardedWriteBreaks(t *testing.T) {
	l := readAll()
	l.Follow(strings.TrimPrefix(serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })), "http://"))
	a := newAPI(l)
	t.Cleanup(a.Close)
	code, header, text := send(t, "POST", serve(t, a)+"/v1/jobs", strings.NewReader("{}"))
	if code != http.StatusServiceUnavailable || !strings.Contains(text, api.TypeOutcomeUnknown) || !strings.Contains(text, "Idempotency-Key") || header.Get("Retry-After") != "1" {
		t.Errorf("submit = %d %s, want 503 with what to do", code, text)
	}
}

// TestForwardsAreBounded: by the limit of what waits.
func TestForwardsAreBounded(t *testing.T) {
	p := newPair(t, readAll)
	a := newAPI(p.follower)
	t.Cleanup(a.Close)
	for range cap(a.waiting) {
		a.waiting <- struct{}{}
	}
	if w := httpapitest.Ask(t, a, "POST", "/v1/jobs/4/stop", ""); w.Code != http.StatusServiceUnavailable || len(p.reached()) != 0 {
		t.Errorf("stop = %d, want 503", w.Code)
	}
}

// TestBrowserLoginAtAFollower: the one-time URL works where the client is.
func TestBrowserLoginAtAFollower(t *testing.T) {
	p := newPair(t, readAll)
	_, _, text := send(t, "POST", p.url+access.BrowserPath, nil)
	var login api.BrowserLogin
	if err := json.Unmarshal([]byte(text), &login); err != nil || !strings.HasPrefix(login.URL, p.url+"/") {
		t.Fatalf("login = %s, %v; want a URL of the follower, %s", text, err, p.url)
	}
	if code, header, text := send(t, "GET", login.URL, nil); code != http.StatusOK || header.Get("Set-Cookie") == "" {
		t.Errorf("GET %s = %d %s, want a cookie", login.URL, code, text)
	}
	if asked := p.reached(); len(asked) != 0 {
		t.Errorf("the leader was asked %v", asked)
	}
}

// TestSubmitToAFollower sends small and large bodies with the client.
func TestSubmitToAFollower(t *testing.T) {
	for name, lines := range map[string]int{"small": 1, "large": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, httpapitest.NewFake)
			c, err := client.New([]string{p.url}, client.Options{Patience: -1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			raw := []byte(strings.Repeat("line\n", lines))
			for range 2 {
				job, err := c.Submit(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "x"}, Lines: &api.Lines{Raw: raw}}, "key")
				if err != nil || job.ID != 1 {
					t.Fatalf("Submit = %+v, %v; want job 1", job, err)
				}
			}
			if got := p.leader.Got.Lines; got == nil || len(got.Raw) != len(raw) || len(p.follower.JobByID) != 0 {
				t.Errorf("the leader got %d bytes of lines, want %d; the follower has %d jobs", len(got.Raw), len(raw), len(p.follower.JobByID))
			}
		})
	}
}

func TestNoLeader(t *testing.T) {
	for _, target := range []string{"POST /v1/jobs", "PUT /job/stop/1", "GET /v1/jobs/4/logs", "GET /job/list"} {
		method, path, _ := strings.Cut(target, " ")
		synctest.Test(t, func(t *testing.T) {
			l := readAll()
			l.Follow("")
			begun := time.Now()
			w := httpapitest.Ask(t, newAPI(l), method, path, "{}")
			p := httpapitest.ProblemOf(t, w)
			if p.Status != 503 || p.Type != api.TypeNotLeader || w.Header().Get("Retry-After") != "1" || time.Since(begun) != leaderMax {
				t.Errorf("%s = %+v, Retry-After %q after %v; want 503 and 1 after %v", target, p, w.Header().Get("Retry-After"), time.Since(begun), leaderMax)
			}
		})
	}
	t.Run("until one is elected", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := readAll()
			l.Follow("")
			go func() {
				time.Sleep(time.Second)
				l.Follow("10.0.0.3:6550")
			}()
			begun := time.Now()
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/jobs", strings.NewReader("{}"))
			r.Header.Set("Prefer", preferRedirect)
			w := httptest.NewRecorder()
			newAPI(l).ServeHTTP(w, r)
			if w.Code != 307 || w.Header().Get("Location") != "http://10.0.0.3:6550/v1/jobs" || time.Since(begun) != time.Second {
				t.Errorf("submit = %d to %q after %v, want 307 to the new leader after 1s", w.Code, w.Header().Get("Location"), time.Since(begun))
			}
		})
	})
	t.Run("until this one is elected", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := httpapitest.NewFake()
			l.Follow("")
			go func() {
				time.Sleep(time.Second)
				l.Change(func() { l.Address, l.Self = "10.0.0.1:6550", true })
			}()
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/jobs", strings.NewReader(`{"program":{"builtin":"x"}}`))
			r.Header.Set(headerForwarded, "3") // a follower may hear of the election first
			w := httptest.NewRecorder()
			if newAPI(l).ServeHTTP(w, r); w.Code != http.StatusCreated {
				t.Errorf("submit = %d %s, want 201", w.Code, w.Body)
			}
		})
	})
	t.Run("other reads do not ask", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := readAll()
			l.Follow("")
			begun := time.Now()
			for _, path := range []string{"/v1/jobs/4", "/v1/jobs", "/v1/cluster", "/v1/workers", "/v1/leaders", "/v1/jobs/4/result", "/job/status/4", "/raft/state"} {
				if w := httpapitest.Ask(t, newAPI(l), "GET", path, ""); w.Code != http.StatusOK {
					t.Errorf("GET %s = %d without a leader, want 200", path, w.Code)
				}
			}
			if time.Since(begun) != 0 {
				t.Errorf("reads took %v", time.Since(begun))
			}
		})
	})
}

func TestForwardedReads(t *testing.T) {
	p := newPair(t, readAll)
	p.leader.OnLogs = func(_ context.Context, _ api.LogQuery, emit func(api.LogRecord) error) error {
		return emit(api.LogRecord{Task: "4/map/0", Text: []byte("\xff")})
	}
	p.leader.Emit(api.Event{}) // so that the two differ in their log positions
	for _, target := range []string{
		"/v1/jobs/4/logs", "/v1/jobs/4/logs?task=map%2f0", "/v1/jobs/4/tasks?limit=3", "/v1/jobs/4/tasks/map/0", "/v1/jobs/4/explain",
		"/job/4", "/job/list", "/v1/jobs/99/tasks", "/v1/jobs/4/tasks?limit=0", "/v1/jobs/4/explain?consistency=strong&min_index=2",
	} {
		straight, err := fetch(t, "http://"+p.address+target)
		if err != nil {
			t.Fatal(err)
		}
		through, err := fetch(t, p.url+target)
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := io.ReadAll(straight.Body)
		got, gotErr := io.ReadAll(through.Body)
		if err := errors.Join(wantErr, gotErr, straight.Body.Close(), through.Body.Close()); err != nil {
			t.Fatal(err)
		}
		for _, h := range []http.Header{straight.Header, through.Header} {
			h.Del("Date")
		}
		if through.StatusCode != straight.StatusCode || string(got) != string(want) || !reflect.DeepEqual(through.Header, straight.Header) {
			t.Errorf("%s of the follower = %d %v %s, want as the leader's %d %v %s", target, through.StatusCode, through.Header, got,
				straight.StatusCode, straight.Header, want)
		}
		asked := p.reached()
		if len(asked) != 2 || asked[1].Header.Get(headerForwarded) == "" || asked[1].URL.String() != target {
			t.Errorf("%s reached the leader as %v", target, asked[len(asked)-1].URL)
		}
	}
}

// TestRedirectLoop: two nodes that each believe the other leads must not forward a request for ever.
func TestRedirectLoop(t *testing.T) {
	var asked atomic.Int32
	one, two := readAll(), readAll()
	urls := make([]string, 2)
	for i, l := range []*httpapitest.Fake{one, two} {
		a := newAPI(l)
		t.Cleanup(a.Close)
		urls[i] = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			a.ServeHTTP(w, r)
		}))
	}
	one.Follow(strings.TrimPrefix(urls[1], "http://"))
	two.Follow(strings.TrimPrefix(urls[0], "http://"))
	answer, err := fetch(t, urls[0]+"/v1/jobs/4/tasks")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusServiceUnavailable || asked.Load() != 2 || !strings.Contains(string(body), "does not lead") || answer.Header.Get("Retry-After") != "1" {
		t.Errorf("tasks = %d %s after %d requests, want 503 after 2", answer.StatusCode, body, asked.Load())
	}
}

func TestForwardedLogs(t *testing.T) {
	p := newPair(t, readAll)
	read, gone := make(chan struct{}), make(chan error, 1)
	p.leader.OnLogs = func(ctx context.Context, _ api.LogQuery, emit func(api.LogRecord) error) error {
		if err := emit(api.LogRecord{Text: []byte("a")}); err != nil {
			return err
		}
		select {
		case <-read: // the first has reached the reader
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := emit(api.LogRecord{Text: []byte("b")}); err != nil {
			return err
		}
		<-ctx.Done()
		gone <- ctx.Err()
		return ctx.Err()
	}
	answer, err := fetch(t, p.url+"/v1/jobs/4/logs?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(answer.Body)
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	close(read)
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	_ = answer.Body.Close()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the leader's context ended with %v, want canceled", err)
	}
}

// TestForwardToAHungLeader: a followed log ends once another node leads.
func TestForwardToAHungLeader(t *testing.T) {
	p := newPair(t, readAll)
	hung := make(chan struct{})
	t.Cleanup(func() { close(hung) })
	p.leader.OnLogs = func(_ context.Context, _ api.LogQuery, emit func(api.LogRecord) error) error {
		err := emit(api.LogRecord{Text: []byte("a")})
		<-hung
		return err
	}
	answer, err := fetch(t, p.url+"/v1/jobs/4/logs?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(answer.Body)
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	p.follower.Follow("10.0.0.9:6550")
	if lines.Scan() || lines.Err() == nil {
		t.Errorf("the log goes on or ends well: %q, %v", lines.Text(), lines.Err())
	}
}

// TestForwardToADeadLeader: a request that a dead leader cannot have got waits for the next one, for as long as for the first.
func TestForwardToADeadLeader(t *testing.T) {
	server := httptest.NewServer(nil)
	dead := server.Listener.Addr().String()
	server.Close()
	t.Run("no other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := readAll()
			l.Follow(dead)
			begun := time.Now()
			w := httpapitest.Ask(t, newAPI(l), "GET", "/v1/jobs/4/tasks", "")
			p := httpapitest.ProblemOf(t, w)
			if p.Status != 503 || !strings.Contains(p.Detail, dead) || w.Header().Get("Retry-After") != "1" || len(w.Header()[headerIndex]) != 1 ||
				time.Since(begun) != leaderMax {
				t.Errorf("tasks = %+v %v after %v, want 503 with the leader's address after %v", p, w.Header(), time.Since(begun), leaderMax)
			}
		})
	})
	p := newPair(t, httpapitest.NewFake)
	start := func() {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/start", strings.NewReader(`{"jobClass":"Sample"}`))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close() //nolint:errcheck // only read
		if answer.StatusCode != http.StatusOK || len(answer.Header[headerIndex]) != 1 {
			t.Errorf("start = %d %v, want 200", answer.StatusCode, answer.Header)
		}
	}
	for want, next := range []func(){
		1: func() { p.follower.Follow(p.address) },
		2: func() { p.follower.Change(func() { p.follower.Address, p.follower.Self = "10.0.0.1:6550", true }) },
	} {
		if next == nil {
			continue
		}
		p.follower.Follow(dead)
		elected := time.AfterFunc(50*time.Millisecond, next)
		start()
		elected.Stop()
		if got := len(p.leader.JobByID) + len(p.follower.JobByID); got != want {
			t.Errorf("%d jobs, want %d", got, want)
		}
	}
	if len(p.follower.JobByID) != 1 {
		t.Errorf("%d jobs at the follower that leads, want 1", len(p.follower.JobByID))
	}
}

func TestCrossSiteRequestsAreNotRedirected(t *testing.T) {
	l := httpapitest.NewFake()
	l.Follow("10.0.0.2:6551")
	r := httptest.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1:6550/v1/jobs", strings.NewReader(`{}`))
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w := httptest.NewRecorder()
	newAPI(l).ServeHTTP(w, r)
	if p := httpapitest.ProblemOf(t, w); p.Status != http.StatusForbidden || w.Header().Get("Location") != "" {
		t.Errorf("cross-site submit to a follower = %d to %q, want 403", p.Status, w.Header().Get("Location"))
	}
}
