// Command bench measures Bridge Four on this machine, in comparison with common tools, and prints one table.
//
//	go run ./bench                 # everything; about ten minutes, and 40 GB of disk space
//	go run ./bench -only noop,true # some rows
//
// Ratios are of alternating runs, so that a noisy machine slows both sides; figures are medians. The tools to compare with (xargs, GNU
// parallel) must be installed; a row whose tool is missing says so.
//
// The scheduler's decision with 10,000 jobs and 1,000 workers needs no process, so it is a Go benchmark:
//
//	go test ./internal/sched -run - -bench Decision -benchtime 20000x
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// bench is what the rows share.
type bench struct {
	ctx    context.Context //nolint:containedctx // one run of one program
	binary string
	dir    string // scratch, removed at the end
	runs   int
}

func main() {
	only := flag.String("only", "", "comma-separated rows: "+strings.Join(rowNames(), ", "))
	runs := flag.Int("runs", 5, "runs of each side")
	dir := flag.String("dir", "", "scratch folder; default: a new one in the temporary folder")
	flag.Parse()
	if err := run(*only, *runs, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// row is one line of the table.
type row struct {
	name string
	what string
	must string
	run  func(*bench) (string, error)
}

func rows() []row {
	return []row{
		{"noop", "no-op built-in tasks, 1 leader + 1 worker, fsync on, 1 M tasks", ">= 250,000/s", onCluster(1, 1, (*cluster).noop)},
		{"mtls", "no-op tasks over encrypted connections against plain ones", ">= 0.9", onCluster(1, 1, (*cluster).encrypted)},
		{"socket", "request over the unix socket and over loopback TCP, each on a kept connection", "< 0.2 ms more", onCluster(1, 1, (*cluster).socket)},
		{"read", "status read while 1 M tasks run", "p99 < 1 ms", onCluster(1, 1, (*cluster).read)},
		{"busy", "status read while commands fill every core, 100 a second", "p99 <= 2 ms", onCluster(1, 1, (*cluster).busy)},
		{"true", "no-op commands against xargs -P2 and parallel -j2", "<= 1.10 x xargs, parallel >= 6 x", (*bench).commands},
		{"wordcount", "wordcount of 1 GB in 16 files against a hand-tuned program", ">= 0.9 of its throughput", (*bench).wordcount},
		{"small", "wordcount of 100,000 files of 1 KB against one file a task", "<= 0.33 of its time", (*bench).small},
		{"sort", "sort of 10 M records of 100 bytes against sort --parallel=2 -S 4G", "<= 0.4 of its time", (*bench).sort},
		{"sortlittle", "resident memory of a sort of 2 GB with --memory 205MiB, two slots", "<= 1.2 x for each slot", (*bench).sortInLittle},
		{"sortlarge", "sort of 10 GB with --memory 1GiB, two slots: resident memory, time against that of 1 GB", "<= 1.2 GiB, <= 14 x", (*bench).sortLarge},
		{"count", "min, mean, max of 100 M rows by key against a hand-tuned program", "<= 1.67 x its time", (*bench).count},
		{"join", "join of 10 M and 1 M rows against DuckDB", "<= 3 x its time", (*bench).join},
		{"start", "run of one no-op task, start to exit", "<= 40 ms", (*bench).start},
		{"program", "an SDK program with a small input, start to exit", "<= 40 ms", (*bench).program},
		{"idle", "idle dev, resident memory", "< 50 MB", (*bench).idle},
		{"keeper", "resident memory of a keeper, one process a slot", "", (*bench).keeper},
		{"state", "leader's memory for a job of 10 M tasks, all done", "< 64 bytes a task", (*bench).state},
		{"files", "bytes of an input file in log and memory", "10 M files fit: < 64 bytes", (*bench).files},
		{"submit", "submit of 10 M tasks, until answered", "< 1 s", onCluster(1, 1, (*cluster).submitLarge)},
		{"each", "submit of 10 M combinations of --each, start to exit", "< 50 ms", onCluster(1, 1, (*cluster).each)},
		{"stream", "end of a task of a streaming run, until its output is visible", "<= 20 ms", (*bench).stream},
		{"joblog", "job log of 1 M tasks", "<= 3 s", onCluster(1, 1, (*cluster).joblog)},
		{"failover", "kill -9 of the leader of three, until another accepts a write", "median < 1 s, p99 < 2 s", onCluster(3, 0, (*cluster).failover)},
		{"reattach", "100 workers with 800 running attempts, from then until all are adopted", "< 1 s", onCluster(3, 0, (*cluster).reattach)},
		{"detect", "kill -9 of a worker, until it is taken for dead", "< 3 s", onCluster(1, 0, (*cluster).detect)},
		{"three", "no-op tasks with three leaders against one, on this machine", ">= 0.5", onCluster(3, 1, (*cluster).three)},
		{"stale", "stale read on a follower while 1 M tasks run", "p99 < 1 ms", onCluster(3, 1, (*cluster).stale)},
		{"lock", "acquire of a free lock against another logged write, one client", "<= 1.3 x, <= 2 ms", onCluster(1, 0, (*cluster).lock)},
		{"locks", "acquire and release against half of the rate of other logged writes, 64 HTTP clients", ">= 0.8", onCluster(1, 0, (*cluster).lockPairs)},
		{"lockbatch", "the same in batches of 1,000 operations", ">= 50,000 pairs/s", onCluster(1, 0, (*cluster).lockBatches)},
		{"handover", "1,000 hand-overs of one lock among 100 clients", "<= 5 s", onCluster(1, 0, (*cluster).handOvers)},
		{"lockjobs", "10,000 jobs that wait for one output: the leader's CPU, a submit, a hand-over", "<= 2 %, <= 5 ms, <= 5 ms", onCluster(1, 1, (*cluster).lockedJobs)},
		{"idle1000", "a leader's CPU with 1,000 idle workers", "< 10 % of a core", onCluster(1, 0, (*cluster).idleWorkers)},
	}
}

func rowNames() []string {
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
	}
	return names
}

func run(only string, runs int, dir string) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "bridgefour-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // scratch
	}
	b := &bench{ctx: context.Background(), binary: filepath.Join(dir, "bridgefour"), dir: dir, runs: runs}
	if err := b.build("./cmd/bridgefour", b.binary); err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	lines := []string{"what\tmust reach\tmeasured"}
	for _, r := range rows() {
		if only != "" && !slices.Contains(strings.Split(only, ","), r.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s …\n", r.name)
		got, err := r.run(b)
		if err != nil {
			got = "not measured: " + err.Error()
		}
		lines = append(lines, r.what+"\t"+r.must+"\t"+got)
	}
	if _, err := fmt.Fprintln(table, strings.Join(lines, "\n")); err != nil {
		return err
	}
	return table.Flush()
}

