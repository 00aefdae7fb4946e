package e2e

import (
	"bufio"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

var largeMiB = flag.Int("large.mib", 100, "the size of the lists of TestLargeLists")

// TestLargeLists submits two large lists of lines at a time to three leaders: other writes go on meanwhile, and the leaders' memory is
// bounded. The lists survive a change of leader. The client of a third one leaves: nothing of it is kept.
func TestLargeLists(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3)
	bytes, peakMax := *largeMiB<<20, 10*int64(*largeMiB)<<20
	if raceDetector { // it takes many times the memory
		bytes, peakMax = bytes/8, 2*peakMax
	}
	list, count := largeList(t, g.path("list"), bytes)
	leads := g.leading()
	until(t, "the feature level allows it", func() bool { v, ok := leads.view(); return ok && v.Level >= 2 })

	request := func(name string) *api.JobRequest {
		return &api.JobRequest{Name: name, Program: item("true"), Dir: g.dir, Output: g.path("out-" + name)}
	}
	const long = 6 * time.Minute // a stalled disk costs a leader its place, and a client that loses it sends everything again
	large := g.client.WithPatience(long)
	var submits sync.WaitGroup
	for i := range 2 {
		submits.Go(func() {
			begun := time.Now()
			job, err := large.SubmitLines(t.Context(), request(fmt.Sprint("large", i)), list, size(t, list), "")
			t.Logf("a large list took %v", time.Since(begun).Round(time.Millisecond))
			if err != nil || job.Stages[0].Tasks != count {
				t.Errorf("large list: job %d, %v; want %d tasks", job.ID, err, count)
			}
		})
	}
	left, leave := context.WithCancel(t.Context())
	submits.Go(func() {
		if _, err := large.SubmitLines(left, request("left"), list, size(t, list), ""); err == nil {
			t.Error("the submit that was left has ended")
		}
	})
	ended := make(chan struct{})
	go func() { defer close(ended); submits.Wait() }()

	var slowest time.Duration
	small := 0
	pace := time.NewTicker(20 * time.Millisecond) // the machine is for the lists
	defer pace.Stop()
	for done := false; !done; small++ {
		select {
		case <-ended:
			done = true
		case <-pace.C:
		}
		begun := time.Now()
		if _, err := g.client.Submit(t.Context(), &api.JobRequest{Name: "small", Lines: &api.Lines{Items: []string{"a"}}, Program: item("true"), Dir: g.dir}, ""); err != nil {
			t.Fatalf("a write meanwhile: %v", err)
		}
		slowest = max(slowest, time.Since(begun))
		if small == 20 {
			leave()
		}
	}
	leave()
	var peaks []string
	for _, n := range g.nodes {
		until(t, fmt.Sprintf("%v is ready", n), func() bool { return n.get("/readyz").code == http.StatusOK })
		peak := peakMemory(t, n.cmd.Process.Pid)
		peaks = append(peaks, fmt.Sprintf("%d MiB", peak>>20))
		if peak > peakMax {
			t.Errorf("%v has taken %d MiB of memory", n, peak>>20)
		}
	}
	t.Logf("%d small submits meanwhile, the slowest in %v; the leaders took %s", small, slowest.Round(time.Millisecond), strings.Join(peaks, ", "))

	leads.kill()
	g.leading(leads)
	for id := uint64(1); ; id++ {
		job, err := g.client.Job(t.Context(), id)
		if err != nil {
			break
		}
		if job.Name == "left" {
			t.Errorf("the job that was left is %+v", job)
		}
		if strings.HasPrefix(job.Name, "large") {
			for task, err := range g.client.Tasks(t.Context(), id, api.TaskQuery{Stage: "map", Limit: 1}) {
				if err != nil || len(task.Input) != 64 {
					t.Errorf("the first task of job %d is %+v, %v", id, task, err)
				}
				break
			}
		}
	}
}

// largeList writes lines of 64 random hexadecimal digits, about half of which cannot be compressed away.
func largeList(t *testing.T, name string, bytes int) (*os.File, uint64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	random, out, count := rand.NewChaCha8([32]byte{1}), bufio.NewWriter(f), uint64(0)
	for line := make([]byte, 32); bytes > 0; count++ {
		_, _ = random.Read(line) // never fails
		n, err := out.WriteString(hex.EncodeToString(line) + "\n")
		if err != nil {
			t.Fatal(err)
		}
		bytes -= n
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	return f, count
}

func size(t *testing.T, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// peakMemory is the largest memory that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmHWM in /proc")
	return 0
}
