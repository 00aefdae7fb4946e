package main

import (
	"bufio"
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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/transport"
)

const (
	noopTasks    = 1_000_000
	commandTasks = 3_000
	clusterSlots = 2 // the figures are those of two cores
)

// cluster is one leader and one worker, as processes of their own.
type cluster struct {
	url   string
	dir   string
	procs []*exec.Cmd
}

// startCluster starts a leader and a worker and waits until the worker is registered.
func (b *bench) startCluster() (*cluster, error) { return b.startClusterAt("127.0.0.1") }

// startClusterAt starts a cluster whose leader listens on host. Beyond loopback, the leader and its worker encrypt their connection.
func (b *bench) startClusterAt(host string) (*cluster, error) {
	dir, err := os.MkdirTemp(b.dir, "cluster-")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr(b.ctx)
	if err != nil {
		return nil, err
	}
	c := &cluster{url: transport.URL(addr), dir: dir}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if err := c.start(b.command("leader", "--data-dir", filepath.Join(dir, "leader"), "--listen", net.JoinHostPort(host, port))); err != nil {
		return nil, err
	}
	if err := c.until(b.ctx, func(h api.Cluster) bool { return h.Status != "" }); err != nil {
		return nil, err
	}
	to := []string{"--leader", addr}
	if host != "127.0.0.1" {
		joins, err := b.command("token", "create", "--role", "worker", "--cluster", c.url).Output()
		if err != nil {
			c.stop()
			return nil, err
		}
		to = []string{"--join", strings.TrimSpace(string(joins))}
	}
	worker := append([]string{"worker", "--data-dir", filepath.Join(dir, "worker"), "--slots", strconv.Itoa(clusterSlots)}, to...)
	if err := c.start(b.command(worker...)); err != nil {
		c.stop()
		return nil, err
	}
	return c, c.until(b.ctx, func(h api.Cluster) bool { return h.Slots > 0 })
}

func (c *cluster) start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	c.procs = append(c.procs, cmd)
	return nil
}

