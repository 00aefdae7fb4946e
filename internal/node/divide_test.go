package node

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
)

// smallFiles is a request for a built-in job over a hundred small files.
func smallFiles(t *testing.T) *api.JobRequest {
	t.Helper()
	dir := t.TempDir()
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(100+i)), []byte("text\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &api.JobRequest{Program: api.Program{Builtin: "grep"}, Inputs: []string{dir}}
}

func withGrep(c *Config) {
	c.Builtins = []plan.Builtin{{Name: "grep", NeedsInput: true, Divisible: true}}
}

// TestDividedForTheSlots: files share tasks as the slots of live workers allow, or those that are expected, at least.
func TestDividedForTheSlots(t *testing.T) {
	for expected, want := range map[int]uint64{0: 9, 1: 9, 3: 13} {
		r := startRig(t, newFakeLog(), withGrep, func(c *Config) { c.Slots = expected })
		r.log.elect()
		var request *api.JobRequest
		if expected == 0 { // it may be that of a cluster whose workers come later
			request = smallFiles(t)
			if job := submit(t, r.node, request, "key"); job.PartStage().Tasks != 100 {
				t.Errorf("without a worker, the job has %d tasks, want one for each file", job.PartStage().Tasks)
			}
		}
		r.worker("alice", nil)
		r.until("a worker has registered", func() bool { return r.node.Cluster().Slots == 2 })
		if request != nil {
			if id, _, err := r.node.Submit(t.Context(), request, "key"); id != 1 || err != nil {
				t.Errorf("the same request with other slots is job %d, %v, want 1", id, err)
			}
		}
		if job := submit(t, r.node, smallFiles(t), ""); job.PartStage().Tasks != want {
			t.Errorf("with 2 slots, and %d expected, the job has %d tasks, want %d", expected, job.PartStage().Tasks, want)
		}
	}
}

// TestPacksNeedTheLevel: below level 2 each file is a task, and a request for packs is refused.
func TestPacksNeedTheLevel(t *testing.T) {
	log, peers := newFakeLog(), &fakePeers{asked: make(chan uint32, 1)}
	peers.behind.Store(true)
	r := startRig(t, log, withGrep, func(c *Config) { c.Peers, c.Slots = peers, 1 })
	log.elect()
	r.until("leading", func() bool { _, self := r.node.LeaderAddress(); return self })
	request := smallFiles(t)
	if job := submit(t, r.node, request, ""); job.PartStage().Tasks != 100 {
		t.Errorf("the job has %d tasks, want one for each file", job.PartStage().Tasks)
	}
	request.Pack = "1MiB"
	_, _, err := r.node.Submit(t.Context(), request, "")
	problemOf(t, err, http.StatusServiceUnavailable, "the job needs feature level 2")
}
