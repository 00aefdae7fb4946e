package sim

import (
	"fmt"
	"path"
	"slices"
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
	for k, name := range []string{"named/a", "named/b", "named"} {
		if w.cfg.raises() == 0 && oneOf(x>>(40+4*k), 4) { // older levels have no named locks
			p.spec.Locks = append(p.spec.Locks, state.LockName{Name: name, Shared: oneOf(x>>(42+4*k), 3)})
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

// attemptLocks keeps what a job locks, for as long as attempts of it may run.
func (c *oracle) attemptLocks(id state.JobID) []state.LockName {
	if l := c.state.LockOf(id); l != nil && l.Held() {
		c.locked[id] = l.Names()
	}
	return c.locked[id]
}

// exclude checks that no attempt of another job runs while a job holds locks that conflict with those of that job, even if it has ended.
func (c *oracle) exclude(holder state.JobID, names []state.LockName) {
	for _, a := range c.running {
		if a.job != holder {
			c.apart(a, holder, names)
		}
	}
}

// apart checks an attempt that runs while another job holds locks. Jobs that lock no more than data may do so once their worker was given up: see leftoverBook of package
// leader. No one can stop the attempts of a worker that is itself stopped.
func (c *oracle) apart(a *attempt, holder state.JobID, names []state.LockName) {
	own := c.attemptLocks(a.job)
	s := c.w.workers[a.worker]
	named := slices.ContainsFunc(own, func(n state.LockName) bool { return !n.Data })
	if a.hostile || s.hostile != nil || s.paused > 0 || s.pausedLast >= a.granted || !named && s.givenUp >= a.granted || !disturb(own, names) {
		return
	}
	c.w.fail("an attempt of job %d runs on worker %d, granted at %v, while job %d holds locks that conflict with those of job %d", a.job, a.worker, a.granted, holder, a.job)
}

// workerChanged notes when a worker was given up: its leases are void.
func (c *oracle) workerChanged(id state.WorkerID) {
	if w := c.state.Worker(id); w != nil && w.Status != state.WorkerDead && w.Status != state.WorkerRemoved {
		return
	}
	for _, s := range c.w.workers {
		if s.id == uint64(id) {
			s.givenUp = c.w.now
		}
	}
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

// over counts the requests that are held by jobs that have ended: their attempts are being stopped.
func (c *oracle) over() (n int) {
	for l := range c.state.Locks() {
		if l.Over {
			n++
		}
	}
	return n
}

// lockGranted checks that fencing numbers grow.
func (c *oracle) lockGranted(id state.LockID) {
	l := c.state.Lock(id)
	if l == nil {
		return // it was granted and ended by one entry
	}
	if l.Job == 0 {
		c.exclude(0, l.Names())
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
