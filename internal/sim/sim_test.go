package sim

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "the only seed to run, with each step printed; 0: a fixed set")
	seedsFlag = flag.Int("sim.seeds", 0, "number of seeds of the fixed set; 0: as many as the time allows")
	soakFlag  = flag.Duration("sim.soak", 0, "run random seeds for this time")
)

// seeds is the number of worlds of the fixed set that are run: all tests of this package take well under a minute, and not much more
// with the race detector.
func seeds() int {
	switch {
	case *seedsFlag > 0:
		return *seedsFlag
	case testing.Short():
		return 20
	case raceDetector:
		return 20
	}
	return 100
}

// TestSeeds runs a fixed set of worlds, and those that have found a bug.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		c := Draw(*seedFlag)
		r := Run(c, c.Faults(), os.Stdout)
		t.Logf("%v\n%+v", &c, r.Stats)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return
	}
	var total Stats
	for seed := uint64(1); seed <= uint64(seeds()); seed++ {
		total.add(playSeed(t, seed))
	}
	for _, seed := range keptSeeds(t) {
		total.add(playSeed(t, seed))
	}
	t.Logf("%+v", total)
}

// playSeed runs the world of a seed, and prints how to replay it if it fails.
func playSeed(t *testing.T, seed uint64) Stats {
	t.Helper()
	c := Draw(seed)
	faults := c.Faults()
	r := Run(c, faults, nil)
	if r.Err == nil {
		return r.Stats
	}
	var last error
	const tries = 300
	least := Shrink(faults, tries, func(f []Fault) bool {
		r := Run(c, f, nil)
		if r.Err != nil {
			last = r.Err
		}
		return r.Err != nil
	})
	var list strings.Builder
	for _, f := range least {
		fmt.Fprintf(&list, "\n  %v", f)
	}
	if last == nil {
		last = r.Err
	}
	t.Errorf("%v\n%v\nwith these %d of %d faults alone:%s\n%v\nmake sim SEED=%d prints it step by step",
		&c, r.Err, len(least), len(faults), list.String(), last, seed)
	return r.Stats
}

// keptSeeds returns the seeds that have found bugs, from testdata.
func keptSeeds(t *testing.T) []uint64 {
	t.Helper()
	f, err := os.Open("testdata/seeds.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var list []uint64
	for scan := bufio.NewScanner(f); scan.Scan(); {
		number, _, _ := strings.Cut(scan.Text(), " ")
		if number == "" || number == "#" {
			continue
		}
		seed, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatalf("testdata/seeds.txt: %v", err)
		}
		list = append(list, seed)
	}
	return list
}

// TestSoak runs random seeds for the given time.
func TestSoak(t *testing.T) {
	if *soakFlag == 0 {
		t.Skip("not requested; make soak FOR=10m runs random seeds")
	}
	var total Stats
	begin := time.Now()
	told, played := begin, 0
	for !t.Failed() && time.Since(begin) < *soakFlag {
		total.add(playSeed(t, rand.Uint64()>>1))
		played++
		if time.Since(told) > 30*time.Second {
			told = time.Now()
			fmt.Printf("%d seeds: %.1f virtual hours, %d faults\n", played, total.Virtual.Hours(), total.Faults)
		}
	}
	fmt.Printf("%d seeds survived: %.1f virtual hours, %d faults; %+v\n", played, total.Virtual.Hours(), total.Faults, total)
}

// A seed always gives the same world: otherwise no failure could be replayed.
func TestReplay(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		c := Draw(seed)
		a, b := Run(c, c.Faults(), nil), Run(c, c.Faults(), nil)
		if a.Trace != b.Trace || a.Stats != b.Stats {
			t.Errorf("seed %d gave %x %+v, and then %x %+v", seed, a.Trace, a.Stats, b.Trace, b.Stats)
		}
		if other := Run(c, nil, nil); other.Trace == a.Trace {
			t.Errorf("seed %d gives the same trace without its faults", seed)
		}
	}
}

// Whatever faults leaders have, attempts go on and none is run again, unless there is no leader for long.
func TestLeadersAlone(t *testing.T) {
	for seed := uint64(1); seed <= uint64(seeds()/4); seed++ {
		c := Draw(seed)
		c.Leaders, c.Kinds, c.Failing = 3+2*int(seed%2), OfLeaders(), 0
		c.Mean, c.Tasks, c.Pace = 2*time.Second, 20, 3*time.Second
		if r := Run(c, c.Faults(), nil); r.Err != nil {
			t.Errorf("%v\n%v", &c, r.Err)
		}
	}
}

// TestLockers runs small worlds in which clients contend for locks while leaders change, and are cut off without their knowledge.
func TestLockers(t *testing.T) {
	for seed := uint64(1); seed <= uint64(seeds()/2); seed++ {
		c := lockers(seed)
		if r := Run(c, c.Faults(), nil); r.Err != nil {
			t.Errorf("%v\n%v", &c, r.Err)
		}
	}
}

// lockers returns a small world with lockers.
func lockers(seed uint64) Config {
	c := Draw(seed)
	c.Leaders, c.Workers, c.Clients, c.Jobs, c.Tasks, c.Lockers, c.Failing = 3, 1, 1, 1, 1, 4, 0
	c.Kinds, c.Pace, c.Span = []FaultKind{PauseLeader, CutOff, CutMute, SplitNetwork, KillLeader, ClockDrift}, 500*time.Millisecond, 20*time.Second
	return c
}

// TestTenThousandWorkers runs a large cluster for a short time, with a million tasks.
func TestTenThousandWorkers(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes too long for this build")
	}
	for i, tasks := range []int{250_000, 5_000} {
		c := Config{
			Seed: uint64(i + 3), Leaders: 3, Workers: 10_000, Slots: 1, Clients: 1, Jobs: 4, Tasks: tasks, Plain: true,
			Mean: 300 * time.Microsecond, Span: 3 * time.Second, Pace: 250 * time.Millisecond, SnapshotEvery: 200, StepEvery: 2 * time.Millisecond,
			Kinds: []FaultKind{KillLeader, PauseLeader, KillWorker, PauseWorker, BreakSession, CutOffWorker},
		}
		r := Run(c, c.Faults(), nil)
		t.Logf("%+v", r.Stats)
		if r.Err != nil {
			t.Errorf("%v\n%v", &c, r.Err)
		}
		if r.Attempts < 4*tasks {
			t.Errorf("seed %d: %d attempts, want %d", c.Seed, r.Attempts, 4*tasks)
		}
	}
}
