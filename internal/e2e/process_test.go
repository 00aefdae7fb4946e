package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test, built once.
var binary string

var givenBinary = flag.String("binary", "", "test this binary instead of building one, for example one with a planted bug")

func TestMain(m *testing.M) {
	flag.Parse()
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		if signal.Ignored(sig) { // by a shell that has started the tests in its background, or by nohup: the processes of the tests must not inherit that
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	os.Exit(buildAndRun(m))
}

// buildAndRun builds the binary like the tests, and runs them.
func buildAndRun(m *testing.M) int {
	if *givenBinary != "" {
		binary = *givenBinary
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "bridgefour-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)                      //nolint:errcheck // the system removes temporary files too
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // other users run the binary too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(dir, "bridgefour")
	args := []string{"build", "-o", binary, "../../cmd/bridgefour"}
	if raceDetector {
		args = append(args[:1:1], append([]string{"-race"}, args[1:]...)...)
	}
	build := exec.CommandContext(context.Background(), "go", args...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program under test:", err)
		return 1
	}
	return m.Run()
}

// patience is the timeout of conditions that must become true; only a broken program reaches it, however slow the machine.
const patience = 2 * time.Minute

// until polls until is returns true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	ticks := time.NewTicker(10 * time.Millisecond)
	defer ticks.Stop()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		<-ticks.C
	}
}

// process is a running bridgefour. Its output goes to files: a reader of pipes would wait for processes that it leaves behind.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	stdout string // paths
	stderr string
	ended  chan struct{} // closed when it has ended and was waited for
}

// lab is the folder of one test, and the environment of its processes.
type lab struct {
	t    *testing.T
	dir  string
	user int // of its processes; 0: this one

	mu      sync.Mutex
	started int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &lab{t: t, dir: dir}
}

// path returns a path in the lab.
func (l *lab) path(name ...string) string { return filepath.Join(append([]string{l.dir}, name...)...) }

// command returns a command of the binary, in the lab.
func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	return l.commandOf(ctx, binary, args...)
}

// commandOf is a program with arguments, in the lab.
func (l *lab) commandOf(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = l.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + l.path("home"), "XDG_STATE_HOME=" + l.path("state"), "USER=kaladin",
		"TMPDIR=" + os.TempDir(), "LC_ALL=C", "GORACE=halt_on_error=1 atexit_sleep_ms=0",
	}
	if l.user != 0 {
		id := uint32(l.user) //nolint:gosec // a small constant
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	return cmd
}

// start starts the binary, which is killed at the end of the test if it still runs.
func (l *lab) start(name string, args ...string) *process {
	l.t.Helper()
	return l.launch(name, l.command(context.Background(), args...))
}

func (l *lab) launch(name string, cmd *exec.Cmd) *process {
	l.t.Helper()
	l.mu.Lock()
	l.started++
	base := l.path(fmt.Sprintf("%s.%d", name, l.started))
	l.mu.Unlock()
	p := &process{
		t: l.t, name: filepath.Base(base), cmd: cmd, stdout: base + ".stdout", stderr: base + ".stderr", ended: make(chan struct{}),
	}
	stdout, err := os.Create(p.stdout)
	if err != nil {
		l.t.Fatal(err)
	}
	stderr, err := os.Create(p.stderr)
	if err != nil {
		l.t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	if err := p.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // its ProcessState says how it ended
		_, _ = stdout.Close(), stderr.Close()
	}()
	l.t.Cleanup(p.cleanUp)
	return p
}

func (p *process) cleanUp() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
	text := p.readStderr()
	if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		p.t.Errorf("%s reports a data race or a panic", p.name)
	}
	if p.t.Failed() {
		p.t.Logf("%s (%s)\nstdout: %s\nstderr: %s", p.name, strings.Join(p.cmd.Args[1:], " "), tail(p.readStdout()), tail(text))
	}
}

// tail returns the end of a text.
func tail(text string) string {
	const most = 20_000
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}

func (p *process) readStderr() string { return readFile(p.t, p.stderr) }
func (p *process) readStdout() string { return readFile(p.t, p.stdout) }

// kill kills the process with SIGKILL.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.ended
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %v to %s: %v", s, p.name, err)
	}
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// wait waits for the end of the process and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	until(p.t, p.name+" ends", p.hasEnded)
	return p.cmd.ProcessState.ExitCode()
}

// wantExit waits for the end of the process and checks its exit code.
func (p *process) wantExit(code int) {
	p.t.Helper()
	if got := p.wait(); got != code {
		p.t.Fatalf("%s: exit code %d, want %d\nstderr: %s", p.name, got, code, tail(p.readStderr()))
	}
}

// run runs the binary to its end, with additional environment variables.
func (l *lab) run(env []string, args ...string) (code int, stdout, stderr string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := l.command(ctx, args...)
	cmd.Env = append(cmd.Env, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		l.t.Fatal(err)
	}
	if strings.Contains(errs.String(), "DATA RACE") {
		l.t.Errorf("%q reports a data race: %s", args, errs.String())
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// readFile returns a file's text; empty if there is none.
func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// write writes a file, and creates its folder.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// sh runs a shell command of the oracle: coreutils and the like, which share no code with the program under test.
func sh(t *testing.T, dir, script string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sh -c %q: %v: %s", script, err, errs.String())
	}
	return out
}
