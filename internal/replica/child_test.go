package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
)

// childDir makes this test binary a process that proposes numbers on that directory and prints those that are acknowledged.
const childDir = "REPLICA_TEST_CHILD_DIR"

// childLimit makes it fail to give a file more bytes than that, as a process that is killed before does not.
const childLimit = "REPLICA_TEST_CHILD_LIMIT"

func runChild() bool {
	dir := os.Getenv(childDir)
	if dir == "" {
		return false
	}
	if limit, err := strconv.ParseUint(os.Getenv(childLimit), 10, 64); err == nil {
		setSegmentBytes()
		wal.SegmentSizeBytes = testSegmentBytes
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			fmt.Println("limit:", err)
			return true
		}
	}
	r, err := Open(Config{Dir: dir, SnapshotBytes: 1 << 20})
	if err != nil {
		fmt.Println("open:", err)
		return true
	}
	go func() { fmt.Println("run:", r.Run(context.Background())) }()
	next, index := 0, uint64(0)
	for e := range r.Events() {
		for _, e := range e.Entries {
			fmt.Println(number(e.Data)) // acknowledged
			next, index = number(e.Data)+1, e.Index
		}
		if e.Snapshot != nil {
			count, err := readCount(e.Snapshot)
			if err != nil {
				fmt.Println("snapshot:", err)
			}
			for ; next < count; next++ {
				fmt.Println(next) // it is in the state
			}
		}
		if e.Role != nil && e.Role.Leader {
			fmt.Println("found", next) // nothing was proposed in this life yet
			go func() {
				for i := next; ; i++ {
					if err := r.Propose(context.Background(), numbered(i, 100+i%5000)); err != nil {
						fmt.Println("propose:", err)
					}
				}
			}()
		}
		if e.WantSnapshot {
			count, index := next, index
			go func() {
				if err := r.SaveSnapshot(index, func(w io.Writer) error { _, err := fmt.Fprint(w, count); return err }); err != nil {
					fmt.Println("save snapshot:", err)
				}
			}()
		}
	}
	return true
}

// readCount reads a state that is the count of the numbers so far.
func readCount(r io.ReadCloser) (int, error) {
	text, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}

// oneLife runs a process that proposes on dir and kills it when it has acknowledged a number of entries beyond those that were
// acknowledged before, all of which it must find. It gives the last that it has acknowledged.
func oneLife(t *testing.T, dir string, acknowledged, beyond int) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // killed
	defer func() { _ = cmd.Process.Kill() }()
	last, found := -1, -1
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, err := fmt.Sscanf(lines.Text(), "found %d", &found); err == nil {
			if found <= acknowledged {
				t.Fatalf("%d was acknowledged, and %d entries are there", acknowledged, found)
			}
			continue
		}
		i, err := strconv.Atoi(lines.Text())
		if err != nil || i != last+1 { // each life begins with what is there
			t.Fatalf("%s follows %d", lines.Text(), last)
		}
		last = i
		if found >= 0 && i == max(found, acknowledged+beyond) {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return last
}

// TestNothingAcknowledgedIsLostByKill kills a process that proposes, again and again, and looks for what it has acknowledged.
func TestNothingAcknowledgedIsLostByKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := -1
	for life := range 8 {
		acknowledged = oneLife(t, dir, acknowledged, 50+300*life)
	}
	n := start(t, Config{Dir: dir}).lead()
	first, err := strconv.Atoi(string(n.snapshot))
	if err != nil {
		t.Fatalf("no snapshot was taken on the way: %v", err)
	}
	n.mu.Lock()
	count := len(n.entries)
	n.mu.Unlock()
	if first+count <= acknowledged {
		t.Fatalf("%d was acknowledged, only %d entries are there", acknowledged, first+count)
	}
	n.wantNumbers(first, first+count)
}

// TestKilledWhileOpening ends a process between the two steps in which the newest file of the log is cut off behind its records and gets its size again.
func TestKilledWhileOpening(t *testing.T) {
	dir := t.TempDir()
	n := start(t, Config{Dir: dir}).lead()
	n.proposeNumbers(0, 20, 1000)
	n.untilEntries(20)
	n.stop()
	path := walFiles(t, dir)[0].path
	all := records(t, path)
	for range 2 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir, childLimit+"=1000000")
		if out, err := cmd.CombinedOutput(); err != nil || !containsAll(string(out), "open:", "too large") {
			t.Fatalf("the process ended with %v: %s", err, out)
		}
		if size := len(readFile(t, path)); int64(size) != all[len(all)-1].end {
			t.Fatalf("the file has %d bytes, want %d", size, all[len(all)-1].end)
		}
	}
	// The records that are missing now were acknowledged.
	short := readFile(t, path)
	writeFile(t, path, short[:all[len(all)-2].end])
	if r, err := Open(Config{Dir: dir}); err == nil {
		t.Error("opened with the end of a file missing")
		_ = r.Close()
	} else if !containsAll(err.Error(), path, "cut off", "restore") {
		t.Errorf("with the end of a file missing: %v", err)
	}
	writeFile(t, path, short)

	n = start(t, Config{Dir: dir}).lead()
	n.wantNumbers(0, 20)
	n.stop()
	if size := len(readFile(t, path)); int64(size) != wal.SegmentSizeBytes {
		t.Errorf("the file has %d bytes, want %d", size, wal.SegmentSizeBytes)
	}
	if _, err := os.Stat(filepath.Join(dir, openMarkName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark of an open log: %v", err)
	}
}
