package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Some tests need a process that dies, or of another user: this one, started again with the script that it runs.
const (
	parentEnv = "B4_KEEPER_TEST_SCRIPT"
	tempEnv   = "B4_KEEPER_TEST_TEMP" // its Keeper.Temp
	memoryEnv = "B4_KEEPER_TEST_MEMORY"
	untilEnv  = "B4_KEEPER_TEST_UNTIL" // the time that the command has once the file left exists, when this process stops itself
)

// memoryMax is the limit of scripts that use too much.
const memoryMax = 64 << 20

// hog uses more than memoryMax in a process that has left the command.
const hog = `timeout 1000 setsid sh -c 'x=$(head -c 200000000 /dev/zero | tr "\0" x); sleep 1000'; sleep 1000`

func TestMain(m *testing.M) {
	if script := os.Getenv(parentEnv); script != "" {
		k := Keeper{Temp: os.Getenv(tempEnv)}
		err := k.Start(&Command{
			Path: "/bin/sh", Argv: []string{"sh", "-c", script}, Env: os.Environ(), Memory: memoryMax,
			Output: func(_ Stream, pipe *os.File) { go io.Copy(io.Discard, pipe) }, //nolint:errcheck // until the process ends
		})
		if d, parseErr := time.ParseDuration(os.Getenv(untilEnv)); parseErr == nil {
			for _, missing := os.Stat("left"); missing != nil; _, missing = os.Stat("left") {
				time.Sleep(10 * time.Millisecond)
			}
			k.Extend(time.Now().Add(d))
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
		var end End
		if err == nil {
			end, err = k.Wait()
		}
		fmt.Println(end.OverMemory > memoryMax, end.Status.ExitStatus(), err)
		os.Exit(0)
	}
	if os.Getenv(memoryEnv) != "" {
		fmt.Println(MachineMemory())
		os.Exit(0)
	}
	if os.Getenv(dialEnv) != "" {
		dial()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fixture runs scripts, whose processes are found by a variable of their environment.
type fixture struct {
	*testing.T
	keeper      Keeper
	dir         string
	token       string
	confinement Confinement
	user        *syscall.Credential
	copies      *sync.WaitGroup // of the last command's outputs
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, dir: t.TempDir()}
	f.token = "B4_KEEPER_TEST=" + f.dir
	t.Cleanup(func() {
		if err := f.keeper.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return f
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fixture) start(memory uint64, path string, argv ...string) {
	f.Helper()
	out, err := os.Create(f.path("out"))
	if err != nil {
		f.Fatal(err)
	}
	f.copies = &sync.WaitGroup{}
	copies := f.copies
	err = f.keeper.Start(&Command{
		Path: path, Argv: argv, Dir: f.dir, Env: append(os.Environ(), f.token), EnvMore: []string{"MORE=1"},
		Output: func(_ Stream, pipe *os.File) {
			copies.Go(func() {
				defer pipe.Close() //nolint:errcheck // only read from
				if _, err := io.Copy(out, pipe); err != nil {
					f.Error(err)
				}
			})
		},
		Memory: memory, Confinement: f.confinement, User: f.user,
	})
	if err != nil {
		f.Fatalf("Start() = %v", err)
	}
}

func (f *fixture) script(script string) {
	f.Helper()
	f.start(0, "/bin/sh", "sh", "-c", script)
}

// output is that of the last command, which has ended.
func (f *fixture) output() string {
	f.Helper()
	f.copies.Wait()
	text, err := os.ReadFile(f.path("out"))
	if err != nil {
		f.Fatal(err)
	}
	return string(text)
}

// await waits for a file that a script creates.
func (f *fixture) await(name string) {
	f.Helper()
	f.until(name+" is created", func() bool {
		_, err := os.Stat(f.path(name))
		return err == nil
	})
}

// until waits until a condition is true, which it becomes unless the program is broken.
func (f *fixture) until(what string, is func() bool) {
	f.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("%s: not within a minute", what)
		}
	}
}

// alive counts the processes of scripts.
func (f *fixture) alive() (n int) {
	f.Helper()
	for _, p := range processes() {
		environ, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
		if err == nil && !p.ended() && bytes.Contains(environ, []byte(f.token+"\x00")) {
			n++
		}
	}
	return n
}

func (f *fixture) wantNone() {
	f.Helper()
	if n := f.alive(); n > 0 {
		f.Errorf("%d processes are left", n)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.script(`echo out; pwd; echo $MORE; ls -l /proc/self/fd | grep -c -- '->'; exit 7`)
	end, err := f.keeper.Wait()
	if err != nil || end.Status.ExitStatus() != 7 || end.Left != 0 {
		t.Errorf("Wait() = %+v, %v, want exit status 7", end, err)
	}
	if want := "out\n" + f.dir + "\n1\n4\n"; f.output() != want { // 4: ls has the folder open
		t.Errorf("output %q, want %q", f.output(), want)
	}
}

// TestFilesRunOut has this process no descriptor left for the output of a command.
func TestFilesRunOut(t *testing.T) { //nolint:paralleltest // it changes a limit of the process
	f := newFixture(t)
	f.script("until [ -e go ]; do sleep 0.01; done; echo out; sleep 0.1; echo more")
	var limit, none syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none.Max = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	made := os.Mkdir(f.path("go"), 0o700) // which needs no descriptor
	end, err := f.keeper.Wait()
	err = errors.Join(made, err)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.EMFILE) {
		t.Errorf("Wait() = %+v, %v, want %v: the output is lost", end, err, syscall.EMFILE)
	}
	f.script("echo out")
	if end, err := f.keeper.Wait(); err != nil || end.Status != 0 || f.output() != "out\n" {
		t.Errorf("the next command: Wait() = %+v, %v, output %q, want success", end, err, f.output())
	}
}

func TestManyCommands(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 200 {
		f.start(0, "/bin/sh", "sh", "-c", "exit "+strconv.Itoa(i))
		if end, err := f.keeper.Wait(); err != nil || end.Status.ExitStatus() != i {
			t.Fatalf("Wait() = %+v, %v, want exit status %d", end, err, i)
		}
	}
}

func TestNice(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.keeper.Nice = 5
	f.script("nice; nice -n 3 nice")
	end, err := f.keeper.Wait()
	own, ownErr := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if ownErr != nil {
		t.Fatal(ownErr)
	}
	if want := fmt.Sprintf("%d\n%d\n", min(20-own+5, 19), min(20-own+8, 19)); err != nil || end.Status != 0 || f.output() != want {
		t.Errorf("Wait() = %+v, %v, output %q, want %q", end, err, f.output(), want)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.start(0, "/none", "none")
	if _, err := f.keeper.Wait(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Wait() = %v, want ENOENT", err)
	}
	f.start(0, "/bin/sh", "sh", "-c", ":", strings.Repeat("x", 1<<20))
	if _, err := f.keeper.Wait(); !errors.Is(err, syscall.E2BIG) {
		t.Errorf("Wait() = %v, want E2BIG", err)
	}
	if err := os.WriteFile(f.path("plain"), []byte("echo $1"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	f.start(0, "./plain", "plain", "argument")
	if end, err := f.keeper.Wait(); err != nil || end.Status != 0 || f.output() != "argument\n" {
		t.Errorf("a script without interpreter: Wait() = %+v, %v, output %q", end, err, f.output())
	}
}

// TestUntil: an earlier time replaces a later one and the reverse, and a command that ends in time is not overdue.
func TestUntil(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	run := func(script string, until time.Time) {
		t.Helper()
		if err := f.keeper.Start(&Command{
			Path: "/bin/sh", Argv: []string{"sh", "-c", script}, Dir: f.dir, Env: append(os.Environ(), f.token), Until: until, Grace: time.Hour,
		}); err != nil {
			t.Fatal(err)
		}
	}
	run("exec sleep 1000", time.Now().Add(-time.Second))
	if end, err := f.keeper.Wait(); err != nil || !end.Overdue || end.Status.Signal() != syscall.SIGTERM {
		t.Errorf("late from the start: Wait() = %+v, %v, want SIGTERM", end, err)
	}
	run("until [ -e go ]; do sleep 0.01; done", time.Now().Add(time.Hour))
	f.keeper.Extend(time.Now().Add(2 * time.Hour))
	if err := os.WriteFile(f.path("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if end, err := f.keeper.Wait(); err != nil || end.Overdue || end.Status != 0 {
		t.Errorf("in time: Wait() = %+v, %v, want success", end, err)
	}
	f.wantNone()
}

// TestUntilParentIsStopped: a command is stopped in time although the process that should extend its time is stopped.
func TestUntilParentIsStopped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	parent := exec.CommandContext(t.Context(), "/proc/self/exe")
	parent.Dir = f.dir
	parent.Env = append(os.Environ(), f.token, untilEnv+"=100ms", parentEnv+"=setsid sleep 1000 & echo >left; sleep 1000")
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	f.await("left")
	f.until("the command ends", func() bool { return f.alive() == 1 }) // the parent has the token too
	if err := errors.Join(parent.Process.Kill(), parent.Wait()); err == nil || parent.ProcessState.Exited() {
		t.Errorf("the parent: %v, want that it was killed", err)
	}
}

// TestDescriptors has a command write to files of this process.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var files [3]*os.File
	for i, name := range []string{"in", "out", "err"} {
		var err error
		if files[i], err = os.OpenFile(f.path(name), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			t.Fatal(err)
		}
		defer files[i].Close() //nolint:errcheck // it is checked what is in it
	}
	if _, err := files[0].WriteAt([]byte("text"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.keeper.Start(&Command{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "cat; exec >&2; echo error; ls /proc/$$/fd; exit 0"}, Dir: f.dir, Env: os.Environ(),
		Stdin: files[0].Fd(), Stdout: files[1].Fd(), Stderr: files[2].Fd(),
	}); err != nil {
		t.Fatal(err)
	}
	end, err := f.keeper.Wait()
	out, outErr := os.ReadFile(f.path("out"))
	text, errErr := os.ReadFile(f.path("err"))
	if err := errors.Join(err, outErr, errErr); err != nil || end.Status != 0 || string(out) != "text" || string(text) != "error\n0\n1\n2\n" {
		t.Errorf("Wait() = %+v, %v, output %q and %q, want text and, with three descriptors, error", end, err, out, text)
	}
	f.script("echo piped")
	if end, err := f.keeper.Wait(); err != nil || end.Status != 0 || f.output() != "piped\n" {
		t.Errorf("the next command: Wait() = %+v, %v, output %q, want success", end, err, f.output())
	}
}

// leaving are the ways of a process to leave its group. Each creates the file left.
var leaving = map[string]string{
	"group":       `sh -c 'echo >left; exec sleep 1000' &`,
	"timeout":     `timeout 1000 sh -c 'echo >left; sleep 1000' &`,
	"setsid":      `setsid sh -c 'echo >left; exec sleep 1000' &`,
	"job control": `bash -c 'set -m; sh -c "echo >left; sleep 1000" & exit 0'`,
	"nohup":       `nohup sh -c 'trap "" TERM INT; echo >left; sleep 1000' >/dev/null 2>&1 &`,
	"daemon":      `(setsid sh -c '(sh -c "echo >left; exec sleep 1000" &) ; exit 0' &)`,
	"python":      `python3 -c 'import subprocess; subprocess.Popen(["sh", "-c", "echo >left; exec sleep 1000"], start_new_session=True)'`,
}

const awaitLeft = "\nuntil [ -e left ]; do sleep 0.01; done; "

// TestNothingIsLeft has a process leave its group in each way, and the command end in each way.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for way, leave := range leaving {
		ends := map[string]struct {
			script string
			end    func(f *fixture)
			check  func(end End, err error) bool
		}{
			"success": {"exit 0", nil, func(end End, err error) bool { return err == nil && end.Status == 0 && end.Left > 0 }},
			"failure": {"exit 1", nil, func(end End, err error) bool { return err == nil && end.Status.ExitStatus() == 1 && end.Left > 0 }},
			"stop": {"sleep 1000", func(f *fixture) { f.keeper.Stop(100 * time.Millisecond) }, func(end End, err error) bool {
				return err == nil && end.Status.Signaled()
			}},
			"stop at once": {"trap '' TERM; sleep 1000", func(f *fixture) { f.keeper.Stop(0) }, func(end End, err error) bool {
				return err == nil && end.Status.Signal() == syscall.SIGKILL
			}},
			"overdue": {"trap '' TERM; sleep 1000", func(f *fixture) { f.keeper.Extend(time.Now()) }, func(end End, err error) bool {
				return err == nil && end.Status.Signal() == syscall.SIGKILL && end.Overdue
			}},
			"keeper killed": {"kill -9 $PPID; sleep 1000", nil, func(_ End, err error) bool { return errors.Is(err, ErrKilled) }},
			"keeper stopped": {"kill -STOP $PPID; echo >ready; sleep 1000", func(f *fixture) {
				f.await("ready")
				f.keeper.Stop(10 * time.Millisecond)
			}, func(end End, err error) bool { return err == nil && end.Status.Signaled() }},
		}
		for name, e := range ends {
			t.Run(way+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				f.script(leave + awaitLeft + e.script)
				f.await("left")
				if e.end != nil {
					e.end(f)
				}
				end, err := f.keeper.Wait()
				f.wantNone()
				if !e.check(end, err) {
					t.Errorf("Wait() = %+v, %v", end, err)
				}
				f.script("exit 0")
				if end, err := f.keeper.Wait(); err != nil || end.Status != 0 || end.Left != 0 {
					t.Errorf("the next command: Wait() = %+v, %v, want success", end, err)
				}
			})
		}
	}
}

// TestParentKilled is apart from TestNothingIsLeft: its keepers become children of this process, and would be killed with those that
// a killed keeper of this process leaves.
func TestParentKilled(t *testing.T) { //nolint:paralleltest // see above
	for way, leave := range leaving {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			parent := exec.CommandContext(t.Context(), "/proc/self/exe")
			parent.Dir = f.dir
			temp := f.path("b4/temp")
			parent.Env = append(os.Environ(), f.token, tempEnv+"="+temp, parentEnv+"=echo x >b4/temp/file; "+leave+awaitLeft+"sleep 1000")
			if err := parent.Start(); err != nil {
				t.Fatal(err)
			}
			f.await("left")
			_ = parent.Process.Kill() // it runs
			_ = parent.Wait()         // with the signal's status
			f.until("nothing is left", func() bool {
				_, err := os.Stat(filepath.Dir(temp))
				return errors.Is(err, os.ErrNotExist) && f.alive() == 0
			})
		})
	}
}

