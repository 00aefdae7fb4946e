package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

var (
	powerRounds = flag.Int("powerloss.rounds", 4, "power losses in each of the tests")
	powerSeed   = flag.Uint64("powerloss.seed", 0, "the seed of the power loss tests; 0: random")
)

// TestPowerLoss kills three leaders and two workers at once, at random moments, round after round.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	losePower(g, func() {})
}

// TestPowerLossUnsynced also loses what was not fsynced. All files of leaders and workers are on one file system in an image; a copy of
// the image, made while it is mounted, lacks what the kernel has not written yet.
func TestPowerLossUnsynced(t *testing.T) {
	t.Parallel()
	needRoot(t, "mount the disk that is to lose what was not fsynced")
	g := emptyGroup(t)
	g.data = g.path("disk")
	image := g.path("image")
	newImage(t, image, g.data)
	g.found(3)
	losePower(g, func() {
		copied := image + ".copy"
		mustRun(t, "cp --sparse=always "+image+" "+copied)
		mustRun(t, "umount --lazy "+g.data) // what a killed worker was running may still hold it
		if err := os.Rename(copied, image); err != nil {
			t.Fatal(err)
		}
		mount(t, image, g.data)
	})
}

// newImage creates a file system in a file, and mounts it.
func newImage(t *testing.T, image, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, image, "")
	if err := os.Truncate(image, 2<<30); err != nil { // sparse
		t.Fatal(err)
	}
	if out, err := command(t, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", image); err != nil {
		t.Skipf("left out: a file system cannot be made in a file here: %v: %s", err, out)
	}
	mount(t, image, dir)
	t.Cleanup(func() { mustRun(t, "umount -l "+dir) })
}

// mount mounts an image so that the kernel neither writes at intervals nor compensates for a missing fsync before a rename.
func mount(t *testing.T, image, dir string) {
	t.Helper()
	if out, err := command(t, "mount", "-o", "loop,commit=300,noauto_da_alloc", image, dir); err != nil {
		t.Skipf("left out: a file system in a file cannot be mounted here: %v: %s", err, out)
	}
}

// losePower submits a job per round, and kills everything while it runs. What was acknowledged before is there afterwards; a task that was
// known to be done is not run again; and each job ends with the correct output.
func losePower(g *group, cut func()) {
	t := g.t
	seed := *powerSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test -run %s -powerloss.rounds %d -powerloss.seed %d", t.Name(), *powerRounds, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	workerFlags := func(i int) (string, []string) {
		return fmt.Sprintf("worker-%d", i+1), []string{"--data-dir", fmt.Sprintf("%s/worker-%d", g.data, i+1)}
	}
	workers := make([]*process, 2)
	for i := range workers {
		name, flags := workerFlags(i)
		workers[i] = g.worker(name, flags...)
	}
	files := book(t, g.path("in"), 12)
	parts := each(t, files, upperCaseOf)
	submits := g.submits()
	type work struct {
		id     uint64
		out    string
		ledger ledger
		done   map[int]int // attempts of the tasks that were known to be done at the power loss
	}
	var jobs []work // those that may not have ended
	settle := func() {
		j := jobs[0]
		jobs = jobs[1:]
		g.done(j.id)
		wantOutput(t, j.out, parts)
		for task, n := range j.done {
			if got := j.ledger.count()[task]; got != n {
				t.Errorf("task %d of job %d was begun %d times, and had been done after %d", task, j.id, got, n)
			}
		}
	}
	for round := range *powerRounds {
		l, out := g.ledger(fmt.Sprintf("ledger-%d", round)), fmt.Sprintf("%s/out-%d", g.data, round)
		id := g.submit(&api.JobRequest{
			Inputs: []string{g.path("in")}, Split: "none", Output: out, Program: split(l.record(), "sleep 0.0$B4_TASK", upperCase),
		})
		jobs = append(jobs, work{id, out, l, map[int]int{}})
		if round%2 == 1 { // otherwise it may not have begun
			g.untilMap(id, "some done", func(s api.Stage) bool { return s.Done > uint64(random.IntN(len(files))) })
		}
		chance(random, 600*time.Millisecond)
		for _, j := range jobs {
			for _, task := range g.tasks(j.id, api.TaskQuery{Stage: "map", Status: api.TaskDone}) {
				if _, ok := j.done[int(task.Index)]; !ok {
					j.done[int(task.Index)] = -1
				}
			}
		}
		acknowledged := submits.acknowledged()
		all := workers
		for _, n := range g.nodes {
			all = append(slices.Clip(all), n.process)
		}
		for _, p := range all {
			p.signal(syscall.SIGKILL)
		}
		for _, p := range all {
			<-p.ended
		}
		cut()
		for _, j := range jobs {
			counts := j.ledger.count()
			for task, n := range j.done {
				if n < 0 {
					j.done[task] = counts[task]
				}
			}
		}
		for _, n := range g.nodes {
			n.start()
		}
		for i := range workers {
			name, flags := workerFlags(i)
			workers[i] = g.worker(name, flags...)
		}
		t.Logf("round %d: %d submits acknowledged, %d tasks of job %d known to be done", round, acknowledged, len(jobs[len(jobs)-1].done), id)
		submits.wantThere(g.leading())
		for len(jobs) > 2 {
			settle()
		}
	}
	for len(jobs) > 0 {
		settle()
	}
	submits.wantKept(g, g.leading())
	names := map[string]uint64{}
	for job, err := range g.client.Jobs(t.Context(), api.JobQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(job.Name, "small") && names[job.Name] != 0 {
			t.Errorf("%q was submitted once, and is both job %d and job %d", job.Name, names[job.Name], job.ID)
		}
		names[job.Name] = job.ID
	}
}
