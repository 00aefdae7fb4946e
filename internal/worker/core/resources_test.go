package core

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// TestIDsAreNeverShared: whatever a leader grants, takes back and grants again, no two slots have the same id at one time, and each attempt has
// as many as its job needs.
func TestIDsAreNeverShared(t *testing.T) {
	const slots = 4
	all := map[string][]string{"gpu": {"a", "b", "c"}, "license": {"0"}}
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := newTestOf(t, Config{Hello: &wire.Hello{Identity: "w", Slots: slots}, Leaders: []string{"a:1"}, Resources: all})
		c.welcome()
		var jobs []*wire.Job
		for id := range uint64(4) {
			job := jobMessage(id + 1)
			job.Resources = map[string]uint32{"gpu": uint32(id), "license": uint32(id % 2)}
			jobs = append(jobs, job)
		}
		jobs = append(jobs, &wire.Job{Id: 5, Uid: "u", Output: "/out", Stages: []string{"map"}, Resources: map[string]uint32{"gpu": 4}}) // more than there are
		c.work(&wire.Work{Jobs: jobs})
		next := uint64(1)
		for range 300 {
			switch slot := rng.IntN(slots); rng.IntN(4) {
			case 0, 1: // the leader may know nothing of what is still being stopped
				c.work(&wire.Work{Leases: []*wire.Leases{{Job: 1 + rng.Uint64N(5), FirstLease: next, Index: []uint64{next}}}})
				next++
			case 2:
				c.work(&wire.Work{Stale: []uint64{1 + rng.Uint64N(next)}})
			default:
				if ch := c.starts[slot]; ch != nil {
					if i, ok := ch.Claim(); ok {
						ch.Finish(i, Result{})
					}
					c.idle(slot)
				}
			}
			had := map[string]int{}
			for slot, ch := range c.starts {
				if ch == nil {
					continue
				}
				for name, n := range ch.Job.GetResources() {
					if ids := ch.Resources[name]; len(ids) != int(n) {
						t.Fatalf("seed %d: slot %d has %v of %s, want %d", seed, slot, ids, name, n)
					}
					for _, id := range ch.Resources[name] {
						if other, taken := had[name+id]; taken || !slices.Contains(all[name], id) {
							t.Fatalf("seed %d: slots %d and %d have %s %s", seed, slot, other, name, id)
						}
						had[name+id] = slot
					}
				}
			}
		}
		for slot := range slots {
			for c.starts[slot] != nil {
				c.idle(slot)
				c.work(&wire.Work{Ended: []uint64{1, 2, 3, 4, 5}})
			}
		}
		if taken := c.core.ids.taken; len(taken["gpu"])+len(taken["license"]) > 0 {
			t.Fatalf("seed %d: %v are taken in the end, want none", seed, taken)
		}
	}
}