// TestCPUTime is that of all processes, whatever they were started by.
func TestCPUTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before := CPUTime()
	f.script(`setsid sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo >left; sleep 1000' & until [ -e left ]; do sleep 0.01; done`)
	end, err := f.keeper.Wait()
	f.script(`exit 0`)
	none, noneErr := f.keeper.Wait()
	if err = errors.Join(err, noneErr); err != nil || end.CPU < none.CPU+20*time.Millisecond {
		t.Errorf("CPU time %v, of exit 0 %v, %v, want that of a loop", end.CPU, none.CPU, err)
	}
	if got := CPUTime() - before; got < end.CPU+none.CPU {
		t.Errorf("CPUTime() has grown by %v, want %v at least", got, end.CPU+none.CPU)
	}
}

// TestStopGrace stops a command whose child ends in its own time, after the command.
func TestStopGrace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.script(`setsid sh -c 'trap "sleep 0.2; echo cleaned; exit" TERM; echo >left; while :; do sleep 0.01; done' & wait`)
	f.await("left")
	f.keeper.Stop(time.Minute)
	end, err := f.keeper.Wait()
	if err != nil || end.Status.Signal() != syscall.SIGTERM || end.Left != 0 || !strings.Contains(f.output(), "cleaned") {
		t.Errorf("Wait() = %+v, %v, output %q, want SIGTERM and the child's cleanup", end, err, f.output())
	}
	f.keeper.Stop(0) // late
	f.script("exit 0")
	if end, err := f.keeper.Wait(); err != nil || end.Status != 0 {
		t.Errorf("Wait() = %+v, %v, want success", end, err)
	}
}

