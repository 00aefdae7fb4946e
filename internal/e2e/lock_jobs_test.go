package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// TestJobsTakeTurns submits 200 jobs, from eight clients, that write 20 folders again and again, read one of them, or read all, also through links. Each reader sees whole outputs, and each
// folder has the parts of one job at the end.
func TestJobsTakeTurns(t *testing.T) {
	t.Parallel()
	const folders, jobs, items = 20, 200, 4
	random := rand.New(rand.NewPCG(1, 2))
	c := newCluster(t)
	c.workers(2)
	folder := func(n int) string { return c.path("data", fmt.Sprintf("p%02d", n)) }
	writer := func(n int) *api.JobRequest {
		return &api.JobRequest{
			Program: api.Program{Shell: "echo $B4_JOB {}"}, Range: &api.Range{From: 1, To: items}, Output: folder(n), Overwrite: true,
		}
	}
	var ids []uint64
	for n := range folders {
		ids = append(ids, c.submit(writer(n)))
		if err := errors.Join(os.MkdirAll(c.path("links"), 0o700), os.Symlink(folder(n), c.path("links", fmt.Sprint(n)))); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		c.done(id)
	}
	requests := make(chan *api.JobRequest, jobs)
	for i := folders; i < jobs; i++ {
		r := writer(random.IntN(folders))
		if kind := random.IntN(10); kind < 5 {
			r = &api.JobRequest{Program: api.Program{Command: []string{"cat"}}, Inputs: []string{folder(random.IntN(folders))}, Output: c.path("read", fmt.Sprint(i))}
			switch kind {
			case 0:
				r.Inputs = []string{c.path("data", "*", "part-*")}
			case 1:
				r.Inputs = []string{c.path("links")}
			case 2:
				r.Inputs = []string{c.path("links", "*", "part-*")}
			}
		}
		requests <- r
	}
	close(requests)
	readers := map[uint64]string{} // outputs
	var clients sync.WaitGroup
	var mu sync.Mutex
	for range 8 {
		clients.Go(func() {
			for r := range requests {
				job, err := c.client.Submit(t.Context(), r, "")
				if err != nil {
					t.Errorf("submit: %v", err)
					return
				}
				mu.Lock()
				if ids = append(ids, job.ID); len(r.Inputs) > 0 {
					readers[job.ID] = r.Output
				}
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	for _, id := range ids {
		c.done(id)
	}
	// whole checks that a text has all items of each job in it, once.
	whole := func(what, text string) (jobs map[string]string) {
		jobs = map[string]string{}
		for line := range strings.Lines(text) {
			job, item, _ := strings.Cut(strings.TrimSpace(line), " ")
			jobs[job] += item + " "
		}
		for job, got := range jobs {
			if want := "1 2 3 4 "; got != want {
				t.Errorf("%s has the items %q of job %s, want %q", what, got, job, want)
			}
		}
		return jobs
	}
	for id, output := range readers {
		if jobs := whole(fmt.Sprintf("the output of job %d", id), parts(t, output)); len(jobs) != 1 && len(jobs) != folders {
			t.Errorf("job %d has read the outputs of %d jobs, want one, or that of each folder", id, len(jobs))
		}
	}
	for n := range folders {
		var manifest api.Manifest
		if err := json.Unmarshal([]byte(readFile(t, filepath.Join(folder(n), "_SUCCESS"))), &manifest); err != nil {
			t.Fatal(err)
		}
		if jobs := whole(folder(n), parts(t, folder(n))); len(jobs) != 1 || jobs[fmt.Sprint(manifest.Job)] == "" {
			t.Errorf("%s has parts of the jobs %v, want those of job %d alone", folder(n), jobs, manifest.Job)
		}
	}
	if got := c.listLocks(); len(got) > 0 {
		t.Errorf("locks are left: %+v", got)
	}
}

// parts is the text of all parts of an output.
func parts(t *testing.T, output string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(output, "part-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has %d parts, %v", output, len(files), err)
	}
	var text strings.Builder
	for _, file := range files {
		text.WriteString(readFile(t, file))
	}
	return text.String()
}

func (c *cluster) listLocks() (list []api.Lock) {
	c.t.Helper()
	for lock, err := range c.client.Locks(c.t.Context()) {
		if err != nil {
			c.t.Fatal(err)
		}
		list = append(list, lock)
	}
	return list
}
