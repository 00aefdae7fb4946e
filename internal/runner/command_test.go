//go:build linux

package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/keeper"
	"github.com/bridgefour/bridgefour/internal/wire"
)

func newCommandFixture(t *testing.T, job *wire.Job, argv ...string) *fixture {
	t.Helper()
	job.Program = commandProgram(argv...)
	return newFixture(t, job)
}

func shell(t *testing.T, job *wire.Job, script string) *fixture {
	t.Helper()
	return newCommandFixture(t, job, "sh", "-c", script)
}

func TestCommandOutput(t *testing.T) {
	big := strings.Repeat("a line of text\n", 20_000) + "end"
	for _, spool := range []bool{true, false} {
		f := newCommandFixture(t, &wire.Job{Spool: spool}, "cat")
		for _, text := range []string{"", "one\n", "", "no end", big, ""} {
			path := writeFile(t, t.TempDir(), "input", text)
			out := f.run(t.Context(), wholeFile(path))
			f.want(out, text)
			if out.InputBytes != uint64(len(text)) {
				t.Errorf("Run().InputBytes = %d, want %d", out.InputBytes, len(text))
			}
		}
		if want := map[bool]int{true: 3, false: 6}[spool]; len(f.files()) != want {
			t.Errorf("spool %v: files = %q, want %d", spool, f.files(), want)
		}
	}
}

// TestCommandInput covers all kinds of standard input: the file itself, a part of it, its decompressed content.
func TestCommandInput(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("a line of text\n", 50_000)
	plain := writeFile(t, dir, "plain", text)
	packed := writeFile(t, dir, "packed.gz", gzipped(t, text))
	f := newCommandFixture(t, &wire.Job{}, "cat")
	for _, test := range []struct {
		split *wire.Split
		want  string
	}{
		{wholeFile(plain), text},
		{fileSplit(plain, 0, int64(len(text))), text},
		{fileSplit(plain, 0, 20), text[:30]},
		{fileSplit(plain, 10, 20), text[15:30]},
		{fileSplit(plain, 100, int64(len(text)-100)), text[105:]},
		{wholeFile(packed), text},
	} {
		f.want(f.run(t.Context(), test.split), test.want)
	}
}

// TestCommandIgnoresInput runs commands that end before their input.
func TestCommandIgnoresInput(t *testing.T) {
	text := strings.Repeat("a line of text\n", 200_000)
	path := writeFile(t, t.TempDir(), "packed.gz", gzipped(t, text))
	f := newCommandFixture(t, &wire.Job{}, "head", "-n1")
	f.want(f.run(t.Context(), wholeFile(path)), "a line of text\n")
	f = newCommandFixture(t, &wire.Job{}, "true")
	f.want(f.run(t.Context(), wholeFile(path)), "")
}

func TestCommandBadInput(t *testing.T) {
	dir := t.TempDir()
	whole := gzipped(t, strings.Repeat("some text\n", 100_000))
	cut := writeFile(t, dir, "cut.gz", whole[:len(whole)-9])
	f := newCommandFixture(t, &wire.Job{}, "cat")
	f.wantFailure(f.run(t.Context(), wholeFile(cut)), wire.FailureKind_BAD_INPUT, cut, "ends too early")
	f.wantFailure(f.run(t.Context(), wholeFile(dir)), wire.FailureKind_BAD_INPUT, dir, "is a directory")
	gone := filepath.Join(dir, "gone")
	f.wantFailure(f.run(t.Context(), wholeFile(gone)), wire.FailureKind_BAD_INPUT, gone, "no such file")
	f.want(f.run(t.Context(), wholeFile(writeFile(t, dir, "ok", "fine"))), "fine")
}

