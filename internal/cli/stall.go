package cli

import (
	"context"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

const (
	// pauseMin is the time without the end of a task after which the user is told why, and pauseFactor how often it must be the longest one before: tasks
	// that take long end seldom.
	pauseMin    = time.Minute
	pauseFactor = 10
	// slowMin is how long the embedded cluster may not answer before the user is told. A busy machine takes seconds for an answer now and then.
	slowMin = 10 * time.Second
)

// pause is the time since a task of a job has ended.
type pause struct {
	since   time.Time // zero: before the first look
	stage   string
	done    uint64 // tasks of the stage
	longest time.Duration
	told    bool
}

// isLong reports, once in a pause, that a stage has begun to end tasks, or its tasks do not run, and that none has ended for far longer than before.
func (p *pause) isLong(now time.Time, job *api.Job) bool {
	stage := currentStage(job)
	works := !job.IsEnded() && !job.Locking && len(job.Pending()) == 0 // else it waits for other jobs
	if p.since.IsZero() || stage.Name != p.stage || stage.Done != p.done || !works || stage.Open+stage.Running == 0 {
		if stage.Name != p.stage {
			p.longest = 0
		} else {
			p.longest = max(p.longest, now.Sub(p.since))
		}
		p.since, p.stage, p.done, p.told = now, stage.Name, stage.Done, false
		return false
	}
	runs := stage.Done == 0 && stage.Running > 0
	if d := now.Sub(p.since); p.told || runs || d < pauseMin || d < pauseFactor*p.longest {
		return false
	}
	p.told = true
	return true
}

// explainPause prints why no task ends, also with --quiet: otherwise nothing would tell that the job does not go on.
func (f *follower) explainPause(ctx context.Context, job *api.Job) {
	text := []string{"no task of job " + countText(job.ID) + " has ended for " + durationText(time.Since(f.pause.since))}
	e, err := f.client.Explain(ctx, job.ID, "", 0)
	if err != nil {
		return // the next poll has the same error
	}
	for _, reason := range e.Reasons {
		text = append(text, "because  "+printableLines(reason))
	}
	for _, advice := range e.Advice {
		text = append(text, "advice   "+printableLines(advice))
	}
	if f.dump != nil {
		if path, err := f.dump(); err == nil {
			text = append(text, "what each part of this process waits for: "+printable(path))
		}
	}
	f.app.stderr.Printf("%s", strings.Join(text, "\n  "))
}

// dump writes the stacks of all goroutines to a file of the run.
func (d *runDir) dump() (path string, err error) {
	path = d.file("goroutines.txt")
	stacks := make([]byte, 1<<20)
	return path, os.WriteFile(path, stacks[:runtime.Stack(stacks, true)], 0o600)
}

// slowReport prints that the embedded cluster does not answer, if that lasts.
type slowReport struct {
	out *console

	mu     sync.Mutex
	timer  *time.Timer // until it is printed; nil: the cluster answers
	silent bool        // it was printed
}

// note is [client.Options.OnReconnect].
func (r *slowReport) note(c client.Reconnect) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case c.Err != nil && r.timer == nil:
		r.timer = time.AfterFunc(slowMin, func() { r.print(c) })
	case c.Err == nil && r.timer != nil:
		r.timer.Stop()
		if r.timer = nil; r.silent {
			r.silent = false
			r.out.Printf("the embedded cluster answers again after %s", durationText(c.After))
		}
	}
}

func (r *slowReport) print(c client.Reconnect) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil { // else it answers again
		r.silent = true
		r.out.Printf("the embedded cluster has not answered for %s (is this machine too busy, or its disk slow?): %v; retrying for %s", durationText(slowMin), c.Err, durationText(c.Tries))
	}
}

// stop ends the report.
func (r *slowReport) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}
