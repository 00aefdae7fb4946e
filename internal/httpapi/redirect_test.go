package httpapi

import (
	"bufio"
	"context"
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
	}))
	p.address = strings.TrimPrefix(server, "http://")
	p.leader.Address, p.follower.Age = p.address, 40
	p.follower.Follow(p.address)
	following := newAPI(p.follower)
	t.Cleanup(following.Close)
	p.url = serve(t, following)
	return p
}

func TestEveryWriteIsRedirected(t *testing.T) {
	l := readAll()
	l.Follow("10.0.0.2:6551")
	a := newAPI(l)
	before := l.Index
	for _, route := range operations(t, a, http.MethodPost, http.MethodPut, http.MethodDelete) {
		method, path, _ := strings.Cut(route, " ")
		r := httptest.NewRequestWithContext(t.Context(), method, path+"?a=%2F&b", strings.NewReader("{}"))
		r.Header.Set("Prefer", preferRedirect) // or those of the original are forwarded
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
	if w := httpapitest.Ask(t, a, "DELETE", "http://localhost/v1/workers/1%2f2", ""); w.Header().Get("Location") != "http://10.0.0.2:6551/v1/workers/1%2f2" {
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

// TestWritesOfTheOriginalAreForwarded: once, with the key, in bounds, and not if the client prefers a redirect.
func TestWritesOfTheOriginalAreForwarded(t *testing.T) {
	p := newPair(t, httpapitest.NewFake)
	ask := func(body string, header ...string) (code int, location string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/start", io.MultiReader(strings.NewReader(body))) // without a length
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
		_ = answer.Body.Close()
		return answer.StatusCode, answer.Header.Get("Location")
	}
	const start = `{"jobClass":"Sample"}`
	for range 2 {
		if code, _ := ask(start, "Idempotency-Key", "k"); code != http.StatusOK {
			t.Fatalf("start = %d, want 200", code)
		}
	}
	if asked := p.reached(); len(asked) != 2 || len(p.leader.JobByID) != 1 || len(p.follower.JobByID) != 0 {
		t.Errorf("%d requests, %d jobs at the leader, %d at the follower; want 2, 1, 0", len(asked), len(p.leader.JobByID), len(p.follower.JobByID))
	}
	if code, _ := ask(strings.Repeat(" ", bodyBytesMax) + start); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body = %d, want 413", code)
	}
	if code, _ := ask(start, headerForwarded, "3"); code != http.StatusServiceUnavailable {
		t.Errorf("a forwarded request = %d, want 503", code)
	}
	if code, to := ask(start, "Prefer", "redirect"); code != http.StatusTemporaryRedirect || to != "http://"+p.address+"/start" {
		t.Errorf("Prefer: redirect = %d to %q, want 307 to the leader", code, to)
	}
	if len(p.leader.JobByID) != 1 {
		t.Errorf("%d jobs, want 1", len(p.leader.JobByID))
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
			w := httpapitest.Ask(t, newAPI(l), "POST", "/v1/jobs", "{}")
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
	// The redirects of a write end too.
	c, err := client.New(urls, client.Options{Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := c.Retry(t.Context(), 1); !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "do not agree") {
		t.Errorf("Retry = %v, want that the leaders do not agree", err)
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
