package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// TestWorkerKilled kills a worker that runs tasks: they run on another one, and finished tasks are not run again.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	first := c.worker("one")
	c.untilAlive(1)
	s := c.begin(plan{tasks: 8, free: 2, before: []step{log("attempt $B4_ATTEMPT by $B4_WORKER")}})
	s.untilBegun(2)
	until(t, "the log of a running task", func() bool { return len(c.logs(s.id, 2)) == 1 })
	c.worker("two", "--slots", "8") // room for all tasks at once
	c.untilAlive(2)
	first.kill()
	s.untilRunsAgain(2, 2, 3)
	s.openAll(0)
	job := s.wantDone()
	if got, want := s.ledger.count(), map[int]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("begun: %v, want %v", got, want)
	}
	if retried := job.Stages[0].Retried; retried != 2 {
		t.Errorf("retried %d, want 2", retried)
	}
	for _, task := range c.tasks(s.id, api.TaskQuery{Stage: "map"})[2:4] {
		if len(task.Failures) != 1 || task.Failures[0].Kind != "lost_worker" || task.Failures[0].Worker != 1 {
			t.Errorf("failures of %s: %+v, want one lost worker, number 1", task.Name, task.Failures)
		}
	}
	code, body := c.get("/cluster")
	if code != 200 || !strings.Contains(body, `"status":{"type":"Degraded"}`) || !strings.Contains(body, `{"id":1,"slots":[],"status":{"type":"Dead"}}`) {
		t.Errorf("cluster = %d %s, want degraded, worker 1 dead without slots", code, body)
	}
	if _, stdout, _ := c.cli("cluster"); !strings.Contains(stdout, "1 alive, 1 dead") {
		t.Errorf("cluster: %s\nwant 1 alive, 1 dead", stdout)
	}

	// The worker restarts with the same folder on another port: it keeps its identity, and the log of its lost attempt.
	c.worker("one")
	c.untilAlive(2)
	if n := len(c.listWorkers()); n != 2 {
		t.Errorf("%d workers, want 2: the restarted one is not new", n)
	}
	wantLogs(c, s.id)
}

// attempt is the log of one attempt.
type attempt struct {
	number uint32
	winner bool
	text   string
}

// logs returns the logs of a task's attempts that can be read now.
func (c *cluster) logs(id, task uint64) []attempt {
	c.t.Helper()
	var got []attempt
	for r, err := range c.client.Logs(c.t.Context(), api.LogQuery{Job: id, OneTask: true, Stage: "map", Index: task}) {
		if err != nil {
			c.t.Fatal(err)
		}
		got = append(got, attempt{r.Attempt, r.Winner, string(r.Text)})
	}
	return got
}

// wantLogs checks that the log of a lost attempt is kept, separate from the winner's.
func wantLogs(c *cluster, id uint64) {
	c.t.Helper()
	var got []attempt
	until(c.t, "the logs of both attempts", func() bool {
		got = c.logs(id, 2)
		return len(got) == 2
	})
	slices.SortFunc(got, func(a, b attempt) int { return int(a.number) - int(b.number) })
	if want := []attempt{{1, false, "attempt 1 by 1\n"}, {2, true, "attempt 2 by 2\n"}}; !slices.Equal(got, want) {
		c.t.Errorf("logs: %+v, want %+v", got, want)
	}
	if _, stdout, _ := c.cli("logs", fmt.Sprint(id)); !strings.Contains(stdout, fmt.Sprintf("%d/map/2#1: attempt 1 by 1\n", id)) ||
		!strings.Contains(stdout, fmt.Sprintf("%d/map/2: attempt 2 by 2\n", id)) {
		c.t.Errorf("logs: %s\nwant the lines of the lost attempt marked #1, those of the winner not", stdout)
	}
}

