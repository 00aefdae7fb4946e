package sim

import (
	"os/exec"
	"strings"
	"testing"
)

// TestPlantedInTheWorld: a simulator that finds nothing proves nothing. These are bugs of disks, networks and of who answers
// clients.
func TestPlantedInTheWorld(t *testing.T) {
	for name, plant := range map[string]Plant{
		"ack before fsync": AckUnsynced, "commit without a quorum": ForgedQuorum,
		"ack before commit": EarlyAck, "strong reads from memory": LazyRead,
	} {
		t.Run(name, func(t *testing.T) {
			mustFind(t, Draw, func(c Config) Result {
				c.Plant = plant
				return Run(c, c.Faults(), nil)
			})
		})
	}
}

// TestPlantedInTheLeader builds the leader with the bugs that the tag planted lets it have, and runs leaderbugs_test.go.
func TestPlantedInTheLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a build of its own")
	}
	out, err := exec.CommandContext(t.Context(), "go", "test", "-tags", "planted", "-run", "^TestLeaderBugs$", "-count", "1", "-v", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: TestLeaderBugs") {
		t.Fatalf("the test has not run:\n%s", out)
	}
	t.Logf("%s", out)
}

// mustFind plays the worlds of seeds with a bug until one finds it. Without the bug that world is a good one.
func mustFind(t *testing.T, draw func(seed uint64) Config, run func(Config) Result) {
	t.Helper()
	const seeds = 100
	for seed := uint64(1); seed <= seeds; seed++ {
		c := draw(seed)
		r := run(c)
		if r.Err == nil {
			continue
		}
		t.Logf("found by seed %d: %.160v", seed, r.Err)
		if r := Run(c, c.Faults(), nil); r.Err != nil {
			t.Errorf("seed %d fails without the bug as well: %v", seed, r.Err)
		}
		return
	}
	t.Errorf("not found by %d seeds", seeds)
}
