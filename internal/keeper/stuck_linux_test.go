package keeper

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// freezer returns a new control group that can freeze processes. Frozen ones do not end at SIGKILL, as those in an uninterruptible sleep.
func (f *fixture) freezer() (dir string, set func(state string)) {
	f.Helper()
	dir = filepath.Join("/sys/fs/cgroup/freezer", "bridgefour-test-"+strconv.Itoa(os.Getpid())+"-"+filepath.Base(filepath.Dir(f.dir)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		f.Skipf("no freezer of control groups version 1 can be used here: %v", err)
	}
	set = func(state string) {
		f.Helper()
		if err := os.WriteFile(filepath.Join(dir, "freezer.state"), []byte(state), 0); err != nil {
			f.Error(err)
		}
	}
	f.Cleanup(func() {
		set("THAWED")
		f.until("the group has no process, and is removed", func() bool { return os.Remove(dir) == nil })
	})
	return dir, set
}

// TestStuck leaves a process that cannot be killed: the command is reported as stuck, and the next one starts when the process has ended.
func TestStuck(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir, set := f.freezer()
	f.script("setsid sh -c 'echo $$ >" + dir + "/cgroup.procs; echo $$ >pid; mv pid left; while :; do sleep 0.01; done' & until [ -s left ]; do sleep 0.01; done; until [ -e go ]; do sleep 0.01; done")
	f.await("left")
	set("FROZEN")
	f.until("the group is frozen", func() bool {
		state, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
		return err != nil || string(state) == "FROZEN\n"
	})
	if err := os.WriteFile(f.path("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	end, err := f.keeper.Wait()
	left, readErr := os.ReadFile(f.path("left"))
	if err != nil || readErr != nil || end.Stuck == 0 || f.alive() == 0 {
		t.Fatalf("Wait() = %+v, %v, %d alive, want a stuck process", end, err, f.alive())
	}
	// The frozen shell or its sleep, whichever comes first in the process table.
	if pid := strings.TrimSpace(string(left)); strconv.Itoa(end.StuckPID) != pid && end.Stuck < 2 {
		t.Errorf("process %d is reported as stuck, %s is", end.StuckPID, pid)
	}

	f.script("echo >started")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if end, err := f.keeper.Wait(); err != nil || end.Status != 0 || end.Stuck != 0 {
			t.Errorf("the next command: Wait() = %+v, %v, want success", end, err)
		}
	}()
	wait := time.NewTimer(300 * time.Millisecond) // longer than the keeper waits between its attempts to kill
	defer wait.Stop()
	select {
	case <-ended:
		t.Error("the next command ran beside the stuck process")
	case <-wait.C:
	}
	if _, err := os.Stat(f.path("started")); err == nil {
		t.Error("the next command has started beside the stuck process")
	}
	set("THAWED")
	<-ended
	f.await("started")
	f.wantNone()
}

// TestStuckIsStopped stops a command that waits for a stuck process.
func TestStuckIsStopped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir, set := f.freezer()
	// The command freezes its own child.
	f.script("sleep 1000 & echo $! >" + dir + "/cgroup.procs; echo FROZEN >" + dir + "/freezer.state; until grep -q FROZEN " + dir + "/freezer.state; do sleep 0.01; done")
	end, err := f.keeper.Wait()
	if err != nil || end.Stuck != 1 || end.Status != 0 {
		t.Fatalf("Wait() = %+v, %v, want one stuck process", end, err)
	}
	f.script("echo >started")
	f.keeper.Stop(0)
	if end, err := f.keeper.Wait(); err != nil || !end.Status.Signaled() {
		t.Errorf("Wait() = %+v, %v, want it stopped", end, err)
	}
	set("THAWED")
	f.script("echo >next")
	if end, err := f.keeper.Wait(); err != nil || end.Status != 0 || end.Stuck != 0 {
		t.Errorf("Wait() = %+v, %v, want success", end, err)
	}
	if _, err := os.Stat(f.path("started")); err == nil {
		t.Error("a command that was stopped while it waited has started")
	}
	f.wantNone()
}
