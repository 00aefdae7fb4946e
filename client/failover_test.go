package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// node is one leader of a cluster: a real server with the behaviour that the test sets.
type node struct {
	server  *httptest.Server
	others  *[]*node
	release chan struct{} // closed at the end: hung handlers return

	mu     sync.Mutex
	handle http.HandlerFunc
	hung   bool            // nothing is answered
	got    []*http.Request // but probes and questions for the leaders
	probes int
	bodies []string
}

// newNodes starts the leaders of a cluster.
func newNodes(t *testing.T, n int) []*node {
	t.Helper()
	return startNodes(t, n, func(*httptest.Server, int) {})
}

func startNodes(t *testing.T, n int, prepare func(server *httptest.Server, i int)) []*node {
	t.Helper()
	nodes := make([]*node, n)
	for i := range nodes {
		x := &node{others: &nodes, release: make(chan struct{})}
		x.server = httptest.NewUnstartedServer(x)
		prepare(x.server, i)
		x.server.Start()
		t.Cleanup(func() {
			close(x.release)
			x.server.Close()
		})
		nodes[i] = x
	}
	return nodes
}

func (n *node) url() string     { return n.server.URL }
func (n *node) address() string { return n.server.Listener.Addr().String() }

func (n *node) set(h http.HandlerFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handle = h
}

// hang makes the node accept connections without answering, as a stopped process does.
func (n *node) hang() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hung = true
}

// kill breaks all connections of the node and refuses new ones.
func (n *node) kill() {
	_ = n.server.Listener.Close()
	n.server.CloseClientConnections()
}

func (n *node) requests() []*http.Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*http.Request(nil), n.got...)
}

func (n *node) probed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.probes
}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	n.mu.Lock()
	handle, hung := n.handle, n.hung
	switch r.URL.Path {
	case "/healthz":
		n.probes++
	case LeadersPath:
	default:
		n.got, n.bodies = append(n.got, r.Clone(r.Context())), append(n.bodies, string(body))
	}
	n.mu.Unlock()
	if hung {
		<-n.release
		return
	}
	switch {
	case r.URL.Path == "/healthz":
		sendJSON(w, 200, map[string]string{"status": "ok"})
	case r.URL.Path == LeadersPath && r.Method == http.MethodGet:
		var list api.LeaderList
		for i, x := range *n.others {
			list.Leaders = append(list.Leaders, api.LeaderNode{ID: uint64(i) + 1, Address: x.address()})
		}
		sendJSON(w, 200, list)
	default:
		handle(w, r)
	}
}

// wait returns when the client has left or the test ends.
func (n *node) wait(r *http.Request) {
	select {
	case <-n.release:
	case <-r.Context().Done():
	}
}

// watchful starts the leaders of a cluster in a synctest bubble, and a client that notices when one hangs. The clock is the test's: a slow
// machine does not look like a leader that hangs.
func watchful(t *testing.T, n int, o Options) ([]*node, *Client) {
	t.Helper()
	dial := map[string]func(context.Context) (net.Conn, error){}
	nodes := startNodes(t, n, func(server *httptest.Server, i int) {
		_ = server.Listener.Close()
		l := &pipes{address: fmt.Sprintf("10.0.0.%d:6550", i+1), dialed: make(chan net.Conn), closed: make(chan struct{})}
		server.Listener, dial[l.address] = l, l.dial
	})
	urls := make([]string, n)
	for i, x := range nodes {
		urls[i] = x.url()
	}
	o.HTTP = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return dial[address](ctx)
	}}}
	c := newClient(t, o, urls...)
	c.silenceMax, c.probeTimeout = silenceMax, probeTimeout
	return nodes, c
}

// pipes listens for connections in memory, which a synctest bubble knows.
type pipes struct {
	address string
	dialed  chan net.Conn
	closed  chan struct{}
	close   sync.Once
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.dialed <- server:
		return client, nil
	case <-p.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.dialed:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.close.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return pipeAddress(p.address) }

type pipeAddress string

func (pipeAddress) Network() string  { return "tcp" }
func (a pipeAddress) String() string { return string(a) }

