package node

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// noise is n bytes that cannot be compressed, in lines of 64 KiB.
func noise(n int) []byte {
	text := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(text) // never fails
	text = bytes.ReplaceAll(text, []byte("\n"), []byte(" "))
	for i := 0; i < n; i += 64 << 10 {
		text[i] = '\n'
	}
	return text
}

func TestSubmitIsBounded(t *testing.T) {
	l := newRig(t).node
	for _, c := range []struct {
		change func(*api.JobRequest)
		want   string
	}{
		{func(r *api.JobRequest) {
			r.Program.Command = append(r.Program.Command, string(bytes.Repeat([]byte("x"), 70<<20)))
		}, "of which the command 73400326; the limit is 1048576: put what is long into a file"},
		{func(r *api.JobRequest) {
			r.Set = map[string]string{"k": string(bytes.Repeat([]byte("x"), state.DescriptionBytesMax))}
		}, "of which its settings 1048577"},
		{func(r *api.JobRequest) {
			r.Env = map[string]string{"k": string(bytes.Repeat([]byte("x"), state.DescriptionBytesMax))}
		}, "of which its environment 1048577; the limit is 1048576: pass single variables"},
		{func(r *api.JobRequest) {
			r.Labels = map[string]string{"k": string(bytes.Repeat([]byte("x"), state.DescriptionBytesMax))}
		}, "of which its labels 1048577"},
	} {
		req := request(1)
		c.change(req)
		_, _, err := l.Submit(t.Context(), req, "key")
		problemOf(t, err, http.StatusUnprocessableEntity, c.want)
	}
	if job := submit(t, l, request(1), "key"); job.ID != 1 {
		t.Errorf("the job is %d, want 1: the key was not used by those refused", job.ID)
	}
}

// withLines is a request with so many bytes of lines that cannot be compressed.
func withLines(n int) *api.JobRequest {
	req := request(1)
	req.Range, req.Lines = nil, &api.Lines{Raw: noise(n)}
	return req
}

// staged is what is staged at a node.
func staged(t *testing.T, n *Node) (uids []string) {
	t.Helper()
	if err := n.do(t.Context(), func() { uids = n.loop.controller.Machine().Staged() }); err != nil {
		t.Fatal(err)
	}
	return uids
}

// TestLargeInput: an input that is too large for one entry takes several, which are all small.
func TestLargeInput(t *testing.T) {
	rigs := newRigs(t, 2)
	l := rigs[0].node
	rigs[0].until("at the highest level", func() bool { return l.Cluster().Level == state.FeatureLevel })
	req := withLines(20 << 20)
	job := submit(t, l, req, "key")
	if again := submit(t, l, req, "key"); again.ID != job.ID {
		t.Errorf("submitted again, the job is %d, want %d", again.ID, job.ID)
	}
	if _, _, err := l.Submit(t.Context(), withLines(21<<20), "key"); !api.IsStatus(err, http.StatusConflict) {
		t.Errorf("another request with the key: %v, want 409", err)
	}
	lines := bytes.Split(bytes.TrimSuffix(req.Lines.Raw, []byte("\n")), []byte("\n"))
	for _, r := range rigs {
		r.until("the job is known", func() bool { _, ok := r.node.Job(job.ID); return ok })
		err := r.node.do(t.Context(), func() {
			in := &r.node.loop.controller.Machine().Job(state.JobID(job.ID)).Spec.Input
			reader := state.NewInputReader(in)
			for i, want := range lines {
				if split, err := reader.Split(uint64(i)); err != nil || !bytes.Equal(split.Item, want) {
					t.Fatalf("split %d is %.20q, %v; want %.20q", i, split.Item, err, want)
				}
			}
		})
		if uids := staged(t, r.node); err != nil || len(uids) > 0 {
			t.Errorf("still staged: %q, %v", uids, err)
		}
	}
	largest := 0
	for _, e := range rigs[0].log.entries {
		largest = max(largest, len(e.Data))
	}
	if most := state.StageBytes + 200<<10; largest > most {
		t.Errorf("an entry has %d bytes, want at most %d", largest, most)
	}
}

// TestLargeInputOfAClientThatLeaves: what was staged is dropped when the client leaves, and by the next leader.
func TestLargeInputOfAClientThatLeaves(t *testing.T) {
	rigs := newRigs(t, 2)
	l := rigs[0].node
	rigs[0].until("at the highest level", func() bool { return l.Cluster().Level == state.FeatureLevel })
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	begin := func() {
		go func() {
			_, _, err := l.Submit(ctx, withLines(20<<20), "")
			ended <- err
		}()
		rigs[0].until("some is staged", func() bool { return len(staged(t, l)) > 0 }) //nolint:contextcheck // not that of the client
	}
	begin()
	leave()
	if err := <-ended; err == nil && len(staged(t, l)) > 0 {
		t.Errorf("Submit() = %v, and something is still staged", err)
	}
	for _, r := range rigs {
		r.until("nothing is staged", func() bool { return len(staged(t, r.node)) == 0 })
	}

	ctx = t.Context()
	begin()
	rigs[1].log.elect()
	if err := <-ended; err == nil && len(staged(t, l)) > 0 {
		t.Errorf("Submit() = %v, and something is still staged", err)
	}
	for _, r := range rigs {
		r.until("nothing is staged", func() bool { return len(staged(t, r.node)) == 0 })
	}
}

