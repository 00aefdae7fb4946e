package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/worker"
	"github.com/bridgefour/bridgefour/jobs"
)

// faults is how many faults the rows with faults measure.
const faults = 30

// leaders is a cluster of several leader processes.
type leaders struct {
	b     *bench
	addrs []string
	args  [][]string
	procs []*exec.Cmd
}

// startLeaders starts n leaders and waits until one of them accepts writes.
func (b *bench) startLeaders(n int) (*leaders, error) {
	dir, err := os.MkdirTemp(b.dir, "leaders-")
	if err != nil {
		return nil, err
	}
	ls := &leaders{b: b, procs: make([]*exec.Cmd, n)}
	var peers []string
	for i := range n {
		addr, err := freeAddr(b.ctx)
		if err != nil {
			return nil, err
		}
		ls.addrs = append(ls.addrs, addr)
		peers = append(peers, fmt.Sprintf("%d=%s", i+1, addr))
	}
	for i, addr := range ls.addrs {
		args := []string{"leader", "--data-dir", filepath.Join(dir, strconv.Itoa(i+1)), "--listen", addr}
		if n > 1 {
			args = append(args, "--id", strconv.Itoa(i+1), "--peers", strings.Join(peers, ","))
		}
		ls.args = append(ls.args, args)
		if err := ls.start(i); err != nil {
			return nil, err
		}
	}
	if _, err := ls.leading(); err != nil {
		ls.stop()
		return nil, err
	}
	return ls, nil
}

func (ls *leaders) start(i int) error {
	cmd := ls.b.command(ls.args[i]...)
	ls.procs[i] = cmd
	return cmd.Start()
}

func (ls *leaders) kill(i int) {
	_ = ls.procs[i].Process.Signal(syscall.SIGKILL)
	_ = ls.procs[i].Wait()
}

// stop stops the leaders, and the workers of startWorking.
func (ls *leaders) stop() {
	for i := range ls.procs {
		ls.kill(i)
	}
}

// startWorking is startLeaders with a worker.
func (b *bench) startWorking(n int) (*leaders, error) {
	ls, err := b.startLeaders(n)
	if err != nil {
		return nil, err
	}
	w, err := ls.startWorker()
	if err != nil {
		ls.stop()
		return nil, err
	}
	ls.procs = append(ls.procs, w) // stopped with them
	return ls, nil
}

// leading waits until all nodes agree on a leader that accepts writes, and returns its index.
func (ls *leaders) leading() (int, error) {
	for range 2000 {
		time.Sleep(10 * time.Millisecond)
		agreed, ready := map[uint64]int{}, false
		for _, addr := range ls.addrs {
			var c api.Cluster
			if err := ls.at(addr).get(ls.b.ctx, "/v1/cluster", &c); err == nil {
				agreed[c.Leader]++
				ready = ready || c.Node == c.Leader && c.NotReady == ""
			}
		}
		for id, n := range agreed {
			if id != 0 && n == len(ls.addrs) && ready {
				return int(id) - 1, nil //nolint:gosec // a small number
			}
		}
	}
	return 0, errors.New("no leader was elected")
}

func (ls *leaders) at(addr string) *cluster { return &cluster{url: transport.URL(addr)} }

// startWorker starts a worker process for these leaders.
func (ls *leaders) startWorker() (*exec.Cmd, error) {
	dir, err := os.MkdirTemp(ls.b.dir, "worker-")
	if err != nil {
		return nil, err
	}
	cmd := ls.b.command("worker", "--data-dir", dir, "--leader", strings.Join(ls.addrs, ","), "--slots", "2")
	return cmd, cmd.Start()
}

