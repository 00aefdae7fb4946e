package e2e

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// TestWorkerHangs stops a worker, without a word, for longer than a leader waits. Its tasks run elsewhere; when it wakes up it
// finds its leases void, publishes nothing, leaves nothing, and works on.
func TestWorkerHangs(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hung := c.worker("one")
	c.untilAlive(1)
	files := book(t, c.path("in"), 10)
	l := c.ledger("ledger")
	out := c.path("out")
	id := c.submit(&api.JobRequest{
		Inputs: []string{c.path("in")}, Split: "none", Output: out,
		Program: piped(l.enter() + `test $B4_TASK -lt 2 || { ` + gate(c.path("gate")) + `}; ` + upperCaseAll),
	})
	c.untilMap(id, "two done, two running", func(s api.Stage) bool { return s.Done == 2 && len(l.entries()) == 4 })
	other := c.worker("two")
	c.untilAlive(2)
	until(t, "the other one runs two", func() bool { return len(l.entries()) == 6 })

	hung.signal(syscall.SIGSTOP)
	stopped := time.Now()
	until(t, "the hung worker is given up", func() bool { return c.alive() == 1 })
	// What it runs is no process of the worker's that hangs: it may well go on, and end.
	write(t, c.path("gate"), "")
	until(t, "both of its tasks run elsewhere", func() bool {
		return slices.Contains(l.entries(), entry{2, 2, 2}) && slices.Contains(l.entries(), entry{3, 2, 2})
	})
	t.Logf("its tasks ran elsewhere %v after it was stopped", time.Since(stopped).Round(10*time.Millisecond))
	c.done(id)
	parts := each(t, files, upperCaseOf)
	wantOutput(t, out, parts)

	// A second job is at work when it wakes up, so that it may also get things wrong there.
	l2 := c.ledger("ledger2")
	out2 := c.path("out2")
	second := c.submit(&api.JobRequest{
		Range: &api.Range{From: 1, To: 6}, Output: out2, Program: script(l2.enter() + gate(c.path("gate2")) + `echo $1`),
	})
	until(t, "two run", func() bool { return len(l2.entries()) == 2 })
	hung.signal(syscall.SIGCONT)
	c.untilAlive(2)
	until(t, "four run", func() bool { return len(l2.entries()) == 4 })
	write(t, c.path("gate2"), "")
	c.done(second)
	l2.wantOnce(6)
	wantOutput(t, out2, each(t, []string{"1", "2", "3", "4", "5", "6"}, `echo $1`))

	for _, w := range []*process{hung, other} {
		w.signal(syscall.SIGTERM)
	}
	hung.wantExit(0)
	other.wantExit(0)
	// Now nobody writes any more.
	wantOutput(t, out, parts)
	for task, n := range l.count() {
		if task < 2 && n > 1 {
			t.Errorf("task %d was begun %d times, and had been done after once", task, n)
		}
	}
}

// TestWorkerHangsWithBuiltin stops a worker in the middle of tasks that run in its own process: when it wakes up they go on.
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

// wantCounts wants a result of DelayedWordCount to be what awk counts, which splits at single spaces as the original did.
func wantCounts(t *testing.T, files []string, got string) {
	t.Helper()
	want := string(sh(t, "/", `cat "$@" | awk '{ sub(/ +$/, ""); n = split($0, w, / /); if (n == 0) { w[1] = ""; n = 1 } for (i = 1; i <= n; i++) c[w[i]]++ }
		END { for (x in c) printf "%s,%d\n", x, c[x] }' | sort`, files...))
	if sorted := string(sh(t, "/", `printf %s "$1" | sort`, strings.TrimSuffix(got, "\n"))); sorted != want {
		t.Errorf("_RESULT is %s, want %s", brief([]byte(sorted)), brief([]byte(want)))
	}
}

// TestLeaderHangs stops the leader for longer than it would wait for a worker. When it wakes up, nothing is run again.
func TestLeaderHangs(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(2)
	files := book(t, c.path("in"), 12)
	l := c.ledger("ledger")
	out := c.path("out")
	id := c.submit(&api.JobRequest{
		Inputs: []string{c.path("in")}, Split: "none", Output: out,
		Program: piped(l.enter() + `test $B4_TASK -lt 4 || { ` + gate(c.path("gate")) + `}; ` + upperCaseAll + `; echo >> '` + c.path("ended") + `'`),
	})
	c.untilMap(id, "4 done, 4 running", func(s api.Stage) bool { return s.Done == 4 && len(l.entries()) == 8 })
	c.leader.signal(syscall.SIGSTOP)
	write(t, c.path("gate"), "")
	until(t, "the tasks that run end without a leader", func() bool { return strings.Count(readFile(t, c.path("ended")), "\n") >= 8 })
	hang := time.NewTimer(4 * time.Second) // this long is the case that is tested
	<-hang.C
	c.leader.signal(syscall.SIGCONT)
	job := c.done(id)
	wantOutput(t, out, each(t, files, upperCaseOf))
	l.wantOnce(len(files))
	if job.Stages[0].Retried != 0 {
		t.Errorf("retried %d, want 0", job.Stages[0].Retried)
	}
}
