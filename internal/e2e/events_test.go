package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// fact is an event of a stream.
type fact struct {
	id   string
	kind string
	api.Event
}

// stream reads the event stream of a leader behind a position, until give returns false or the connection ends.
func (n *node) stream(ctx context.Context, after string, give func(fact) bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.listen+"/v1/events", http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", after)
	resp, err := direct.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		return fmt.Errorf("%v answers %s, %s", n, resp.Status, kind)
	}
	var next fact
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			next.id = value
		case "event":
			next.kind = value
		case "data":
			if err := json.Unmarshal([]byte(value), &next.Event); err != nil {
				return fmt.Errorf("%q: %w", value, err)
			}
		case "":
			if lines.Text() == "" && next.kind != "" { // not a comment, nor a position alone
				if !give(next) {
					return nil
				}
				next = fact{id: next.id}
			}
		}
	}
	return lines.Err()
}

// factsUntil returns a leader's facts from the beginning to the end of a job.
func (n *node) factsUntil(job uint64) []fact {
	n.g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var list []fact
	if err := n.stream(ctx, "0-0", func(f fact) bool {
		list = append(list, f)
		return f.kind != api.EventJobEnded || f.Job != job
	}); err != nil {
		n.g.t.Errorf("events of %v: %v, after %d", n, err, len(list))
	}
	return list
}

// wantFacts checks that each fact is valid, and later than the one before.
func wantFacts(t *testing.T, list []fact) {
	t.Helper()
	var last api.Position
	for _, f := range list {
		at := api.Position{Index: f.Index, Seq: f.Seq}
		if f.id != fmt.Sprintf("%d-%d", f.Index, f.Seq) || f.kind != f.Type || f.Time.IsZero() {
			t.Errorf("event %+v: id and type are not those of its data", f)
		}
		if len(list) > 0 && (at.Index < last.Index || at.Index == last.Index && at.Seq <= last.Seq) && last != (api.Position{}) {
			t.Errorf("event %s comes after %d-%d", f.id, last.Index, last.Seq)
		}
		last = at
	}
}

// follower follows the events of the cluster as a client does.
type follower struct {
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	list []api.Event
	err  error
}

// follow follows the events from the first one on.
func (g *group) follow() *follower {
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t: g.t, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for e, err := range g.client.Events(ctx, &api.Position{}) {
			f.mu.Lock()
			if err != nil {
				f.err = err
			} else {
				f.list = append(f.list, e)
			}
			f.mu.Unlock()
		}
	}()
	g.t.Cleanup(func() { cancel(); <-f.done })
	return f
}

// received returns the events so far.
func (f *follower) received() []api.Event {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		f.t.Fatalf("the stream of events has ended: %v, after %d", f.err, len(f.list))
	}
	return slices.Clone(f.list)
}

// wantAll waits for the end of a job, and checks that the follower has received each event of the leader once.
func (f *follower) wantAll(from *node, job uint64) {
	f.t.Helper()
	ended := func(e api.Event) bool { return e.Type == api.EventJobEnded && e.Job == job }
	until(f.t, fmt.Sprintf("the end of job %d is told", job), func() bool { return slices.ContainsFunc(f.received(), ended) })
	got := f.received()
	got = got[:1+slices.IndexFunc(got, ended)]
	want := from.factsUntil(job)
	wantFacts(f.t, want)
	if len(got) != len(want) {
		f.t.Errorf("%d events heard, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		g, w := got[i], want[i].Event
		if !g.Time.Equal(w.Time) || g.Index != w.Index || g.Seq != w.Seq || g.Type != w.Type || g.Job != w.Job {
			f.t.Errorf("event %d: heard %+v, want %+v", i, g, w)
			break
		}
	}
}

// submitter submits small jobs, one after the other, and records the acknowledged ones.
type submitter struct {
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}

	last  int // number in the name of the last one
	found map[uint64]bool

	mu    sync.Mutex
	known map[uint64]string // names by number
}

// submits starts a submitter, which runs until the end of the test at most.
func (g *group) submits() *submitter {
	s := &submitter{t: g.t, known: map[uint64]string{}, found: map[uint64]bool{}}
	s.begin(g)
	return s
}

// begin continues after end.
func (s *submitter) begin(g *group) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		pace := time.NewTicker(30 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			s.last++
			name := fmt.Sprintf("small %d", s.last)
			job, err := g.client.Submit(ctx, &api.JobRequest{Name: name, Range: numbers(1), Program: item("true")}, "")
			s.mu.Lock()
			switch {
			case err == nil && s.known[job.ID] != "":
				s.t.Errorf("%q and %q were both acknowledged as job %d", s.known[job.ID], name, job.ID)
			case err == nil:
				s.known[job.ID] = name
			case ctx.Err() == nil:
				s.t.Errorf("submit: %v", err)
			}
			s.mu.Unlock()
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
	}()
	g.t.Cleanup(func() { s.end() })
}

// end stops it; a submit under way is canceled.
func (s *submitter) end() {
	s.stop()
	<-s.done
}

// acknowledged is the number of acknowledged submits.
func (s *submitter) acknowledged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.known)
}

// untilMore waits until another submit has been acknowledged.
func (s *submitter) untilMore() {
	s.t.Helper()
	n := s.acknowledged()
	until(s.t, "another submit is acknowledged", func() bool { return s.acknowledged() > n })
}

// wantThere checks that the node has each acknowledged job. Jobs that were found before are not checked again: a cluster forgets all but the
// newest thousand.
func (s *submitter) wantThere(at *node) {
	s.t.Helper()
	s.mu.Lock()
	known := maps.Clone(s.known)
	s.mu.Unlock()
	for id, name := range known {
		if s.found[id] {
			continue
		}
		if job := decode[api.Job](s.t, at.settled(http.MethodGet, fmt.Sprintf("/v1/jobs/%d?consistency=strong", id), "")); job.Name != name {
			s.t.Errorf("job %d is %q, want %q", id, job.Name, name)
		}
		s.found[id] = true
	}
}

// wantKept stops it, and checks that the node has each acknowledged job, and that the newest ones are done.
func (s *submitter) wantKept(g *group, at *node) {
	s.t.Helper()
	s.end()
	s.t.Logf("%d submits were acknowledged", len(s.known))
	s.wantThere(at)
	newest := slices.Sorted(maps.Keys(s.known))
	for _, id := range newest[max(0, len(newest)-100):] {
		g.done(id)
	}
}
