package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bridgefour/bridgefour/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs h, a leader that does not list the others, and returns its URL.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(alone(h))
	t.Cleanup(server.Close)
	return server.URL
}

func alone(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == LeadersPath {
			sendJSON(w, http.StatusNotFound, api.NotFound("no route"))
			return
		}
		h(w, r)
	}
}

func newClient(t *testing.T, o Options, urls ...string) *Client {
	t.Helper()
	c, err := New(urls, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.silenceMax = time.Hour // a server of the test is only slow; see watchful
	return c
}

func sendJSON(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// deadURL is an address without a listener: that of a connection, so that no other process gets the port before the test ends.
func deadURL(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = l.Close()
	})
	return "http://" + conn.LocalAddr().String()
}

// breakOff closes the connection within the answer.
func breakOff() { panic(http.ErrAbortHandler) }

func TestNew(t *testing.T) {
	c := newClient(t, Options{}, "127.0.0.1:6550", "https://b4.example/base/", "http://[::1]:1", "unix:/run/leader.sock")
	want := []string{"http://127.0.0.1:6550", "https://b4.example/base", "http://[::1]:1", "unix:/run/leader.sock"}
	if !reflect.DeepEqual(c.URLs(), want) {
		t.Errorf("URLs = %q, want %q", c.URLs(), want)
	}
	for _, bad := range [][]string{nil, {""}, {"ftp://x"}, {"http://"}, {"http://a b"}, {"unix:"}} {
		if _, err := New(bad, Options{}); err == nil {
			t.Errorf("New(%q) made a client", bad)
		}
	}
}

func TestUnreachable(t *testing.T) {
	a, b := deadURL(t), deadURL(t)
	c := newClient(t, Options{Patience: -1}, a, b)
	_, err := c.Job(t.Context(), 1)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), a) || !strings.Contains(err.Error(), b) {
		t.Errorf("Job = %v, want ErrUnreachable with both URLs", err)
	}
}

func TestPatienceEnds(t *testing.T) {
	var told []Reconnect
	c := newClient(t, Options{Patience: 200 * time.Millisecond, OnReconnect: func(r Reconnect) { told = append(told, r) }}, deadURL(t))
	if _, err := c.Cluster(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Cluster = %v, want ErrUnreachable", err)
	}
	if len(told) != 1 || told[0].Err == nil || told[0].Tries != 200*time.Millisecond {
		t.Errorf("told %+v, want the loss alone", told)
	}
}

func TestAnotherLeaderAnswers(t *testing.T) {
	var calls atomic.Int32
	c := newClient(t, Options{Patience: -1}, deadURL(t), serve(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		sendJSON(w, 200, api.Job{ID: 3})
	}))
	for range 2 {
		if job, err := c.Job(t.Context(), 3); err != nil || job.ID != 3 {
			t.Errorf("Job = %+v, %v", job, err)
		}
	}
	if urls, first := c.servers.urls(); calls.Load() != 2 || first != 1 {
		t.Errorf("%d calls, %s tried first; want 2 and the second", calls.Load(), urls[first])
	}
}

func TestSubmitRepeatsItsKey(t *testing.T) {
	var mu sync.Mutex
	var keys []string
	var bodies []string
	var told []Reconnect
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		keys, bodies = append(keys, r.Header.Get("Idempotency-Key")), append(bodies, string(body))
		switch len(keys) {
		case 1:
			sendJSON(w, http.StatusServiceUnavailable, api.Unavailable("no leader"))
		case 2:
			breakOff() // it may have been done
		default:
			sendJSON(w, http.StatusCreated, api.Job{ID: 5})
		}
	})
	c := newClient(t, Options{OnReconnect: func(r Reconnect) { told = append(told, r) }}, base)
	job, err := c.Submit(t.Context(), &api.JobRequest{Name: "n"}, "")
	if err != nil || job.ID != 5 {
		t.Fatalf("Submit = %+v, %v", job, err)
	}
	if len(keys) != 3 || keys[0] == "" || keys[1] != keys[0] || keys[2] != keys[0] || bodies[2] != bodies[0] {
		t.Errorf("keys %q, bodies %q: want three times the same", keys, bodies)
	}
	if len(told) != 2 || told[0].Err == nil || told[1].Err != nil {
		t.Errorf("told %+v, want loss and return", told)
	}
}

// inMemory answers requests without a connection.
type inMemory http.HandlerFunc