func TestCommandArguments(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, dir, "na me\n\xff", "text")
	for _, test := range []struct {
		argv  []string
		split *wire.Split
		want  string
	}{
		{[]string{"printf", "%s|", "a"}, itemSplit("it em\xff"), "a|it em\xff|"},
		{[]string{"printf", "%s|", "a{}b{}", "c", "{}"}, itemSplit("X"), "aXbX|c|X|"},
		{[]string{"printf", "%s|"}, itemSplit("{}"), "{}|"},
		{[]string{"printf", "%s|"}, nil, "103|"},
		{[]string{"printf", "%s|", "n={}"}, nil, "n=103|"},
		{[]string{"printf", "%s|", "{}"}, wholeFile(path), path + "|"},
		{[]string{"sh", "-c", `cat; printf "%s" "$0"`, "{}"}, wholeFile(path), path}, // no standard input
		{[]string{"{}", "arg"}, itemSplit("echo"), "arg\n"},
	} {
		f := newCommandFixture(t, &wire.Job{Range: true, RangeFrom: 100}, test.argv...)
		f.want(f.run(t.Context(), test.split), test.want)
	}
	// The one task of a job without input has no item.
	f := newCommandFixture(t, &wire.Job{}, "echo", "alone", "<{}>")
	f.want(f.run(t.Context(), nil), "alone <>\n")
	f = newCommandFixture(t, &wire.Job{}, "echo", "alone")
	f.want(f.run(t.Context(), nil), "alone\n")
}

func TestCommandEnvironment(t *testing.T) {
	t.Setenv("B4_SET_OLD", "of the job that this worker is a command of")
	t.Setenv("OWN", "of the worker")
	t.Setenv("LANG", "of the worker")
	dir := t.TempDir()
	job := &wire.Job{Dir: dir, Fence: 42, Settings: map[string]string{"min-size": "4 MB", "x": "\xff"}, Env: map[string]string{"A": "1", "LANG": "of the job"}}
	f := shell(t, job, `env | LC_ALL=C grep -a -v -e ^PATH= -e ^HOME= -e ^USER= -e ^TZ= -e ^TMPDIR= -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= | LC_ALL=C sort; pwd`)
	path := writeFile(t, dir, "input", "text\n")
	want := func(offset, length string) string {
		return fmt.Sprintf("A=1\nB4_ATTEMPT=2\nB4_INPUT=%s\nB4_JOB=12\nB4_LENGTH=%s\nB4_LOCK_FENCE=42\nB4_OFFSET=%s\nB4_OUTPUT=%s\n"+
			"B4_SET_MIN_SIZE=4 MB\nB4_SET_X=\xff\nB4_STAGE=map\nB4_TASK=3\nB4_WORKER=7\nLANG=of the job\n%s\n", path, length, offset, f.output, dir)
	}
	f.want(f.run(t.Context(), fileSplit(path, 0, 4)), want("0", "4"))
	f.want(f.run(t.Context(), wholeFile(path)), want("", ""))
}

// TestCommandTemp: each attempt has a folder for temporary files, which is removed with what is in it.
func TestCommandTemp(t *testing.T) {
	f := shell(t, &wire.Job{}, `cd "$TMPDIR" && ls -A && touch file && echo "$TMPDIR"`)
	temp := f.slot.keeper.Temp
	for range 2 {
		f.want(f.run(t.Context(), itemSplit("x")), temp+"\n")
	}
	if entries, err := os.ReadDir(temp); err != nil || len(entries) > 0 {
		t.Errorf("after an attempt the folder holds %v, %v", entries, err)
	}
	closeSlot(t, f.slot)
	if _, err := os.Stat(filepath.Dir(temp)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the last slot, its parent: %v", err)
	}
	f = shell(t, &wire.Job{Env: map[string]string{"TMPDIR": "/of/the/job"}}, `echo "$TMPDIR"`)
	f.want(f.run(t.Context(), itemSplit("x")), "/of/the/job\n")
}

