package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

var containLong = flag.Bool("contain.long", false, "let attempts of servers also time out, which takes some seconds")

// leavers is the number of tasks of a job whose first attempts each start a process in another way to leave them.
const leavers = 7

// leaving writes the job's scripts and returns its program. The last step is that of the first attempts, once their processes have begun;
// later attempts only print their item.
func (l *lab) leaving(last step) []string {
	l.t.Helper()
	write(l.t, l.path("left.sh"), `trap '' TERM HUP INT; echo >>"$1/begun"; while :; do echo LATE; sleep 0.05; done`)
	write(l.t, l.path("leave.sh"), `
if [ $B4_ATTEMPT = 1 ]; then
	left="sh $1/left.sh $1 $2"
	case $2 in
	1) $left & ;;
	2) timeout 1000 $left & ;;
	3) setsid $left & ;;
	4) bash -c "set -m; $left & exit 0" ;;
	5) nohup $left & ;;
	6) (setsid sh -c "($left &); exit 0" &) ;;
	7) python3 -c 'import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)' $left ;;
	esac
	until [ -e "$1/begun" ] && [ $(wc -l <"$1/begun") -ge `+fmt.Sprint(leavers)+` ]; do sleep 0.05; done
	`+string(last)+`
fi
echo $2
`)
	return []string{"sh", l.path("leave.sh"), l.dir, "{}"}
}

func (l *lab) begun() bool {
	l.t.Helper()
	return exists(l.path("begun")) && marks(l.t, l.path("begun")) == leavers
}

func (l *lab) untilBegun() {
	l.t.Helper()
	until(l.t, "all processes have begun", l.begun)
}

// untilBegunIn starts attempts with a timeout, 0 for none, and waits until their processes have begun. If the attempts have ended before, on a slow machine, it
// starts others with twice the time.
func untilBegunIn(t *testing.T, timeout time.Duration, start func(timeout time.Duration) (l *lab, ended func() bool)) {
	t.Helper()
	for begun := false; !begun; timeout *= 2 {
		l, ended := start(timeout)
		until(t, "all processes have begun", func() bool {
			begun = l.begun()
			return begun || timeout > 0 && ended()
		})
	}
}

// untilGone waits until none of the processes is left. In these tests nothing else ends them.
func (l *lab) untilGone() {
	l.t.Helper()
	var left []string
	until(l.t, "no process is left", func() bool {
		left = l.left()
		return len(left) == 0
	})
}

func (l *lab) left() (left []string) {
	l.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, file := range files {
		argv, err := os.ReadFile(file) // it may have ended
		if err == nil && bytes.Contains(argv, []byte(l.path("left.sh"))) {
			left = append(left, string(bytes.ReplaceAll(argv, []byte{0}, []byte{' '})))
		}
	}
	return left
}

// wantItems checks that each part has the item of its task, and nothing else.
func (l *lab) wantItems(out string) {
	l.t.Helper()
	for i := range leavers {
		path := filepath.Join(out, fmt.Sprintf("part-%05d", i))
		lines := strings.Split(strings.TrimSpace(readFile(l.t, path)), "\n")
		// In the order in which they are written: what is killed may have written before.
		if last := lines[len(lines)-1]; last != fmt.Sprint(i+1) && last != "LATE" || strings.Count(readFile(l.t, path), fmt.Sprint(i+1)) != 1 {
			l.t.Errorf("%s holds %q, want the item %d once", path, lines, i+1)
		}
	}
}

const forever step = "sleep 1000"

// attemptEnds are the ways in which attempts end by themselves.
var attemptEnds = map[string]struct {
	last    step
	timeout time.Duration // 0: none
	text    string        // of the failure; empty: success
}{
	"success": {last: ":"},
	"failure": {last: "exit 1", text: "exit status 1"},
	"timeout": {last: forever, timeout: 4 * time.Second, text: "timed out"},
	"killer":  {last: "kill -9 $PPID; sleep 1000", text: "must not kill its parent"},
}

