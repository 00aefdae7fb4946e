package e2e

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

var (
	stagesSeed  = flag.Uint64("stages.seed", 0, "the only seed of TestStagesKilled; 0: random ones")
	stagesSeeds = flag.Int("stages.seeds", 3, "how many random seeds TestStagesKilled plays")
)

// TestStagesKilled kills workers and the leader at random moments while jobs of three stages run, and compares their outputs with those of the
// coreutils.
func TestStagesKilled(t *testing.T) {
	t.Parallel()
	seeds := []uint64{*stagesSeed}
	if seeds[0] == 0 {
		seeds = make([]uint64, *stagesSeeds)
		for i := range seeds {
			seeds[i] = rand.Uint64()
		}
	}
	for _, seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			t.Logf("go test ./internal/e2e -run TestStagesKilled -stages.seed %d", seed)
			killStages(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func killStages(t *testing.T, random *rand.Rand) {
	t.Helper()
	c := newCluster(t)
	workers := c.workers(2)
	files := book1(t, c)
	words, lines := c.path("words"), c.path("lines")
	input := api.JobRequest{Inputs: files, Split: "2KiB", Partitions: 40}
	count, order := input, input
	count.Output, count.Program.Builtin = words, "wordcount"
	order.Output, order.Program.Builtin = lines, "sort"
	jobs := []uint64{c.submit(&count), c.submit(&order)}
	done := func() (n uint64) {
		for _, id := range jobs {
			for _, s := range c.job(id).Stages {
				n += s.Done
			}
		}
		return n
	}
	ended := func() bool { return c.job(jobs[0]).Ended != nil && c.job(jobs[1]).Ended != nil }
	for round := 0; round < 6 && !ended(); round++ {
		target := done() + uint64(random.IntN(150))
		until(t, "more done", func() bool { return done() >= target || ended() })
		moment := time.NewTimer(time.Duration(random.IntN(20)) * time.Millisecond) // no test synchronises with it
		<-moment.C
		if victim := random.IntN(3); victim < 2 {
			workers[victim].signal(syscall.SIGKILL)
			<-workers[victim].ended
			workers[victim] = c.worker([]string{"worker-1", "worker-2"}[victim])
			continue
		}
		c.leader.signal(syscall.SIGKILL)
		<-c.leader.ended
		c.startLeader()
	}
	for _, id := range jobs {
		c.done(id)
	}
	wantJoined(t, words, string(sh(t, "/", resultOf, files...)))
	wantJoined(t, lines, string(sh(t, "/", `sort "$1"`, files...)))
}

// wantJoined compares the parts of an output, one after the other.
func wantJoined(t *testing.T, dir, want string) {
	t.Helper()
	parts, err := filepath.Glob(filepath.Join(dir, "part-*"))
	if err != nil || len(parts) != 40 {
		t.Fatalf("%s has %d parts, %v, want 40", dir, len(parts), err)
	}
	var got strings.Builder
	for _, path := range parts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got.Write(text)
	}
	if got.String() != want {
		t.Errorf("%s: %s, want %s", dir, brief([]byte(got.String())), brief([]byte(want)))
	}
}
