package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	sortRows  = 10_000_000
	countRows = 100_000_000
	leftRows  = 10_000_000
	rightRows = 1_000_000
)

// rowsFile returns a file of genrows, which is made once.
func (b *bench) rowsFile(kind string, rows int) (string, error) {
	path := filepath.Join(b.dir, kind+".txt")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	_, err := timed(exec.CommandContext(b.ctx, "go", "run", "./bench/genrows", kind, strconv.Itoa(rows), path))
	return path, err
}

// usage is what the runs of a side have used.
type usage struct {
	cpu  []time.Duration
	peak int64 // bytes of resident memory
}

// measured is a side whose usage is kept.
func (u *usage) measured(command func() *exec.Cmd) side {
	return func() (time.Duration, error) {
		cmd := command()
		d, err := timed(cmd)
		if used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			u.peak = max(u.peak, used.Maxrss<<10)
			u.cpu = append(u.cpu, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		}
		return d, err
	}
}

// builtin is a run of a built-in job in two slots.
func (b *bench) builtin(u *usage, args ...string) side {
	args = append([]string{"run"}, append(args, "--quiet", "--slots", "2", "--overwrite", "--output", filepath.Join(b.dir, "parts"))...)
	return u.measured(func() *exec.Cmd { return b.command(args...) })
}

// against compares a built-in job with another program, also by their CPU times, which depend less on what else the machine does.
func (b *bench) against(other []string, args ...string) (string, error) {
	var ours, its usage
	times, err := b.alternate(b.builtin(&ours, args...), its.measured(func() *exec.Cmd {
		return exec.CommandContext(b.ctx, other[0], other[1:]...) //nolint:gosec // the rows' own
	}))
	if err != nil {
		return "", err
	}
	ms := func(d []time.Duration) time.Duration { return median(d).Round(time.Millisecond) }
	return fmt.Sprintf("%v against %v: %.2f x; CPU %v against %v: %.2f x; resident memory %d MB", ms(times[0]), ms(times[1]), medianRatio(times[0], times[1]),
		ms(ours.cpu), ms(its.cpu), medianRatio(ours.cpu, its.cpu), ours.peak/1e6), nil
}

// sort sorts the same gigabyte as sort of the GNU coreutils.
func (b *bench) sort() (string, error) {
	if err := exec.CommandContext(b.ctx, "sort", "--parallel=2", "--version").Run(); err != nil {
		return "", errors.New("sort is not that of the GNU coreutils")
	}
	file, err := b.rowsFile("sort", sortRows)
	if err != nil {
		return "", err
	}
	other := []string{"env", "LC_ALL=C", "sort", "--parallel=2", "-S", "4G", "-o", filepath.Join(b.dir, "sorted"), file}
	return b.against(other, "sort", "--input", file)
}

// sortLinks returns the sort of so many gigabytes, which are links to one file.
func (b *bench) sortLinks(u *usage, gigabytes int, memory string) (side, error) {
	file, err := b.rowsFile("sort", sortRows)
	if err != nil {
		return nil, err
	}
	args := []string{"sort", "--memory", memory}
	for i := range gigabytes {
		link := fmt.Sprintf("%s.%d", file, i)
		if _, err := os.Stat(link); err != nil {
			if err := os.Link(file, link); err != nil {
				return nil, err
			}
		}
		args = append(args, "--input", link)
	}
	return b.builtin(u, args...), nil
}

// sortInLittle sorts two gigabytes in a tenth of them.
func (b *bench) sortInLittle() (string, error) {
	var used usage
	sorts, err := b.sortLinks(&used, 2, "205MiB")
	if err != nil {
		return "", err
	}
	times, err := repeat(b.runs, sorts)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d MiB; %v", used.peak>>20, median(times).Round(time.Millisecond)), nil
}

// sortLarge sorts ten gigabytes in one, which takes thirty of disk space, and one.
func (b *bench) sortLarge() (string, error) {
	const memory = "1GiB"
	var large, small usage
	sorts, err := b.sortLinks(&large, 10, memory)
	if err != nil {
		return "", err
	}
	one, err := b.sortLinks(&small, 1, memory)
	if err != nil {
		return "", err
	}
	few := *b
	few.runs = min(b.runs, 2)
	times, err := few.alternate(sorts, one)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d MiB; %v against %v: %.1f x; CPU %.1f x", large.peak>>20, median(times[0]).Round(time.Millisecond), median(times[1]).Round(time.Millisecond),
		medianRatio(times[0], times[1]), medianRatio(large.cpu, small.cpu)), nil
}

// count does the one-billion-row job on a tenth of the rows.
func (b *bench) count() (string, error) {
	rival := filepath.Join(b.dir, "count")
	if err := b.build("./bench/count", rival); err != nil {
		return "", err
	}
	file, err := b.rowsFile("count", countRows)
	if err != nil {
		return "", err
	}
	return b.against([]string{rival, file, filepath.Join(b.dir, "counted")}, "count", "--input", file, "--set", "sep=;", "--set", "value=2")
}

// join joins rows as DuckDB does, with two threads.
func (b *bench) join() (string, error) {
	if err := exec.CommandContext(b.ctx, "python3", "-c", "import duckdb").Run(); err != nil {
		return "", errors.New("DuckDB for Python is not installed (pip install duckdb)")
	}
	left, err := b.rowsFile("left", leftRows)
	if err != nil {
		return "", err
	}
	right, err := b.rowsFile("right", rightRows)
	if err != nil {
		return "", err
	}
	const program = `
import duckdb, sys
read = "read_csv('%s', delim='\t', header=false, all_varchar=true)"
duckdb.connect(config={"threads": 2}).execute(
    "COPY (SELECT l.*, r.column1, r.column2 FROM " + read % sys.argv[1] + " l JOIN " + read % sys.argv[2] +
    " r ON l.column0 = r.column0) TO '" + sys.argv[3] + "' (FORMAT csv, DELIMITER '\t', HEADER false)")`
	other := []string{"python3", "-c", program, left, right, filepath.Join(b.dir, "joined")}
	return b.against(other, "join", "--input", left, "--input", right, "--set", "right="+right)
}
