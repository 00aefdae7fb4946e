package e2e

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// TestWorkerHangs stops a worker for longer than its timeout. Its tasks run on another one; when it continues, its leases are void, it
// publishes nothing, leaves no files, and goes on working.
func TestWorkerHangs(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hung := c.worker("one")
	c.untilAlive(1)
	s := c.begin(plan{tasks: 10, free: 2})
	s.untilBegun(2)
	other := c.worker("two")
	c.untilAlive(2)
	s.untilBegun(4)

	hung.signal(syscall.SIGSTOP)
	stopped := time.Now()
	until(t, "the hung worker counts as dead", func() bool { return c.alive() == 1 })
	// The tasks' processes are not stopped: they may go on, and end.
	s.openAll(0)
	s.untilRunsAgain(2, 2, 3)
	t.Logf("its tasks ran on the other worker %v after it was stopped", time.Since(stopped).Round(10*time.Millisecond))
	s.wantDone()

	// A second job runs when it continues, which it may also affect.
	l2 := c.ledger("ledger2")
	out2 := c.path("out2")
	second := c.submit(&api.JobRequest{
		Range: numbers(6), Output: out2, Program: item(l2.record(), waitFor(c.path("gate2")), printItem),
	})
	until(t, "two run", func() bool { return len(l2.entries()) == 2 })
	hung.signal(syscall.SIGCONT)
	c.untilAlive(2)
	until(t, "four run", func() bool { return len(l2.entries()) == 4 })
	write(t, c.path("gate2"), "")
	c.done(second)
	l2.wantOnce(6)
	wantNumbers(t, out2, 6, `echo $1`)

	for _, w := range []*process{hung, other} {
		w.signal(syscall.SIGTERM)
	}
	hung.wantExit(0)
	other.wantExit(0)
	s.wantParts() // with no process left that writes
	for task, n := range s.ledger.count() {
		if task < 2 && n > 1 {
			t.Errorf("task %d was begun %d times, want once: it was done", task, n)
		}
	}
}

// TestWorkerHangsWithBuiltin stops a worker in the middle of built-in tasks: they continue when it does.
func TestWorkerHangsWithBuiltin(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hung := c.worker("one")
	c.untilAlive(1)
	files := book(t, c.path("in"), 6)
	out := c.path("out")
	id := c.submit(&api.JobRequest{
		Inputs: []string{c.path("in")}, Split: "none", Output: out, Program: api.Program{Builtin: "DelayedWordCount"},
		Set: map[string]string{"timeout": "1"},
	})
	c.untilMap(id, "two running", func(s api.Stage) bool { return s.Running >= 2 })
	hung.signal(syscall.SIGSTOP)
	other := c.worker("two")
	c.done(id)
	want := names(t, out)
	for _, name := range want {
		if name == "_temporary" {
			t.Errorf("%s is left in %s", name, out)
		}
	}
	hung.signal(syscall.SIGCONT)
	c.untilAlive(2)
	for _, w := range []*process{hung, other} {
		w.signal(syscall.SIGTERM)
		w.wantExit(0)
	}
	wantOutput(t, out, make([][]byte, len(files)), "_RESULT")
	wantCounts(t, files, readFile(t, out+"/_RESULT"))
}

// wantCounts compares a result of DelayedWordCount with that of awk, which splits at single spaces as the original did.
func wantCounts(t *testing.T, files []string, got string) {
	t.Helper()
	want := string(sh(t, "/", `cat "$@" | awk '{ sub(/ +$/, ""); n = split($0, w, / /); if (n == 0) { w[1] = ""; n = 1 } for (i = 1; i <= n; i++) c[w[i]]++ }
		END { for (x in c) printf "%s,%d\n", x, c[x] }' | sort`, files...))
	if sorted := string(sh(t, "/", `printf %s "$1" | sort`, strings.TrimSuffix(got, "\n"))); sorted != want {
		t.Errorf("_RESULT is %s, want %s", brief([]byte(sorted)), brief([]byte(want)))
	}
}

// TestLeaderHangs stops the leader for longer than the timeout of a worker. When it continues, nothing is run again.
func TestLeaderHangs(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(2)
	s := c.begin(plan{tasks: 12, free: 4, after: []step{mark(c.path("ended"))}})
	s.untilBegun(4)
	c.leader.signal(syscall.SIGSTOP)
	s.openAll(0)
	until(t, "the running tasks end without a leader", func() bool { return marks(t, c.path("ended")) >= 8 })
	hang := time.NewTimer(4 * time.Second) // the duration under test
	<-hang.C
	s.led = append(s.led, time.Now())
	c.leader.signal(syscall.SIGCONT)
	s.wantDoneOnce()
}

// TestFollowersHang stops two of three leaders while a write waits: the third is not ready and says why. When they continue, the write is
// done, once, and all are ready.
func TestFollowersHang(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	g.workers(1)
	leader := g.leading()
	g.done(g.submit(trivial()))
	followers := g.followers(leader)
	for _, n := range followers {
		n.signal(syscall.SIGSTOP)
	}
	written := make(chan uint64, 1)
	go func() {
		job, err := g.client.Submit(t.Context(), &api.JobRequest{Range: numbers(1), Program: item("true"), Dir: g.dir}, "key")
		if err != nil {
			t.Errorf("the write that waited: %v", err)
		}
		written <- job.ID
	}()
	until(t, "the leader is not ready, and says why", func() bool {
		a := leader.get("/readyz")
		return a.code == http.StatusServiceUnavailable && (strings.Contains(a.body, "majority") || strings.Contains(a.body, "nothing was committed"))
	})
	for _, n := range followers {
		n.signal(syscall.SIGCONT)
	}
	id := <-written
	g.done(id)
	for _, n := range g.nodes {
		until(t, n.name+" is ready", func() bool { return n.get("/readyz").code == http.StatusOK })
	}
	if again, err := g.client.Submit(t.Context(), &api.JobRequest{Range: numbers(1), Program: item("true"), Dir: g.dir}, "key"); err != nil || again.ID != id {
		t.Errorf("the same write again = job %d, %v, want job %d", again.ID, err, id)
	}
}
