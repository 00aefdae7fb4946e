package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
)

// step is one thing that a task does, as a shell command. Paths in steps may contain $B4_TASK.
type step string

// upperCase copies the task's split, in capitals, to its output.
const upperCase step = upperCaseAll

// printItem prints the task's item.
const printItem step = `echo $1`

// item is a program whose tasks do these steps for one item, or one input path.
func item(steps ...step) api.Program {
	return api.Program{Command: []string{"sh", "-c", sequence(steps), "sh", "{}"}}
}

// split is a program whose tasks do these steps with their split as standard input.
func split(steps ...step) api.Program {
	return api.Program{Command: []string{"sh", "-c", sequence(steps)}}
}

func sequence(steps []step) string {
	list := make([]string, len(steps))
	for i, s := range steps {
		list[i] = string(s)
	}
	return strings.Join(list, "; ")
}

// waitFor waits until there is a file.
func waitFor(path string) step {
	return step(fmt.Sprintf(`while [ ! -e "%s" ]; do sleep 0.02; done`, path))
}

// log writes a line to the task's log.
func log(line string) step { return step(fmt.Sprintf(`echo "%s" >&2`, line)) }

// mark appends a line to a file; marks counts them.
func mark(path string) step { return step(fmt.Sprintf(`echo >> "%s"`, path)) }

func marks(t *testing.T, path string) int {
	t.Helper()
	return strings.Count(readFile(t, path), "\n")
}

// from does the steps in the tasks numbered first and up.
func from(first int, steps ...step) step {
	return unless(fmt.Sprintf("$B4_TASK -lt %d", first), steps...)
}

// unless does the steps if a condition of test(1) is false.
func unless(condition string, steps ...step) step {
	return step(fmt.Sprintf("test %s || { %s; }", condition, sequence(steps)))
}

// record writes the attempt into the ledger. One small write to a file opened for appending is atomic.
func (l ledger) record() step {
	return step(`echo "$B4_TASK $B4_ATTEMPT $B4_WORKER" >> "` + l.path + `"`)
}

// numbers are the items 1 to n, one task each.
func numbers(n int) *api.Range { return &api.Range{From: 1, To: int64(n)} }

// trivial is a job of one task that does nothing.
func trivial() *api.JobRequest { return &api.JobRequest{Range: numbers(1), Program: item("true")} }

// scenario is a job that writes the chapters of a book in capitals, one task each. The first tasks end by themselves; each of the others
// waits at its gate, so that a fault finds the job in a known state.
type scenario struct {
	*cluster

	id     uint64
	free   int // tasks without a gate
	files  []string
	ledger ledger
	out    string
	begun  time.Time   // when the tasks that untilBegun waits for had begun
	led    []time.Time // when leaders went on that had hung
}

// plan is what a scenario's job looks like.
type plan struct {
	tasks, free   int
	older         bool   // leaders of an older version, which do not know --no-speculation
	before, after []step // around the gate and the output
}

// begin submits the job of a scenario.
func (c *cluster) begin(p plan) *scenario {
	c.t.Helper()
	s := &scenario{
		cluster: c, free: p.free, files: book(c.t, c.path("in"), p.tasks), ledger: c.ledger("ledger"), out: c.path("out"),
	}
	steps := append([]step{s.ledger.record()}, p.before...)
	steps = append(steps, from(p.free, waitFor(s.gate("$B4_TASK"))), upperCase)
	s.id = c.submit(&api.JobRequest{
		Inputs: []string{c.path("in")}, Split: "none", Output: s.out, Program: split(append(steps, p.after...)...),
		NoSpeculation: !p.older, // tasks wait at gates
	})
	c.t.Cleanup(func() {
		if c.t.Failed() { // the ledger shows only that there were several attempts
			_, tasks, stderr := c.cli("tasks", fmt.Sprint(s.id), "--json")
			c.t.Logf("tasks: %s%s", tasks, stderr)
		}
	})
	return s
}

func (s *scenario) gate(task any) string { return s.path(fmt.Sprint("gate-", task)) }

// untilBegun waits until the free tasks are done, and so many more have begun.
func (s *scenario) untilBegun(more int) {
	s.t.Helper()
	s.untilMap(s.id, fmt.Sprintf("%d done, %d running", s.free, more), func(stage api.Stage) bool {
		return stage.Done == uint64(s.free) && len(s.ledger.entries()) >= s.free+more
	})
	s.begun = time.Now()
}