func (h inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h(w, r)
	answer := w.Result()
	answer.Request = r
	return answer, nil
}

func TestSubmitTooFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls int
		answer := func(w http.ResponseWriter, r *http.Request) {
			calls++
			switch {
			case strings.HasSuffix(r.Header.Get("Idempotency-Key"), "full"):
				sendJSON(w, http.StatusTooManyRequests, api.OverQuota("2 open jobs"))
			case calls < 3:
				w.Header().Set("Retry-After", "1")
				sendJSON(w, http.StatusTooManyRequests, api.TooFast("slowly"))
			default:
				sendJSON(w, http.StatusCreated, api.Job{ID: 5})
			}
		}
		c := newClient(t, Options{
			Patience: 10 * time.Second, HTTP: &http.Client{Transport: inMemory(answer)},
			OnReconnect: func(r Reconnect) { t.Errorf("told %+v: the cluster was not lost", r) },
		}, "http://10.0.0.1:6550")
		begun := time.Now()
		if job, err := c.Submit(t.Context(), &api.JobRequest{}, "fast"); err != nil || job.ID != 5 || calls != 3 || time.Since(begun) < 2*time.Second {
			t.Errorf("Submit = %+v, %v after %d calls in %v; want job 5 after 3 calls, with a second or more between them", job, err, calls, time.Since(begun))
		}
		if _, err := c.Submit(t.Context(), &api.JobRequest{}, "full"); !api.IsStatus(err, http.StatusTooManyRequests) || calls != 4 {
			t.Errorf("Submit = %v after %d calls more, want the refusal of the first", err, calls-3)
		}
	})
}

func TestSubmitRejectsInvalidUTF8(t *testing.T) {
	c := newClient(t, Options{Patience: -1}, deadURL(t))
	for _, r := range []api.JobRequest{
		{Inputs: []string{"/a\xff"}},
		{Program: api.Program{Command: []string{"cat", "\xfe"}}},
		{Lines: &api.Lines{Items: []string{"\xfd"}}},
		{Set: map[string]string{"k": "\xfc"}},
	} {
		if _, err := c.Submit(t.Context(), &r, ""); err == nil || errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("Submit(%+v) = %v, want an error about UTF-8", r, err)
		}
	}
}

func TestRetryIsNotSentTwice(t *testing.T) {
	var calls atomic.Int32
	c := newClient(t, Options{}, serve(t, func(http.ResponseWriter, *http.Request) {
		calls.Add(1)
		breakOff()
	}))
	_, err := c.Retry(t.Context(), 1)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "may or may not") || calls.Load() != 1 {
		t.Errorf("Retry = %v after %d calls, want an unknown outcome after one", err, calls.Load())
	}
}

// TestOutcomeUnknown has leaders that may have carried out a request when they lose their leadership, or the connection.
func TestOutcomeUnknown(t *testing.T) {
	unknown := func(w http.ResponseWriter) {
		sendJSON(w, http.StatusServiceUnavailable, api.OutcomeUnknown("it may be carried out"))
	}
	gone := func(w http.ResponseWriter) { sendJSON(w, http.StatusNotFound, api.NotFound("there is no such thing")) }
	broken := func(http.ResponseWriter) { breakOff() }
	done := func(w http.ResponseWriter) { sendJSON(w, http.StatusOK, api.Job{ID: 1}) }
	create := func(c *Client) error { _, err := c.CreateToken(t.Context(), api.TokenRequest{}); return err }
	stop := func(c *Client) error { _, err := c.Stop(t.Context(), 1); return err }
	revoke := func(c *Client) error { return c.RevokeToken(t.Context(), "id") }
	for name, test := range map[string]struct {
		call    func(*Client) error
		answers []func(http.ResponseWriter)
		calls   int32
		status  int // of the error; 0: none
	}{
		"a change is not sent again":             {create, []func(http.ResponseWriter){unknown, done}, 1, http.StatusServiceUnavailable},
		"what can be repeated is":                {stop, []func(http.ResponseWriter){unknown, done}, 2, 0},
		"it is gone":                             {revoke, []func(http.ResponseWriter){unknown, gone}, 2, 0},
		"it is gone, after a connection broke":   {revoke, []func(http.ResponseWriter){broken, gone}, 2, 0},
		"it was never there":                     {revoke, []func(http.ResponseWriter){gone}, 1, http.StatusNotFound},
		"the leader that was asked did not lead": {revoke, []func(http.ResponseWriter){func(w http.ResponseWriter) { sendJSON(w, 503, api.NotLeader("x")) }, gone}, 2, http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, _ *http.Request) { test.answers[calls.Add(1)-1](w) }))
			err := test.call(c)
			if (err == nil) != (test.status == 0) || err != nil && !api.IsStatus(err, test.status) || calls.Load() != test.calls {
				t.Errorf("%v after %d calls, want the status %d after %d", err, calls.Load(), test.status, test.calls)
			}
		})
	}
}

