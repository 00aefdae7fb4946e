package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/transport"
)

const (
	noopTasks    = 1_000_000
	commandTasks = 3_000
)

func (c *cluster) noop() (string, error) {
	times, err := repeat(c.b.runs, c.timeNoop)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.2f M/s (median of %d; best %.2f M/s)", millionPerSecond(median(times)), c.b.runs, millionPerSecond(slices.Min(times))), nil
}

func millionPerSecond(d time.Duration) float64 { return noopTasks / d.Seconds() / 1e6 }

// againstPlain compares the rate of no-op tasks of a cluster that has something with one that lacks it.
func (b *bench) againstPlain(with, without side) (string, error) {
	times, err := b.alternate(with, without)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.2f M/s against %.2f M/s: %.2f", millionPerSecond(median(times[0])), millionPerSecond(median(times[1])), medianRatio(times[1], times[0])), nil
}

// encrypted compares the rate of no-op tasks of a cluster with encrypted connections and of one without.
func (c *cluster) encrypted() (string, error) {
	other, err := c.b.startCluster(1, 1, "0.0.0.0")
	if err != nil {
		return "", err
	}
	defer other.stop()
	return c.b.againstPlain(other.timeNoop, c.timeNoop)
}

// socket compares the durations of requests over the leader's unix socket and over loopback TCP.
func (c *cluster) socket() (string, error) {
	address := transport.UnixAddress(filepath.Join(c.dir, "leader-1", node.SocketName))
	over := [2]*http.Client{{}, {Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return transport.Dial(ctx, address) },
	}}}
	var times [2][]time.Duration
	for range 2000 {
		for i, client := range over {
			start := time.Now()
			if err := c.do(client, http.MethodGet, "/v1/cluster", "", &api.Cluster{}); err != nil {
				return "", err
			}
			times[i] = append(times[i], time.Since(start))
		}
	}
	return fmt.Sprintf("median %v; TCP %v", median(times[1]), median(times[0])), nil
}

// read measures the latency of a running job's status, read every two milliseconds.
func (c *cluster) read() (string, error) { return c.readAt(c.server) }

