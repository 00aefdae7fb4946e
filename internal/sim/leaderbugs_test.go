//go:build planted

package sim

import (
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/leader"
)

// TestLeaderBugs shows that the simulator finds the bugs that a build with the tag planted can be given.
func TestLeaderBugs(t *testing.T) {
	for name, plants := range map[string]leader.Plants{
		"accept a stale lease":            {StaleLease: true},
		"adopt a lease of an older term":  {AdoptOld: true},
		"forget a completion at failover": {ForgetDone: true},
	} {
		t.Run(name, func(t *testing.T) {
			mustFind(t, comeAndGo, func(c Config) Result {
				leader.Planted = plants
				defer func() { leader.Planted = leader.Plants{} }()
				return Run(c, c.Faults(), nil)
			})
		})
	}
}

// comeAndGo is a world in which workers are away for long while their attempts go on, and leaders change.
func comeAndGo(seed uint64) Config {
	c := Draw(seed)
	c.Kinds = []FaultKind{KillLeader, RestartLeader, PauseWorker, CutOffWorker, BreakSession}
	c.Workers, c.Mean, c.Tasks, c.Pace = 5, 2*time.Second, 30, 500*time.Millisecond
	return c
}
