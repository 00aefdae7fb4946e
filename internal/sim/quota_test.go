package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// changeQuotas has an administrator change the quotas of users, in a third of the worlds. They allow every task.
func (w *World) changeQuotas(rng *rand.Rand) {
	if w.cfg.Plain || !oneIn(rng, 3) {
		return
	}
	for n := range 1 + rng.IntN(20) {
		key, remove := fmt.Sprint("quota/", n), oneIn(rng, 5)
		q := state.Quota{
			User: []string{"ann", "bob", state.Everyone}[rng.IntN(3)], Slots: []uint32{0, 2, 3, 5, 10}[rng.IntN(5)], Weight: uint32(rng.IntN(4)),
		}
		if q.Slots > 0 {
			w.quota = min(cmp.Or(w.quota, int(q.Slots)), int(q.Slots))
		}
		w.at(between(rng, w.cfg.Span/2, w.cfg.Span), func() {
			for _, l := range w.members() { // those that do not lead drop it
				l.handle(leader.Command{Key: key, Add: func(e *state.Entry) {
					if remove {
						e.RemoveQuota(key, q.User)
					} else {
						e.SetQuota(key, q)
					}
				}})
			}
		})
	}
}

// quotas checks that a leader grants nothing beyond a quota. What is beyond it since it was lowered, or since leases were adopted, stands.
func (c *oracle) quotas(l *simLeader, e *leader.Effects) {
	core := l.controller.Core()
	if core == nil {
		return
	}
	for i := range e.Send {
		for _, granted := range e.Send[i].Message.GetWork().GetLeases() {
			job := l.controller.Machine().Job(state.JobID(granted.GetJob()))
			if job == nil {
				continue
			}
			if use := core.Quota(job.Spec.User); use.Slots > 0 && use.Used > int(use.Slots) {
				c.w.fail("leader %d grants tasks of job %d at %v: user %s uses %d slots, and the quota is %d",
					l.addr, job.ID, l.w.now, job.Spec.User, use.Used, use.Slots)
			}
		}
	}
}
