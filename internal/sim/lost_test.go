package sim

import (
	"testing"
	"time"
)

// TestLostOutputs runs worlds in which little but outputs is lost, many of them, also of jobs with two stages that reduce.
func TestLostOutputs(t *testing.T) {
	var total Stats
	for seed := range uint64(seeds() / 5) {
		c := Draw(3*seed + 1) // their jobs are of the latest feature level
		c.Kinds = []FaultKind{LoseOutput, LoseOutput, LoseOutput, KillLeader, KillWorker}
		c.Pace, c.Mean, c.Tasks, c.Jobs = 100*time.Millisecond, 300*time.Millisecond, 30, 20
		r := Run(c, c.Faults(), nil)
		total.add(r.Stats)
		if r.Err != nil {
			t.Errorf("%v\n%v", &c, r.Err)
		}
	}
	t.Logf("%+v", total)
	if total.Lost < seeds() {
		t.Errorf("%d outputs were lost: too few to show anything", total.Lost)
	}
}