func TestRedirectKeepsTheBody(t *testing.T) {
	leader := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var req api.JobRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.Header.Get("Idempotency-Key") != "k" {
			t.Errorf("the leader got %+v, key %q, %v", req, r.Header.Get("Idempotency-Key"), err)
		}
		sendJSON(w, http.StatusCreated, api.Job{ID: 1, Name: req.Name})
	})
	follower := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, leader+r.URL.Path, http.StatusTemporaryRedirect)
	})
	c := newClient(t, Options{Patience: -1}, follower)
	if job, err := c.Submit(t.Context(), &api.JobRequest{Name: "n"}, "k"); err != nil || job.Name != "n" {
		t.Errorf("Submit = %+v, %v", job, err)
	}
}

func TestProblems(t *testing.T) {
	sent := api.Invalid("validation failed").With("body.retries", "expected number <= 100", 101.0)
	c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == JobPath(1) {
			sendJSON(w, sent.Status, sent)
			return
		}
		http.Error(w, "nginx", http.StatusNotFound)
	}))
	_, err := c.Job(t.Context(), 1)
	if p, ok := errors.AsType[*api.Problem](err); !ok || !reflect.DeepEqual(p, sent) {
		t.Errorf("Job = %v, want %v", err, sent)
	}
	_, err = c.Job(t.Context(), 2)
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Status != 404 || !strings.Contains(p.Detail, "apparently not by a Bridge Four leader") {
		t.Errorf("Job of another server = %v", err)
	}
}

func TestAnswerOfAnotherServer(t *testing.T) {
	c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	if _, err := c.Job(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "Bridge Four") {
		t.Errorf("Job = %v, want an error that doubts the server", err)
	}
	if _, err := c.Poll(t.Context(), 1, time.Second); err == nil || !strings.Contains(err.Error(), "Bridge Four") {
		t.Errorf("Poll = %v, want an error that doubts the server", err)
	}
}

// TestWaitSurvivesARestart stops the leader during a long poll and restarts it on the same address.
func TestWaitSurvivesARestart(t *testing.T) {
	reached := make(chan struct{})
	release := make(chan struct{})
	first := httptest.NewServer(alone(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("wait") == "" {
			sendJSON(w, 200, api.Job{ID: 1, Status: api.JobRunning})
			return
		}
		close(reached)
		<-release
		breakOff()
	}))
	address := first.Listener.Addr().String()
	back := make(chan *httptest.Server, 1)
	lost := make(chan struct{}, 1)
	go func() {
		<-reached
		go func() { close(release) }()
		first.CloseClientConnections()
		first.Close()
		<-lost // the client knows; only now does the leader come back
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
		if err != nil {
			t.Error(err)
			back <- nil
			return
		}
		second := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			sendJSON(w, 200, api.Job{ID: 1, Status: api.JobDone})
		}))
		_ = second.Listener.Close()
		second.Listener = l
		second.Start()
		back <- second
	}()
	var told []error
	c := newClient(t, Options{OnReconnect: func(r Reconnect) {
		told = append(told, r.Err)
		if r.Err != nil {
			lost <- struct{}{}
		}
	}}, "http://"+address)
	job, err := c.Wait(t.Context(), 1)
	if err != nil || job.Status != api.JobDone {
		t.Errorf("Wait = %+v, %v; want done", job, err)
	}
	if len(told) != 2 || told[0] == nil || told[1] != nil {
		t.Errorf("told %v, want one loss and one return", told)
	}
	if second := <-back; second != nil {
		second.Close()
	}
}

