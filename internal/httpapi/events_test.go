package httpapi

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
)

// emitThree makes a history: two events at log position 8, one at 9; the log is at 11.
func emitThree(l *httpapitest.Fake) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	task := uint64(7)
	l.Change(func() {
		l.EventLog = []api.Event{
			{Index: 8, Type: api.EventJobSubmitted, Time: at, Job: 1, Detail: "<a & b>"},
			{Index: 8, Seq: 1, Type: api.EventStageStarted, Time: at, Job: 1, Stage: "map"},
			{Index: 9, Type: api.EventTaskDied, Time: at, Job: 1, Stage: "map", Task: &task},
		}
		l.Index = 10
	})
}

const (
	sentSubmitted = "id: 8-0\nevent: job_submitted\n" +
		`data: {"index":8,"seq":0,"type":"job_submitted","time":"2026-01-02T03:04:05Z","job":1,"detail":"<a & b>"}` + "\n\n"
	sentStarted = "id: 8-1\nevent: stage_started\n" +
		`data: {"index":8,"seq":1,"type":"stage_started","time":"2026-01-02T03:04:05Z","job":1,"stage":"map"}` + "\n\n"
	sentDied = "id: 9-0\nevent: task_died\n" +
		`data: {"index":9,"seq":0,"type":"task_died","time":"2026-01-02T03:04:05Z","job":1,"stage":"map","task":7}` + "\n\n"
	sentLater = "id: 12-0\nevent: job_ended\n" + `data: {"index":12,"seq":0,"type":"job_ended","time":"0001-01-01T00:00:00Z","job":1}` + "\n\n"
)

// watchEvents reads the stream for a while, during which one more event is emitted.
func watchEvents(t *testing.T, l *httpapitest.Fake, query, lastEventID string, d time.Duration) (w *httptest.ResponseRecorder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/events"+query, nil)
	if lastEventID != "" {
		r.Header.Set("Last-Event-ID", lastEventID)
	}
	go func() {
		time.Sleep(time.Second)
		l.Emit(api.Event{Type: api.EventJobEnded, Job: 1})
	}()
	w = httptest.NewRecorder()
	defer func() {
		if v := recover(); v != nil && v != any(http.ErrAbortHandler) { // the stream was cut off
			panic(v)
		}
	}()
	newAPI(l).ServeHTTP(w, r)
	return w
}

func TestEventsResume(t *testing.T) {
	for _, c := range []struct{ name, query, header, want string }{
		{"from the beginning", "?after=0-0", "", sentSubmitted + sentStarted + sentDied + sentLater},
		{"after one", "?after=8-0", "", sentStarted + sentDied + sentLater},
		{"resumed", "", "8-1", sentDied + sentLater},
		{"a browser resumes", "?after=0-0", "9-0", ":\n\n" + sentLater},
		{"from now on", "", "", "id: 11-4294967295\n\n:\n\n" + sentLater},
		{"from now on, resumed", "", "11-4294967295", ":\n\n" + sentLater},
		{"after what this node has not yet", "", "12-0", ":\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := httpapitest.NewFake()
				emitThree(l)
				w := watchEvents(t, l, c.query, c.header, 5*time.Second)
				if got := w.Body.String(); got != c.want {
					t.Errorf("events:\n%s\nwant:\n%s", got, c.want)
				}
				if w.Header().Get("Content-Type") != "text/event-stream" || w.Header().Get("Cache-Control") != "no-store" || !w.Flushed {
					t.Errorf("headers %v, flushed %v", w.Header(), w.Flushed)
				}
			})
		})
	}
}

func TestEventHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := httpapitest.NewFake()
		emitThree(l)
		// The header, the event at 1 s, and a beat after each 10 s of silence.
		got := watchEvents(t, l, "?after=9-0", "", 35*time.Second).Body.String()
		if want := ":\n\n" + sentLater + strings.Repeat(":\n\n", 3); got != want {
			t.Errorf("events:\n%s\nwant:\n%s", got, want)
		}
	})
}

func TestEventsGone(t *testing.T) {
	l := httpapitest.NewFake()
	emitThree(l)
	l.Oldest = 9
	for _, id := range []string{"8-1", "0-0"} {
		p := httpapitest.ProblemOf(t, httpapitest.Ask(t, newAPI(l), "GET", "/v1/events?after="+id, ""))
		if p.Status != http.StatusGone || !strings.Contains(p.Detail, "after "+id) {
			t.Errorf("events after %s = %+v, want 410", id, p)
		}
	}
}

func TestInvalidPositions(t *testing.T) {
	a := newAPI(httpapitest.NewFake())
	for _, id := range []string{"1", "x-1", "1-x", "-1-1", "1-4294967296", "18446744073709551616-0", "1-1-1", " ", strings.Repeat("1", 60)} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/events", nil)
		r.Header.Set("Last-Event-ID", id)
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if p := httpapitest.ProblemOf(t, w); p.Status != 422 || !strings.Contains(p.Error(), "Last-Event-ID") {
			t.Errorf("Last-Event-ID %q = %s, want 422", id, p.Error())
		}
		target := "/v1/events?after=" + strings.ReplaceAll(id, " ", "%20")
		if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, a, "GET", target, "")); p.Status != 422 || !strings.Contains(p.Error(), "query.after") {
			t.Errorf("after=%s = %s, want 422", id, p.Error())
		}
	}
}

