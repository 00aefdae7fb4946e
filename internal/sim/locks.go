package sim

import (
	"fmt"
	"path"
	"strings"

	"github.com/bridgefour/bridgefour/internal/state"
)

// sharedKey begins the keys of submits of jobs that share outputs and inputs with others: they may wait for each other.
const sharedKey = jobKey + "shared/"

// shareData has a third of the jobs write where others write, or below, and read what others write.
func (w *World) shareData(p *jobPlan, i int) {
	x := lot(p.lot, 1<<32)
	if w.cfg.Plain || !oneOf(x, 3) {
		return
	}
	places := []string{"/shared/a", "/shared/a/b", "/shared/b", "/shared/c"}
	p.key = fmt.Sprint(sharedKey, i)
	if !p.spec.Spool {
		p.spec.Output, p.spec.Overwrite = places[x>>16%uint64(len(places))], true
	}
	for k, place := range append(places, "/shared") {
		if oneOf(x>>(24+2*k), 4) && place != p.spec.Output {
			p.spec.Data = append(p.spec.Data, state.LockName{Name: place, Shared: true})
		}
	}
}

// isShared reports whether the job of a submit with this key may wait for others.
func isShared(key string) bool { return strings.HasPrefix(key, sharedKey) }

// uses is what a job reads and writes. One that is ending only removes or publishes what it has written.
func uses(job *state.Job) (list []state.LockName) {
	if job.Status == state.JobActive {
		list = append(list, job.Spec.Data...)
	}
	if !job.Spec.Spool {
		list = append(list, state.LockName{Name: path.Clean(job.Spec.Output)})
	}
	return list
}

// within reports whether one of two locations is the other, or lies in it.
func within(a, b string) bool {
	return strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/")
}

// disturb reports whether something is written in one of two lists of locations that is read or written in the other.
func disturb(a, b []state.LockName) bool {
	for _, x := range a {
		for _, y := range b {
			if (!x.Shared || !y.Shared) && x.Data == y.Data && within(x.Name, y.Name) {
				return true
			}
		}
	}
	return false
}

// locks checks, after an entry that may have started jobs, that none of those that run writes where another one reads or writes, and that requests are
// granted in their order, and as soon as they can be.
func (c *oracle) locks() {
	if c.state.Level() < 2 {
		return
	}
	var running []*state.Job
	for _, id := range c.state.Live() {
		if job := c.state.Job(id); job.Status != state.JobWaiting {
			running = append(running, job)
		}
	}
	for i, a := range running {
		for _, b := range running[:i] {
			if disturb(uses(a), uses(b)) {
				c.w.fail("jobs %d (%v) and %d (%v) run, and one writes where the other reads or writes", b.ID, b.Status, a.ID, a.Status)
			}
		}
	}
	var earlier [][]state.LockName
	for l := range c.state.Locks() {
		names, waits := l.Names(), false
		for _, other := range earlier {
			waits = waits || disturb(names, other)
		}
		if waits == l.Held() {
			c.w.fail("job %d, %q holds its locks: %v; an earlier request conflicts: %v", l.Job, l.Holder, l.Held(), waits)
		}
		earlier = append(earlier, names)
	}
}

// lockGranted checks that fencing numbers grow.
func (c *oracle) lockGranted(id state.LockID) {
	l := c.state.Lock(id)
	if l == nil {
		return // it was granted and ended by one entry
	}
	if l.Fence <= c.fence {
		c.w.fail("request %d is granted with fence %d after %d", id, l.Fence, c.fence)
	}
	c.fence = max(c.fence, l.Fence)
}

// held checks a hold that begins, or goes on for longer: no other one that conflicts lasts by the clock of its holder, and later ones have larger fencing numbers.
// Clocks run at nearly one rate. If that of a leader has jumped, nothing is known of the holds that began before.
func (c *oracle) held(h *hold) {
	c.w.trace("holds", h.fence, uint64(h.until))
	for _, other := range c.holds {
		if other == h || !disturb(h.op.Names, other.op.Names) {
			continue
		}
		if other.acts() && !c.jumpedSince(other) && !c.jumpedSince(h) {
			c.w.fail("%q holds %v with fence %d until %v, and %q holds %v with fence %d until %v", h.op.Holder, h.op.Names, h.fence, h.until, other.op.Holder, other.op.Names,
				other.fence, other.until)
		}
		if other.first < h.first && other.fence >= h.fence {
			c.w.fail("%q holds %v with fence %d, after %q with fence %d", h.op.Holder, h.op.Names, h.fence, other.op.Holder, other.fence)
		}
	}
}

// toldLost checks that a holder whose time is not over is not told that its lock is lost.
func (c *oracle) toldLost(h *hold) {
	if h.acts() && !c.jumpedSince(h) {
		c.w.fail("%q is told that its lock is lost, which it holds until %v", h.op.Holder, h.until)
	}
}

func (c *oracle) jumpedSince(h *hold) bool { return c.w.jumped > 0 && h.sent <= c.w.jumped }

// unlocked reports whether no client has a request for locks.
func (c *oracle) unlocked() bool {
	for l := range c.state.Locks() {
		if l.Job == 0 {
			return false
		}
	}
	return true
}
