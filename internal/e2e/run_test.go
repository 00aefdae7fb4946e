package e2e

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
)

// TestRunInterrupted ends an embedded run by Ctrl-C and by SIGKILL; --resume continues, and finished tasks are not run again.
func TestRunInterrupted(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	files := book(t, l.path("in"), 8)
	ledger := l.ledger("ledger")
	out := l.path("out")
	p := l.start("run", "run", "--slots", "2", "--input", l.path("in"), "--split", "none", "--output", out, "--",
		"sh", "-c", sequence([]step{ledger.record(), from(2, waitFor(l.path("gate"))), upperCase}))
	until(t, "two wait at the gate", func() bool { return len(ledger.entries()) == 4 })
	p.signal(syscall.SIGINT)
	p.wantExit(130)
	wantText(t, p.readStderr(), "interrupted; finished tasks are kept", "run --resume")

	p = l.start("resume", "run", "--resume", "--slots", "2")
	until(t, "two wait again", func() bool { return len(ledger.entries()) == 6 })
	p.kill()
	write(t, l.path("gate"), "")
	p = l.start("resume", "run", "--resume", "--slots", "2")
	p.wantExit(0)
	wantText(t, p.readStderr(), "resuming run", "8 parts")
	wantOutput(t, out, each(t, files, upperCaseOf))
	for task, n := range ledger.count() {
		want := 1
		if task == 2 || task == 3 {
			want = 3
		}
		if n != want {
			t.Errorf("task %d was begun %d times, want %d", task, n, want)
		}
	}
	if left := names(t, l.path("state", "bridgefour", "runs")); len(left) > 0 {
		t.Errorf("state of a finished run is left: %q", left)
	}
}

// TestTwoRuns lets two runs write to one output at once: one wins, with only its own parts; the other one fails with the cause.
func TestTwoRuns(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const rounds, tasks = 5, 20
	for round := range rounds {
		out, gate := l.path(fmt.Sprintf("out-%d", round)), l.path(fmt.Sprintf("gate-%d", round))
		// The last task of each waits for the gate, so that both publish at one moment.
		run := func(name string) *process {
			steps := sequence([]step{from(tasks-1, mark(l.path("begun")), waitFor(gate)), step("echo " + name + " $1")})
			return l.start("run-"+name, "run", "-q", "--slots", "2", "--range", fmt.Sprintf("1-%d", tasks), "--output", out, "--",
				"sh", "-c", steps, "sh", "{}")
		}
		runs := map[string]*process{"a": run("a"), "b": run("b")}
		until(t, "both run their last task", func() bool { return marks(t, l.path("begun")) == 2*(round+1) })
		write(t, gate, "")
		codes := map[string]int{}
		for name, p := range runs {
			codes[name] = p.wait()
		}
		winner, loser := "a", "b"
		if codes["b"] == 0 {
			winner, loser = loser, winner
		}
		if got := []int{codes[winner], codes[loser]}; !slices.Equal(got, []int{0, 1}) {
			t.Fatalf("exit codes %v, want one 0 and one 1", codes)
		}
		wantText(t, runs[loser].readStderr(), out, "holds another output", "--overwrite")
		var parts [][]byte
		for i := range tasks {
			parts = append(parts, fmt.Appendf(nil, "%s %d\n", winner, i+1))
		}
		// The loser's finished tasks are kept, for a resume after the output was moved away.
		if err := os.RemoveAll(out + "/_temporary"); err != nil {
			t.Fatal(err)
		}
		wantOutput(t, out, parts)
	}
}
