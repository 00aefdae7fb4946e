package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// TestAttempts lets tasks fail in every way, on one cluster of two workers.
func TestAttempts(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(2)
	for _, test := range []struct {
		name string
		run  func(*cluster)
	}{
		{"kinds", failureKinds},
		{"other worker", otherWorker},
		{"first success", firstSuccess},
		{"stop", stopWhileRunning},
		{"retry", retryFailed},
		{"follow logs", followLogs},
		{"killer", workerKiller},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(c.in(newLab(t)))
		})
	}
}

// failureKinds: each failure has a kind, the cause, and the task's last output.
func failureKinds(c *cluster) {
	type expectation struct {
		request  api.JobRequest
		kind     string
		attempts uint32
		text     []string
	}
	one := numbers(1)
	ending := func(last step) api.Program { return item(log("last words"), last) }
	wants := []expectation{
		{api.JobRequest{Range: one, Retries: new(1), Program: ending("exit 7")}, "program_error", 2, []string{"exit status 7", "last words"}},
		{api.JobRequest{Range: one, Retries: new(0), Program: ending("kill -SEGV $$")}, "program_error", 1, []string{"signal 11", "last words"}},
		{api.JobRequest{Range: one, Program: ending("exit 65")}, "bad_input", 1, []string{"bad input", "last words"}},
		{
			api.JobRequest{Range: one, Retries: new(1), Program: api.Program{Command: []string{"no-such-command"}}},
			"bad_program", 2,
			[]string{`"no-such-command"`, "not found"},
		},
		{
			api.JobRequest{Range: one, Retries: new(0), Program: api.Program{Command: []string{"./no-such-file"}}, Dir: c.dir},
			"bad_program", 1,
			[]string{`"./no-such-file"`, "not found", c.dir},
		},
		{
			api.JobRequest{Range: one, Retries: new(0), Program: api.Program{Command: []string{"true"}}, Dir: c.path("nowhere")},
			"bad_program", 1,
			[]string{"working directory", c.path("nowhere")},
		},
		{
			api.JobRequest{Range: one, Retries: new(0), Timeout: "300ms", Program: item(log("last words"), mark(c.path("said")), "sleep 600")},
			"timeout", 1,
			[]string{"300ms", "last words"},
		},
		{
			api.JobRequest{
				Range: one, Retries: new(0), Memory: "50MiB",
				Program: item(log("last words"), `x=$(head -c 300000000 /dev/zero | tr '\000' x)`, waitFor(c.path("never"))),
			},
			"out_of_memory", 1,
			[]string{"50.0 MiB", "--memory"},
		},
	}
	ids := make([]uint64, len(wants))
	for i := range wants {
		ids[i] = c.submit(&wants[i].request)
	}
	for i, want := range wants {
		c.fails(ids[i])
		for want.kind == "timeout" && !exists(c.path("said")) { // it was not even running in that time
			ids[i] = c.submit(&wants[i].request)
			c.fails(ids[i])
		}
		dead := c.tasks(ids[i], api.TaskQuery{Status: api.TaskDead})
		if len(dead) != 1 || dead[0].Attempts != want.attempts || len(dead[0].Failures) == 0 {
			c.t.Errorf("%s: dead tasks %+v, want one after %d attempts", want.kind, dead, want.attempts)
			continue
		}
		last := dead[0].Failures[len(dead[0].Failures)-1]
		if last.Kind != want.kind {
			c.t.Errorf("%+v, want %s", last, want.kind)
		}
		wantText(c.t, last.Message, want.text...)
	}
}

// otherWorker: a task that failed on one worker is retried on the other.
func otherWorker(c *cluster) {
	// A success on each: the failures of other tests would put a worker aside, and leave only one.
	both := c.submit(&api.JobRequest{Range: numbers(4), Program: item(waitFor(c.path("gate")))})
	c.untilMap(both, "4 running", func(s api.Stage) bool { return s.Running == 4 })
	write(c.t, c.path("gate"), "")
	c.done(both)
	id := c.submit(&api.JobRequest{Range: numbers(6), Program: item("test $B4_ATTEMPT = 2")})
	c.done(id)
	for _, task := range c.tasks(id, api.TaskQuery{Stage: "map"}) {
		if len(task.Failures) != 1 || task.Started == nil {
			c.t.Errorf("%+v, want one failure", task)
			continue
		}
		const waits = time.Second // for the other worker, which may be busy for longer on a slow machine
		if failed := task.Failures[0]; task.Worker == failed.Worker && task.Started.Sub(failed.Time) < waits {
			c.t.Errorf("%s is retried where it has failed: %+v", task.Name, task)
		}
	}
}

