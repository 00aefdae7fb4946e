package sim

import (
	"testing"
	"time"
)

// TestCutOffWorkers runs worlds whose attempts take long, and whose workers are cut off for far longer than attempts of jobs with named locks may run without a leader: the
// next holder of such a lock begins when they have ended by themselves.
func TestCutOffWorkers(t *testing.T) {
	for k := range uint64(seeds() / 20) {
		c := Draw(9*k + 4) // see Config.raises and Config.unled
		c.Kinds = []FaultKind{CutOffWorker, KillLeader}
		c.Workers, c.Mean, c.Tasks, c.Jobs, c.Clients, c.Span = 3, 20*time.Second, 3, 20, 4, 3*time.Minute
		rng := stream(c.Seed, "cut off", 0)
		var faults []Fault
		for at := 5 * time.Second; at < c.Span; at += between(rng, 5*time.Second, 20*time.Second) {
			faults = append(faults, Fault{Kind: CutOffWorker, At: at, Who: rng.IntN(c.Workers), For: between(rng, 20*time.Second, 40*time.Second)})
		}
		if r := Run(c, faults, nil); r.Err != nil {
			t.Errorf("%v\n%v", &c, r.Err)
		}
	}
}