// TestRunContains ends an embedded run in each way while its tasks have started processes that leave them.
func TestRunContains(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, last step, timeout time.Duration) (l *lab, p *process) {
		t.Helper()
		untilBegunIn(t, timeout, func(timeout time.Duration) (*lab, func() bool) {
			l = newLab(t)
			args := []string{"run", "--slots", fmt.Sprint(leavers), "--retries", "0", "--grace", "100ms", "--range", fmt.Sprintf("1-%d", leavers), "--output", "out"}
			if timeout > 0 {
				args = append(args, "--timeout", timeout.String())
			}
			p = l.start("run", append(append(args, "--"), l.leaving(last)...)...)
			return l, p.hasEnded
		})
		return l, p
	}
	for name, test := range attemptEnds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, p := start(t, test.last, test.timeout)
			if test.text == "" {
				p.wantExit(0)
				l.wantItems(l.path("out"))
			} else {
				p.wantExit(1)
				wantText(t, p.readStderr(), test.text)
			}
			if left := l.left(); len(left) > 0 {
				t.Errorf("the run has ended, and left %q", left)
			}
		})
	}
	for name, signal := range map[string]syscall.Signal{
		"interrupt": syscall.SIGINT, "hangup": syscall.SIGHUP, "termination": syscall.SIGTERM, "kill": syscall.SIGKILL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, p := start(t, forever, 0)
			p.signal(signal)
			if signal == syscall.SIGKILL {
				p.wantExit(-1)
			} else {
				p.wantExit(130)
				wantText(t, p.readStderr(), "run --resume")
			}
			l.untilGone()
		})
	}
}

// TestServersContain ends attempts in each way on a worker and on dev, which live on, and then these in the ways that remain.
func TestServersContain(t *testing.T) {
	t.Parallel()
	slots := fmt.Sprint(leavers * (len(attemptEnds) + 1))
	for server, start := range map[string]func(t *testing.T) (*cluster, *process){
		"worker": func(t *testing.T) (*cluster, *process) {
			t.Helper()
			c := newCluster(t)
			return c, c.worker("worker", "--slots", slots)
		},
		"dev": func(t *testing.T) (*cluster, *process) {
			t.Helper()
			c := &cluster{lab: newLab(t)}
			dev := c.start("dev", "dev", "--data-dir", c.path("dev"), "--listen", "127.0.0.1:0", "--address-file", c.path("addr"), "--workers", "1", "--slots", slots)
			c.connect(dev.addressIn(c.path("addr")))
			return c, dev
		},
	} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			shared, p := start(t)
			shared.untilAlive(1)
			begin := func(t *testing.T, last step, timeout time.Duration) (c *cluster, id uint64) {
				t.Helper()
				untilBegunIn(t, timeout, func(timeout time.Duration) (*lab, func() bool) {
					c = shared.in(newLab(t))
					r := &api.JobRequest{
						Range: numbers(leavers), Grace: "100ms", Retries: new(0), Output: c.path("out"), Program: api.Program{Command: c.leaving(last)},
					}
					if timeout > 0 {
						r.Timeout = timeout.String()
					}
					id = c.submit(r)
					return c.lab, func() bool { return c.job(id).IsEnded() }
				})
				return c, id
			}
			t.Run("attempts", func(t *testing.T) {
				for name, test := range attemptEnds {
					if test.timeout > 0 && !*containLong {
						continue // it takes that long
					}
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						c, id := begin(t, test.last, test.timeout)
						if test.text == "" {
							c.done(id)
							c.wantItems(c.path("out"))
						} else {
							wantText(t, c.fails(id).Error, test.text)
						}
						if left := c.left(); len(left) > 0 {
							t.Errorf("the job has ended, and left %q", left)
						}
					})
				}
			})
			c, id := begin(t, forever, 0)
			if code, _, stderr := c.cli("stop", fmt.Sprint(id)); code != 0 {
				t.Fatalf("stop: exit code %d: %s", code, stderr)
			}
			c.untilGone()
			c, _ = begin(t, forever, 0)
			p.signal(syscall.SIGTERM)
			p.signal(syscall.SIGINT) // without waiting for its tasks
			p.wantExit(130)
			c.untilGone()
		})
	}
}

// TestClusterContains ends the attempts of a worker in each way while they have started processes that leave them. What the processes write
// is in no other attempt's output.
func TestClusterContains(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(c *cluster, w *process, id uint64){
		"worker killed": func(c *cluster, w *process, _ uint64) {
			w.kill()
			c.untilGone()
			c.worker("worker-2", "--slots", fmt.Sprint(leavers))
		},
		"drain": func(c *cluster, w *process, _ uint64) {
			c.worker("worker-2", "--slots", fmt.Sprint(leavers))
			w.signal(syscall.SIGTERM)
			c.untilGone()
			w.wantExit(0)
		},
		"stale lease": func(c *cluster, w *process, id uint64) {
			w.signal(syscall.SIGSTOP)
			c.worker("worker-2", "--slots", fmt.Sprint(leavers))
			c.done(id)
			w.signal(syscall.SIGCONT)
			c.untilGone()
		},
		"stop": func(c *cluster, _ *process, id uint64) {
			if code, _, stderr := c.cli("stop", fmt.Sprint(id)); code != 0 {
				c.t.Fatalf("stop: exit code %d: %s", code, stderr)
			}
			c.untilGone()
			c.ends(id)
			if code, _, stderr := c.cli("retry", fmt.Sprint(id)); code != 0 {
				c.t.Fatalf("retry: exit code %d: %s", code, stderr)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			w := c.worker("worker-1", "--slots", fmt.Sprint(leavers))
			id := c.submit(&api.JobRequest{
				Range: numbers(leavers), Grace: "100ms", Output: c.path("out"),
				Program: api.Program{Command: c.leaving(`[ -e "$1/again" ] || { echo >>"$1/waiting"; sleep 1000; }`)},
			})
			waiting := c.path("waiting")
			until(t, "all tasks wait", func() bool { return exists(waiting) && marks(t, waiting) >= leavers })
			write(t, c.path("again"), "")
			end(c, w, id)
			c.done(id)
			c.wantItems(c.path("out"))
		})
	}
}