// TestForks kills processes that replace themselves all the time.
func TestForks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if err := os.WriteFile(f.path("hop"), []byte("#!/bin/sh\necho >left\nsetsid ./hop &\n"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	f.script("./hop & ./hop & until [ -e left ]; do sleep 0.01; done")
	end, err := f.keeper.Wait()
	f.wantNone()
	if err != nil || end.Stuck != 0 {
		t.Errorf("Wait() = %+v, %v, want all killed", end, err)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 2 {
		f.start(memoryMax, "/bin/sh", "sh", "-c", hog)
		end, err := f.keeper.Wait()
		f.wantNone()
		if err != nil || end.OverMemory < memoryMax {
			t.Errorf("Wait() = %+v, %v, want more memory than the limit", end, err)
		}
		f.start(memoryMax, "/bin/sh", "sh", "-c", "exit 0")
		if end, err := f.keeper.Wait(); err != nil || end.OverMemory > 0 {
			t.Errorf("the next command: Wait() = %+v, %v, want success", end, err)
		}
	}
}

// asNobody runs a script under a keeper of a user without rights, and returns whether it used more than memoryMax, and its exit status.
func asNobody(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), parentEnv+"="+script)
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.Output()
	if err != nil {
		t.Error(err)
	}
	return string(out)
}

