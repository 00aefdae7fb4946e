package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// read returns n events after a position.
func (r *rig) read(after api.Position, n int) []api.Event {
	r.t.Helper()
	var got []api.Event
	err := r.node.Events(r.t.Context(), after, func(e api.Event) error {
		if got = append(got, e); len(got) == n {
			return errTest
		}
		return nil
	})
	if !errors.Is(err, errTest) {
		r.t.Fatalf("Events() = %v", err)
	}
	return got
}

func eventText(e api.Event) string {
	text := fmt.Sprintf("%s job %d worker %d %s", e.Type, e.Job, e.Worker, e.Status)
	if e.Task != nil {
		text += fmt.Sprintf(" %s/%d %s", e.Stage, *e.Task, e.Detail)
	}
	return text
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	w := r.worker("alice", failAll)
	<-w.welcomed
	submit(t, r.node, request(1), "")
	finished(t, r.node, 1)
	if _, err := r.node.DrainWorker(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	got := r.read(api.Position{}, 8)
	want := []string{
		"worker_joined job 0 worker 1 alive",
		"job_submitted job 1 worker 0 ",
		"stage_started job 1 worker 0 ",
		"task_died job 1 worker 1  map/0 bad_input: no such line",
		"job_ending job 1 worker 0 failing",
		"job_ended job 1 worker 0 failed",
		"worker_changed job 0 worker 1 draining",
		"worker_changed job 0 worker 1 removed",
	}
	for i, e := range got {
		if text := eventText(e); text != want[i] || e.Time.IsZero() {
			t.Errorf("event %d = %q at %v, want %q", i, text, e.Time, want[i])
		}
	}
}

// A reader continues at another node, even one with its state from a snapshot, without a gap or a duplicate. All nodes serve the same
// events.
func TestEventsContinueAtAnotherNode(t *testing.T) {
	rigs := newRigs(t, 3)
	rigs[2].log.setCut(true)
	rigs[0].worker("alice", finishEmpty)
	for range 3 {
		submit(t, rigs[0].node, request(1), "")
	}
	finished(t, rigs[0].node, 3)
	rigs[0].caughtUp()
	rigs[1].caughtUp()
	const n = 10 // a worker, and of each job that it was submitted, began, and ended
	all := rigs[0].read(api.Position{}, n)

	var b bytes.Buffer
	var index uint64
	if err := rigs[0].node.do(t.Context(), func() {
		snapshot := rigs[0].node.loop.controller.Machine().Snapshot()
		index = snapshot.Index()
		_, _ = snapshot.WriteTo(&b) // to memory
	}); err != nil {
		t.Fatal(err)
	}
	rigs[2].log.install(io.NopCloser(&b), index)
	for cut := range n {
		after := api.Position{}
		if cut > 0 {
			after = api.Position{Index: all[cut-1].Index, Seq: all[cut-1].Seq}
		}
		for _, r := range rigs {
			rest := r.read(after, n-cut)
			if !slices.EqualFunc(rest, all[cut:], func(a, b api.Event) bool {
				return a.Index == b.Index && a.Seq == b.Seq && eventText(a) == eventText(b) && a.Time.Equal(b.Time)
			}) {
				t.Errorf("events after %v at leader %d = %v, want %v", after, r.log.id, rest, all[cut:])
			}
		}
	}
	// Readers of all nodes get new events, also under the next leader. One starts at a position that its node has not reached.
	rigs[2].log.setCut(true)
	last := all[n-1]
	type read struct {
		id     uint64
		events []api.Event
	}
	reads := make(chan read, len(rigs))
	for _, r := range rigs {
		go func() { reads <- read{r.log.id, r.read(api.Position{Index: last.Index, Seq: last.Seq}, 4)} }()
	}
	submit(t, rigs[0].node, request(1), "")
	finished(t, rigs[0].node, 4)
	ahead := rigs[0].read(api.Position{Index: last.Index, Seq: last.Seq}, 1)[0]
	go func() { reads <- read{9, rigs[2].read(api.Position{Index: ahead.Index, Seq: ahead.Seq}, 3)} }()
	rigs[1].log.elect()
	rigs[1].leads()
	submit(t, rigs[1].node, request(1), "")
	rigs[2].log.setCut(false)
	var first []api.Event
	for range len(rigs) + 1 {
		got := <-reads
		if got.id == 9 {
			if eventText(got.events[0]) != "stage_started job 4 worker 0 " {
				t.Errorf("a reader that was ahead of its leader goes on with %v", eventText(got.events[0]))
			}
			continue
		}
		var texts []string
		for _, e := range got.events {
			texts = append(texts, eventText(e))
		}
		if first == nil {
			first = got.events
		}
		if eventText(got.events[0]) != "job_submitted job 4 worker 0 " || got.events[3].Index != first[3].Index {
			t.Errorf("leader %d goes on with %q", got.id, texts)
		}
	}
}

// A slow reader delays no one. When its next event is no longer kept, it gets an error.
func TestEventsOfASlowReader(t *testing.T) {
	r := newRig(t)
	submit(t, r.node, request(1), "")
	reading, free := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		first := true
		ended <- r.node.Events(t.Context(), api.Position{}, func(api.Event) error {
			if first {
				first = false
				close(reading)
				<-free
			}
			return nil
		})
	}()
	<-reading
	for {
		kept := true
		if err := r.node.do(t.Context(), func() { _, kept = r.node.loop.controller.Machine().FactsAfter(state.Position{Index: 10}) }); err != nil {
			t.Fatal(err)
		}
		if !kept {
			break
		}
		job := submit(t, r.node, request(1), "")
		if err := r.node.Stop(t.Context(), job.ID); err != nil {
			t.Fatal(err)
		}
	}
	close(free)
	problemOf(t, <-ended, http.StatusGone, "no longer kept")

	ctx, leave := context.WithCancel(t.Context())
	index, _, _ := r.node.Status()
	go func() {
		ended <- r.node.Events(ctx, api.Position{Index: index}, func(api.Event) error { return nil })
	}()
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Events() of a reader that has left = %v", err)
	}
	go func() {
		ended <- r.node.Events(t.Context(), api.Position{Index: index}, func(api.Event) error { return nil })
	}()
	r.end()
	problemOf(t, <-ended, http.StatusServiceUnavailable, "shutting down")
}