// readAt is read of the status that another leader has.
func (c *cluster) readAt(reader server) (string, error) {
	var times []time.Duration
	for range c.b.runs {
		job, err := c.submitRange(noopTasks)
		if err == nil {
			err = reader.get(jobPath(&job)+"?consistency=strong", &job)
		}
		if err == nil {
			times, err = reader.timeReads(&job, 0, 2*time.Millisecond, times)
		}
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("p50 %v, p99 %v (%d reads)", percentile(times, 50), percentile(times, 99), len(times)), nil
}

// busy reads the status of a job 100 times a second, by turns while nothing runs and while commands keep every core busy.
func (c *cluster) busy() (string, error) {
	const reads, pause = 400, 10 * time.Millisecond
	var idle, busy []time.Duration
	for range c.b.runs {
		job, err := c.submit(fmt.Sprintf(`{"program":{"command":["sh","-c","while :; do :; done"]},"range":{"from":1,"to":%d}}`, clusterSlots))
		for err == nil && job.PartStage().Running < clusterSlots {
			err = c.get(jobPath(&job), &job)
		}
		if err == nil {
			busy, err = c.timeReads(&job, reads, pause, busy)
		}
		if err == nil {
			err = c.post(jobPath(&job)+"/stop", "", &job)
		}
		for err == nil && !job.IsEnded() {
			err = c.get(jobPath(&job)+"?wait=30s", &job)
		}
		if err == nil {
			idle, err = c.timeReads(&job, reads, pause, idle)
		}
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("p50 %v, p99 %v; p50 %v, p99 %v while nothing runs (%d reads each)",
		percentile(busy, 50), percentile(busy, 99), percentile(idle, 50), percentile(idle, 99), len(busy)), nil
}

// commands runs true some thousand times, with each tool in turn.
func (b *bench) commands() (string, error) {
	n := strconv.Itoa(commandTasks)
	if _, err := exec.LookPath("parallel"); err != nil {
		return "", errors.New("GNU parallel is not installed (Debian: apt-get install parallel)")
	}
	times, err := b.alternate(
		b.side("run", "--quiet", "--slots", "2", "--range", "1-"+n, "--", "true"),
		b.otherSide("sh", "-c", "seq "+n+" | xargs -n1 -P2 true"),
		b.otherSide("sh", "-c", "seq "+n+" | parallel --will-cite -j2 true"),
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
		b.side("run", "wordcount", "--quiet", "--slots", "2", "--overwrite", "--input", text, "--output", out),
		b.otherSide(rival, text, out+".rival"),
	)
	if err != nil {
		return "", err
	}
	rate := func(d []time.Duration) float64 { return float64(bytes) / median(d).Seconds() / 1e9 }
	return fmt.Sprintf("%.2f GB/s against %.2f GB/s: %.2f", rate(times[0]), rate(times[1]), medianRatio(times[1], times[0])), nil
}

// small counts the words of many small files, several in a task and each in its own.
func (b *bench) small() (string, error) {
	const files, perFolder, line = 100_000, 1000, "small files have the words of this line, which is long enough for a few of them, and a number:"
	dir := filepath.Join(b.dir, "small")
	for i := range files {
		folder := filepath.Join(dir, strconv.Itoa(i/perFolder))
		if i%perFolder == 0 {
			if err := os.MkdirAll(folder, 0o700); err != nil {
				return "", err
			}
		}
		text := strings.Repeat(fmt.Sprintf("%s %d\n", line, i), 10)
		if err := os.WriteFile(filepath.Join(folder, strconv.Itoa(i)), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	var packed, single usage
	times, err := b.alternate(
		b.builtin(&packed, "wordcount", "--input", dir), b.builtin(&single, "wordcount", "--input", dir, "--pack", "none"),
	)
	if err != nil {
		return "", err
	}
	ms := func(d []time.Duration) time.Duration { return median(d).Round(time.Millisecond) }
	return fmt.Sprintf("%v against %v: %.2f x; CPU %v against %v: %.2f x", ms(times[0]), ms(times[1]), medianRatio(times[0], times[1]),
		ms(packed.cpu), ms(single.cpu), medianRatio(packed.cpu, single.cpu)), nil
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

// start runs one task, at least ten times.
func (b *bench) start() (string, error) {
	many := *b
	many.runs = max(b.runs, 10)
	times, err := many.alternate(b.side("run", "--quiet", "AlwaysOk"), b.side("run", "--quiet", "--", "true"))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("AlwaysOk %v, true %v", median(times[0]).Round(time.Millisecond/10), median(times[1]).Round(time.Millisecond/10)), nil
}

// program runs the three stages of an SDK program on one line of text, at least ten times.
func (b *bench) program() (string, error) {
	words, input := filepath.Join(b.dir, "words"), filepath.Join(b.dir, "line")
	if err := b.build("./examples/words", words); err != nil {
		return "", err
	}
	if err := os.WriteFile(input, []byte("to be or not to be\n"), 0o600); err != nil {
		return "", err
	}
	many := *b
	many.runs, many.binary = max(b.runs, 10), words
	times, err := many.alternate(many.side("words", "--quiet", "--input", input))
	if err != nil {
		return "", err
	}
	return fmt.Sprint(median(times[0]).Round(time.Millisecond / 10)), nil
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

// submitLarge times the submit of a job of ten million tasks.
func (c *cluster) submitLarge() (string, error) {
	start := time.Now()
	job, err := c.submitRange(10_000_000)
	answered := time.Since(start)
	if err == nil {
		err = c.wait(&job)
	}
	done := time.Since(start)
	var list api.TaskList
	if err == nil {
		err = c.get(jobPath(&job)+"/tasks?limit=1000", &list)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%v; all done after %v; a page of 1,000 tasks %v", answered.Round(time.Millisecond), done.Round(time.Second/10),
		(time.Since(start) - done).Round(time.Millisecond/10)), nil
}

// each times the submit of ten million combinations.
func (c *cluster) each() (string, error) {
	times, err := c.b.alternate(
		c.b.side("submit", "--cluster", c.url, "--each", "x=1-1000", "--each", "y=1-10000", "--", "true", "{x}", "{y}"),
		c.b.side("stop", "--cluster", c.url, "last"),
		c.b.side("version"),
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
func (c *cluster) joblog() (string, error) {
	job, err := c.submitRange(noopTasks)
	if err == nil {
		err = c.wait(&job)
	}
	if err != nil {
		return "", err
	}
	file := filepath.Join(c.b.dir, "joblog.tsv")
	times, err := repeat(c.b.runs, c.b.otherSide("curl", "-fsS", "-o", file, c.url+jobPath(&job)+"/joblog"))
	if err != nil {
		return "", err
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%v, %.0f MB", median(times).Round(time.Millisecond), float64(info.Size())/1e6), nil
}