// TestMachineMemory: the limit of a control group, also that of one above, is what a process may take.
func TestMachineMemory(t *testing.T) {
	t.Parallel()
	const limit = 64 << 20
	all := MachineMemory()
	if all < limit {
		t.Fatalf("MachineMemory() = %d, want more than %d", all, limit)
	}
	dir, unified, _ := groupFolder()
	outer := group{path: filepath.Join(dir, fmt.Sprintf("bridgefour-test-%d", os.Getpid())), unified: unified}
	inner := group{path: filepath.Join(outer.path, "inner"), unified: unified}
	want := uint64(limit)
	if os.Mkdir(outer.path, 0o700) != nil || os.Mkdir(inner.path, 0o700) != nil || !outer.write(outer.limitFile(), strconv.Itoa(limit)) {
		want = all // no memory controller that this process may use
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `echo $$ >"$1"/cgroup.procs; exec "$2"`, "sh", inner.path, "/proc/"+strconv.Itoa(os.Getpid())+"/exe")
	cmd.Env = append(os.Environ(), memoryEnv+"=1")
	out, err := cmd.Output()
	if got, _ := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64); err != nil || got != want {
		t.Errorf("MachineMemory() = %q, %v in a group of a limited one, want %d", out, err, want)
	}
	inner.remove()
	outer.remove()
}

