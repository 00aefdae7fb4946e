package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/bridgefour/bridgefour/api"
)

// history is a stream of events, the same on every node of a cluster.
type history []api.Position

var theHistory = history{{Index: 3}, {Index: 3, Seq: 1}, {Index: 5}, {Index: 9}, {Index: 9, Seq: 1}}

// send sends the events after an id as a leader does, in all at most most bytes; negative: all.
func (h history) send(w io.Writer, after string, most int) {
	var text strings.Builder
	var last api.Position
	if after == "" {
		text.WriteString("id: 0-4294967295\n\n") // now, and all is yet to come
	} else {
		_, _ = fmt.Sscanf(after, "%d-%d", &last.Index, &last.Seq)
	}
	for _, p := range h {
		if after != "" && (p.Index < last.Index || p.Index == last.Index && p.Seq <= last.Seq) {
			continue
		}
		fmt.Fprintf(&text, ":\n\nid: %d-%d\nevent: job_ended\ndata: {\"index\":%d,\ndata: \"seq\":%d,\"type\":\"job_ended\"}\n\n", p.Index, p.Seq, p.Index, p.Seq)
	}
	s := text.String()
	if most >= 0 {
		s = s[:min(most, len(s))]
	}
	_, _ = io.WriteString(w, s)
	_ = http.NewResponseController(w.(http.ResponseWriter)).Flush()
}

// collect reads events until it has n.
func collect(t *testing.T, c *Client, after *api.Position, n int) []api.Position {
	t.Helper()
	var got []api.Position
	for event, err := range c.Events(t.Context(), after) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Type != api.EventJobEnded {
			t.Errorf("event %+v", event)
		}
		if got = append(got, api.Position{Index: event.Index, Seq: event.Seq}); len(got) == n {
			break
		}
	}
	return got
}

// TestEventsContinueWithAnotherLeader cuts the stream after every byte.
func TestEventsContinueWithAnotherLeader(t *testing.T) {
	nodes := newNodes(t, 2)
	c := newClient(t, Options{}, nodes[0].url(), nodes[1].url())
	var mu sync.Mutex
	cut, asked := 0, []string(nil)
	for _, n := range nodes {
		n.set(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			after, most := r.Header.Get("Last-Event-ID"), cut
			if asked = append(asked, after); len(asked) > 1 {
				most = -1
			}
			mu.Unlock()
			theHistory.send(w, after, most)
			if most < 0 {
				n.wait(r) // for more events
			}
			breakOff()
		})
	}
	for cut = 1; cut < 330; cut += 7 {
		asked = nil
		if got := collect(t, c, nil, len(theHistory)); !reflect.DeepEqual(got, []api.Position(theHistory)) {
			t.Fatalf("cut after %d bytes: events %v, want %v; resumed after %q", cut, got, theHistory, asked)
		}
	}
	asked = nil
	if got := collect(t, c, &api.Position{Index: 3, Seq: 1}, 3); !reflect.DeepEqual(got, []api.Position(theHistory[2:])) || asked[0] != "3-1" {
		t.Errorf("events after 3-1 = %v, asked after %q", got, asked)
	}
}

func TestEventsOfALeaderThatHangs(t *testing.T) { synctest.Test(t, eventsOfALeaderThatHangs) }

func eventsOfALeaderThatHangs(t *testing.T) {
	nodes, c := watchful(t, 2, Options{})
	nodes[0].set(func(w http.ResponseWriter, r *http.Request) {
		theHistory[:2].send(w, r.Header.Get("Last-Event-ID"), -1)
		nodes[0].hang()
		nodes[0].wait(r)
	})
	nodes[1].set(func(w http.ResponseWriter, r *http.Request) {
		theHistory.send(w, "0-0", -1) // also what the reader has already
		nodes[1].wait(r)
	})
	if got := collect(t, c, nil, len(theHistory)); !reflect.DeepEqual(got, []api.Position(theHistory)) {
		t.Errorf("events %v, want %v", got, theHistory)
	}
	if got := nodes[1].requests()[0].Header.Get("Last-Event-ID"); got != "3-1" {
		t.Errorf("resumed after %q, want 3-1", got)
	}
}