// untilDone waits until so many tasks are done.
func (s *scenario) untilDone(n int) {
	s.t.Helper()
	s.untilMap(s.id, fmt.Sprintf("%d done", n), func(stage api.Stage) bool { return stage.Done == uint64(n) })
}

// untilRunsAgain waits until second attempts of the tasks run on that worker.
func (s *scenario) untilRunsAgain(worker int, tasks ...int) {
	s.t.Helper()
	until(s.t, fmt.Sprintf("tasks %v run again on worker %d", tasks, worker), func() bool {
		again := map[entry]bool{}
		for _, e := range s.ledger.entries() {
			again[e] = true
		}
		for _, task := range tasks {
			if !again[entry{task, 2, worker}] {
				return false
			}
		}
		return true
	})
}

// waiting waits until a task has begun and waits at its gate, and returns the first one.
func (s *scenario) waiting() (task int) {
	s.t.Helper()
	until(s.t, "a task waits at its gate", func() bool {
		list := s.ledger.entries()
		i := slices.IndexFunc(list, func(e entry) bool { return e.task >= s.free && !exists(s.gate(e.task)) })
		if i >= 0 {
			task = list[i].task
		}
		return i >= 0
	})
	return task
}

// open opens the gates of tasks.
func (s *scenario) open(tasks ...int) {
	s.t.Helper()
	for _, task := range tasks {
		write(s.t, s.gate(task), "")
	}
}

// openAll opens all gates but those of the last tasks, as many as closed says.
func (s *scenario) openAll(closed int) {
	s.t.Helper()
	for task := range len(s.files) - closed {
		s.open(task)
	}
}

// wantDone waits for the end of the job, which must have written every chapter.
func (s *scenario) wantDone() api.Job {
	s.t.Helper()
	job := s.done(s.id)
	s.wantParts()
	return job
}

func (s *scenario) wantParts() {
	s.t.Helper()
	wantOutput(s.t, s.out, each(s.t, s.files, upperCaseOf))
}

// wantDoneOnce is wantDone, and no task was begun twice. On a machine that is so slow that a worker joins a new leader too late, what it ran may run again.
func (s *scenario) wantDoneOnce() {
	s.t.Helper()
	job := s.wantDone()
	if late := s.latestJoin(); late > leader.LossAfter*3/4 { // the rest is for what is not logged at once
		s.t.Logf("a worker joined only %v after the leader led", late)
		return
	}
	if job.Stages[0].Retried != 0 {
		s.t.Errorf("retried %d, want 0", job.Stages[0].Retried)
	}
	s.ledger.wantOnce(len(s.files))
}

// latestJoin is the longest time that a leader led, or went on, until a worker had joined it, as the processes of the lab have logged it.
func (s *scenario) latestJoin() (late time.Duration) {
	s.t.Helper()
	led, joined := map[string]time.Time{}, map[string][]time.Time{} // by term
	logs, err := filepath.Glob(s.path("*.stderr"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, log := range logs {
		for line := range strings.Lines(readFile(s.t, log)) {
			fields := strings.Fields(line)
			if len(fields) == 0 {
				continue
			}
			at, err := time.Parse("time="+time.RFC3339, fields[0])
			i := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "term=") })
			switch {
			case err != nil || i < 0 || at.Before(s.begun):
			case strings.Contains(line, " msg=leading "):
				led[fields[i]] = at
			case strings.Contains(line, ` msg="worker joined" `):
				joined[fields[i]] = append(joined[fields[i]], at)
			}
		}
	}
	for term, times := range joined {
		from := append(slices.Clip(s.led), led[term]) // zero: this leader did not change, or hung
		for _, at := range times {
			for _, leads := range from {
				if !leads.IsZero() && at.After(leads) {
					late = max(late, at.Sub(leads))
				}
			}
		}
	}
	return late
}

// wantNumbers wants an output with the parts that a shell command of the oracle makes of the items 1 to n.
func wantNumbers(t *testing.T, dir string, n int, command string) {
	t.Helper()
	var items []string
	for i := range n {
		items = append(items, fmt.Sprint(i+1))
	}
	wantOutput(t, dir, each(t, items, command))
}
