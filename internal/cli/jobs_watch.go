package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
)

// watchEvery is how often the list of jobs is read.
const watchEvery = time.Second

// watchJobs shows the jobs of a query until it is interrupted.
func (a *app) watchJobs(ctx context.Context, c *client.Client, q api.JobQuery, asJSON bool) error {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	screen, redraw := a.stdout.(*besideConsole)
	redraw = redraw && !asJSON
	drawn := 0 // lines on the screen
	changes := jobChanges{known: map[uint64]string{}}
	for {
		jobs, _, err := listJobs(ctx, c, q)
		if err != nil {
			return err
		}
		if redraw {
			drawn, err = screen.redraw(jobs, drawn)
		} else {
			err = a.printChanges(changes.of(jobs), asJSON, len(changes.known) == 0)
		}
		if err != nil {
			return err
		}
		changes.note(jobs)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// redraw replaces so many lines above the cursor by a table of jobs that fits the terminal. It returns the number of its lines.
func (b *besideConsole) redraw(jobs []api.Job, drawn int) (int, error) {
	var table bytes.Buffer
	if err := jobTable(&table, jobs, true); err != nil {
		return 0, err
	}
	width, height, err := term.GetSize(int(b.file.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	lines := strings.SplitAfter(table.String(), "\n")
	lines = lines[:min(len(lines)-1, height-1)]
	var out strings.Builder
	if drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA\r\x1b[J", drawn)
	}
	for _, line := range lines {
		out.WriteString(runewidth.Truncate(strings.TrimSuffix(line, "\n"), width-1, "…") + "\n")
	}
	_, err = b.Write([]byte(out.String()))
	return len(lines), err
}

// jobChanges knows what was printed of jobs.
type jobChanges struct{ known map[uint64]string }

// state is what of a job is printed when it changes.
func (*jobChanges) state(j *api.Job) string {
	tasks, done, dead := j.TaskCounts()
	return fmt.Sprint(j.Status, done, tasks, dead)
}

// of returns the jobs that have changed, oldest first.
func (c *jobChanges) of(jobs []api.Job) (changed []api.Job) {
	for i := range jobs {
		if c.known[jobs[i].ID] != c.state(&jobs[i]) {
			changed = append(changed, jobs[i])
		}
	}
	slices.Reverse(changed)
	return changed
}

func (c *jobChanges) note(jobs []api.Job) {
	clear(c.known)
	for i := range jobs {
		c.known[jobs[i].ID] = c.state(&jobs[i])
	}
}

func (a *app) printChanges(jobs []api.Job, asJSON, titles bool) error {
	if !asJSON {
		if len(jobs) == 0 {
			return nil
		}
		return jobTable(a.stdout, jobs, titles)
	}
	for i := range jobs {
		if err := printJSON(a.stdout, jobs[i]); err != nil {
			return err
		}
	}
	return nil
}