// TestCommandConfinement: a job can be confined in a slot that also runs others.
func TestCommandConfinement(t *testing.T) {
	if err := keeper.Check(keeper.Confinement{Sandbox: true, NoNetwork: true}, filepath.Join(t.TempDir(), "b4", "temp")); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	f := shell(t, &wire.Job{}, "")
	for _, test := range []struct {
		job  *wire.Job
		want string
	}{
		{&wire.Job{Sandbox: true}, "refused\nNoNewPrivs:\t1\n"},
		{&wire.Job{}, "written\nNoNewPrivs:\t0\n"},
		{&wire.Job{Sandbox: true, NoNetwork: true}, "refused\nNoNewPrivs:\t1\n"},
		{&wire.Job{NoNetwork: true}, "written\nNoNewPrivs:\t1\n"},
	} {
		f.job = test.job
		f.job.Id, f.job.Uid, f.job.Output, f.job.Dir = 12, "uid", f.output, dir
		f.job.Program = commandProgram("sh", "-c", `(echo x >file) 2>/dev/null && echo written || echo refused; grep NoNewPrivs: /proc/self/status`)
		f.want(f.run(t.Context(), itemSplit("x")), test.want)
	}
}

func TestCommandFailures(t *testing.T) {
	for _, test := range []struct {
		script string
		kind   wire.FailureKind
		texts  []string
	}{
		{"echo partial; echo why >&2; exit 3", wire.FailureKind_PROGRAM_ERROR, []string{"exit status 3\nwhy"}},
		{"exit 65", wire.FailureKind_BAD_INPUT, []string{"exit status 65"}},
		{"kill -KILL $$", wire.FailureKind_PROGRAM_ERROR, []string{"killed by signal 9 (killed); by the kernel if here ran out of memory"}},
		{"kill -SEGV $$", wire.FailureKind_PROGRAM_ERROR, []string{"killed by signal 11 (segmentation fault)"}},
		{`printf 'a\377b' >&2; exit 1`, wire.FailureKind_PROGRAM_ERROR, []string{"exit status 1\na\uFFFDb"}},
		{"nosuchcommand", wire.FailureKind_PROGRAM_ERROR, []string{"exit status 127", "nosuchcommand"}},
	} {
		f := shell(t, &wire.Job{}, test.script)
		f.wantFailure(f.run(t.Context(), itemSplit("x")), test.kind, test.texts...)
	}
}

