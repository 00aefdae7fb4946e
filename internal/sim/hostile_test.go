package sim

import (
	"testing"
	"time"
)

// hostileWorkers returns a world in which malicious programs run in the place of workers, while leaders and workers change.
func hostileWorkers(seed uint64) Config {
	c := Draw(seed)
	c.Kinds = []FaultKind{TurnHostile, TurnHostile, KillLeader, KillWorker, CutOffWorker, LoseOutput}
	c.Workers, c.Pace, c.Span = 4, 400*time.Millisecond, 10*time.Second
	c.Tasks, c.Mean = min(c.Tasks, 30), max(c.Mean, 20*time.Millisecond)
	return c
}

// A worker that is let in and turns hostile can change nothing but the outcome of what it was leased, and of what reads that: jobs end, the tasks of
// other workers with the outputs that those have made.
func TestHostileWorkers(t *testing.T) {
	for seed := uint64(1); seed <= uint64(seeds()/2); seed++ {
		c := hostileWorkers(seed)
		if r := Run(c, c.Faults(), nil); r.Err != nil {
			t.Errorf("%v\n%v", &c, r.Err)
		}
	}
}

// A node that is no member, whatever it sends, changes no member's term, vote or log, even with a certificate; nor do damaged messages of members.
func TestStrangers(t *testing.T) {
	for seed := uint64(1); seed <= uint64(seeds()/4); seed++ {
		c := faulty(StrangerCalls, StrangerCalls, ReplaceLeader, KillLeader, CutOff)(seed)
		c.Workers, c.Span = 2, 10*time.Second
		if r := Run(c, c.Faults(), nil); r.Err != nil {
			t.Errorf("%v\n%v", &c, r.Err)
		}
	}
}