// TestLeaderKilled kills the leader twice, with open, running and finished tasks; one task ends while there is no leader.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(2)
	s := c.begin(plan{tasks: 12, free: 4, after: []step{mark(c.path("ended"))}})
	s.untilBegun(4)

	c.leader.kill()
	// Running tasks go on, and one of them ends: its worker keeps the output.
	s.open(s.waiting())
	until(t, "a task ends without a leader", func() bool { return marks(t, c.path("ended")) == 5 })
	c.startLeader()
	c.untilAlive(2)
	s.untilDone(5)

	c.leader.kill()
	c.startLeader()
	s.openAll(0)
	s.wantDoneOnce()
}

var killSeed = flag.Uint64("kill.seed", 0, "the seed of TestEverythingKilled; 0: random")

// TestEverythingKilled kills every process at once, at random moments, round after round.
func TestEverythingKilled(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test -run TestEverythingKilled -kill.seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := newCluster(t)
	workers := c.workers(2)
	const tasks = 120
	files := book(t, c.path("in"), tasks)
	l := c.ledger("ledger")
	out, counts := c.path("out"), c.path("counts")
	id := c.submit(&api.JobRequest{
		Inputs: []string{c.path("in")}, Split: "none", Output: out, Program: split(l.record(), "sleep 0.01", upperCase),
	})
	known := map[uint64]string{id: out}
	acknowledged := map[int]int{} // attempts of tasks when they were known to be done
	for round := range 5 {
		// A random part of a round's length; no test synchronises with it.
		target := c.job(id).Stages[0].Done + uint64(random.IntN(tasks/6))
		c.untilMap(id, "more done", func(s api.Stage) bool { return s.Done >= min(target, tasks) })
		moment := time.NewTimer(time.Duration(random.IntN(30)) * time.Millisecond)
		if round == 2 { // a submit is acknowledged just before the kill
			wc := c.submit(&api.JobRequest{Inputs: []string{c.path("in")}, Output: counts, Program: api.Program{Builtin: "wordcount"}})
			known[wc] = counts
		}
		for _, task := range c.tasks(id, api.TaskQuery{Stage: "map", Status: api.TaskDone}) {
			if _, ok := acknowledged[int(task.Index)]; !ok {
				acknowledged[int(task.Index)] = -1
			}
		}
		<-moment.C
		for _, p := range append(workers, c.leader) {
			p.signal(syscall.SIGKILL)
		}
		for _, p := range append(workers, c.leader) {
			<-p.ended
		}
		for task, n := range acknowledged {
			if n < 0 {
				acknowledged[task] = l.count()[task]
			}
		}
		c.startLeader()
		workers = []*process{c.worker("worker-1"), c.worker("worker-2")}
		for job, output := range known {
			if got := c.job(job).Output; got != output {
				t.Errorf("round %d: job %d has the output %q, want %q", round, job, got, output)
			}
		}
		if done := c.job(id).Stages[0].Done; done < uint64(len(acknowledged)) {
			t.Errorf("round %d: %d done, want at least the %d that were known to be", round, done, len(acknowledged))
		}
	}
	for job := range known {
		c.done(job)
	}
	wantOutput(t, out, each(t, files, upperCaseOf))
	wantOutput(t, counts, [][]byte{sh(t, "/", resultOf, files...)})
	for task, n := range acknowledged {
		if got := l.count()[task]; got != n {
			t.Errorf("task %d was begun %d times, want %d: it was done", task, got, n)
		}
	}
}