// workers waits until the cluster has n alive workers in the view of the node at addr.
func (ls *leaders) workers(addr string, n int) error {
	for range 1000 {
		var c api.Cluster
		if err := ls.at(addr).get(ls.b.ctx, "/v1/cluster", &c); err == nil && c.Workers >= n {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%d workers did not register", n)
}

// accepts sends writes to addr, following redirects to the leader, until one is accepted.
func (ls *leaders) accepts(addr string) error {
	ctx, cancel := context.WithTimeout(ls.b.ctx, 30*time.Second)
	defer cancel()
	for {
		if _, err := ls.at(addr).submitRange(ctx, 1); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func spread(d []time.Duration) string {
	return fmt.Sprintf("median %v, p99 %v (%d)", median(d).Round(time.Millisecond), percentile(d, 99).Round(time.Millisecond), len(d))
}

// failover measures the time from kill -9 of the leader to the first write that another one accepts.
func (b *bench) failover() (string, error) {
	ls, err := b.startLeaders(3)
	if err != nil {
		return "", err
	}
	defer ls.stop()
	var times []time.Duration
	for range faults {
		old, err := ls.leading()
		if err != nil {
			return "", err
		}
		start := time.Now()
		ls.kill(old)
		if err := ls.accepts(ls.addrs[(old+1)%3]); err != nil {
			return "", err
		}
		times = append(times, time.Since(start))
		if err := ls.start(old); err != nil {
			return "", err
		}
	}
	return spread(times), nil
}

// detect measures the time from kill -9 of a worker until it is considered dead.
func (b *bench) detect() (string, error) {
	ls, err := b.startLeaders(1)
	if err != nil {
		return "", err
	}
	defer ls.stop()
	at := ls.at(ls.addrs[0])
	var times []time.Duration
	for range faults {
		w, err := ls.startWorker()
		if err != nil {
			return "", err
		}
		if err := ls.workers(ls.addrs[0], 1); err != nil {
			return "", err
		}
		start := time.Now()
		_ = w.Process.Kill()
		_ = w.Wait()
		for alive := true; alive; {
			time.Sleep(2 * time.Millisecond)
			var c api.Cluster
			if err := at.get(b.ctx, "/v1/cluster", &c); err != nil {
				return "", err
			}
			alive = c.Workers > 0
		}
		times = append(times, time.Since(start))
	}
	return spread(times), nil
}

// three runs the no-op job on one leader and on three, alternating.
func (b *bench) three() (string, error) {
	var clusters []*leaders
	for _, n := range []int{1, 3} {
		ls, err := b.startWorking(n)
		if err != nil {
			return "", err
		}
		defer ls.stop()
		clusters = append(clusters, ls)
	}
	times := make([][]time.Duration, len(clusters))
	for round := range b.runs + 1 {
		for i, ls := range clusters {
			leading, err := ls.leading()
			if err != nil {
				return "", err
			}
			if err := ls.workers(ls.addrs[leading], 1); err != nil {
				return "", err
			}
			d, err := ls.at(ls.addrs[leading]).timeNoop(b.ctx)
			if err != nil {
				return "", err
			}
			if round > 0 {
				times[i] = append(times[i], d)
			}
		}
	}
	rate := func(d []time.Duration) float64 { return noopTasks / median(d).Seconds() / 1e6 }
	return fmt.Sprintf("%.2f M/s against %.2f M/s: %.2f", rate(times[1]), rate(times[0]), medianRatio(times[0], times[1])), nil
}

// timeNoop runs the no-op job once.
func (c *cluster) timeNoop(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	job, err := c.submitRange(ctx, noopTasks)
	if err != nil {
		return 0, err
	}
	if job, err = c.wait(ctx, job.ID); err != nil || job.Status != api.JobDone {
		return 0, fmt.Errorf("job %s: %w", job.Status, err)
	}
	return time.Since(start), nil
}

// stale measures stale reads of a job's status at a follower while a million tasks run.
func (b *bench) stale() (string, error) {
	ls, err := b.startWorking(3)
	if err != nil {
		return "", err
	}
	defer ls.stop()
	leading, err := ls.leading()
	if err != nil {
		return "", err
	}
	if err := ls.workers(ls.addrs[leading], 1); err != nil {
		return "", err
	}
	follower := ls.at(ls.addrs[(leading+1)%3])
	var times []time.Duration
	for range b.runs {
		job, err := ls.at(ls.addrs[leading]).submitRange(b.ctx, noopTasks)
		if err != nil {
			return "", err
		}
		path := fmt.Sprintf("/v1/jobs/%d", job.ID)
		if err := follower.get(b.ctx, path+"?consistency=strong", &job); err != nil {
			return "", err
		}
		for !job.IsEnded() {
			time.Sleep(2 * time.Millisecond)
			start := time.Now()
			if err := follower.get(b.ctx, path, &job); err != nil {
				return "", err
			}
			times = append(times, time.Since(start))
		}
	}
	return fmt.Sprintf("p50 %v, p99 %v (%d reads)", percentile(times, 50), percentile(times, 99), len(times)), nil
}

// crew is many workers in this process, so that the cost of the leaders, which are processes of their own, is measured alone.
type crew struct {
	stop context.CancelCauseFunc
	done sync.WaitGroup
}

func (ls *leaders) startCrew(n, slots int) (*crew, error) {
	ctx, stop := context.WithCancelCause(ls.b.ctx)
	c := &crew{stop: stop}
	for range n {
		dir, err := os.MkdirTemp(ls.b.dir, "crew-")
		if err != nil {
			c.leave()
			return nil, err
		}
		w, err := worker.New(worker.Config{DataDir: dir, Leaders: ls.addrs, Slots: slots, Version: "bench", Jobs: jobs.All()})
		if err != nil {
			c.leave()
			return nil, err
		}
		c.done.Go(func() {
			_ = w.Run(ctx) // it ends with the crew
			_ = w.Close()
		})
	}
	return c, nil
}

func (c *crew) leave() {
	c.stop(worker.ErrStopNow)
	c.done.Wait()
}

// reattach measures the time from the first write that a new leader accepts until it has adopted 800 running attempts of 100 workers.
func (b *bench) reattach() (string, error) {
	const workers, slots = 100, 8
	ls, err := b.startLeaders(3)
	if err != nil {
		return "", err
	}
	defer ls.stop()
	c, err := ls.startCrew(workers, slots)
	if err != nil {
		return "", err
	}
	defer c.leave()
	job, err := ls.sleepers(workers * slots)
	if err != nil {
		return "", err
	}
	var times []time.Duration
	for range faults {
		old, err := ls.leading()
		if err != nil {
			return "", err
		}
		if err := ls.running(old, workers*slots); err != nil {
			return "", err
		}
		ls.kill(old)
		next := (old + 1) % 3
		if err := ls.accepts(ls.addrs[next]); err != nil {
			return "", err
		}
		start := time.Now()
		if err := ls.running(next, workers*slots); err != nil {
			return "", err
		}
		times = append(times, time.Since(start))
		if err := ls.start(old); err != nil {
			return "", err
		}
	}
	leading, err := ls.leading()
	if err != nil {
		return "", err
	}
	if err := ls.at(ls.addrs[leading]).get(b.ctx, fmt.Sprintf("/v1/jobs/%d", job.ID), &job); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; attempts run again: %d", spread(times), job.Stages[0].Retried), nil
}

// sleepers submits a job whose tasks, one per file, sleep longer than the bench takes.
func (ls *leaders) sleepers(n int) (api.Job, error) {
	dir := filepath.Join(ls.b.dir, "sleepers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return api.Job{}, err
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d", i)), []byte("word\n"), 0o644); err != nil { //nolint:gosec // not secret
			return api.Job{}, err
		}
	}
	leading, err := ls.leading()
	if err != nil {
		return api.Job{}, err
	}
	body := fmt.Sprintf(`{"program":{"builtin":"DelayedWordCount"},"inputs":[%q],"output":%q,"set":{"timeout":"3600"}}`, dir, filepath.Join(ls.b.dir, "slept"))
	req, err := http.NewRequestWithContext(ls.b.ctx, http.MethodPost, transport.URL(ls.addrs[leading])+"/v1/jobs", bytes.NewBufferString(body))
	if err != nil {
		return api.Job{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	var job api.Job
	return job, do(http.DefaultClient, req, &job)
}

// running waits until n slots are busy in the view of a leader.
func (ls *leaders) running(i, n int) error {
	for range 6000 {
		var c api.Cluster
		if err := ls.at(ls.addrs[i]).get(ls.b.ctx, "/v1/cluster", &c); err == nil && int(c.Slots-c.Free) == n {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("fewer than %d attempts are running", n)
}

// idleWorkers measures the share of a core that a leader needs for a thousand idle workers.
func (b *bench) idleWorkers() (string, error) {
	const workers = 1000
	ls, err := b.startLeaders(1)
	if err != nil {
		return "", err
	}
	defer ls.stop()
	c, err := ls.startCrew(workers, 1)
	if err != nil {
		return "", err
	}
	defer c.leave()
	if err := ls.workers(ls.addrs[0], workers); err != nil {
		return "", err
	}
	const span = 20 * time.Second
	time.Sleep(3 * time.Second)
	before, err := cpuTime(ls.procs[0].Process.Pid)
	if err != nil {
		return "", err
	}
	start := time.Now()
	time.Sleep(span)
	after, err := cpuTime(ls.procs[0].Process.Pid)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.1f %% of a core", 100*(after-before).Seconds()/time.Since(start).Seconds()), nil
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
