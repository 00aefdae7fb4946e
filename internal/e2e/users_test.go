package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// other is a second user of the machine, without rights.
const other = 65534

// otherUser returns a lab whose commands are another user's.
func otherUser(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	dir, err := os.MkdirTemp("", "bridgefour-other-") //nolint:usetesting // the parent of t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, other, other); err != nil {
		t.Fatal(err)
	}
	return &lab{t: t, dir: dir, user: other}
}

// curl sends a request as the lab's user, and returns the status and the body of the answer.
func (l *lab) curl(args ...string) (status, body string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	out, err := l.commandOf(ctx, "curl", append([]string{"-sS", "-w", "\n%{http_code}"}, args...)...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("curl %q: %v: %s", args, err, out)
	}
	at := strings.LastIndexByte(string(out), '\n')
	return string(out)[at+1:], string(out)[:at]
}

// TestOtherUsers: a server on loopback serves its own user and root, and refuses all others, with what to do.
func TestOtherUsers(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	o := otherUser(t)
	c := newCluster(t)
	at := c.path("worker.addr")
	w := c.worker("worker-1", "--address-file", at)
	worker := w.addressIn(at)
	c.untilAlive(1)

	job := `{"program":{"command":["id"]},"range":{"from":1,"to":1}}`
	for name, args := range map[string][]string{
		"read":   {"http://" + c.address + "/v1/jobs"},
		"submit": {"http://" + c.address + "/v1/jobs", "-H", "Content-Type: application/json", "-d", job},
		"start":  {"http://" + c.address + "/job/start", "-d", `{"name":"x","jobClass":"AlwaysOk","input":"/","output":"/tmp/x"}`},
		"invite": {"http://" + worker + "/worker/invite", "-d", `{"leaders":["127.0.0.1:1"]}`},
		"state":  {"http://" + worker + "/worker/state"},
	} {
		status, body := o.curl(args...)
		if status != "401" {
			t.Errorf("%s: another user gets %s %s, want 401", name, status, body)
		}
		wantText(t, body, "root", "bridgefour token create")
		if status, body := c.curl(args[0]); name == "read" && status != "200" {
			t.Errorf("%s: this user gets %s %s, want 200", name, status, body)
		}
	}
	if code, _, stderr := o.run([]string{"BRIDGEFOUR_CLUSTER=" + c.address}, "submit", "--range", "1-3", "--", "id"); code == 0 || !strings.Contains(stderr, "not authenticated") {
		t.Errorf("submit of another user: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := o.run([]string{"BRIDGEFOUR_CLUSTER=unix:" + c.path("leader.sock")}, "jobs"); code != 6 || !strings.Contains(stderr, "belongs to another user") {
		t.Errorf("the socket of another user: exit code %d, %s", code, stderr)
	}
	stranger := o.start("stranger", "worker", "--data-dir", o.path("worker"), "--leader", c.address)
	until(t, "the worker of another user is refused", func() bool { return strings.Contains(stranger.readStderr(), "not authenticated") })
	if n := len(c.listWorkers()); n != 1 {
		t.Errorf("there are %d workers, want 1", n)
	}
	if code, _ := c.get("/v1/jobs"); code != http.StatusOK {
		t.Errorf("the jobs: %d", code)
	}
	if id := c.submit(trivial()); id != 1 {
		t.Errorf("the first job has number %d", id)
	}

	// The other user's own server serves root.
	file := o.path("dev.addr")
	dev := o.start("dev", "dev", "--listen", "127.0.0.1:0", "--address-file", file)
	at = "BRIDGEFOUR_CLUSTER=" + dev.addressIn(file)
	if code, _, stderr := o.run([]string{at}, "submit", "--wait", "--range", "1-1", "--", "true"); code != 0 {
		t.Errorf("submit of the user: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := c.run([]string{at}, "job", "1"); code != 0 {
		t.Errorf("root: exit code %d, %s", code, stderr)
	}

	// But a worker of root does not run what the other user's leader sends it.
	lured := c.start("lured", "worker", "--data-dir", c.path("lured"), "--leader", dev.addressIn(file))
	until(t, "the worker refuses the leader", func() bool { return strings.Contains(lured.readStderr(), "belongs to another user") })
	if strings.Contains(lured.readStderr(), "worker joined") {
		t.Error("the worker has joined another user's leader")
	}
	dev.signal(syscall.SIGTERM)
	dev.wantExit(0)
}

// TestFilesAreClosed: what leaders, workers and runs write can be read by no other user.
func TestFilesAreClosed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.worker("worker-1")
	c.untilAlive(1)
	c.done(c.submit(trivial()))
	logs := &api.JobRequest{Range: numbers(1), Program: item(log("to the log"), printItem, "false")}
	c.fails(c.submit(logs))
	file := c.path("dev.addr")
	dev := c.start("dev", "dev", "--listen", "127.0.0.1:0", "--address-file", file)
	at := "BRIDGEFOUR_CLUSTER=" + dev.addressIn(file)
	if code, _, stderr := c.run([]string{at}, "submit", "--wait", "--range", "1-2", "--", "echo"); code != 0 {
		t.Fatal(stderr)
	}
	if code, _, _ := c.run(nil, "run", "--retries", "0", "--range", "1-2", "--", "false"); code != 1 { // its state is kept
		t.Fatalf("exit code %d", code)
	}
	for _, dir := range []string{"leader", "worker-1", "state/bridgefour"} {
		open := sh(t, c.dir, `test -d "$1" && find "$1" -ignore_readdir_race -perm /077 ! -type l`, dir)
		if len(open) > 0 {
			t.Errorf("open to other users:\n%s", open)
		}
	}
	sockets := string(sh(t, c.dir, "find . -type s"))
	wantText(t, sockets, "./leader/leader.sock", "./state/bridgefour/dev/leader.sock")
}
