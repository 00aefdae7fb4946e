package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// screen is a real terminal: a window of tmux that runs a shell command.
type screen struct {
	t      *testing.T
	socket string
}

func (l *lab) screen(columns int, command string) *screen {
	l.t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		l.t.Skip("there is no tmux on this machine")
	}
	s := &screen{t: l.t, socket: l.path("tmux")}
	l.t.Cleanup(func() { _ = exec.Command("tmux", "-S", s.socket, "kill-server").Run() }) //nolint:noctx // ends at once
	s.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(columns), "-y", "20", "-c", l.dir, "-e", "XDG_STATE_HOME="+l.path("state"), "-e", "LC_ALL=C.UTF-8",
		"seq -f 'line %g' 20; "+command+"; echo exit $?; sleep 600") // tmux moves the lines of a screen that is not full into its history when it becomes narrower
	return s
}

func (s *screen) tmux(args ...string) string {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), "tmux", append([]string{"-u", "-S", s.socket}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// lines are the lines on the screen and above it that the command has written, without empty ones.
func (s *screen) lines() (lines []string) {
	for line := range strings.Lines(s.tmux("capture-pane", "-p", "-S", "-100")) {
		if line = strings.TrimRight(line, " \n"); line != "" && !strings.HasPrefix(line, "line ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// resize changes the width of the terminal.
func (s *screen) resize(columns int) {
	s.t.Helper()
	s.tmux("resize-window", "-x", fmt.Sprint(columns))
}

// wants waits until the screen has these lines and, if status is not empty, below them one that begins with it.
func (s *screen) wants(status string, want ...string) {
	s.t.Helper()
	var got []string
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the screen has\n%s", strings.Join(got, "\n"))
		}
	}()
	until(s.t, fmt.Sprintf("%q and %q on the screen", want, status), func() bool {
		got = s.lines()
		if status != "" && (len(got) == 0 || !strings.HasPrefix(got[len(got)-1], status)) {
			return false
		}
		all := got
		if status != "" {
			all = got[:len(got)-1]
		}
		return strings.Join(all, "\n") == strings.Join(want, "\n")
	})
}

// TestTerminal watches a run on a terminal whose width changes: the progress is one line below the outputs, and the outputs are whole.
func TestTerminal(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.screen(100, binary+" run --slots 1 --range 1-6 --name '世界世界世界' -- sh -c 'while [ ! -e gate$0 ]; do sleep 0.05; done; echo 世界 $0' {}")
	s.wants("job 1 map: 0 of 6 tasks done · 1 running")
	var outputs []string
	for i, columns := range []int{30, 12, 100, 45, 20} {
		s.resize(columns)
		write(t, l.path(fmt.Sprintf("gate%d", i+1)), "")
		outputs = append(outputs, fmt.Sprintf("世界 %d", i+1))
		status := fmt.Sprintf("job 1 map: %d of 6 tasks done", i+1)
		s.wants(status[:min(len(status), columns-2)], outputs...)
	}
	s.resize(100)
	write(t, l.path("gate6"), "")
	s.wants("", append(outputs, "世界 6", "exit 0")...)
}

// TestTerminalFailure: an output without a newline, and a failure, in color unless that is not wanted.
func TestTerminalFailure(t *testing.T) {
	t.Parallel()
	for _, env := range []string{"", "NO_COLOR=1", "TERM=dumb"} {
		l := newLab(t)
		s := l.screen(100, "env "+env+" "+binary+" run --slots 1 --range 1-3 --retries 0 -- sh -c 'printf %s $0; [ $0 != 2 ] || { echo bad >&2; exit 9; }' {}")
		until(t, "the end", func() bool { return strings.Contains(strings.Join(s.lines(), "\n"), "exit 1") })
		text := strings.Join(s.lines(), "\n")
		for _, want := range []string{"failed: 1/map/1 (2), 1 attempt: exit status 9\n    bad\n", "job 1 failed: 1 of 3 tasks\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q: the screen has\n%s\nwant %q", env, text, want)
			}
		}
		if strings.Contains(text, "job 1 map") {
			t.Errorf("%q: the progress is left on the screen:\n%s", env, text)
		}
		if got, want := strings.Contains(s.tmux("capture-pane", "-p", "-e"), "\x1b[31m"), env == ""; got != want {
			t.Errorf("%q: red is %v, want %v", env, got, want)
		}
	}
}

// TestTerminalLock: what is typed at a shell goes to the shell, and not to the command of a lock in its background; in the foreground it goes to the command.
func TestTerminalLock(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash on this machine")
	}
	c := newCluster(t)
	for _, test := range []struct{ after, ready, command, shell string }{
		{" &", "command: <>", "command: <>", "first second third"},
		{"", "held", "command: <echo first>", "second third"},
	} {
		s := c.screen(200, "PS1='$ ' bash --norc --noediting -i")
		enter := func(lines ...string) {
			for _, line := range lines {
				s.tmux("send-keys", line, "Enter")
			}
		}
		enter(binary + " lock x --cluster " + c.known + " -- sh -c 'echo held; read line; echo \"command: <$line>\"'" + test.after)
		until(t, test.ready, func() bool { // maybe behind a prompt
			return slices.ContainsFunc(s.lines(), func(line string) bool { return strings.HasSuffix(line, test.ready) })
		})
		enter("echo first", "echo second", "echo third", "exit", "exit")
		until(t, "the end", func() bool { return slices.Contains(s.lines(), "exit 0") })
		var command string
		var shell []string
		for _, line := range s.lines() {
			line = strings.TrimPrefix(line, "$ ")
			switch {
			case strings.HasPrefix(line, "command: "):
				command = line
			case line == "first" || line == "second" || line == "third":
				shell = append(shell, line)
			}
		}
		if got := strings.Join(shell, " "); command != test.command || got != test.shell {
			t.Errorf("lock%s: %s, and the shell had %q; want %s and %q", test.after, command, got, test.command, test.shell)
		}
	}
}