// TestCommandFailureThenSuccess checks that nothing of a failed attempt's output and log gets into the next one.
func TestCommandFailureThenSuccess(t *testing.T) {
	f := shell(t, &wire.Job{}, `cat; echo "log $(wc -c)" >&2; test "$B4_INPUT" = "$0"`)
	f.job.Program = commandProgram("sh", "-c", `printf "%s" "$1"; echo "log of $1" >&2; test "$1" != bad`, "sh")
	f.wantFailure(f.run(t.Context(), itemSplit("bad")), wire.FailureKind_PROGRAM_ERROR, "exit status 1\nlog of bad")
	f.want(f.run(t.Context(), itemSplit("good")), "good")
	if got := f.log.String(); got != "log of good\n" {
		t.Errorf("log = %q, want that of this attempt", got)
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "plain", "text")
	script := func(name, text string) string {
		path := writeFile(t, dir, name, text)
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script("noshebang", "echo by the shell $1")
	script("interpreter", "#!/no/such/interpreter\n")
	for _, test := range []struct {
		argv  []string
		item  string
		dir   string
		kind  wire.FailureKind
		texts []string
	}{
		{[]string{"grpe", "x"}, "x", dir, wire.FailureKind_BAD_PROGRAM, []string{`command "grpe" not found in PATH on here`}},
		{[]string{"./gone"}, "x", dir, wire.FailureKind_BAD_PROGRAM, []string{`command "./gone" not found on here`, dir}},
		{[]string{"../" + filepath.Base(dir)}, "x", dir, wire.FailureKind_BAD_PROGRAM, []string{`is a folder on here`}},
		{[]string{"./plain"}, "x", dir, wire.FailureKind_BAD_PROGRAM, []string{`"./plain" is not executable on here; chmod +x it`}},
		{[]string{"./interpreter"}, "x", dir, wire.FailureKind_BAD_PROGRAM, []string{"the interpreter named in its first line"}},
		{[]string{"{}"}, "grpe", dir, wire.FailureKind_BAD_PROGRAM, []string{`command "grpe" not found in PATH`}},
		{[]string{"true"}, "x", dir + "/gone", wire.FailureKind_BAD_PROGRAM, []string{"working directory", dir + "/gone", "no such file", "submit from"}},
		{[]string{"true"}, "x", dir + "/plain", wire.FailureKind_BAD_PROGRAM, []string{"working directory", "not a folder"}},
		{[]string{"true"}, "a\x00b", dir, wire.FailureKind_BAD_INPUT, []string{`"a\x00b" contains a NUL byte`}},
		{[]string{"true"}, strings.Repeat("x", 1<<20), dir, wire.FailureKind_BAD_INPUT, []string{"too long", "the item has 1048576 bytes", "128 KiB"}},
		{[]string{"true", strings.Repeat("x", 1<<20)}, "x", dir, wire.FailureKind_BAD_INPUT, []string{"too long", "the command has 1048581 bytes"}},
	} {
		f := newCommandFixture(t, &wire.Job{Dir: test.dir}, test.argv...)
		f.wantFailure(f.run(t.Context(), itemSplit(test.item)), test.kind, test.texts...)
	}
	f := newCommandFixture(t, &wire.Job{Dir: dir}, "./noshebang")
	f.want(f.run(t.Context(), itemSplit("item")), "by the shell item\n")
}

// TestCommandIsFoundLater installs a command after an attempt has failed to find it.
func TestCommandIsFoundLater(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	f := newCommandFixture(t, &wire.Job{Range: true}, "b4testcommand")
	f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_BAD_PROGRAM, "not found in PATH")
	if err := os.Symlink("/bin/echo", filepath.Join(dir, "b4testcommand")); err != nil {
		t.Fatal(err)
	}
	f.want(f.run(t.Context(), nil), "3\n")
}

// timesOut runs a script that does not end by itself, with longer and longer timeouts, until its log has a text at its timeout: a slow machine
// needs long to start a shell.
func (f *fixture) timesOut(graceMs uint64, script, text string) (out Outcome, timeout time.Duration) {
	f.t.Helper()
	for timeout = 50 * time.Millisecond; ; timeout *= 2 {
		f.job = &wire.Job{
			Id: 12, Uid: "uid", Output: f.output, TimeoutMs: uint64(timeout.Milliseconds()), GraceMs: graceMs, Program: commandProgram("sh", "-c", script),
		}
		out = f.run(f.t.Context(), nil)
		if f.t.Failed() || strings.Contains(f.log.String(), text) {
			return out, timeout
		}
		f.wantFailure(out, wire.FailureKind_TIMEOUT)
	}
}

func TestCommandTimeout(t *testing.T) {
	f := shell(t, &wire.Job{}, "")
	out, timeout := f.timesOut(0, "echo partial; echo begun >&2; sleep 1000 & wait", "begun\n")
	f.wantFailure(out, wire.FailureKind_TIMEOUT, fmt.Sprintf("timed out after %v; its processes used ", timeout), " of CPU time\nbegun")
	out, timeout = f.timesOut(0, "trap '' TERM; echo begun >&2; while :; do sleep 0.1; done", "begun\n")
	f.wantFailure(out, wire.FailureKind_TIMEOUT, fmt.Sprintf("timed out after %v", timeout))
}

func TestCommandGrace(t *testing.T) {
	f := shell(t, &wire.Job{}, "")
	out, _ := f.timesOut(60_000, `trap 'sleep 0.5; echo cleaned >&2; exit 1' TERM; echo begun >&2; while :; do sleep 0.01; done`, "begun\n")
	f.wantFailure(out, wire.FailureKind_TIMEOUT, "cleaned")
	out, _ = f.timesOut(1, `trap 'sleep 1000; echo cleaned >&2; exit 1' TERM; echo begun >&2; while :; do sleep 0.01; done`, "begun\n")
	f.wantFailure(out, wire.FailureKind_TIMEOUT) // SIGKILL after 1 ms
}

