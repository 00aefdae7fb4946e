package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/client"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// cluster is a leader with its workers, each a process.
type cluster struct {
	*lab

	leader  *process
	address string
	known   string // addresses of leaders for workers and the command line, separated by commas
	client  *client.Client
}

// newCluster starts a leader.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{lab: newLab(t)}
	c.startLeader()
	return c
}

// in returns the same cluster with another folder.
func (c *cluster) in(l *lab) *cluster {
	own := *c
	own.lab = l
	return &own
}

// startLeader starts the leader at its previous address, and waits until it accepts writes.
func (c *cluster) startLeader() { c.t.Helper(); c.startLeaderIn(c.path("leader")) }

func (c *cluster) startLeaderIn(dir string) {
	c.t.Helper()
	listen := c.address
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	file := c.path("leader.addr")
	if err := os.RemoveAll(file); err != nil {
		c.t.Fatal(err)
	}
	c.leader = c.start("leader", "leader", "--data-dir", dir, "--listen", listen, "--address-file", file)
	c.connect(c.leader.addressIn(file))
}

// connect waits until the leader at address is ready.
func (c *cluster) connect(address string) {
	c.t.Helper()
	c.address, c.known = address, address
	if c.client == nil {
		var err error
		if c.client, err = client.New([]string{c.address}, client.Options{Patience: patience}); err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(c.client.Close)
	}
	until(c.t, "the leader is ready", func() bool { code, _ := c.get("/readyz"); return code == http.StatusOK })
}

// addressIn returns the address that the process writes to a file.
func (p *process) addressIn(file string) string {
	p.t.Helper()
	var address string
	until(p.t, p.name+" listens", func() bool {
		if p.hasEnded() {
			p.t.Fatalf("%s has ended with exit code %d: %s", p.name, p.cmd.ProcessState.ExitCode(), p.readStderr())
		}
		address = strings.TrimSpace(readFile(p.t, file))
		return address != ""
	})
	return address
}

// worker starts a worker, with a data directory of that name.
func (c *cluster) worker(name string, flags ...string) *process {
	c.t.Helper()
	args := []string{"worker", "--data-dir", c.path(name), "--leader", c.known}
	if !strings.Contains(strings.Join(flags, " "), "--slots") {
		args = append(args, "--slots", "2")
	}
	if !transport.IsLoopback(c.address) {
		args = append(args, "--insecure")
	}
	return c.start(name, append(args, flags...)...)
}

// workers starts n workers, and waits until they are alive.
func (c *cluster) workers(n int, flags ...string) []*process {
	c.t.Helper()
	var list []*process
	for i := range n {
		list = append(list, c.worker("worker-"+strconv.Itoa(i+1), flags...))
	}
	c.untilAlive(n)
	return list
}

// untilAlive waits until n workers are alive.
func (c *cluster) untilAlive(n int) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("%d workers are alive", n), func() bool { return c.alive() == n })
}

func (c *cluster) alive() int {
	n := 0
	for _, w := range c.listWorkers() {
		if w.Status == api.WorkerAlive {
			n++
		}
	}
	return n
}

func (c *cluster) listWorkers() []api.Worker {
	c.t.Helper()
	list, err := c.client.Workers(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return list
}

// cli runs a subcommand of the binary on this cluster.
func (c *cluster) cli(args ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	return c.run([]string{"BRIDGEFOUR_CLUSTER=" + c.known}, args...)
}

// get sends a GET request to the leader.
func (c *cluster) get(path string) (code int, body string) {
	c.t.Helper()
	return c.request(http.MethodGet, "http://"+c.address+path, "")
}

// request sends one HTTP request; code 0: no answer.
func (c *cluster) request(method, url, body string) (code int, answer string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// submit submits a job, which must be accepted.
func (c *cluster) submit(r *api.JobRequest) uint64 {
	c.t.Helper()
	if r.Dir == "" {
		r.Dir = c.dir
	}
	job, err := c.client.Submit(c.t.Context(), r, "")
	if err != nil {
		c.t.Fatalf("submit: %v %+v", err, problemOf(err))
	}
	return job.ID
}

// refused submits a job, which must be refused, and returns the text of the problem.
func (c *cluster) refused(r *api.JobRequest) string {
	c.t.Helper()
	job, err := c.client.Submit(c.t.Context(), r, "")
	if err == nil {
		c.t.Fatalf("submit was accepted as job %d", job.ID)
	}
	text := err.Error()
	for _, field := range problemOf(err).Errors {
		text += "\n" + field.Location + ": " + field.Message
	}
	return text
}

func problemOf(err error) *api.Problem {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p
	}
	return &api.Problem{}
}

func (c *cluster) job(id uint64) api.Job {
	c.t.Helper()
	job, err := c.client.Job(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return job
}

// ends waits for the end of a job.
func (c *cluster) ends(id uint64) api.Job {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	job, err := c.client.Wait(ctx, id)
	if err != nil {
		c.t.Fatalf("wait for job %d: %v; it is %+v", id, err, c.job(id))
	}
	return job
}

// done waits for the end of a job, which must be done.
func (c *cluster) done(id uint64) api.Job {
	c.t.Helper()
	job := c.ends(id)
	if job.Status != api.JobDone {
		c.t.Fatalf("job %d is %s: %s", id, job.Status, job.Error)
	}
	return job
}

// fails waits for the end of a job, which must have failed.
func (c *cluster) fails(id uint64) api.Job {
	c.t.Helper()
	job := c.ends(id)
	if job.Status != api.JobFailed {
		c.t.Fatalf("job %d is %s, want failed", id, job.Status)
	}
	return job
}

// current is a job as of now, also if another client has submitted or changed it: without that, a client may be answered from before. What it reads afterwards is no
// older.
func (c *cluster) current(id uint64) (job api.Job) {
	c.t.Helper()
	raw, err := c.client.Raw(c.t.Context(), fmt.Sprintf("/v1/jobs/%d?consistency=strong", id))
	if err = errors.Join(err, json.Unmarshal(raw, &job)); err != nil {
		c.t.Fatal(err)
	}
	return job
}

// untilMap waits until the counts of a job's map stage satisfy is.
func (c *cluster) untilMap(id uint64, what string, is func(s api.Stage) bool) {
	c.t.Helper()
	// Current: a leader with a hung disk forwards writes, so that a client stays with it, and answers reads from before the hang.
	until(c.t, fmt.Sprintf("job %d: %s", id, what), func() bool { return is(c.current(id).Stages[0]) })
}

func (c *cluster) tasks(id uint64, q api.TaskQuery) []api.Task {
	c.t.Helper()
	if q.Limit == 0 {
		q.Limit = api.TaskLimitMax
	}
	var list []api.Task
	for task, err := range c.client.Tasks(c.t.Context(), id, q) {
		if err != nil {
			c.t.Fatal(err)
		}
		list = append(list, task)
	}
	return list
}

// result returns the result of an ended job.
func (c *cluster) result(id uint64) string {
	c.t.Helper()
	body, err := c.client.Result(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	defer body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}
