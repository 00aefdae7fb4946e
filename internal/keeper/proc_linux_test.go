package keeper

import (
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A process is signaled if it is the one of the table, below the parent of the table: others may have their numbers by then.
func TestSignalOfAReusedNumber(t *testing.T) {
	t.Parallel()
	// sh has a child; both end at the end of the pipe.
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "cat; exit 3")
	_, err := cmd.StdinPipe() // closed by Wait
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var found []proc
	for len(found) < 2 { // until cat has started
		found = below(processes(), func(p *proc) bool { return p.pid == cmd.Process.Pid })
	}
	top, child := found[0], found[1]
	if child.started < top.started || top.started == 0 || child.parentStarted != top.started {
		t.Errorf("the child started at %d, below a parent of %d; that one started at %d", child.started, child.parentStarted, top.started)
	}
	for _, p := range found {
		p.started--
		p.signal(unix.SIGKILL)
	}
	orphan := child
	orphan.parentStarted--
	orphan.signal(unix.SIGKILL)
	left := below(processes(), func(p *proc) bool { return p.pid == cmd.Process.Pid })
	if len(left) != 2 || slices.ContainsFunc(left, func(p proc) bool { return p.ended() }) {
		t.Errorf("left %+v, want both: a later process with the number was signaled", left)
	}
	child.signal(unix.SIGKILL)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("sh has ended with %v, want the exit code after the end of its child", err)
	}
	top.signal(unix.SIGKILL) // it has ended
}