// at answers a job at a log position, from a node of that age.
func at(w http.ResponseWriter, index, ageMillis int, job api.Job) {
	w.Header().Set("X-Bridgefour-Index", strconv.Itoa(index))
	w.Header().Set("X-Bridgefour-Age", strconv.Itoa(ageMillis))
	sendJSON(w, 200, job)
}

func redirectTo(n *node) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", n.url()+r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

func TestWaitContinuesWithAListedLeader(t *testing.T) {
	nodes := newNodes(t, 3)
	nodes[0].set(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("wait") == "" {
			at(w, 41, 0, api.Job{ID: 1, Status: api.JobRunning})
			return
		}
		breakOff()
	})
	nodes[1].server.Close()        // dead
	polled := []string{"41", "50"} // a leader that has restarted may be behind what it said itself
	nodes[2].set(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("min_index"); got != polled[0] {
			t.Errorf("the next leader was asked %s, want what is not older than the last answer: %s", r.URL, polled[0])
		}
		status := api.JobDone
		if polled = polled[1:]; len(polled) > 0 {
			status = api.JobRunning
		}
		at(w, 50, 3, api.Job{ID: 1, Status: status})
	})
	c := newClient(t, Options{}, nodes[0].address())
	if job, err := c.Wait(t.Context(), 1); err != nil || job.Status != api.JobDone {
		t.Errorf("Wait = %+v, %v; want done", job, err)
	}
	if want := []string{nodes[0].url(), nodes[1].url(), nodes[2].url()}; !reflect.DeepEqual(c.URLs(), want) {
		t.Errorf("URLs = %q, want %q", c.URLs(), want)
	}
}

func TestHungLeader(t *testing.T) {
	calls := map[string]func(context.Context, *Client) error{
		"read": func(ctx context.Context, c *Client) error { _, err := c.Job(ctx, 1); return err },
		"wait": func(ctx context.Context, c *Client) error { _, err := c.Wait(ctx, 1); return err },
		"submit": func(ctx context.Context, c *Client) error {
			_, err := c.Submit(ctx, &api.JobRequest{Name: "n"}, "k")
			return err
		},
		"poll": func(ctx context.Context, c *Client) error { _, err := c.Poll(ctx, 1, time.Second); return err },
		"stop": func(ctx context.Context, c *Client) error { _, err := c.Stop(ctx, 1); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes, c := watchful(t, 2, Options{})
				nodes[0].hang()
				nodes[1].set(func(w http.ResponseWriter, _ *http.Request) { at(w, 5, 0, api.Job{ID: 1, Status: api.JobDone}) })
				if err := call(t.Context(), c); err != nil {
					t.Error(err)
				}
				if len(nodes[0].requests()) != 1 || nodes[0].probed() != 1 {
					t.Errorf("the hung leader was asked %d times and probed %d times, want once each", len(nodes[0].requests()), nodes[0].probed())
				}
				if err := call(t.Context(), c); err != nil || len(nodes[0].requests()) != 1 {
					t.Errorf("the next call: %v, the hung leader was asked again", err)
				}
			})
		})
	}
	t.Run("retry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nodes, c := watchful(t, 2, Options{})
			nodes[0].hang()
			_, err := c.Retry(t.Context(), 1)
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "may or may not") || !strings.Contains(err.Error(), "hangs") {
				t.Errorf("Retry = %v, want an unknown outcome", err)
			}
			if len(nodes[1].requests()) != 0 {
				t.Error("Retry was sent twice")
			}
		})
	})
	t.Run("after a redirect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nodes, c := watchful(t, 3, Options{})
			nodes[0].set(redirectTo(nodes[1])) // it has not noticed yet
			nodes[1].hang()
			nodes[2].set(func(w http.ResponseWriter, _ *http.Request) { at(w, 5, 0, api.Job{ID: 1}) })
			if _, err := c.Submit(t.Context(), &api.JobRequest{Name: "n"}, "k"); err != nil || len(nodes[1].requests()) != 1 {
				t.Errorf("Submit = %v after %d requests to the leader that hangs, want one", err, len(nodes[1].requests()))
			}
		})
	})
	t.Run("no other leader", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nodes, c := watchful(t, 1, Options{Patience: -1})
			nodes[0].hang()
			if _, err := c.Job(t.Context(), 1); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "hangs") {
				t.Errorf("Job = %v, want that the leader hangs", err)
			}
		})
	})
	t.Run("only slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nodes, c := watchful(t, 1, Options{Patience: -1})
			nodes[0].set(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(10 * silenceMax)
				sendJSON(w, http.StatusCreated, api.Job{ID: 1})
			})
			if job, err := c.Submit(t.Context(), &api.JobRequest{}, "k"); err != nil || job.ID != 1 || nodes[0].probed() < 3 {
				t.Errorf("Submit = %+v, %v after %d probes, want the job after three or more", job, err, nodes[0].probed())
			}
		})
	})
}