// TestLargeInputNeedsTheLevel: below level 2 an input is in one entry, so its limit is lower.
func TestLargeInputNeedsTheLevel(t *testing.T) {
	log, peers := newFakeLog(), &fakePeers{asked: make(chan uint32, 1)}
	peers.behind.Store(true)
	r := startRig(t, log, func(c *Config) { c.Peers = peers })
	log.elect()
	r.until("leading", func() bool { _, self := r.node.LeaderAddress(); return self })
	if job := submit(t, r.node, withLines(11<<20), ""); job.ID != 1 {
		t.Errorf("the job is %d, want 1", job.ID)
	}
	_, _, err := r.node.Submit(t.Context(), withLines(13<<20), "")
	problemOf(t, err, http.StatusRequestEntityTooLarge, "takes 13.0 MiB as compressed, and the limit is 12 MiB until every leader is connected and runs version 1")
}

// TestGraceNeedsTheLevel: below level 2 a job would run with the default grace, so it is refused.
func TestGraceNeedsTheLevel(t *testing.T) {
	log, peers := newFakeLog(), &fakePeers{asked: make(chan uint32, 1)}
	peers.behind.Store(true)
	r := startRig(t, log, func(c *Config) { c.Peers = peers })
	log.elect()
	r.until("leading", func() bool { _, self := r.node.LeaderAddress(); return self })
	request := withLines(10)
	request.Grace = "100ms"
	_, _, err := r.node.Submit(t.Context(), request, "")
	problemOf(t, err, http.StatusServiceUnavailable, "the job needs feature level 2")
}

// TestLargeSubmitsAreFew: more large submits than there is memory for wait, and are refused in the end.
func TestLargeSubmitsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := make(chan struct{}, largeMax)
		var begun []*largeTurn
		for range largeMax {
			r := &largeTurn{turns: turns}
			for range 2 {
				if err := r.wait(t.Context(), largeBytes+1); err != nil {
					t.Fatal(err)
				}
			}
			begun = append(begun, r)
		}
		late := largeTurn{turns: turns}
		if err := late.wait(t.Context(), largeBytes); err != nil {
			t.Errorf("a small submit: %v", err)
		}
		problemOf(t, late.wait(t.Context(), largeBytes+1), http.StatusServiceUnavailable, "4 jobs with large inputs are being submitted")
		late.end() // it has not begun
		time.AfterFunc(largeWait/2, begun[0].end)
		if err := late.wait(t.Context(), largeBytes+1); err != nil {
			t.Errorf("after another one has ended: %v", err)
		}
	})
}

// TestPagesAreBounded: a page of jobs or tasks with long texts is short, and the next one goes on.
func TestPagesAreBounded(t *testing.T) {
	l := newRig(t).node
	for i := range 20 {
		req := request(1)
		req.Set = map[string]string{"k": strings.Repeat("x", state.DescriptionBytesMax-100)}
		if i == 0 {
			req.Lines, req.Range = &api.Lines{Raw: bytes.Repeat(append(bytes.Repeat([]byte("x"), 1<<20), '\n'), 20)}, nil
		}
		submit(t, l, req, fmt.Sprint(i))
	}
	jobs, pages := 0, 0
	for q := (api.JobQuery{Limit: api.JobLimitMax}); pages == 0 || q.Cursor != ""; pages++ {
		list, err := l.Jobs(q)
		if err != nil || len(list.Jobs) > 9 {
			t.Fatalf("a page of %d jobs, %v", len(list.Jobs), err)
		}
		jobs, q.Cursor = jobs+len(list.Jobs), list.Next
	}
	if jobs != 20 || pages != 3 {
		t.Errorf("%d jobs in %d pages, want 20 in 3", jobs, pages)
	}
	tasks, pages := 0, 0
	for q := (api.TaskQuery{Stage: "map", Limit: api.TaskLimitMax}); pages == 0 || q.Cursor != ""; pages++ {
		list, err := l.Tasks(t.Context(), 1, q)
		if err != nil || len(list.Tasks) > 9 {
			t.Fatalf("a page of %d tasks, %v", len(list.Tasks), err)
		}
		tasks, q.Cursor = tasks+len(list.Tasks), list.Next
	}
	if tasks != 20 || pages != 3 {
		t.Errorf("%d tasks in %d pages, want 20 in 3", tasks, pages)
	}
}
