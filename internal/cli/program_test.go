package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/internal/state"
)

type namedJob string

func (j namedJob) Name() string { return string(j) }

// TestWorkerLabels has programs of few and of many jobs: a worker has a job of another program's leader if its program has it, and its labels are not too many.
func TestWorkerLabels(t *testing.T) {
	few, many := &app{own: true}, &app{own: true}
	for i := range 300 {
		job := namedJob(fmt.Sprintf("job%03d", i))
		if i < 3 {
			few.jobs = append(few.jobs, job)
		}
		many.jobs = append(many.jobs, job)
	}
	many.jobs = append(many.jobs, namedJob(strings.Repeat("x", 300)))
	for _, c := range []struct {
		leader, worker *app
		job            string
		want           bool
	}{
		{few, many, "job001", true},
		{many, few, "job001", true},
		{many, few, "job003", false},
		{many, many, "job299", true},
		{few, &app{}, "job001", false},
	} {
		labels := c.worker.workerLabels()
		if len(labels) > 1+jobsLabels {
			t.Errorf("a worker has %d labels, want at most %d", len(labels), 1+jobsLabels)
		}
		needs := c.leader.jobLabels()
		if len(needs) != 1 {
			t.Errorf("a job needs the labels %v, want one", needs)
		}
		if got := state.HasLabel(labels, state.LabelJobs, needs[state.LabelJobs], c.job); got != c.want {
			t.Errorf("a leader with %d jobs, a worker with %d: it has %s: %v, want %v", len(c.leader.jobs), len(c.worker.jobs), c.job, got, c.want)
		}
	}
	if stock := (&app{}).workerLabels(); stock != nil {
		t.Errorf("a worker without jobs of its own has the labels %v", stock)
	}
}

// The executable of "go run" is gone when it ends, so that it is not named.
func TestIsGoRun(t *testing.T) {
	for path, want := range map[string]bool{
		"/tmp/go-build3009692384/b001/exe/words": true,
		"/home/x/.cache/go-build/5e/5ecb33de7efff64e08d38d15156b0032184475aec0cd4134b9ec36ff7f80bd1e-d/words": true,
		"/home/x/go-build/words": false,
		"/home/x/exe/words":      false,
	} {
		if got := isGoRun(path); got != want {
			t.Errorf("isGoRun(%q) = %v, want %v", path, got, want)
		}
	}
}
