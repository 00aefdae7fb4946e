package httpapi

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// BenchmarkNew is the API's part of the start-up time.
func BenchmarkNew(b *testing.B) {
	l := httpapitest.NewFake()
	for b.Loop() {
		New(Options{Leader: l, Log: slog.New(slog.DiscardHandler)})
	}
}

// discard is a ResponseWriter without cost.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkGetJob is a status read without the network.
func BenchmarkGetJob(b *testing.B) {
	benchmarkHandler(b, "/v1/jobs/1")
}

// BenchmarkGetJobOnFollower is the same on a node that does not lead.
func BenchmarkGetJobOnFollower(b *testing.B) {
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	l.Follow("10.0.0.2:6550")
	benchmark(b, l, "/v1/jobs/1")
}

// BenchmarkCompatStatus is a status read of the original system without the network.
func BenchmarkCompatStatus(b *testing.B) {
	benchmarkHandler(b, "/job/status/1")
}

func benchmarkHandler(b *testing.B, target string) {
	b.Helper()
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	benchmark(b, l, target)
}

func benchmark(b *testing.B, l *httpapitest.Fake, target string) {
	b.Helper()
	a := newAPI(l)
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, target, nil)
	b.ReportAllocs()
	for b.Loop() {
		a.ServeHTTP(discard{header: http.Header{}}, r)
	}
}

// BenchmarkGetJobOverHTTP is a status read through net/http on one connection, with a minimal client.
func BenchmarkGetJobOverHTTP(b *testing.B) {
	l := httpapitest.NewFake()
	l.Set(fullJob(1))
	server := httptest.NewServer(newAPI(l))
	defer server.Close()
	conn, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	reader := bufio.NewReader(conn)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(conn, "GET /v1/jobs/1 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			b.Fatal(err)
		}
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.Copy(io.Discard, answer.Body)
		if err := errors.Join(err, answer.Body.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