// TestSlowCaller: a server is not silent while the caller processes its bytes.
func TestSlowCaller(t *testing.T) {
	w := &watch{begun: time.Now().Add(-time.Hour)}
	if w.quiet() < time.Hour {
		t.Errorf("no answer for an hour is quiet for %v", w.quiet())
	}
	w.note(true)
	w.heard.Store(0)
	if w.quiet() != 0 {
		t.Errorf("while the caller works it is quiet for %v, want 0", w.quiet())
	}
	w.note(false)
	if quiet := w.quiet(); quiet > time.Minute {
		t.Errorf("at the start of a read it is quiet for %v", quiet)
	}
}

func TestRedirectNamesTheLeader(t *testing.T) {
	nodes := newNodes(t, 2)
	nodes[0].set(redirectTo(nodes[1]))
	nodes[1].set(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Idempotency-Key") != "k" && r.Method == http.MethodPost {
			t.Errorf("key %q", r.Header.Get("Idempotency-Key"))
		}
		at(w, 9, 0, api.Job{ID: 1})
	})
	c := newClient(t, Options{Patience: -1}, nodes[0].url())
	for range 2 {
		if _, err := c.Submit(t.Context(), &api.JobRequest{Name: "n"}, "k"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Job(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if a, b := len(nodes[0].requests()), len(nodes[1].requests()); a != 1 || b != 3 {
		t.Errorf("the follower was asked %d times and the leader %d times, want 1 and 3", a, b)
	}
	if nodes[0].bodies[0] != nodes[1].bodies[0] || nodes[1].bodies[0] == "" {
		t.Errorf("the follower got %q, the leader %q", nodes[0].bodies[0], nodes[1].bodies[0])
	}
}

// TestLargeBodyIsSentOnce: a follower must not have to read it.
func TestLargeBodyIsSentOnce(t *testing.T) {
	for lines, want := range map[int]string{10: "", expectBytes: "100-continue"} {
		leader := serve(t, func(w http.ResponseWriter, _ *http.Request) { sendJSON(w, http.StatusCreated, api.Job{ID: 1}) })
		follower := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Expect"); got != want {
				t.Errorf("%d bytes of lines are sent with Expect %q, want %q", lines, got, want)
			}
			http.Redirect(w, r, leader+r.URL.Path, http.StatusTemporaryRedirect)
		})
		c := newClient(t, Options{Patience: -1}, follower)
		req := &api.JobRequest{Lines: &api.Lines{Raw: []byte(strings.Repeat("x", lines))}}
		if job, err := c.Submit(t.Context(), req, "k"); err != nil || job.ID != 1 {
			t.Errorf("Submit = %+v, %v", job, err)
		}
	}
}

func TestRedirectLoop(t *testing.T) {
	nodes := newNodes(t, 2)
	nodes[0].set(redirectTo(nodes[1]))
	nodes[1].set(redirectTo(nodes[0]))
	c := newClient(t, Options{Patience: -1}, nodes[0].url(), nodes[1].url())
	_, err := c.Retry(t.Context(), 1)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "do not agree") {
		t.Errorf("Retry = %v, want that the leaders do not agree", err)
	}
	if n := len(nodes[0].requests()) + len(nodes[1].requests()); n != redirectsMax+1 {
		t.Errorf("%d requests, want %d", n, redirectsMax+1)
	}
}