// TestCommandCanceled cancels a running command and expects its whole process group to end.
func TestCommandCanceled(t *testing.T) {
	f := shell(t, &wire.Job{}, `sh -c 'echo $$ >&2; while :; do sleep 0.1; done' & wait`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.lease, f.log = 1, new(logged)
	begun := f.log.next()
	go func() {
		<-begun
		cancel()
	}()
	out := f.slot.Run(ctx, &Attempt{Job: f.job, StageName: "map", Index: 3, Lease: 1, Log: f.log})
	if !out.Canceled || out.Failure != nil || out.File != "" {
		t.Errorf("Run() = %+v, want it canceled", out)
	}
	wantGone(t, f.log.String())
	f.wantNoFiles()
}

// TestCommandWritesWhenStopped: the commit of its job may have removed the folder of outputs.
func TestCommandWritesWhenStopped(t *testing.T) {
	f := shell(t, &wire.Job{}, `trap 'echo late; exit' TERM; echo begun >&2; while :; do sleep 0.01; done`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.lease, f.log = 1, new(logged)
	begun := f.log.next()
	go func() {
		<-begun
		cancel()
	}()
	if out := f.slot.Run(ctx, &Attempt{Job: f.job, StageName: "map", Lease: 1, Log: f.log}); !out.Canceled {
		t.Errorf("Run() = %+v, want it canceled", out)
	}
	if _, err := os.Stat(f.folder()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was created again: %v", err)
	}
}

// TestCommandLeavesProcesses runs a command that ends while a process that has left its group writes.
func TestCommandLeavesProcesses(t *testing.T) {
	f := shell(t, &wire.Job{}, `setsid sh -c 'echo $$ >&2; echo >'"$0"'; while :; do echo late; done' & until [ -e "$0" ]; do sleep 0.01; done; rm "$0"; echo done`)
	f.job.Program.GetCommand().Argv = append(f.job.Program.GetCommand().GetArgv(), []byte(filepath.Join(t.TempDir(), "begun")))
	for range 3 {
		out := f.run(t.Context(), nil)
		if out.Failure != nil {
			t.Fatalf("Run() = %v", out.Failure)
		}
		pid, note, _ := strings.Cut(f.log.String(), "\n")
		if !strings.Contains(note, "killed 1 process that the command left behind") {
			pid, note = note, pid // the note may come first
		}
		wantGone(t, pid)
		if !strings.Contains(note, "killed 1 process that the command left behind") {
			t.Errorf("log = %q, want a note of the process", f.log)
		}
		got, err := os.ReadFile(string(out.File))
		if err != nil || uint64(len(got)) != out.Size || !strings.Contains(string(got), "done\n") {
			t.Errorf("the file has %d bytes, %v; Run().Size = %d", len(got), err, out.Size)
		}
	}
}

// TestOutputIsHeld gives the descriptors of a command to a process that is not of the attempt. The attempt fails, and what the process
// writes then is in no other attempt's output or log.
func TestOutputIsHeld(t *testing.T) {
	for _, end := range []string{"exit 1", "sleep 1000", "echo done; exit 0"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			f := shell(t, &wire.Job{}, `if [ "$1" = first ]; then echo $$ >pid.new; mv pid.new pid; cat go; `+end+`; else echo begin; echo begin >&2; cat go; echo end; fi`)
			f.job.Dir = t.TempDir()
			f.job.Program.GetCommand().Argv = append(f.job.Program.GetCommand().GetArgv(), []byte("sh"))
			fifo := filepath.Join(f.job.GetDir(), "go")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			var files []*os.File
			for timeout := uint64(500); files == nil; timeout *= 2 { // in which the other process has to open the files
				if strings.HasPrefix(end, "sleep") {
					f.job.TimeoutMs = timeout
				}
				ended, held := make(chan struct{}), make(chan []*os.File, 1)
				go func() { held <- holdOutput(f.job.GetDir(), ended) }()
				if out := f.run(t.Context(), itemSplit("first")); out.Failure == nil {
					t.Errorf("Run() = %+v, want a failure: a process can still write to the output", out)
				} else if strings.HasPrefix(end, "echo") && !strings.Contains(out.Failure.GetMessage(), errHeld.Error()) {
					t.Errorf("Run() = %v, want it to say %q", out.Failure, errHeld)
				}
				close(ended)
				if files = <-held; files == nil && f.job.GetTimeoutMs() == 0 {
					t.Fatal("the output of a command could not be opened")
				}
			}
			f.job.TimeoutMs = 0
			go func() { // the same job: its next attempt must not get the same pipe
				if err := os.WriteFile(fifo, nil, 0); err != nil { // the second attempt runs
					t.Error(err)
				}
				for _, file := range files {
					if _, err := file.WriteString("LATE\n"); !errors.Is(err, syscall.EPIPE) {
						t.Errorf("late write: %v, want %v", err, syscall.EPIPE)
					}
					_ = file.Close() // broken
				}
			}()
			f.want(f.run(t.Context(), itemSplit("second")), "begin\nend\n")
			if f.log.String() != "begin\n" {
				t.Errorf("log of the next attempt = %q, want begin", f.log)
			}
		})
	}
}