// TestMemoryIsSampled limits memory as a user who cannot create control groups.
func TestMemoryIsSampled(t *testing.T) {
	t.Parallel()
	if got := asNobody(t, hog); got != "true -1 <nil>\n" {
		t.Errorf("memory above the limit = %q, want true", got)
	}
}

// TestKeeperIsClosed: a command cannot look into its keeper, which has the environment of other jobs, nor change it. It can look into itself.
func TestKeeperIsClosed(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"environ", "maps", "mem", "fd/3", "cwd/"} {
		look := "ls -l /proc/%s/" + file + " && head -c 0 /proc/%[1]s/" + file
		if file == "fd/3" || file == "cwd/" {
			look = "readlink /proc/%s/" + strings.TrimSuffix(file, "/")
		}
		if got := asNobody(t, "exec 3</dev/null; "+fmt.Sprintf(look, "$$")); got != "false 0 <nil>\n" {
			t.Errorf("%s of the command: %q", file, got)
		}
		if got := asNobody(t, "! { "+fmt.Sprintf(look, "$PPID")+"; }"); got != "false 0 <nil>\n" {
			t.Errorf("%s of the keeper: %q, want it closed", file, got)
		}
	}
}

func TestPause(t *testing.T) { //nolint:paralleltest // it stops the commands of all keepers
	f := newFixture(t)
	f.script("setsid sh -c 'echo >left; while :; do echo >>ticks; sleep 0.01; done' & wait")
	f.await("ticks")
	Pause()
	f.until("all processes are stopped", func() bool {
		n := 0
		for _, p := range processes() {
			environ, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
			if err == nil && bytes.Contains(environ, []byte(f.token+"\x00")) && (p.state == 'T' || p.state == 'D') { // D: its vfork child is stopped
				n++
			}
		}
		return n == f.alive()
	})
	Continue()
	if err := os.Remove(f.path("ticks")); err != nil {
		t.Error(err)
	}
	f.await("ticks")
	Pause()
	f.keeper.Stop(time.Minute)
	if end, err := f.keeper.Wait(); err != nil || end.Status.Signal() != syscall.SIGTERM {
		t.Errorf("a stop while paused: Wait() = %+v, %v, want SIGTERM", end, err)
	}
}