// TestEventsOfAPartitionedNode: its streams end, so that readers resume on another node.
func TestEventsOfAPartitionedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := httpapitest.NewFake()
		emitThree(l)
		l.Follow("")
		l.Age = 10_001
		begun := time.Now()
		w := watchEvents(t, l, "?after=8-1", "", time.Minute)
		if got := w.Body.String(); got != sentDied+sentLater || time.Since(begun) != 11*time.Second {
			t.Errorf("events for %v:\n%s\nwant what there is, for 11s", time.Since(begun), got)
		}
	})
}

func TestEventsAreFlushed(t *testing.T) {
	l := httpapitest.NewFake()
	emitThree(l)
	answer, err := fetch(t, serve(t, newAPI(l))+"/v1/events?after=9-0")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(answer.Body)
	l.Emit(api.Event{Type: api.EventJobEnded, Job: 1})
	var got strings.Builder
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), ":") && (got.Len() > 0 || lines.Text() != "") {
			got.WriteString(lines.Text() + "\n")
		}
		if strings.HasSuffix(got.String(), "\n\n") {
			break
		}
	}
	if got.String() != sentLater {
		t.Errorf("events:\n%s\nwant:\n%s", got.String(), sentLater)
	}
}

// stuckWriter is a connection whose peer does not read: once the buffer is full, writes block until their deadline.
type stuckWriter struct {
	header http.Header
	free   int

	mu       sync.Mutex
	deadline time.Time
}

func (w *stuckWriter) Header() http.Header { return w.header }
func (w *stuckWriter) WriteHeader(int)     {}
func (w *stuckWriter) Flush()              {}

func (w *stuckWriter) Write(p []byte) (int, error) {
	if w.free >= len(p) {
		w.free -= len(p)
		return len(p), nil
	}
	w.mu.Lock()
	deadline := w.deadline
	w.mu.Unlock()
	time.Sleep(time.Until(deadline))
	return 0, os.ErrDeadlineExceeded
}

func (w *stuckWriter) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	return nil
}

// TestSlowEventReader: it blocks the producer, a bounded number of events is buffered, and it is disconnected in the end.
func TestSlowEventReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		l := &endlessLeader{Fake: httpapitest.NewFake(), told: &told}
		w := &stuckWriter{header: http.Header{}, free: 100_000}
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/events", nil)
		begun := time.Now()
		var cut any
		func() {
			defer func() { cut = recover() }()
			newAPI(l).ServeHTTP(w, r)
		}()
		if cut != any(http.ErrAbortHandler) || time.Since(begun) != eventsWriteMax {
			t.Errorf("the stream ended with %v after %v, want it broken off after %v", cut, time.Since(begun), eventsWriteMax)
		}
		if most := 100_000/100 + 2*relayAhead + (32<<10)/100; told > most {
			t.Errorf("%d events were told, want at most %d", told, most)
		}
		if err := l.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Events ended with %v, want canceled", err)
		}
	})
}

// endlessLeader emits events without end.
type endlessLeader struct {
	*httpapitest.Fake
	told  *int
	ended error
}

func (l *endlessLeader) Events(_ context.Context, _ api.Position, emit func(api.Event) error) error {
	for {
		if l.ended = emit(api.Event{Index: uint64(*l.told), Type: api.EventJobSubmitted}); l.ended != nil {
			return l.ended
		}
		*l.told++
	}
}

func TestLogHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := httpapitest.NewFake()
		l.Set(fullJob(1))
		l.OnLogs = func(_ context.Context, _ api.LogQuery, emit func(api.LogRecord) error) error {
			time.Sleep(12 * time.Second)
			return emit(api.LogRecord{Text: []byte("a")})
		}
		w := httpapitest.Ask(t, newAPI(l), "GET", "/v1/jobs/1/logs?follow=true", "")
		lines := strings.SplitAfter(w.Body.String(), "\n")
		if len(lines) != 5 || lines[0]+lines[1]+lines[2] != "\n\n\n" || !strings.HasPrefix(lines[3], "{") { // at 1, 6 and 11 s
			t.Errorf("log = %q, want three empty lines and a record", lines)
		}
		// An early error is a problem, and a log that is not followed has no beats.
		l.OnLogs = func(context.Context, api.LogQuery, func(api.LogRecord) error) error {
			return api.NotFound("there is no task 9")
		}
		if p := httpapitest.ProblemOf(t, httpapitest.Ask(t, newAPI(l), "GET", "/v1/jobs/1/logs?follow=true", "")); p.Status != 404 {
			t.Errorf("log of no task = %+v, want 404", p)
		}
		l.OnLogs = func(_ context.Context, _ api.LogQuery, emit func(api.LogRecord) error) error {
			time.Sleep(12 * time.Second)
			return emit(api.LogRecord{Text: []byte("a")})
		}
		if w := httpapitest.Ask(t, newAPI(l), "GET", "/v1/jobs/1/logs", ""); strings.Count(w.Body.String(), "\n") != 1 {
			t.Errorf("log = %q, want one line", w.Body)
		}
	})
}