// TestFailoverOfWrites kills the leader before its answer; the follower redirects to it, then has no leader, then leads.
func TestFailoverOfWrites(t *testing.T) {
	nodes := newNodes(t, 2)
	nodes[0].set(func(http.ResponseWriter, *http.Request) {
		nodes[0].kill() // it has the job, perhaps
		breakOff()
	})
	var steps int
	nodes[1].set(func(w http.ResponseWriter, r *http.Request) {
		switch steps++; steps {
		case 1:
			redirectTo(nodes[0])(w, r)
		case 2:
			sendJSON(w, 503, api.NotLeader("no leader is known here"))
		default:
			sendJSON(w, http.StatusCreated, api.Job{ID: 7})
		}
	})
	c := newClient(t, Options{}, nodes[0].url(), nodes[1].url())
	job, err := c.Submit(t.Context(), &api.JobRequest{Name: "n"}, "")
	if err != nil || job.ID != 7 {
		t.Fatalf("Submit = %+v, %v", job, err)
	}
	keys := map[string]bool{}
	for _, n := range nodes {
		for _, r := range n.requests() {
			keys[r.Header.Get("Idempotency-Key")] = true
		}
	}
	if len(keys) != 1 || keys[""] {
		t.Errorf("keys %v, want one", keys)
	}
}

func TestWaitLeavesAPartitionedNode(t *testing.T) {
	nodes := newNodes(t, 2)
	nodes[0].set(func(w http.ResponseWriter, r *http.Request) {
		age := 0
		if r.URL.Query().Get("wait") != "" {
			age = 6000
		}
		at(w, 41, age, api.Job{ID: 1, Status: api.JobRunning})
	})
	nodes[1].set(func(w http.ResponseWriter, _ *http.Request) { at(w, 42, 0, api.Job{ID: 1, Status: api.JobFailed}) })
	c := newClient(t, Options{}, nodes[0].url())
	if job, err := c.Wait(t.Context(), 1); err != nil || job.Status != api.JobFailed || len(nodes[0].requests()) != 2 {
		t.Errorf("Wait = %+v, %v after %d requests to the node that is cut off; want failed after 2", job, err, len(nodes[0].requests()))
	}
	// The end of a job is final, even in an old answer.
	nodes[1].kill()
	nodes[0].set(func(w http.ResponseWriter, _ *http.Request) { at(w, 41, 99999, api.Job{ID: 1, Status: api.JobDone}) })
	if job, err := c.Wait(t.Context(), 1); err != nil || job.Status != api.JobDone {
		t.Errorf("Wait = %+v, %v; want done", job, err)
	}
}