// holdOutput opens the output and the log of a command, which writes its process number into a folder and reads the fifo there then. Nil: the
// command has ended before.
func holdOutput(dir string, ended <-chan struct{}) (files []*os.File) {
	done := func(try func() error) bool {
		for try() != nil {
			select {
			case <-ended:
				return false
			default:
				time.Sleep(time.Millisecond)
			}
		}
		return true
	}
	path, pid := filepath.Join(dir, "pid"), []byte(nil)
	defer func() { _ = os.Remove(path) }() // the next command makes another one
	if !done(func() (err error) { pid, err = os.ReadFile(path); return err }) {
		return nil
	}
	for _, fd := range []string{"1", "2"} {
		file, err := os.OpenFile("/proc/"+strings.TrimSpace(string(pid))+"/fd/"+fd, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			for _, file := range files {
				_ = file.Close() // nothing was written
			}
			return nil
		}
		files = append(files, file)
	}
	done(func() error {
		fifo, err := os.OpenFile(filepath.Join(dir, "go"), os.O_WRONLY|syscall.O_NONBLOCK, 0) // fails until it is read
		if err == nil {
			err = fifo.Close()
		}
		return err
	})
	return files
}

// wantGone checks that a process has ended.
func wantGone(t *testing.T, pidLine string) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(pidLine))
	if err != nil {
		t.Fatalf("invalid process number %q", pidLine)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil && !strings.Contains(string(stat), ") Z ") && !strings.Contains(string(stat), ") X ") {
		t.Errorf("process %d still runs: %s", pid, stat)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		t.Error(err)
	}
}

func TestCommandLog(t *testing.T) {
	f := shell(t, &wire.Job{}, `for i in 1 2 3; do echo "line $i" >&2; done; printf "no end\377" >&2`)
	f.want(f.run(t.Context(), nil), "")
	if want := "line 1\nline 2\nline 3\nno end\xff"; f.log.String() != want {
		t.Errorf("log = %q, want %q", f.log, want)
	}
	f.job = &wire.Job{Id: 12, Uid: "uid", Output: f.output, Program: commandProgram("sh", "-c", "seq 100000 >&2")}
	f.want(f.run(t.Context(), nil), "")
	var all strings.Builder
	for i := range 100_000 {
		fmt.Fprintln(&all, i+1)
	}
	checkCut(t.Errorf, f.log.String(), all.String(), 4096)
}

