package sim

import (
	"testing"
	"time"
)

// A simulator that finds nothing proves nothing: it finds each planted bug.
func TestPlanted(t *testing.T) {
	tests := []struct {
		name  string
		plant Plant
		draw  func(seed uint64) Config
		after uint64 // the first seed is the next one; one that finds the bug is near
	}{
		{"ack before fsync", AckUnsynced, Draw, 3},
		{"commit without a quorum", ForgedQuorum, Draw, 0},
		{"ack before commit", EarlyAck, Draw, 3},
		{"strong reads from memory", LazyRead, Draw, 17},
		{"accept a stale lease", StaleLease, absentWorkers, 41},
		{"adopt a lease of an older term", AdoptOld, absentWorkers, 3},
		{"forget a completion at failover", ForgetDone, absentWorkers, 0},
		{"use a slot again while a process lives", ReuseSlot, faulty(LeaveProcess, KillWorker, DrainWorker), 0},
		{"propose an entry that cannot be sent", LargeEntry, largeRequests, 0},
		{"believe a report on another worker's lease", TrustReport, faulty(ForgeReports, KillWorker), 0},
		{"answer a renewal that is not carried out", DropRenewal, lockers, 0},
		{"read a file that has changed", TrustInput, faulty(ChangeInput, KillLeader, KillWorker), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const seeds = 100
			for seed := tt.after + 1; seed <= tt.after+seeds; seed++ {
				c := tt.draw(seed)
				c.Plant = tt.plant
				r := Run(c, c.Faults(), nil)
				if r.Err == nil {
					continue
				}
				t.Logf("found by seed %d: %.160v", seed, r.Err)
				c.Plant = NoBug
				if r := Run(c, c.Faults(), nil); r.Err != nil {
					t.Errorf("seed %d fails without the bug as well: %v", seed, r.Err)
				}
				return
			}
			t.Errorf("not found by %d seeds", seeds)
		})
	}
}

// absentWorkers returns a world in which workers are cut off for long while their attempts go on, and leaders change.
func absentWorkers(seed uint64) Config {
	c := Draw(seed)
	c.Kinds = []FaultKind{KillLeader, RestartLeader, PauseWorker, CutOffWorker, BreakSession}
	c.Workers, c.Mean, c.Tasks, c.Pace = 5, 2*time.Second, 30, 500*time.Millisecond
	return c
}

// largeRequests returns a small world: the bug keeps it from coming to an end, which is known after minutes.
func largeRequests(seed uint64) Config {
	c := faulty(LargeRequest)(seed)
	c.Leaders, c.Workers = 3, 2
	return c
}

// faulty returns a draw of worlds with these faults only, and no failures of attempts.
func faulty(kinds ...FaultKind) func(seed uint64) Config {
	return func(seed uint64) Config {
		c := Draw(seed)
		c.Kinds, c.Failing, c.Pace = kinds, 0, 300*time.Millisecond
		return c
	}
}