func TestAnswersAreMonotonic(t *testing.T) {
	nodes := newNodes(t, 2)
	answer := func(w http.ResponseWriter, _ *http.Request) { at(w, 41, 0, api.Job{ID: 1}) }
	nodes[0].set(answer)
	nodes[1].set(answer)
	c := newClient(t, Options{Patience: -1}, nodes[0].url(), nodes[1].url())
	ask := func(path string) {
		t.Helper()
		if _, err := c.Raw(t.Context(), path); err != nil {
			t.Error(err)
		}
	}
	ask("/v1/jobs/1")
	ask("/v1/jobs/1") // no min_index for the server of the last answer: it may be a new cluster
	nodes[0].kill()
	ask("/v1/jobs/1")
	ask("/v1/jobs?limit=3") // and now of the other
	c.servers.failed(nodes[1].url())
	c.servers.mu.Lock()
	c.servers.latest.url = "elsewhere"
	c.servers.mu.Unlock()
	ask("/v1/jobs?limit=3")
	ask("/v1/cluster?consistency=strong")
	c.servers.mu.Lock()
	c.servers.latest.url = "elsewhere"
	c.servers.mu.Unlock()
	ask("/v1/cluster?consistency=strong")
	var asked []string
	for _, n := range nodes {
		for _, r := range n.requests() {
			asked = append(asked, r.URL.String())
		}
	}
	want := []string{
		"/v1/jobs/1", "/v1/jobs/1", "/v1/jobs/1?min_index=41", "/v1/jobs?limit=3", "/v1/jobs?limit=3&min_index=41",
		"/v1/cluster?consistency=strong", "/v1/cluster?consistency=strong",
	}
	if !reflect.DeepEqual(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// TestWithPatienceKeepsThePosition: a job submitted through a follower is found, however far that one is behind.
func TestWithPatienceKeepsThePosition(t *testing.T) {
	nodes := newNodes(t, 2)
	nodes[0].set(redirectTo(nodes[1]))
	nodes[1].set(func(w http.ResponseWriter, _ *http.Request) { at(w, 9, 0, api.Job{ID: 1}) })
	c := newClient(t, Options{Patience: -1}, nodes[0].url())
	if _, err := c.Submit(t.Context(), &api.JobRequest{}, "key"); err != nil {
		t.Fatal(err)
	}
	nodes[1].kill()
	nodes[0].set(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("min_index"); got != "9" {
			t.Errorf("min_index = %q, want 9", got)
		}
		at(w, 9, 0, api.Job{ID: 1, Status: api.JobDone})
	})
	if job, err := c.WithPatience(time.Minute).Poll(t.Context(), 1, time.Second); err != nil || job.Status != api.JobDone {
		t.Errorf("Poll = %+v, %v; want the job", job, err)
	}
}

// TestLogsContinueWithAnotherLeader ends a followed log after every record, by a kill and by a hang.
func TestLogsContinueWithAnotherLeader(t *testing.T) {
	whole := []api.LogRecord{
		{Task: "1/map/0", Attempt: 1, Text: []byte("one\ntwo\n")},
		{Task: "1/map/1", Attempt: 1, Text: []byte("uno\n")},
		{Task: "1/map/0", Attempt: 1, Text: []byte("three\n")},
	}
	send := func(w http.ResponseWriter, records []api.LogRecord) {
		for _, record := range records {
			_ = json.NewEncoder(w).Encode(record)
		}
		_, _ = io.WriteString(w, "\n") // a beat
		_ = http.NewResponseController(w).Flush()
	}
	for _, end := range []string{"dies", "hangs"} {
		for cut := range len(whole) + 1 {
			t.Run(fmt.Sprint(end, cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					nodes, c := watchful(t, 2, Options{})
					nodes[0].set(func(w http.ResponseWriter, r *http.Request) {
						send(w, whole[:cut])
						if end == "dies" {
							nodes[0].kill()
							return
						}
						nodes[0].hang()
						nodes[0].wait(r)
					})
					nodes[1].set(func(w http.ResponseWriter, _ *http.Request) { send(w, whole) })
					got := map[string]string{}
					for record, err := range c.Logs(t.Context(), api.LogQuery{Job: 1, Follow: true}) {
						if err != nil {
							t.Fatal(err)
						}
						got[record.Task] += string(record.Text)
					}
					if want := map[string]string{"1/map/0": "one\ntwo\nthree\n", "1/map/1": "uno\n"}; !reflect.DeepEqual(got, want) {
						t.Errorf("logs = %q, want %q", got, want)
					}
				})
			})
		}
	}
}

func TestListServers(t *testing.T) {
	list := `{"leaders":[{"id":1,"address":"10.0.0.1:6550"},{"id":2,"address":""},{"id":3,"address":"http://10.0.0.3:1/x"},{"id":4,"address":"::"}]}`
	c := newClient(t, Options{}, deadURL(t))
	c.http = &http.Client{Transport: roundTrip(func(r *http.Request) string {
		if r.URL.Path != LeadersPath {
			t.Errorf("asked %s", r.URL)
		}
		return list
	})}
	c.listServers(t.Context())
	if want := []string{c.URLs()[0], "http://10.0.0.1:6550"}; !reflect.DeepEqual(c.URLs(), want) {
		t.Errorf("URLs = %q, want %q", c.URLs(), want)
	}
	list = `<html>`
	c.listServers(t.Context())
	if len(c.URLs()) != 2 {
		t.Errorf("an answer that is none changed the URLs to %q", c.URLs())
	}
	list = `{"leaders":[]}` // the other has left
	c.listServers(t.Context())
	if len(c.URLs()) != 1 {
		t.Errorf("URLs = %q, want the one that was given", c.URLs())
	}
	for _, base := range []string{"https://b4.example", "http://b4.example/base"} {
		c := newClient(t, Options{}, base)
		c.http = &http.Client{Transport: roundTrip(func(r *http.Request) string {
			t.Errorf("asked %s", r.URL)
			return list
		})}
		c.listServers(t.Context())
	}
}

// roundTrip answers requests without a network.
type roundTrip func(*http.Request) string

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(f(r))), Request: r}, nil
}
