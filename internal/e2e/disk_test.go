package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// disk is a small file system of one test.
type disk struct {
	t   *testing.T
	dir string
}

// newDisk mounts a disk of so many MiB, as root.
func newDisk(t *testing.T, dir string, size int) *disk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("left out: only root can mount a small file system to fill")
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", size), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("left out: a small file system cannot be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		// Lazily: a killed process may need a moment to close its files.
		if out, err := exec.CommandContext(context.Background(), "umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("unmount %s: %v: %s", dir, err, out)
		}
	})
	return &disk{t, dir}
}

func (d *disk) resize(size int) {
	d.t.Helper()
	if out, err := exec.CommandContext(d.t.Context(), "mount", "-o", fmt.Sprintf("remount,size=%dm", size), d.dir).CombinedOutput(); err != nil {
		d.t.Fatalf("remount %s: %v: %s", d.dir, err, out)
	}
}

// TestOutputDiskFull: a job whose output disk is full fails, and names it; other jobs continue. With room again, a retry runs the failed
// tasks.
func TestOutputDiskFull(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	d := newDisk(t, c.path("small"), 5)
	c.workers(1)
	out := c.path("small", "out")
	l := c.ledger("ledger")
	id := c.submit(&api.JobRequest{
		Range: numbers(4), Output: out, Retries: new(1), Program: item(l.record(), `head -c 2000000 /dev/zero | tr '\000' $1`),
	})
	words := c.submit(&api.JobRequest{
		Inputs: book1(t, c), Split: "2KiB", Output: c.path("small", "words"), Retries: new(0), Program: api.Program{Builtin: "wordcount"},
	})
	other := c.submit(&api.JobRequest{Range: numbers(8), Output: c.path("elsewhere"), Program: item(printItem)})
	c.done(other)
	job := c.fails(id)
	wantText(t, job.Error, out, "no space left on device", "make room", "run the failed tasks again")
	for _, task := range c.tasks(id, api.TaskQuery{Status: api.TaskDead}) {
		if last := task.Failures[len(task.Failures)-1]; last.Kind != "output_error" {
			t.Errorf("%s: %+v, want output_error", task.Name, last)
		}
	}
	_, stdout, _ := c.cli("explain", fmt.Sprint(id))
	wantText(t, stdout, out, "retry")
	begun, done := l.count(), map[int]bool{}
	for _, task := range c.tasks(id, api.TaskQuery{Stage: "map", Status: api.TaskDone}) {
		done[int(task.Index)] = true
	}
	if len(done) == 0 || len(done) == 4 {
		t.Errorf("%d of 4 tasks are done, want some", len(done))
	}
	for _, name := range names(t, out) {
		if name != "_temporary" {
			t.Errorf("a failed job leaves %s", name)
		}
	}
	d.resize(64)
	if job := c.ends(words); job.Status == api.JobFailed {
		wantText(t, job.Error, c.path("small", "words"), "no space left")
		c.retry(words)
	}
	c.retry(id)
	c.done(id)
	c.done(words)
	wantNumbers(t, out, 4, `head -c 2000000 /dev/zero | tr '\000' $1`)
	for task, n := range l.count() {
		if done[task] && n != begun[task] {
			t.Errorf("task %d was done, and is run again", task)
		}
	}
	wantNames(t, c.path("small"), "out", "words")
}

// book1 is the book in one file.
func book1(t *testing.T, c *cluster) []string {
	t.Helper()
	return book(t, c.path("book"), 1)
}

func (c *cluster) retry(id uint64) {
	c.t.Helper()
	if _, err := c.client.Retry(c.t.Context(), id); err != nil {
		c.t.Fatal(err)
	}
}

