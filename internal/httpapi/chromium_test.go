package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/compat"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// visited is an API for browsers, which records their requests.
type visited struct {
	*API
	fake *httpapitest.Fake
	port string

	mu   sync.Mutex
	seen []string // METHOD PATH STATUS, and whether it had a cookie
}

// statusWriter keeps the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (v *visited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kept := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	path, cookie := r.URL.Path, r.Header.Get("Cookie") != ""
	if strings.HasPrefix(path, access.BrowserPath+"/") {
		path = access.BrowserPath + "/…"
	}
	v.API.ServeHTTP(kept, r)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen = append(v.seen, fmt.Sprintf("%s %s %d cookie:%v", r.Method, path, kept.status, cookie))
}

func (v *visited) requests() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	seen := v.seen
	v.seen = nil
	return seen
}

// newVisited starts an API as a leader's: it serves this user without a token.
func newVisited(t *testing.T) *visited {
	t.Helper()
	v := &visited{fake: readAll()}
	v.API = New(Options{
		Leader: v.fake, Routes: compat.Routes(v.fake), Policy: access.NewPolicy(access.Options{}), Version: "v0",
		Log: slog.New(slog.DiscardHandler), Metrics: http.NotFoundHandler(),
	})
	v.port = listenFor(t, v)
	return v
}

// listenFor serves h on loopback until the end of the test.
func listenFor(t *testing.T, h http.Handler) (port string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := Server(t.Context(), h, slog.New(slog.DiscardHandler))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// chromium opens a URL in a browser of this user, and returns the document that its scripts have made of the page.
func chromium(t *testing.T, url string) string {
	t.Helper()
	const command = "chromium-headless-shell"
	if _, err := exec.LookPath(command); err != nil {
		t.Skipf("there is no %s on this machine", command)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
		"--host-resolver-rules=MAP *.example 127.0.0.1", "--virtual-time-budget=5000", "--dump-dom", url)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", command, url, err)
	}
	return string(out)
}

// attack is a page that tries to read from, and to change, the server at %[1]s, and shows what it got. %[2]s is a login for a browser.
const attack = `<!doctype html><body><p id=got></p><script>
const server = "%[1]s", got = []
async function attempt(name, path, options) {
	try {
		const answer = await fetch(server + path, {credentials: "include", ...options})
		const text = await answer.text()
		if (text) got.push(name + " READ " + text)
	} catch (e) { got.push(name + " failed") }
}
(async () => {
	await attempt("read", "/v1/jobs", {})
	await attempt("blind", "/v1/jobs", {mode: "no-cors"})
	await attempt("submit", "/v1/jobs", {method: "POST", mode: "no-cors", body: '{"program":{"command":["id"]},"range":{"from":1,"to":1}}'})
	await attempt("json", "/v1/jobs", {method: "POST", headers: {"Content-Type": "application/json"}, body: '{}'})
	await attempt("original", "/job/start", {method: "POST", mode: "no-cors", body: '{"name":"x","jobClass":"AlwaysOk","input":"/","output":"/x"}'})
	await attempt("stop", "/job/stop/1", {method: "PUT"})
	await attempt("login", "%[2]s", {mode: "no-cors"})
	document.getElementById("got").textContent = got.join("; ") + " END"
})()
</script><iframe src="%[1]s/docs"></iframe><script src="%[1]s/v1/jobs"></script></body>`

// TestChromium opens pages of other sites in a real browser of the server's user. That user is let in without a token, so that a page could use
// the server if it did not look at where requests come from.
func TestChromium(t *testing.T) {
	v := newVisited(t)
	login := func() string {
		r := httptest.NewRequestWithContext(access.ConnContext(t.Context(), localConn(t)), http.MethodPost, access.BrowserPath, http.NoBody)
		return access.BrowserPath + "/" + v.policy.Login(r)
	}
	var target string
	evil := listenFor(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, attack, target, login())
	}))
	before := v.fake.Index

	// Once a name of another site is rebound to this server, its pages are of one origin with it.
	if page := chromium(t, "http://evil.example:"+v.port+"/v1/jobs"); !strings.Contains(page, "421") {
		t.Errorf("the server answers to a rebound name: %s", page)
	}
	v.requests()
	for _, at := range []struct{ page, server string }{
		{"evil.example", "127.0.0.1"}, {"localhost", "localhost"}, // the second is of the same site, on another port
	} {
		target = "http://" + at.server + ":" + v.port
		_, got, _ := strings.Cut(chromium(t, "http://"+at.page+":"+evil), `<p id="got">`)
		if got, _, _ = strings.Cut(got, "</p>"); strings.Contains(got, "READ") || !strings.HasSuffix(got, "END") {
			t.Errorf("a page of %s got: %s", at.page, got)
		}
		seen := v.requests()
		if len(seen) == 0 {
			t.Errorf("no request of the page of %s reached the server", at.page)
		}
		for _, request := range seen {
			if !strings.Contains(request, " 403 ") && !strings.HasPrefix(request, "OPTIONS") {
				t.Errorf("a page of %s: %s, want 403", at.page, request)
			}
		}
	}
	if v.fake.Index != before {
		t.Error("a page of another site has changed something")
	}

	// The one-time URL lets a browser in, which keeps its cookie, also if it comes from another site.
	link := listenFor(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<meta http-equiv="refresh" content="0; url=http://127.0.0.1:%s%s">`, v.port, login())
	}))
	want := []string{"GET " + access.BrowserPath + "/… 200 cookie:false", "GET / 302 cookie:true", "GET /docs 200 cookie:true"}
	for _, from := range []string{"http://127.0.0.1:" + v.port + login(), "http://link.example:" + link} {
		if page := chromium(t, from); !strings.Contains(page, "Bridge Four API") {
			t.Errorf("the page after the login: %s", page)
		}
		if seen := v.requests(); len(seen) < 3 || !slices.Equal(seen[:3], want) {
			t.Errorf("requests after the login: %q, want %q", seen, want)
		}
	}
}

// localConn is a connection of this process with itself.
func localConn(t *testing.T) net.Conn {
	t.Helper()
	port := listenFor(t, http.NotFoundHandler())
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