// until waits for a state of the cluster, and stops it if that does not come.
func (c *cluster) until(ctx context.Context, reached func(api.Cluster) bool) error {
	for range 200 {
		var health api.Cluster
		if err := c.get(ctx, "/v1/cluster", &health); err == nil && reached(health) {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.stop()
	return errors.New("the cluster did not start")
}

func freeAddr(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (c *cluster) stop() {
	for _, p := range c.procs {
		_ = p.Process.Signal(syscall.SIGKILL)
		_ = p.Wait()
	}
}

func (c *cluster) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		return err
	}
	return do(http.DefaultClient, req, into)
}

func do(client *http.Client, req *http.Request, into any) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// submitRange submits AlwaysOk over a range of n numbers.
func (c *cluster) submitRange(ctx context.Context, n int) (api.Job, error) {
	return c.submit(ctx, fmt.Sprintf(`{"program":{"builtin":"AlwaysOk"},"range":{"from":1,"to":%d}}`, n))
}

func (c *cluster) submit(ctx context.Context, body string) (job api.Job, err error) {
	err = c.post(ctx, "/v1/jobs", body, &job)
	return job, err
}

func (c *cluster) post(ctx context.Context, path, body string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return do(http.DefaultClient, req, into)
}

func (c *cluster) wait(ctx context.Context, id uint64) (api.Job, error) {
	for {
		var job api.Job
		if err := c.get(ctx, fmt.Sprintf("/v1/jobs/%d?wait=30s", id), &job); err != nil || job.IsEnded() {
			return job, err
		}
	}
}

// noop times jobs of a million no-op tasks from the submit until they are reported done.
func (b *bench) noop() (string, error) {
	c, err := b.startCluster()
	if err != nil {
		return "", err
	}
	defer c.stop()
	var times []time.Duration
	for range b.runs {
		d, err := c.timeNoop(b.ctx)
		if err != nil {
			return "", err
		}
		times = append(times, d)
	}
	rate := func(d time.Duration) string { return fmt.Sprintf("%.2f M/s", noopTasks/d.Seconds()/1e6) }
	return fmt.Sprintf("%s (median of %d; best %s)", rate(median(times)), b.runs, rate(percentile(times, 0))), nil
}

// encrypted compares the rate of no-op tasks of a cluster with encrypted connections and of one without.
func (b *bench) encrypted() (string, error) {
	var clusters []*cluster
	for _, host := range []string{"127.0.0.1", "0.0.0.0"} {
		c, err := b.startClusterAt(host)
		if err != nil {
			return "", err
		}
		defer c.stop()
		clusters = append(clusters, c)
	}
	times := make([][]time.Duration, len(clusters))
	for round := range b.runs + 1 {
		for i, c := range clusters {
			d, err := c.timeNoop(b.ctx)
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

// socket compares the durations of requests over the leader's unix socket and over loopback TCP.
func (b *bench) socket() (string, error) {
	c, err := b.startCluster()
	if err != nil {
		return "", err
	}
	defer c.stop()
	address := transport.UnixAddress(filepath.Join(c.dir, "leader", node.SocketName))
	over := [2]*http.Client{{}, {Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return transport.Dial(ctx, address) },
	}}}
	var times [2][]time.Duration
	for range 2000 {
		for i, client := range over {
			req, err := http.NewRequestWithContext(b.ctx, http.MethodGet, c.url+"/v1/cluster", nil)
			if err != nil {
				return "", err
			}
			start := time.Now()
			if err := do(client, req, &api.Cluster{}); err != nil {
				return "", err
			}
			times[i] = append(times[i], time.Since(start))
		}
	}
	return fmt.Sprintf("median %v; TCP %v", median(times[1]), median(times[0])), nil
}

// read measures the latency of a running job's status, read every two milliseconds.
func (b *bench) read() (string, error) {
	c, err := b.startCluster()
	if err != nil {
		return "", err
	}
	defer c.stop()
	var times []time.Duration
	for range b.runs {
		job, err := c.submitRange(b.ctx, noopTasks)
		if err != nil {
			return "", err
		}
		for !job.IsEnded() {
			time.Sleep(2 * time.Millisecond)
			start := time.Now()
			if err := c.get(b.ctx, fmt.Sprintf("/v1/jobs/%d", job.ID), &job); err != nil {
				return "", err
			}
			times = append(times, time.Since(start))
		}
	}
	return fmt.Sprintf("p50 %v, p99 %v (%d reads)", percentile(times, 50), percentile(times, 99), len(times)), nil
}

// busy reads the status of a job 100 times a second, by turns while nothing runs and while commands keep every core busy.
func (b *bench) busy() (string, error) {
	c, err := b.startCluster()
	if err != nil {
		return "", err
	}
	defer c.stop()
	var idle, busy []time.Duration
	for range b.runs {
		job, err := c.submit(b.ctx, fmt.Sprintf(`{"program":{"command":["sh","-c","while :; do :; done"]},"range":{"from":1,"to":%d}}`, clusterSlots))
		if err != nil {
			return "", err
		}
		for job.PartStage().Running < clusterSlots {
			if err := c.get(b.ctx, fmt.Sprintf("/v1/jobs/%d", job.ID), &job); err != nil {
				return "", err
			}
		}
		if busy, err = c.read(b.ctx, &job, busy); err != nil {
			return "", err
		}
		if err := c.post(b.ctx, fmt.Sprintf("/v1/jobs/%d/stop", job.ID), "", &job); err != nil {
			return "", err
		}
		if job, err = c.wait(b.ctx, job.ID); err != nil {
			return "", err
		}
		if idle, err = c.read(b.ctx, &job, idle); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("p50 %v, p99 %v; p50 %v, p99 %v while nothing runs (%d reads each)",
		percentile(busy, 50), percentile(busy, 99), percentile(idle, 50), percentile(idle, 99), len(busy)), nil
}

// read appends the durations of reads of a job, 100 a second, to times.
func (c *cluster) read(ctx context.Context, job *api.Job, times []time.Duration) ([]time.Duration, error) {
	next := time.NewTicker(10 * time.Millisecond)
	defer next.Stop()
	for range 400 {
		<-next.C
		start := time.Now()
		if err := c.get(ctx, fmt.Sprintf("/v1/jobs/%d", job.ID), job); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	return times, nil
}

// commands runs true some thousand times, with each tool in turn.
func (b *bench) commands() (string, error) {
	n := strconv.Itoa(commandTasks)
	if _, err := exec.LookPath("parallel"); err != nil {
		return "", errors.New("GNU parallel is not installed (Debian: apt-get install parallel)")
	}
	shell := func(script string) func() *exec.Cmd {
		return func() *exec.Cmd { return exec.CommandContext(b.ctx, "sh", "-c", script) }
	}
	times, err := b.alternate(
		func() *exec.Cmd {
			return b.command("run", "--quiet", "--slots", "2", "--range", "1-"+n, "--", "true")
		},
		shell("seq "+n+" | xargs -n1 -P2 true"),
		shell("seq "+n+" | parallel --will-cite -j2 true"),
	)
	if err != nil {
		return "", err
	}
	per := func(d []time.Duration) time.Duration { return (median(d) / commandTasks).Round(time.Microsecond) }
	return fmt.Sprintf("%v a task; xargs %v: %.2f x; parallel %v: %.1f x slower than this", per(times[0]), per(times[1]),
		medianRatio(times[0], times[1]), per(times[2]), medianRatio(times[2], times[0])), nil
}

// wordcount counts the same gigabyte with both programs.
func (b *bench) wordcount() (string, error) {
	rival, text := filepath.Join(b.dir, "rival"), filepath.Join(b.dir, "text")
	if err := b.build("./bench/wordcount", rival); err != nil {
		return "", err
	}
	if _, err := os.Stat(text); err != nil {
		if _, err := timed(exec.CommandContext(b.ctx, "go", "run", "./bench/gentext", "-dir", text)); err != nil {
			return "", err
		}
	}
	bytes, err := folderSize(text)
	if err != nil {
		return "", err
	}
	out := filepath.Join(b.dir, "counts")
	times, err := b.alternate(
		func() *exec.Cmd {
			return b.command("run", "wordcount", "--quiet", "--slots", "2", "--overwrite", "--input", text, "--output", out)
		},
		func() *exec.Cmd { return exec.CommandContext(b.ctx, rival, text, out+".rival") },
	)
	if err != nil {
		return "", err
	}
	rate := func(d []time.Duration) float64 { return float64(bytes) / median(d).Seconds() / 1e9 }
	return fmt.Sprintf("%.2f GB/s against %.2f GB/s: %.2f", rate(times[0]), rate(times[1]), medianRatio(times[1], times[0])), nil
}

func folderSize(dir string) (int64, error) {
	var total int64
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return 0, err
		}
		total += info.Size()
	}
	return total, err
}

func (b *bench) start() (string, error) {
	saved := b.runs
	b.runs = max(b.runs, 10)
	defer func() { b.runs = saved }()
	times, err := b.alternate(
		func() *exec.Cmd { return b.command("run", "--quiet", "AlwaysOk") },
		func() *exec.Cmd { return b.command("run", "--quiet", "--", "true") },
	)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("AlwaysOk %v, true %v", median(times[0]).Round(time.Millisecond/10), median(times[1]).Round(time.Millisecond/10)), nil
}

// keeper measures a keeper, the parent of its command.
func (b *bench) keeper() (string, error) {
	const sum = `$1 == "Rss:" { rss = $2 } /^Private_/ { own += $2 } END { printf "%.1f MB, %.1f MB of it private", rss / 1024, own / 1024 }`
	text, err := b.command("run", "--quiet", "--range", "1-1", "--", "sh", "-c", `awk "$0" "/proc/$PPID/smaps_rollup"`, sum).Output()
	return strings.TrimSpace(string(text)), err
}

// idle measures a dev process after ten seconds without work.
func (b *bench) idle() (string, error) {
	addr, err := freeAddr(b.ctx)
	if err != nil {
		return "", err
	}
	cmd := b.command("dev", "--listen", addr, "--data-dir", filepath.Join(b.dir, "dev"))
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	time.Sleep(10 * time.Second)
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	for s := bufio.NewScanner(f); s.Scan(); {
		if kb, ok := strings.CutPrefix(s.Text(), "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(kb, "kB")))
			return fmt.Sprintf("%.1f MB", float64(n)/1024), err
		}
	}
	return "", errors.New("no VmRSS in /proc")
}

// state runs the benchmark of the state machine that measures its memory.
func (b *bench) state() (string, error) { return b.ofState("BenchmarkMemory", "B/task") }

// files runs the one that measures a list of a million files, which the log, snapshots and the leader's memory have in one form.
func (b *bench) files() (string, error) { return b.ofState("BenchmarkFiles", "B/file") }

// ofState runs a benchmark of the state machine and returns a figure of each of its parts.
func (b *bench) ofState(benchmark, unit string) (string, error) {
	out, err := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "^"+benchmark+"$", "-benchtime", "1x", "./internal/state").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	var figures []string
	for line := range strings.Lines(string(out)) {
		name, rest, ok := strings.Cut(line, " ")
		if kind, of := strings.CutPrefix(name, benchmark+"/"); ok && of {
			fields := strings.Fields(rest)
			if at := slices.Index(fields, unit); at > 0 {
				figures = append(figures, kind[:strings.LastIndexByte(kind, '-')]+" "+fields[at-1])
			}
		}
	}
	if len(figures) == 0 {
		return "", fmt.Errorf("no benchmark was run: %s", out)
	}
	return strings.Join(figures, ", "), nil
}

// submit times the submit of a job of ten million tasks, which is then stopped.
func (b *bench) submit() (string, error) {
	c, err := b.startCluster()
	if err != nil {
		return "", err
	}
	defer c.stop()
	start := time.Now()
	job, err := c.submitRange(b.ctx, 10_000_000)
	if err != nil {
		return "", err
	}
	answered := time.Since(start)
	if job, err = c.wait(b.ctx, job.ID); err != nil || job.Status != api.JobDone {
		return "", fmt.Errorf("job %s: %w", job.Status, err)
	}
	var list api.TaskList
	read := time.Now()
	if err := c.get(b.ctx, fmt.Sprintf("/v1/jobs/%d/tasks?limit=1000", job.ID), &list); err != nil {
		return "", err
	}
	return fmt.Sprintf("%v; all done after %v; a page of 1,000 tasks %v", answered.Round(time.Millisecond), time.Since(start).Round(time.Second/10),
		time.Since(read).Round(time.Millisecond/10)), nil
}

// each submits all combinations of two lists to a cluster, and stops the job.
func (b *bench) each() (string, error) {
	c, err := b.startCluster()
	if err != nil {
		return "", err
	}
	defer c.stop()
	times, err := b.alternate(
		func() *exec.Cmd {
			return b.command("submit", "--cluster", c.url, "--each", "x=1-1000", "--each", "y=1-10000", "--", "true", "{x}", "{y}")
		},
		func() *exec.Cmd { return b.command("stop", "--cluster", c.url, "last") },
		func() *exec.Cmd { return b.command("version") },
	)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%v; a command that prints the version %v", median(times[0]).Round(time.Millisecond/10), median(times[2]).Round(time.Millisecond/10)), nil
}

// stream reads the output of a run whose tasks print the time at their end.
func (b *bench) stream() (string, error) {
	cmd := b.command("run", "--quiet", "--slots", "1", "--range", "1-40", "--", "sh", "-c", "sleep 0.1; date +%s%N")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var delays []time.Duration
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		nanos, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			return "", err
		}
		delays = append(delays, time.Since(time.Unix(0, nanos)))
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		return "", err
	}
	return fmt.Sprintf("the first %v, median %v, longest %v of %d", delays[0].Round(time.Millisecond/10), median(delays).Round(time.Millisecond/10),
		slices.Max(delays).Round(time.Millisecond/10), len(delays)), nil
}

// joblog fetches the job log of a million tasks.
func (b *bench) joblog() (string, error) {
	c, err := b.startCluster()
	if err != nil {
		return "", err
	}
	defer c.stop()
	job, err := c.submitRange(b.ctx, noopTasks)
	if err != nil {
		return "", err
	}
	if job, err = c.wait(b.ctx, job.ID); err != nil || job.Status != api.JobDone {
		return "", fmt.Errorf("job %s: %w", job.Status, err)
	}
	file := filepath.Join(b.dir, "joblog.tsv")
	var times []time.Duration
	for range b.runs {
		d, err := timed(exec.CommandContext(b.ctx, "curl", "-fsS", "-o", file, fmt.Sprintf("%s/v1/jobs/%d/joblog", c.url, job.ID)))
		if err != nil {
			return "", err
		}
		times = append(times, d)
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%v, %.0f MB", median(times).Round(time.Millisecond), float64(info.Size())/1e6), nil
}
