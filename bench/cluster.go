package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
)

const (
	loopback     = "127.0.0.1"
	clusterSlots = 2 // the figures are those of two cores
)

// cluster is leaders and workers, as processes of their own. Requests without another server are for its first leader.
type cluster struct {
	server

	b     *bench
	dir   string
	addrs []string   // of the leaders
	args  [][]string // their command lines
	procs []*exec.Cmd
}

// onCluster is the row of a cluster of so many leaders and workers.
func onCluster(leaders, workers int, measure func(*cluster) (string, error)) func(*bench) (string, error) {
	return func(b *bench) (string, error) {
		c, err := b.startCluster(leaders, workers, loopback)
		if err != nil {
			return "", err
		}
		defer c.stop()
		return measure(c)
	}
}

// startCluster starts leaders that listen on host, and workers, and waits until one leads and the workers are registered. Beyond loopback
// they encrypt their connections.
func (b *bench) startCluster(leaders, workers int, host string) (c *cluster, err error) {
	c = &cluster{b: b}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if c.dir, err = os.MkdirTemp(b.dir, "cluster-"); err != nil {
		return nil, err
	}
	var peers []string
	for i := range leaders {
		addr, err := freeAddr(b.ctx)
		if err != nil {
			return nil, err
		}
		c.addrs = append(c.addrs, addr)
		peers = append(peers, fmt.Sprintf("%d=%s", i+1, addr))
	}
	c.server = c.at(0)
	for i, addr := range c.addrs {
		_, port, _ := net.SplitHostPort(addr) // as the listener had it
		args := []string{"leader", "--data-dir", filepath.Join(c.dir, "leader-"+strconv.Itoa(i+1)), "--listen", net.JoinHostPort(host, port)}
		if leaders > 1 {
			args = append(args, "--id", strconv.Itoa(i+1), "--peers", strings.Join(peers, ","))
		}
		c.args, c.procs = append(c.args, args), append(c.procs, nil)
		if err := c.start(i); err != nil {
			return nil, err
		}
	}
	leading, err := c.leading()
	if err != nil {
		return nil, err
	}
	to := []string{"--leader", strings.Join(c.addrs, ",")}
	if host != loopback {
		join, err := b.command("token", "create", "--role", "worker", "--cluster", c.url).Output()
		if err != nil {
			return nil, err
		}
		to = []string{"--join", strings.TrimSpace(string(join))}
	}
	for range workers {
		w, err := c.startWorker(to...)
		if err != nil {
			return nil, err
		}
		c.procs = append(c.procs, w)
	}
	return c, c.at(leading).until(func(h *api.Cluster) bool { return h.Workers >= workers })
}

func freeAddr(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", loopback+":0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start starts a leader.
func (c *cluster) start(i int) error {
	c.procs[i] = c.b.command(c.args[i]...)
	return c.procs[i].Start()
}

// startWorker starts a worker that finds the leaders as to says.
func (c *cluster) startWorker(to ...string) (*exec.Cmd, error) {
	dir, err := os.MkdirTemp(c.dir, "worker-")
	if err != nil {
		return nil, err
	}
	cmd := c.b.command(append([]string{"worker", "--data-dir", dir, "--slots", strconv.Itoa(clusterSlots)}, to...)...)
	return cmd, cmd.Start()
}

func kill(cmd *exec.Cmd) {
	if cmd != nil && cmd.Process != nil {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}
}

func (c *cluster) stop() {
	for _, p := range c.procs {
		kill(p)
	}
}

// leading waits until all leaders agree on one of them that accepts writes, and returns its index.
func (c *cluster) leading() (int, error) {
	for range 2000 {
		time.Sleep(10 * time.Millisecond)
		agreed, ready := map[uint64]int{}, false
		for i := range c.addrs {
			var h api.Cluster
			if err := c.at(i).get("/v1/cluster", &h); err == nil {
				agreed[h.Leader]++
				ready = ready || h.Node == h.Leader && h.NotReady == ""
			}
		}
		for id, n := range agreed {
			if id != 0 && n == len(c.addrs) && ready {
				return int(id) - 1, nil //nolint:gosec // a small number
			}
		}
	}
	return 0, errors.New("no leader was elected")
}

// server is a leader of a cluster.
type server struct {
	ctx context.Context //nolint:containedctx // of the bench
	url string
}

func (c *cluster) at(i int) server { return server{c.b.ctx, transport.URL(c.addrs[i])} }

// until waits for a state of the cluster, in the view of this leader.
func (s server) until(reached func(*api.Cluster) bool) error {
	for range 6000 {
		var h api.Cluster
		if err := s.get("/v1/cluster", &h); err == nil && reached(&h) {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("the cluster does not get there in 30 s")
}

func (s server) get(path string, into any) error {
	return s.do(http.DefaultClient, http.MethodGet, path, "", into)
}

func (s server) post(path, body string, into any) error {
	return s.do(http.DefaultClient, http.MethodPost, path, body, into)
}

func (s server) do(client *http.Client, method, path, body string, into any) error {
	return s.request(client, method, path, body, func(answer io.Reader) error { return json.NewDecoder(answer).Decode(into) })
}

// send is a request whose answer has no body.
func (s server) send(client *http.Client, method, path, body string) error {
	return s.request(client, method, path, body, func(io.Reader) error { return nil })
}

func (s server) request(client *http.Client, method, path, body string, read func(answer io.Reader) error) error {
	req, err := http.NewRequestWithContext(s.ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	if err := read(resp.Body); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	return err
}

func jobPath(job *api.Job) string { return fmt.Sprintf("/v1/jobs/%d", job.ID) }

func (s server) submit(body string) (job api.Job, err error) {
	err = s.post("/v1/jobs", body, &job)
	return job, err
}

// submitRange submits AlwaysOk over a range of n numbers.
func (s server) submitRange(n int) (api.Job, error) {
	return s.submit(fmt.Sprintf(`{"program":{"builtin":"AlwaysOk"},"range":{"from":1,"to":%d}}`, n))
}

// wait waits until a job is done.
func (s server) wait(job *api.Job) error {
	for !job.IsEnded() {
		if err := s.get(jobPath(job)+"?wait=30s", job); err != nil {
			return err
		}
	}
	if job.Status != api.JobDone {
		return fmt.Errorf("job %d: %s", job.ID, job.Status)
	}
	return nil
}

// timeNoop times a job of a million no-op tasks, from the submit until it is reported done.
func (s server) timeNoop() (time.Duration, error) {
	start := time.Now()
	job, err := s.submitRange(noopTasks)
	if err == nil {
		err = s.wait(&job)
	}
	return time.Since(start), err
}

// timeReads appends the durations of reads of a job, one after each pause, to times: n of them, or until the job has ended.
func (s server) timeReads(job *api.Job, n int, pause time.Duration, times []time.Duration) ([]time.Duration, error) {
	next := time.NewTicker(pause)
	defer next.Stop()
	for i := 0; n > 0 && i < n || n == 0 && !job.IsEnded(); i++ {
		<-next.C
		start := time.Now()
		if err := s.get(jobPath(job), job); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	return times, nil
}

// cpuTime returns the CPU time of a process; the kernel counts it in hundredths of a second.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
