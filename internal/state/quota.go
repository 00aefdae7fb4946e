package state

import (
	"cmp"
	"strings"
)

// Everyone is the user whose quota holds for all users without one of their own.
const Everyone = "*"

// Quota is what a user may use of the cluster. Zero values bound nothing.
type Quota struct {
	User   string
	Slots  uint32 // that attempts of the user's jobs may occupy at one time
	Jobs   uint32 // that have not ended
	Weight uint32 // of the user's fair share, up to WeightMax; 0 is 1
}

// Quotas are the quotas of all users. They never change.
type Quotas struct{ table[Quota] }

// Bounds of quotas.
const (
	WeightMax    = 1000
	quotasMax    = 10_000
	quotaUserMax = 256 // bytes of a user's name
)

// Of returns the quota that holds for a user; User is empty if there is none.
func (q *Quotas) Of(user string) Quota {
	if own := cmp.Or(q.get(user), q.get(Everyone)); own != nil {
		return *own
	}
	return Quota{}
}

// All returns all quotas, by user.
func (q *Quotas) All() []*Quota {
	return q.sorted(func(a, b *Quota) int { return strings.Compare(a.User, b.User) })
}

func (a *Access) setQuota(q Quota, out *Result) *Rejection {
	switch {
	case q.User == "" || len(q.User) > quotaUserMax:
		return reject(TooLarge, "a quota is of a user, whose name has at most %d bytes", quotaUserMax)
	case q.Weight > WeightMax:
		return reject(TooLarge, "the weight of a quota is at most %d", WeightMax)
	case a.quotas.size >= quotasMax && a.quotas.get(q.User) == nil:
		return reject(Conflict, "there are %d quotas, which is the most: remove some, or set that of %q, which holds for all users without one",
			quotasMax, Everyone)
	}
	a.quotas.table = a.quotas.with(q.User, &q)
	out.Events = append(out.Events, Event{Kind: QuotasChanged})
	return nil
}

func (a *Access) removeQuota(user string, out *Result) *Rejection {
	if a.quotas.get(user) == nil {
		return reject(NotFound, "user %q has no quota", user)
	}
	a.quotas.table = a.quotas.with(user, nil)
	out.Events = append(out.Events, Event{Kind: QuotasChanged})
	return nil
}

// withinQuota refuses to make a job live if the quota of its user does not allow it, with so many others of that user that are being admitted.
func (m *Machine) withinQuota(spec *Spec, others uint32) *Rejection {
	q := m.access.quotas.Of(spec.User)
	if q.Slots > 0 && spec.SlotsPerTask > q.Slots {
		return reject(Conflict, "each task of the job needs %d slots, and the quota of user %q is %d: submit it with a smaller --slots-per-task, or let an "+
			"administrator raise the quota (bridgefour quota set %s --slots N)", spec.SlotsPerTask, spec.User, q.Slots, spec.User)
	}
	if open := m.openBy[spec.User] + others; q.Jobs > 0 && open >= q.Jobs {
		return reject(OverQuota, "user %q has %d open jobs of at most %d: wait until one has ended, stop one, or let an administrator raise the "+
			"quota (bridgefour quota set %s --jobs N)", spec.User, open, q.Jobs, spec.User)
	}
	return nil
}

func (c *codec) quota(q *Quota) {
	c.string(1, &q.User)
	number(c, 2, &q.Slots)
	number(c, 3, &q.Jobs)
	number(c, 4, &q.Weight)
	c.end("a quota")
}