func TestWaitPollsUntilTheEnd(t *testing.T) {
	var calls atomic.Int32
	c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		status := api.JobRunning
		if calls.Add(1) == 3 {
			status = api.JobFailed
		}
		sendJSON(w, 200, api.Job{ID: 1, Status: status})
	}))
	if job, err := c.Wait(t.Context(), 1); err != nil || job.Status != api.JobFailed || calls.Load() != 3 {
		t.Errorf("Wait = %+v, %v after %d polls", job, err, calls.Load())
	}
}

func TestCancelledWait(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("ctrl-c")
	c := newClient(t, Options{}, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel(cause)
		<-r.Context().Done()
	}))
	if _, err := c.Wait(ctx, 1); !errors.Is(err, cause) {
		t.Errorf("Wait = %v, want the cause", err)
	}
}

// TestLogsContinue breaks connections after every byte of the log of two attempts.
func TestLogsContinue(t *testing.T) {
	records := []api.LogRecord{
		{Task: "1/map/0", Attempt: 1, Text: []byte("one\ntwo\n")},
		{Task: "1/map/1", Attempt: 1, Text: []byte("uno\n")},
		{Task: "1/map/0", Attempt: 1, Text: []byte("three\n")},
		{Task: "1/map/0", Attempt: 2, Text: []byte("again\n")},
		{Task: "1/map/1", Attempt: 1, Text: []byte("due\n")},
	}
	// After a restart the same bytes come in other pieces and with the tasks in another order.
	regrouped := []api.LogRecord{
		{Task: "1/map/1", Attempt: 1, Text: []byte("uno\ndue\n")},
		{Task: "1/map/0", Attempt: 1, Text: []byte("one\n")},
		{Task: "1/map/0", Attempt: 1, Text: []byte("two\nthree\n")},
		{Task: "1/map/0", Attempt: 2, Text: []byte("again\n")},
	}
	for cut := range len(records) + 1 {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			var calls atomic.Int32
			c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RawQuery != "follow=true" {
					t.Errorf("asked %s", r.URL)
				}
				enc := json.NewEncoder(w)
				if calls.Add(1) > 1 {
					for _, record := range regrouped {
						_ = enc.Encode(record)
					}
					return
				}
				for _, record := range records[:cut] {
					_ = enc.Encode(record)
				}
				_, _ = io.WriteString(w, `{"task":"1/map/`) // and half a record
				_ = http.NewResponseController(w).Flush()
				breakOff()
			}))
			got := map[string]string{}
			for record, err := range c.Logs(t.Context(), api.LogQuery{Job: 1, Follow: true}) {
				if err != nil {
					t.Fatal(err)
				}
				got[fmt.Sprintf("%s#%d", record.Task, record.Attempt)] += string(record.Text)
			}
			want := map[string]string{"1/map/0#1": "one\ntwo\nthree\n", "1/map/1#1": "uno\ndue\n", "1/map/0#2": "again\n"}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("logs = %q, want %q", got, want)
			}
		})
	}
}

// TestLogsTail: the last lines of each attempt that are there, and then all that follows them, each once.
func TestLogsTail(t *testing.T) {
	there := []api.LogRecord{
		{Task: "1/map/0", Text: []byte("1\n2\n3\n")},
		{Task: "1/map/1", Text: []byte("a\n")},
		{Task: "1/map/0", Text: []byte("4\n")},
		{Task: "1/map/2", Text: []byte("x\ny\nno newline")},
		{Missing: "worker 3 is away"},
	}
	c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, r *http.Request) {
		enc := json.NewEncoder(w)
		for _, record := range there {
			_ = enc.Encode(record)
		}
		if r.URL.RawQuery != "" {
			_ = enc.Encode(api.LogRecord{Task: "1/map/1", Text: []byte("b\nc\n")})
		}
	}))
	for _, test := range []struct {
		q    api.LogQuery
		want string
	}{
		{api.LogQuery{Job: 1, Tail: 2}, "3 4 a y no newline ! "},
		{api.LogQuery{Job: 1, Tail: 1}, "4 a no newline ! "},
		{api.LogQuery{Job: 1, Tail: 9}, "1 2 3 4 a x y no newline ! "},
		{api.LogQuery{Job: 1, Tail: 1, Follow: true}, "4 a no newline ! b c "},
	} {
		got := ""
		for record, err := range c.Logs(t.Context(), test.q) {
			if err != nil {
				t.Fatal(err)
			}
			if record.Missing != "" {
				got += "! "
			} else {
				got += strings.TrimSuffix(strings.ReplaceAll(string(record.Text), "\n", " "), " ") + " "
			}
		}
		if got != test.want {
			t.Errorf("Logs(%+v) = %q, want %q", test.q, got, test.want)
		}
	}
}