// TestCommandLogWhileItRuns lets the command continue only when its log has arrived.
func TestCommandLogWhileItRuns(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	f := newCommandFixture(t, &wire.Job{}, "sh", "-c", `echo started >&2; cat "$0"`, gate)
	f.lease, f.log = 1, new(logged)
	arrived := f.log.next()
	opened := make(chan error, 1)
	go func() {
		<-arrived
		opened <- os.WriteFile(gate, []byte("go on"), 0)
	}()
	out := f.slot.Run(t.Context(), &Attempt{Job: f.job, StageName: "map", Index: 3, Lease: 1, Split: nil, Log: f.log})
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	f.want(out, "go on")
	if !strings.HasPrefix(f.log.String(), "started\n") {
		t.Errorf("log = %q", f.log)
	}
}

// TestCommandRunawayLog writes much more log than may be stored.
func TestCommandRunawayLog(t *testing.T) {
	f := shell(t, &wire.Job{}, "")
	out, _ := f.timesOut(0, "yes 'a line of the runaway log' >&2", "bytes cut …")
	f.wantFailure(out, wire.FailureKind_TIMEOUT, "a line of the runaway log")
	if got := len(f.log.String()); got > 4096+100 {
		t.Errorf("log has %d bytes, want at most 4096 and a mark", got)
	}
}