func (b *bench) build(pkg, to string) error {
	out, err := exec.CommandContext(b.ctx, "go", "build", "-o", to, pkg).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// command is a bridgefour command with a state folder of its own.
func (b *bench) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, b.binary, args...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(b.dir, "state"))
	return cmd
}

// timed runs a command and returns its duration; the output is discarded.
func timed(cmd *exec.Cmd) (time.Duration, error) {
	var errs strings.Builder
	cmd.Stdout, cmd.Stderr = io.Discard, &errs
	start := time.Now()
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, errs.String())
	}
	return time.Since(start), err
}

// side is one of the things that a row compares.
type side func() (time.Duration, error)

// side is a bridgefour command.
func (b *bench) side(args ...string) side {
	return func() (time.Duration, error) { return timed(b.command(args...)) }
}

// otherSide is a command of another tool.
func (b *bench) otherSide(name string, args ...string) side {
	return func() (time.Duration, error) { return timed(exec.CommandContext(b.ctx, name, args...)) }
}

// repeat measures n times.
func repeat(n int, measure side) (times []time.Duration, err error) {
	for range n {
		d, err := measure()
		if err != nil {
			return nil, err
		}
		times = append(times, d)
	}
	return times, nil
}

// alternate measures several sides in turn, in so many rounds, and returns the times of each. The first round is a warm-up.
func (b *bench) alternate(sides ...side) ([][]time.Duration, error) {
	times := make([][]time.Duration, len(sides))
	for range b.runs + 1 {
		for i, measure := range sides {
			d, err := measure()
			if err != nil {
				return nil, err
			}
			times[i] = append(times[i], d)
		}
	}
	for i := range times {
		times[i] = times[i][1:]
	}
	return times, nil
}

func median(d []time.Duration) time.Duration { return percentile(d, 50) }

func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0 // of a row that failed
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*p/100)]
}

// medianRatio is the median of a[i]/b[i].
func medianRatio(a, b []time.Duration) float64 {
	var ratios []float64
	for i := range a {
		ratios = append(ratios, float64(a[i])/float64(b[i]))
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}