func TestLogsEndedByTheCaller(t *testing.T) {
	gone := make(chan struct{})
	c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(api.LogRecord{Task: "1/map/0", Text: []byte("a")})
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	for _, err := range c.Logs(t.Context(), api.LogQuery{Job: 1, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	<-gone
}

func TestLogsOfNoJob(t *testing.T) {
	c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, _ *http.Request) { sendJSON(w, 404, api.NotFound("there is no job 1")) }))
	var errs []error
	for _, err := range c.Logs(t.Context(), api.LogQuery{Job: 1}) {
		errs = append(errs, err)
	}
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "no job 1") {
		t.Errorf("errors = %v, want the problem once", errs)
	}
}

func TestResultNamesTheOffset(t *testing.T) {
	c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "12345")
		_ = http.NewResponseController(w).Flush()
		breakOff()
	}))
	result, err := c.Result(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	defer result.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(result)
	if string(text) != "12345" || err == nil || !strings.Contains(err.Error(), "job 4 broken off after 5 bytes") {
		t.Errorf("result = %q, %v", text, err)
	}
}

// TestPartsContinue breaks connections anywhere in an answer.
func TestPartsContinue(t *testing.T) {
	type output struct {
		task uint64
		text string
	}
	outputs := []output{{3, "one\ntwo\n"}, {0, "three\n"}, {7, "four"}}
	// answer is what a leader sends that has the outputs in this order, in pieces of three bytes.
	answer := func(q url.Values, outputs []output) string {
		var b strings.Builder
		task, _ := strconv.ParseUint(q.Get("task"), 10, 64)
		offset, _ := strconv.Atoi(q.Get("offset"))
		for _, o := range outputs {
			at := 0
			if o.task == task {
				at = offset
			}
			for ; at < len(o.text); at += 3 {
				piece := o.text[at:min(at+3, len(o.text))]
				fmt.Fprintf(&b, "{\"task\":%d,\"offset\":%d,\"bytes\":%d,\"sum\":%d}\n%s\n", o.task, at, len(piece), o.task+1, piece)
			}
		}
		b.WriteString("{\"task\":0,\"bytes\":0,\"sum\":9,\"final\":true}\n")
		return b.String()
	}
	for _, unordered := range []bool{true, false} {
		all := outputs
		if !unordered {
			all = []output{outputs[1], outputs[0], outputs[2]}
		}
		whole := answer(nil, all)
		for cut := 0; cut < len(whole); cut += 5 {
			var calls atomic.Int32
			c := newClient(t, Options{}, serve(t, func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				if calls.Add(1) == 1 {
					_, _ = io.WriteString(w, whole[:cut])
					_ = http.NewResponseController(w).Flush()
					breakOff()
				}
				task, _ := strconv.ParseUint(q.Get("task"), 10, 64)
				at := max(0, slices.IndexFunc(all, func(o output) bool { return o.task == task }))
				rest := all[at:]
				if unordered { // again, in another order, but for the first
					rest = append(slices.Clone(all[at:at+1]), append(slices.Clone(all[:at]), all[at+1:]...)...)
				}
				_, _ = io.WriteString(w, answer(q, rest))
			}))
			var got []output
			var final api.Part
			for part, err := range c.Parts(t.Context(), api.PartQuery{Job: 1, Unordered: unordered, Sums: true}) {
				if err != nil {
					t.Fatal(err)
				}
				if part.Final {
					final = part
					continue
				}
				if part.Sum != part.Task+1 {
					t.Errorf("part = %+v, without its sum", part)
				}
				if len(got) == 0 || got[len(got)-1].task != part.Task {
					got = append(got, output{task: part.Task})
				}
				got[len(got)-1].text += string(part.Text)
			}
			if slices.SortFunc(got, func(a, b output) int { return cmp.Compare(a.task, b.task) }); !slices.Equal(got, []output{outputs[1], outputs[0], outputs[2]}) {
				t.Errorf("unordered %v, cut after %d bytes: parts = %v, want each once and whole", unordered, cut, got)
			}
			if final.Task != 0 || final.Sum != 9 {
				t.Errorf("unordered %v, cut after %d bytes: final = %+v", unordered, cut, final)
			}
		}
	}
}