// TestLogDiskFull: a leader whose log has no room refuses writes, with the cause; with room again it continues, and everything
// acknowledged is there.
func TestLogDiskFull(t *testing.T) {
	t.Parallel()
	c := &cluster{lab: newLab(t)}
	dir := c.path("small")
	newDisk(t, dir, 80)
	c.startLeaderIn(dir)
	c.workers(1)
	running := c.submit(&api.JobRequest{Range: numbers(4), Output: c.path("out"), Program: item(waitFor(c.path("gate")), printItem)})

	// The disk is filled with a file, and then the log with jobs.
	filler := c.path("small", "filler")
	fill(t, filler)
	acknowledged := map[uint64]string{}
	var refused string
	big := strings.Repeat("x", 100_000) // a little less than an environment variable may have
	until(t, "a submit is refused", func() bool {
		name := fmt.Sprintf("job %d", len(acknowledged))
		code, body := c.request(http.MethodPost, "http://"+c.address+"/v1/jobs",
			fmt.Sprintf(`{"name":%q,"program":{"command":["true"]},"range":{"from":1,"to":1},"set":{"big":%q}}`, name, big))
		switch code {
		case http.StatusCreated:
			acknowledged[idOf(t, body)] = name
			return false
		case http.StatusServiceUnavailable:
			refused = body
			return true
		default:
			t.Fatalf("submit = %d %s", code, body)
			return false
		}
	})
	wantText(t, refused, `"status":503`, "no room", dir, "make room")
	code, body := c.get("/readyz")
	if code != http.StatusServiceUnavailable {
		t.Errorf("readyz = %d %s, want 503", code, body)
	}
	wantText(t, body, "no room", dir, "make room")
	if code, _ := c.get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz = %d, want 200: a restart would not help", code)
	}
	_, stdout, _ := c.cli("cluster")
	wantText(t, stdout, "not ready", "no room")
	if exit, _, stderr := c.cli("submit", "--range", "1-2", "--", "echo"); exit != 4 || !strings.Contains(stderr, "no room") {
		t.Errorf("submit: exit code %d: %s", exit, stderr)
	}
	// Running tasks continue, and end once that can be logged.
	write(t, c.path("gate"), "")

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	until(t, "the leader is ready again", func() bool { code, _ := c.get("/readyz"); return code == http.StatusOK })
	c.done(running)
	wantOutput(t, c.path("out"), each(t, []string{"1", "2", "3", "4"}, `echo $1`))
	after := c.submit(&api.JobRequest{Range: numbers(1), Program: item(printItem)})
	c.done(after)

	c.leader.kill()
	c.startLeaderIn(dir)
	t.Logf("%d jobs were acknowledged before the log was full", len(acknowledged))
	for id, name := range acknowledged {
		if job := c.done(id); job.Name != name {
			t.Errorf("job %d is %q, want %q", id, job.Name, name)
		}
	}
	if got := c.result(after); got != "1\n" {
		t.Errorf("result of the job after it: %q", got)
	}
}

// TestRunDiskFull: an embedded run whose log has no room says so, also if it is quiet, and continues when there is some.
func TestRunDiskFull(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	dir := l.path("state")
	newDisk(t, dir, 80)
	p := l.start("run", "run", "-q", "--range", "1-3", "--slots", "1", "--shell", sequence([]step{mark(l.path("begun")), waitFor(l.path("gate")), "echo {}"}))
	until(t, "the first task runs", func() bool { return marks(t, l.path("begun")) == 1 })
	filler := l.path("state", "filler")
	fill(t, filler)
	until(t, "the run says what it waits for", func() bool { return strings.Contains(p.readStderr(), "no room for the log") })
	wantText(t, p.readStderr(), dir, "make room")
	write(t, l.path("gate"), "")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p.wantExit(0)
	if got := p.readStdout(); got != "1\n2\n3\n" {
		t.Errorf("the run printed %q", got)
	}
}

// fill fills the disk with a file.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a full disk is what is wanted
	block := make([]byte, 64<<10)
	for {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
}

// idOf returns the job number in the answer to a submit.
func idOf(t *testing.T, body string) uint64 {
	t.Helper()
	var id uint64
	if _, err := fmt.Sscanf(strings.TrimSpace(body), `{"id":%d,`, &id); err != nil {
		t.Fatalf("no number in %s", body)
	}
	return id
}
