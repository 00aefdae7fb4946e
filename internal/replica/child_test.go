package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// childDir makes this test binary a process that proposes numbers on that directory and prints those that are acknowledged.
const childDir = "REPLICA_TEST_CHILD_DIR"

func runChild() bool {
	dir := os.Getenv(childDir)
	if dir == "" {
		return false
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

// TestNothingAcknowledgedIsLostByKill kills a process that proposes, again and again, and looks for what it has acknowledged.
func TestNothingAcknowledgedIsLostByKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := -1
	for life := range 8 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := -1
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			i, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatalf("life %d: %s", life, lines.Text())
			}
			if i != last+1 { // each life begins with what is there
				t.Fatalf("life %d: %d follows %d", life, i, last)
			}
			last = i
			if i == acknowledged+50+300*life { // some way beyond what was there
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		if last < acknowledged {
			t.Fatalf("life %d: %d was acknowledged, only %d is there", life, acknowledged, last)
		}
		acknowledged = last
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