// TestWorkerMoves restarts a worker on another port in the middle of a job, by SIGKILL and by SIGTERM.
func TestWorkerMoves(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	w := c.workers(1)[0]
	l := c.ledger("ledger")
	id := c.submit(&api.JobRequest{
		Range: numbers(6), Output: c.path("out"), Program: item(l.record(), waitFor(c.path("gate")), printItem),
	})
	until(t, "two run", func() bool { return len(l.entries()) == 2 })
	address := c.listWorkers()[0].Address
	w.kill()
	w = c.worker("worker-1")
	until(t, "both run again", func() bool { return len(l.entries()) == 4 })
	list := c.listWorkers()
	if len(list) != 1 || list[0].ID != 1 || list[0].Address == address {
		t.Errorf("workers: %+v, want number 1 at another address than %s", list, address)
	}

	// A drain finishes running tasks, and hands back the rest.
	w.signal(syscall.SIGTERM)
	until(t, "the drain", func() bool { return strings.Contains(w.readStderr(), "msg=draining") })
	write(t, c.path("gate"), "")
	w.wantExit(0)
	if done := c.job(id).Stages[0].Done; done != 2 {
		t.Errorf("%d done after the drain, want the 2 that ran", done)
	}
	until(t, "the job is halted", func() bool { return c.job(id).Status == api.JobHalted })
	c.worker("worker-1")
	c.done(id)
	wantNumbers(t, c.path("out"), 6, `echo $1`)
	for task, n := range l.count() {
		if n > 2 || task > 1 && n > 1 {
			t.Errorf("task %d was begun %d times", task, n)
		}
	}
}

// TestCopiedIdentity starts a second worker with the identity of the first: it logs the refusal once and keeps trying, because the first may
// end; the first continues.
func TestCopiedIdentity(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	first := c.workers(1)[0]
	write(t, c.path("copy", "identity"), readFile(t, c.path("worker-1", "identity")))
	second := c.worker("copy")
	const refused = "worker refused; trying again every minute"
	until(t, "the second is refused", func() bool { return strings.Contains(second.readStderr(), refused) })
	wantText(t, second.readStderr(), "same identity", "--data-dir")

	third := c.worker("worker-1")
	third.wantExit(1)
	wantText(t, third.readStderr(), "in use by another worker process", "--data-dir", c.path("worker-1"))

	c.done(c.submit(&api.JobRequest{Range: numbers(3), Program: item(printItem)}))
	if first.hasEnded() || second.hasEnded() {
		t.Errorf("the first worker has ended: %v, the second: %v", first.hasEnded(), second.hasEnded())
	}
	if got := strings.Count(second.readStderr(), refused); got != 1 {
		t.Errorf("it logs the refusal %d times, want once", got)
	}
}

// wantText checks that a text contains all parts.
func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in: %s", part, tail(text))
		}
	}
}

// TestNoWorker submits a job without a worker, which continues when one joins; and starts a worker without a leader.
func TestNoWorker(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	out := c.path("out")
	id := c.submit(&api.JobRequest{Range: numbers(4), Output: out, Program: item(printItem)})
	until(t, "the job is halted", func() bool { return c.job(id).Status == api.JobHalted })
	if code, body := c.get(fmt.Sprintf("/job/status/%d", id)); code != 200 || strings.TrimSpace(body) != `{"type":"Halted"}` {
		t.Errorf("status = %d %s, want Halted", code, body)
	}
	_, stdout, _ := c.cli("explain", fmt.Sprint(id))
	wantText(t, stdout, "halted", "no live worker", "bridgefour worker")

	// The only worker joins, is killed while it runs a task, and the job is halted again.
	w := c.worker("worker-1")
	c.done(id)
	wantNumbers(t, out, 4, `echo $1`)
	id = c.submit(&api.JobRequest{Range: numbers(4), Program: item(printItem, waitFor(c.path("gate")))})
	c.untilMap(id, "two running", func(s api.Stage) bool { return s.Running >= 2 })
	w.kill()
	until(t, "the job is halted", func() bool { return c.job(id).Status == api.JobHalted })

	c.leader.kill()
	w = c.worker("worker-1")
	until(t, "the worker searches for a leader", func() bool { return strings.Contains(w.readStderr(), "no leader reached") })
	write(t, c.path("gate"), "")
	c.startLeader()
	c.done(id)
	if got := c.result(id); got != "1\n2\n3\n4\n" {
		t.Errorf("result %q", got)
	}
}