// TestRunPaused stops and continues a run as Ctrl-Z and fg do, with a process that has left its task.
func TestRunPaused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	write(t, l.path("wait.sh"), `echo >>"$1/begun"; until [ -e "$1/gate" ]; do sleep 0.02; done; echo $B4_ATTEMPT`)
	p := l.start("run", "run", "-q", "--range", "1-1", "--output", "out", "--", "timeout", "1000", "setsid", "-w", "sh", l.path("wait.sh"), l.dir)
	until(t, "the task has begun", func() bool { return exists(l.path("begun")) })
	state := func(pid int) string {
		_, after, _ := strings.Cut(readFile(t, fmt.Sprintf("/proc/%d/stat", pid)), ") ")
		return after[:min(1, len(after))]
	}
	script, err := strconv.Atoi(strings.TrimSpace(string(sh(t, l.dir, "pgrep -oxf 'sh "+l.path("wait.sh")+" .*'"))))
	if err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTSTP)
	until(t, "the run is stopped", func() bool { return state(p.cmd.Process.Pid) == "T" })
	until(t, "the task is stopped", func() bool { return strings.Contains("TD", state(script)) }) // D: its vfork child is stopped
	write(t, l.path("gate"), "")
	p.signal(syscall.SIGCONT)
	p.wantExit(0)
	if got := readFile(t, l.path("out", "part-00000")); got != "1\n" {
		t.Errorf("the part holds %q, want the first attempt", got)
	}
}

// TestDevSurvivesItsTasks has tasks kill their parents, and dev with them.
func TestDevSurvivesItsTasks(t *testing.T) {
	t.Parallel()
	c := &cluster{lab: newLab(t)}
	dev := c.start("dev", "dev", "--data-dir", c.path("dev"), "--listen", "127.0.0.1:0", "--address-file", c.path("addr"), "--workers", "1",
		"--slots", fmt.Sprint(leavers))
	c.connect(dev.addressIn(c.path("addr")))
	code, _, stderr := c.cli("submit", "--wait", "--retries", "2", "--range", "1-4", "--", "sh", "-c", `if [ $1 = 2 ]; then kill -9 $PPID; sleep 1000; fi; echo $1`, "sh")
	if code != 1 {
		t.Errorf("submit: exit code %d, want 1", code)
	}
	wantText(t, stderr, "1/map/1 (2), 3 attempts: the process that contains the command")
	if code, _, stderr := c.cli("submit", "--wait", "--range", "1-10", "--", "true"); code != 0 {
		t.Errorf("submit: exit code %d, want 0: %s", code, stderr)
	}
	code, _, _ = c.cli(append([]string{"submit", "--range", fmt.Sprintf("1-%d", leavers), "--"}, c.leaving(forever)...)...)
	if code != 0 {
		t.Errorf("submit: exit code %d, want 0", code)
	}
	c.untilBegun()
	dev.kill()
	c.untilGone()
}

// TestFirstProcess runs dev as the first process of a container: it waits for orphans of other processes, and passes on signals.
func TestFirstProcess(t *testing.T) {
	t.Parallel()
	needRoot(t, "create a PID namespace")
	l := newLab(t)
	dev := l.launch("dev", l.commandOf(context.Background(), "unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
		binary, "dev", "--data-dir", l.path("dev"), "--listen", "127.0.0.1:0", "--address-file", l.path("addr")))
	dev.addressIn(l.path("addr"))
	first := strings.TrimSpace(string(sh(t, l.dir, fmt.Sprintf("pgrep -P %d", dev.cmd.Process.Pid))))
	sh(t, l.dir, `nsenter -t `+first+` -p sh -c 'for i in 1 2 3; do setsid sh -c "(sleep 0.1; echo >>ended) & exit 0"; done'`)
	until(t, "the orphans end", func() bool { return exists(l.path("ended")) && marks(t, l.path("ended")) == 3 })
	until(t, "only dev is a child of the first process", func() bool {
		return len(strings.Fields(string(sh(t, l.dir, "pgrep -P "+first)))) == 1
	})
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	dev.wantExit(0)
}
