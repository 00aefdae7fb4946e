package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/internal/transport"
)

// Each connection reaches the server for its first bytes, with all of its bytes.
func TestSplitter(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplitter([]net.Listener{l}, transport.NewConnLimits(), slog.New(slog.DiscardHandler))
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := s.run(); err != nil {
			t.Errorf("run = %v, want nil", err)
		}
	})
	// Each server answers with its name and the line that it gets.
	serve := func(name string, b *branch) {
		for {
			c, err := b.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept = %v, want net.ErrClosed", err)
				}
				return
			}
			line, err := bufio.NewReader(c).ReadString('\n')
			if err == nil {
				_, err = io.WriteString(c, name+" "+line)
			}
			if err := errors.Join(err, c.Close()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	parts.Go(func() { serve("grpc", s.grpc) })
	parts.Go(func() { serve("http", s.http) })

	var d net.Dialer
	dial := func() net.Conn {
		c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	silent := dial() // sends nothing; it must not hold up others, nor the end
	for _, c := range []struct{ first, rest, want string }{
		{"GET / HTTP/1.1", "\n", "http GET / HTTP/1.1\n"},
		{preface, "", "grpc PRI * HTTP/2.0\r\n"},
		{preface[:2], preface[2:], "grpc PRI * HTTP/2.0\r\n"},
		{"P", "UT / HTTP/1.1\n", "http PUT / HTTP/1.1\n"},
	} {
		conn := dial()
		for _, text := range []string{c.first, c.rest} {
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
		}
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != c.want {
			t.Errorf("sent %q %q: got %q, %v, want %q", c.first, c.rest, got, err, c.want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.http.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := s.grpc.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	parts.Wait()
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection got an answer, want its end")
	}
}

// dialPort starts a splitter with limits over loopback, and returns it with a function that dials it.
func dialPort(t *testing.T, limits transport.ConnLimits) (*splitter, func(first string) net.Conn) {
	t.Helper()
	l, err := transport.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplitter([]net.Listener{l}, limits, slog.New(slog.DiscardHandler))
	var parts sync.WaitGroup
	parts.Go(func() { _ = s.run() })
	t.Cleanup(func() {
		_ = s.http.Close()
		parts.Wait()
	})
	return s, func(first string) net.Conn {
		c, err := transport.Dial(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, first); err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// The newest client above the limit is refused with an answer; workers and leaders are not, and there is room again when a client leaves.
func TestClientsAreRefusedBeforeWorkers(t *testing.T) {
	s, dial := dialPort(t, transport.ConnLimits{Total: 8, HTTP: 2, Silent: 4})
	accept := func(b *branch) net.Conn {
		c, err := b.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if begun, ok := c.(*startedConn); ok {
			begun.state.Store(serving)
		}
		return c
	}
	dial("GET / HTTP/1.1\r\n")
	first := accept(s.http)
	dial("GET / HTTP/1.1\r\n")
	accept(s.http)
	for range 3 {
		answer, err := io.ReadAll(dial("GET / HTTP/1.1\r\n\r\n"))
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "Retry-After: 1\r\n") {
			t.Errorf("the third client got %q, %v, want 503", answer, err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if err != nil {
			t.Fatal(err)
		}
		var problem struct{ Status int }
		if err := errors.Join(json.NewDecoder(resp.Body).Decode(&problem), resp.Body.Close()); err != nil || problem.Status != 503 {
			t.Errorf("the answer's problem = %+v, %v", problem, err)
		}
	}
	for range 6 {
		dial(preface)
		accept(s.grpc)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	dial("GET / HTTP/1.1\r\n")
	accept(s.http)
}

// Silent connections are dropped for new ones, the oldest first, so that a flood of them keeps no client out.
func TestSilentConnectionsMakeRoom(t *testing.T) {
	s, dial := dialPort(t, transport.ConnLimits{Total: 100, HTTP: 50, Silent: 4})
	var silent []net.Conn
	for range 20 {
		silent = append(silent, dial(""))
	}
	for i, c := range silent { // all of them would end after prefaceTime
		if i >= 16 {
			if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) != (i >= 16) {
			t.Errorf("silent connection %d of %d: %v, want that the first 16 have ended", i, len(silent), err)
		}
	}
	dial(preface)
	if _, err := s.grpc.Accept(); err != nil {
		t.Error(err)
	}
}

// Clients without a complete request make room for new ones: first those that have sent a part of one, the oldest first.
func TestIncompleteRequestsMakeRoom(t *testing.T) {
	s, dial := dialPort(t, transport.ConnLimits{Total: 100, HTTP: 4, Silent: 4})
	release := make(chan struct{})
	server := &http.Server{
		ReadHeaderTimeout: time.Minute, ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return ctx },
	}
	watch(server, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil && r.URL.Path == "/wait" {
			<-release
		}
	}))
	go func() { _ = server.Serve(s.http) }()
	t.Cleanup(func() { _ = server.Close() })
	answer := func(c net.Conn) int {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("no answer: %v", err)
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	until := func(c net.Conn, state int32) { // until the port knows the client
		is := func(open *startedConn) bool {
			return open.RemoteAddr().String() == c.LocalAddr().String() && open.state.Load() == state
		}
		for known := false; !known; time.Sleep(time.Millisecond) {
			s.open.mu.Lock()
			known = slices.ContainsFunc(slices.Collect(maps.Keys(s.open.http)), is)
			s.open.mu.Unlock()
		}
	}
	waits := dial("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
	until(waits, serving)
	idles := dial("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if code := answer(idles); code != http.StatusOK {
		t.Errorf("the first request: %d", code)
	}
	for _, part := range []string{"GET / HT", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"} {
		for range 20 {
			until(dial(part), receiving)
			if code := answer(dial("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); code != http.StatusOK {
				t.Fatalf("a request beside parts %q of others: %d, want 200", part, code)
			}
		}
	}
	if _, err := io.WriteString(idles, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil || answer(idles) != http.StatusOK {
		t.Errorf("the idle client was dropped before those with a part of a request: %v", err)
	}
	close(release)
	if code := answer(waits); code != http.StatusOK {
		t.Errorf("the request in service: %d", code)
	}
	// Nothing but requests in service: the newest is refused.
	for range 4 {
		c, _ := net.Pipe()
		begun := &startedConn{Conn: c, accepted: c, http: true, end: func() {}}
		begun.state.Store(serving)
		s.open.enter(c)
		s.open.begin(begun, true)
	}
	if code := answer(dial("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); code != http.StatusServiceUnavailable {
		t.Errorf("beside requests in service only: %d, want 503", code)
	}
}

// Only workers and leaders have a place beyond that of clients: any stranger can begin a connection as they do.
func TestStrangersAreNoWorkers(t *testing.T) {
	p := portConns{limits: transport.ConnLimits{Total: 100, HTTP: 2, Silent: 4}, http: map[*startedConn]struct{}{}}
	var strangers []*startedConn
	for i := range 5 {
		c, _ := net.Pipe()
		stranger := &startedConn{Conn: c, accepted: c, end: func() {}}
		stranger.heard.Store(int64(i))
		strangers = append(strangers, stranger)
		p.enter(c)
		verdict, dropped := p.begin(stranger, true)
		if want := i >= 2; verdict != connCounted || (dropped != nil) != want || want && dropped != strangers[i-2] {
			t.Errorf("stranger %d: verdict %d, and %v is dropped; want the oldest beyond the limit", i, verdict, dropped)
		}
	}
	for range 5 {
		c, _ := net.Pipe()
		p.enter(c)
		if verdict, dropped := p.begin(&startedConn{Conn: c, accepted: c, machine: true, end: func() {}}, true); verdict != connCounted || dropped != nil {
			t.Errorf("a worker: verdict %d, %v is dropped", verdict, dropped)
		}
	}
	for _, c := range strangers[3:] {
		p.end(c)
	}
	if len(p.http) != 0 || p.grpc != 5 {
		t.Errorf("%d clients and %d machines are left, want 0 and 5", len(p.http), p.grpc)
	}
}

func TestHeaderAboveTheLimit(t *testing.T) {
	s, dial := dialPort(t, transport.NewConnLimits())
	server := &http.Server{ReadHeaderTimeout: time.Minute, MaxHeaderBytes: transport.HeaderBytesMax}
	go func() { _ = server.Serve(s.http) }()
	t.Cleanup(func() { _ = server.Close() })
	answer, err := io.ReadAll(dial("GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2*transport.HeaderBytesMax) + "\r\n\r\n"))
	if !strings.HasPrefix(string(answer), "HTTP/1.1 431 ") || !strings.Contains(string(answer), "64 KiB") {
		t.Errorf("answer %q, %v; want 431 with the limit", answer, err)
	}
}

// failingListener fails with its errors, then accepts one connection, then waits for Close.
type failingListener struct {
	errs   []error
	conn   net.Conn
	closed chan struct{}
	calls  []time.Time
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.calls = append(l.calls, time.Now())
	if n := len(l.calls) - 1; n < len(l.errs) {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", l.errs[n])}
	} else if n == len(l.errs) {
		return l.conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (*failingListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *failingListener) Close() error {
	close(l.closed)
	return nil
}

func TestSplitterOutlivesAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		l := &failingListener{conn: server, closed: make(chan struct{})}
		for range 10 {
			l.errs = append(l.errs, syscall.EMFILE)
		}
		l.errs = append(l.errs, syscall.ENFILE)
		s := newSplitter([]net.Listener{l}, transport.NewConnLimits(), slog.New(slog.DiscardHandler))
		ended := make(chan error, 1)
		go func() { ended <- s.run() }()
		go func() { _, _ = io.WriteString(client, "GET /") }()
		conn, err := s.http.Accept()
		synctest.Wait() // until the listener waits for Close
		if err != nil || len(l.calls) < len(l.errs)+1 {
			t.Fatalf("Accept = %v, %v after %d calls; want the connection after %d", conn, err, len(l.calls), len(l.errs)+1)
		}
		var delays []time.Duration
		for i := range l.errs {
			delays = append(delays, l.calls[i+1].Sub(l.calls[i]))
		}
		for i, d := range delays {
			if want := min(5*time.Millisecond<<i, time.Second); d != want {
				t.Errorf("delay %d = %v, want %v", i, d, want)
			}
		}
		if err := errors.Join(conn.Close(), client.Close(), s.http.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
}

func TestSplitterEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &failingListener{errs: []error{syscall.EINVAL}, closed: make(chan struct{})}
		if err := newSplitter([]net.Listener{l}, transport.NewConnLimits(), slog.New(slog.DiscardHandler)).run(); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("run = %v, want EINVAL", err)
		}
		// Close ends a delay.
		l = &failingListener{errs: slices.Repeat([]error{syscall.EMFILE}, 20), closed: make(chan struct{})}
		s, begun := newSplitter([]net.Listener{l}, transport.NewConnLimits(), slog.New(slog.DiscardHandler)), time.Now()
		time.AfterFunc(2500*time.Millisecond, func() { _ = s.http.Close() })
		if err := s.run(); err != nil || time.Since(begun) != 2500*time.Millisecond {
			t.Errorf("run = %v after %v, want nil at once when the listener is closed", err, time.Since(begun))
		}
	})
}