func TestLastLines(t *testing.T) {
	l := attemptLog{sizeMax: 4096}
	var sink logged
	l.begin(&sink)
	s := stderr{log: &l}
	for i := range 5000 {
		if _, err := fmt.Fprintf(&s, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	last := string(s.lastLines())
	if !strings.HasPrefix(last, "line ") || !strings.HasSuffix(last, "line 4998\nline 4999") || len(last) > lastLinesMax || cap(s.end) > 4*lastLinesMax {
		t.Errorf("last lines = %q", last)
	}
}

func TestCommandMemory(t *testing.T) {
	f := shell(t, &wire.Job{Memory: 64 << 20}, `x=$(head -c 200000000 /dev/zero | tr '\0' x); echo "$x" | wc -c; sleep 1000`)
	f.wantFailure(f.run(t.Context(), nil), wire.FailureKind_OUT_OF_MEMORY, "MiB of memory; the job allows 64.0 MiB")
}

// TestCommandOutputFolderIsRemoved removes the private folder between two attempts, as an abort before a retry does.
func TestCommandOutputFolderIsRemoved(t *testing.T) {
	f := shell(t, &wire.Job{Spool: true}, `echo "$1"`)
	f.job.Program = commandProgram("sh", "-c", `printf "%s" "$1"`, "sh")
	for range 2 {
		f.want(f.run(t.Context(), itemSplit("")), "")
		if err := os.RemoveAll(f.folder()); err != nil {
			t.Fatal(err)
		}
		f.want(f.run(t.Context(), itemSplit("text")), "text")
	}
}

func TestOutputInTheDataDirectory(t *testing.T) {
	f := newFixture(t, &wire.Job{Program: commandProgram("echo", "out")})
	f.slot.runner.dataDir = f.output
	out := f.run(t.Context(), nil)
	if out.Failure.GetKind() != wire.FailureKind_BAD_INPUT || !strings.Contains(out.Failure.GetMessage(), "is the data directory of this worker") {
		t.Errorf("Run() = %v, want a failure that is not retried and names the data directory", out.Failure)
	}
	f.job.Spool = true // the spool of a leader may share the folder
	if out := f.run(t.Context(), nil); out.Failure != nil {
		t.Errorf("Run() of a spooled job = %v, want success", out.Failure)
	}
}

func itemsSplit(values ...string) *wire.Split {
	items := &wire.Items{}
	for _, v := range values {
		items.Values = append(items.Values, []byte(v))
	}
	return &wire.Split{Kind: &wire.Split_Items{Items: items}}
}

// TestCommandPlaceholders: what reaches a command of each source. Package placeholder tests the forms.
func TestCommandPlaceholders(t *testing.T) {
	path := writeFile(t, t.TempDir(), "na me.txt", "text\n")
	one, two := []string{""}, []string{"id", ""}
	for _, test := range []struct {
		columns []string
		batch   bool
		command *wire.Command
		split   *wire.Split
		argv    []string
		want    string
	}{
		{nil, false, &wire.Command{Placeholders: 1}, wholeFile(path), []string{"sh", "-c", `cat; printf "%s" "$@"`, "{/.}", "{#}{%}", "{{}}"}, "text\n45{}"},
		{nil, false, &wire.Command{Placeholders: 1}, wholeFile(path), []string{"sh", "-c", `cat; printf "%s" "$1"`, "", "{}"}, path},
		{nil, false, &wire.Command{Placeholders: 2}, wholeFile(path), []string{"sh", "-c", "cat; echo {}"}, "text\n{}\n"},
		{nil, false, &wire.Command{Placeholders: 1, Shell: true}, wholeFile(path), []string{"sh", "-c", "cat {} | tr a-z A-Z"}, "TEXT\n"},
		{one, false, &wire.Command{Placeholders: 1}, itemSplit("a/b.c"), []string{"printf", "%s|", "{1/}", "{.}"}, "b.c|a/b|"},
		{one, false, &wire.Command{Placeholders: 1}, itemSplit("x"), []string{"printf", "%s|"}, "x|"},
		{one, false, &wire.Command{Placeholder: "@"}, itemSplit("x"), []string{"printf", "%s|", "@{}@"}, "x{}x|"},
		{one, false, &wire.Command{Placeholders: 2}, itemSplit("x"), []string{"printf", "%s|", "{}"}, "{}|x|"},
		{one, false, &wire.Command{Placeholders: 1, Shell: true}, itemSplit("it's"), []string{"sh", "-c", "printf '%s|'"}, "it's|"},
		{two, false, &wire.Command{Placeholders: 1}, itemsSplit("a", "b c"), []string{"printf", "%s|", "{}", "{id}-{2}"}, "a|b c|a-b c|"},
		{two, false, &wire.Command{Placeholders: 1}, itemsSplit("a", "b c"), []string{"sh", "-c", `printf "%s|" "$@" "$B4_INPUT"`, ""}, "a|b c|a\tb c|"},
		{one, true, &wire.Command{}, itemsSplit("a", "b c"), []string{"printf", "%s|", "{}"}, "a|b c|"},
		{one, true, &wire.Command{}, itemsSplit("a", "b c"), []string{"cat"}, "a\nb c\n"},
		{one, true, &wire.Command{}, itemSplit("a"), []string{"cat"}, "a\n"},
		{two, true, &wire.Command{}, itemsSplit("a", "1", "b", "2"), []string{"cat"}, "a\t1\nb\t2\n"},
		{one, true, &wire.Command{Placeholders: 1, Shell: true}, itemsSplit("a", "b c"), []string{"sh", "-c", "printf '%s|' {}"}, "a|b c|"},
	} {
		for _, arg := range test.argv {
			test.command.Argv = append(test.command.Argv, []byte(arg))
		}
		f := newFixture(t, &wire.Job{
			Columns: test.columns, Batch: test.batch, Program: &wire.Program{Kind: &wire.Program_Command{Command: test.command}},
		})
		f.lease = 1
		f.want(f.slot.Run(t.Context(), &Attempt{Job: f.job, StageName: "map", Index: 3, Lease: 1, Number: 1, Slot: 5, Split: test.split, Log: new(logged)}), test.want)
	}
	f := newCommandFixture(t, &wire.Job{}, "true")
	f.job.GetProgram().GetCommand().Placeholders = 99
	f.wantFailure(f.run(t.Context(), itemSplit("x")), wire.FailureKind_BAD_PROGRAM, "older than the leader")
}