// firstSuccess: the first success ends the job; the other attempts are stopped and leave no files.
func firstSuccess(c *cluster) {
	l := c.ledger("ledger")
	out := c.path("out")
	id := c.submit(&api.JobRequest{
		Range: numbers(40), Output: out, FirstSuccess: true,
		Program: item(l.record(), printItem, unless("$1 = 3", waitFor(c.path("never")))),
	})
	c.done(id)
	if got := readFile(c.t, out+"/part-00002"); got != "3\n" {
		c.t.Errorf("the part holds %q", got)
	}
	if m := readManifest(c.t, out+"/_SUCCESS"); len(m.Parts) != 1 || m.Parts[0].Part != "part-00002" {
		c.t.Errorf("the manifest lists %+v", m.Parts)
	}
	// An attempt that another worker stops may write until then, and its worker removes that.
	c.untilIdle()
	until(c.t, "the others' files are removed", func() bool { return !exists(out + "/_temporary") })
	wantNames(c.t, out, "_SUCCESS", "part-00002")
}

// untilIdle waits until no slot is busy.
func (c *cluster) untilIdle() {
	c.t.Helper()
	until(c.t, "no slot is busy", func() bool {
		for _, w := range c.listWorkers() {
			if w.Status == api.WorkerAlive && w.Busy+w.Queued > 0 {
				return false
			}
		}
		return true
	})
}

// stopWhileRunning: a stopped job leaves no files. A retry runs it from the beginning.
func stopWhileRunning(c *cluster) {
	s := c.begin(plan{tasks: 6, free: 2, before: []step{"trap 'exit 1' TERM"}})
	s.untilBegun(4)
	id := fmt.Sprint(s.id)
	if code, _, stderr := c.cli("stop", id); code != 0 {
		c.t.Fatalf("stop: exit code %d: %s", code, stderr)
	}
	if code, _, _ := c.cli("wait", id); code != 3 {
		c.t.Errorf("wait: exit code %d, want 3", code)
	}
	c.untilIdle()
	wantNames(c.t, s.out)
	if code, _, stderr := c.cli("result", id); code == 0 || !strings.Contains(stderr, "stopped") {
		c.t.Errorf("result: exit code %d: %s", code, stderr)
	}
	s.openAll(0)
	c.retry(s.id)
	s.wantDone()
}

// retryFailed: a retry runs only the failed tasks, with a new budget.
func retryFailed(c *cluster) {
	l := c.ledger("ledger")
	out := c.path("out")
	id := c.submit(&api.JobRequest{
		Range: numbers(6), Output: out, Retries: new(1),
		Program: item(l.record(), printItem, step(`test $1 -lt 5 -o -e "`+c.path("fixed")+`" -a $B4_ATTEMPT = 4`)),
	})
	c.fails(id)
	write(c.t, c.path("fixed"), "")
	if code, stdout, stderr := c.cli("retry", fmt.Sprint(id)); code != 0 || !strings.Contains(stdout, "continues") {
		c.t.Fatalf("retry: exit code %d: %s%s", code, stdout, stderr)
	}
	c.done(id)
	wantNumbers(c.t, out, 6, `echo $1`)
	for task, n := range l.count() {
		if want := map[bool]int{true: 1, false: 4}[task < 4]; n != want {
			c.t.Errorf("task %d was begun %d times, want %d", task, n, want)
		}
	}
}

// followLogs: logs -f shows output as it is written, and ends with the job.
func followLogs(c *cluster) {
	id := c.submit(&api.JobRequest{
		Range:   numbers(2),
		Program: item(log("begin $1"), waitFor(c.path("gate")), log("middle $1"), waitFor(c.path("gate2")), `printf 'end %s' $1 >&2`),
	})
	p := c.start("logs", "logs", "-f", fmt.Sprint(id), "--cluster", c.known)
	until(c.t, "both beginnings", func() bool {
		return strings.Count(p.readStdout(), "begin") == 2
	})
	write(c.t, c.path("gate"), "")
	until(c.t, "both middles", func() bool { return strings.Count(p.readStdout(), "middle") == 2 })
	write(c.t, c.path("gate2"), "")
	c.done(id)
	p.wantExit(0)
	text := strings.ReplaceAll(p.readStdout(), "#1", "") // the winning attempts were not known
	for _, part := range []string{"begin", "middle", "end"} {
		for _, task := range []int{0, 1} {
			if line := fmt.Sprintf("%d/map/%d: %s %d\n", id, task, part, task+1); strings.Count(text, line) != 1 {
				c.t.Errorf("%q is not there once: %s", line, text)
			}
		}
	}
}

// workerKiller: a task that kills every worker at once uses up its budget, though no worker ever reports that it runs.
func workerKiller(c *cluster) {
	own := newCluster(c.t)
	l := own.ledger("ledger")
	id := own.submit(&api.JobRequest{
		Range: numbers(1), Program: split(l.record(), `kill -KILL $(cut -d " " -f 4 /proc/$PPID/stat)`), // the parent of its parent
	})
	for range 20 { // more than any budget
		if own.job(id).IsEnded() {
			break
		}
		w := own.worker("worker-1")
		until(c.t, "the worker or the job ends", func() bool { return w.hasEnded() || own.job(id).IsEnded() })
	}
	job := own.fails(id)
	wantText(c.t, job.Error, "worker", "ended while it ran this")
	c.t.Logf("the task killed %d workers", len(l.entries()))
}
