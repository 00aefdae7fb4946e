package node

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestGrow adds files to the input of a job while it runs: it ends with the last of them.
func TestGrow(t *testing.T) {
	r := startRig(t, newFakeLog(), func(c *Config) { c.Growing = true })
	r.log.elect()
	dir := t.TempDir()
	piece := func(name string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var leased []string
	r.worker("alice", func(s *scripted, w *wire.Leases) *wire.Report {
		for _, split := range w.GetSplits() {
			leased = append(leased, filepath.Base(string(split.GetFile().GetPath())))
		}
		return finishAll(s, w)
	})
	job := submit(t, r.node, &api.JobRequest{Inputs: []string{piece("a")}, Program: api.Program{Command: []string{"cat"}}}, "")
	grow := func(last bool, names ...string) error {
		t.Helper()
		var paths []string
		for _, name := range names {
			paths = append(paths, piece(name))
		}
		if err := r.node.Grow(t.Context(), job.ID, paths, last); err != nil {
			return err
		}
		return r.node.AwaitOpen(t.Context(), job.ID, 0)
	}
	if err := grow(false, "b", "c"); err != nil {
		t.Fatal(err)
	}
	r.until("three tasks are done", func() bool {
		job, _ = r.node.Job(job.ID)
		return job.PartStage().Done == 3
	})
	if job.IsEnded() || !job.Growing || job.InputBytes != 6 {
		t.Errorf("the job is %+v", job)
	}
	if err := r.node.Grow(t.Context(), job.ID, []string{filepath.Join(dir, "none")}, true); err == nil {
		t.Error("a file that does not exist was added")
	}
	if err := grow(true, "d"); err != nil {
		t.Fatal(err)
	}
	r.until("the job is done", func() bool {
		job, _ = r.node.Job(job.ID)
		return job.Status == api.JobDone
	})
	if job.Growing || job.PartStage().Tasks != 4 || len(leased) != 4 {
		t.Errorf("%v were leased; the job is %+v", leased, job)
	}
	problemOf(t, grow(false, "e"), http.StatusConflict, "takes no more input")
	problemOf(t, r.node.Grow(t.Context(), 9, nil, true), http.StatusNotFound, "no job 9")
	problemOf(t, r.node.AwaitOpen(t.Context(), 9, 0), http.StatusNotFound, "9")
}