// TestEventsOfASilentStream: a stream that brings not even comments has broken, though the node answers probes.
func TestEventsOfASilentStream(t *testing.T) { synctest.Test(t, eventsOfASilentStream) }

func eventsOfASilentStream(t *testing.T) {
	nodes, c := watchful(t, 2, Options{})
	nodes[0].set(func(w http.ResponseWriter, r *http.Request) {
		theHistory[:1].send(w, "0-0", -1)
		nodes[0].wait(r)
	})
	nodes[1].set(func(w http.ResponseWriter, r *http.Request) {
		theHistory.send(w, r.Header.Get("Last-Event-ID"), -1)
		nodes[1].wait(r)
	})
	var got []api.Position
	q := get(EventsPath)
	q.quietMax = 2 * c.silenceMax
	e := events{q: &q, yield: func(event api.Event, _ error) bool {
		got = append(got, api.Position{Index: event.Index, Seq: event.Seq})
		return len(got) < len(theHistory)
	}}
	if err := c.stream(t.Context(), &q, "events", e.read); err != nil || !reflect.DeepEqual(got, []api.Position(theHistory)) {
		t.Errorf("events %v, %v; want %v", got, err, theHistory)
	}
}

func TestEventsNoLongerStored(t *testing.T) {
	nodes := newNodes(t, 1)
	nodes[0].set(func(w http.ResponseWriter, _ *http.Request) {
		sendJSON(w, 410, api.Gone("events after 1-0 are not kept"))
	})
	c := newClient(t, Options{}, nodes[0].url())
	var errs []error
	for _, err := range c.Events(t.Context(), &api.Position{Index: 1}) {
		errs = append(errs, err)
	}
	if p, ok := errors.AsType[*api.Problem](errs[0]); !ok || p.Status != http.StatusGone || len(errs) != 1 {
		t.Errorf("errors = %v, want the 410 once", errs)
	}
}

func TestEventsEndWithTheirContext(t *testing.T) {
	nodes := newNodes(t, 1)
	nodes[0].set(func(w http.ResponseWriter, r *http.Request) {
		theHistory[:1].send(w, "0-0", -1)
		nodes[0].wait(r)
	})
	c := newClient(t, Options{}, nodes[0].url())
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	cause := errors.New("ctrl-c")
	var last error
	for _, err := range c.Events(ctx, nil) {
		last = err
		cancel(cause)
	}
	if !errors.Is(last, cause) {
		t.Errorf("the sequence ended with %v, want the cause", last)
	}
}

func TestEventsOfAnotherServer(t *testing.T) {
	for _, text := range []string{"id: x\n\n", "id: 1-1-1\n\n", "id: 1-0\ndata: <html>\n\n", "id: -1-0\n\n"} {
		c := newClient(t, Options{Patience: -1}, serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
		var last error
		for _, err := range c.Events(t.Context(), nil) {
			last = err
		}
		if last == nil || !strings.Contains(last.Error(), "Bridge Four") {
			t.Errorf("events %q = %v, want an error that doubts the server", text, last)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add("id: 1-0\nevent: job_ended\ndata: {}\n\n:\n\nid: 1-1\ndata: {}\n\n")
	f.Add("id: 0-4294967295\r\n\r\ndata\n\nid\n\n")
	f.Add("id:0-0\ndata:{}\n\n0000000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		var last *api.Position
		q := get(EventsPath)
		e := events{q: &q}
		e.yield = func(api.Event, error) bool {
			if last != nil && e.last == *last {
				t.Fatalf("%q gave two events at one position", text)
			}
			last = new(e.last)
			return true
		}
		if _, err := e.read(strings.NewReader(text)); err == nil || errors.Is(err, errEnough) {
			t.Fatalf("%q ended with %v", text, err)
		}
	})
}
