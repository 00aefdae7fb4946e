package sched

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"slices"

	"github.com/bridgefour/bridgefour/internal/state"
)

// The order in which jobs are served, as heaps: a decision must not visit every job. A class has the jobs of one priority, a group
// those of a class that need the same of a worker, a share those of a group and a user. The first job of a group is the first of its
// first share; groups are compared one by one, because there are few.

// class is the groups of one priority, in the order in which they were added.
type class struct {
	priority uint32
	groups   []*group
}

// group is the jobs of a class with the same needs, strict ones or others.
type group struct {
	Need

	key    string // of the need, and whether it is strict
	strict bool   // see strict
	class  *class
	shares Ordered[*share]   // with a runnable job
	users  map[*usage]*share // all of them

	able  bool   // a worker can run its tasks, as of
	asked uint64 // Scheduler.fleet + 1; 0: not known
}

// share is the jobs of a group that belong to one user.
type share struct {
	user     *usage
	group    *group
	runnable Ordered[*jobQueue]
	jobs     int // runnable or not
	at       int
}

// usage is what a user uses. It exists while the user has jobs or slots.
type usage struct {
	scheduler *Scheduler
	name      string
	quota     state.Quota
	load      int64
	slots     int // that leases of the user's jobs occupy, see Worker.occupy, or that are reserved for them
	shares    []*share
	ahead     bool // see leaseAhead
}

// free is how many more slots the quota allows; negative: it was lowered, or leases of an earlier term were adopted.
func (u *usage) free() int {
	if u.quota.Slots == 0 {
		return math.MaxInt
	}
	return int(u.quota.Slots) - u.slots
}

func (u *usage) weight() int64 { return int64(max(1, u.quota.Weight)) }

// jobQueue is the stages of a job in the scheduler, and their load.
type jobQueue struct {
	job      *state.Job
	share    *share
	stages   []*queue // in order
	load     int64    // of the leases of all its stages, and of its reservation
	leases   int
	reserved reservation
	pause    pause
	at       int // in share.runnable; 0: no task was open when the job was last looked at
}

// Element is an element of a heap.
type Element[T any] interface {
	Before(other T) bool
	Place() *int // 1 is the first; 0: not in the heap
}

// Ordered is a heap whose elements know their places.
type Ordered[T Element[T]] []T

func (h Ordered[T]) Len() int           { return len(h) }
func (h Ordered[T]) Less(i, j int) bool { return h[i].Before(h[j]) }

func (h Ordered[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	*h[i].Place(), *h[j].Place() = i+1, j+1
}

// Push and Pop are for package heap.
func (h *Ordered[T]) Push(x any) {
	t := x.(T) //nolint:forcetypeassert // of put
	*h = append(*h, t)
	*t.Place() = len(*h)
}

// Pop removes the last element.
func (h *Ordered[T]) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	*t.Place() = 0
	clear((*h)[last:])
	*h = (*h)[:last]
	return t
}

// Put adds t, or moves it to where it belongs after a change.
func (h *Ordered[T]) Put(t T) {
	if at := *t.Place(); at > 0 {
		heap.Fix(h, at-1)
	} else {
		heap.Push(h, t)
	}
}

// Remove removes t, if it is there.
func (h *Ordered[T]) Remove(t T) {
	if at := *t.Place(); at > 0 {
		heap.Remove(h, at-1)
	}
}

func (s *share) Place() *int { return &s.at }

// Before compares shares with a runnable job.
func (s *share) Before(other *share) bool { return before(s.runnable[0], other.runnable[0]) }

func (j *jobQueue) Place() *int { return &j.at }

// priority is that of the job, or a higher one: see SetPriority.
func (j *jobQueue) priority() uint32 { return j.share.group.class.priority }

// Before compares jobs of one user.
func (j *jobQueue) Before(other *jobQueue) bool {
	return cmp.Or(cmp.Compare(j.load, other.load), cmp.Compare(j.job.ID, other.job.ID)) < 0
}

// before compares jobs of one priority.
func before(a, b *jobQueue) bool {
	u, v := a.share.user, b.share.user
	return cmp.Or(cmp.Compare(u.load*v.weight(), v.load*u.weight()), cmp.Compare(a.load, b.load), cmp.Compare(a.job.ID, b.job.ID)) < 0
}

// class returns the class of a priority, which may be new.
func (s *Scheduler) class(priority uint32) *class {
	at, ok := slices.BinarySearchFunc(s.classes, priority, func(c *class, p uint32) int { return cmp.Compare(p, c.priority) })
	if !ok {
		s.classes = slices.Insert(s.classes, at, &class{priority: priority})
	}
	return s.classes[at]
}

// shareOf returns the share of a job, which may be new.
func (s *Scheduler) shareOf(job *state.Job) *share {
	spec, priority := job.Spec, job.Spec.Priority
	if raised, ok := s.raised[job.ID]; ok {
		priority = raised
	}
	c, need := s.class(priority), needOf(spec)
	key := fmt.Sprint(need.key(), strict(spec))
	at := slices.IndexFunc(c.groups, func(g *group) bool { return g.key == key })
	if at < 0 {
		at = len(c.groups)
		c.groups = append(c.groups, &group{Need: need, key: key, strict: strict(spec), class: c, users: map[*usage]*share{}})
	}
	g, user := c.groups[at], s.user(spec.User)
	if g.users[user] == nil {
		sh := &share{user: user, group: g}
		g.users[user], user.shares = sh, append(user.shares, sh)
	}
	return g.users[user]
}

// user returns the usage of a user, who may be new.
func (s *Scheduler) user(name string) *usage {
	u := s.users[name]
	if u == nil {
		u = &usage{scheduler: s, name: name, quota: s.quotas.Of(name)}
		s.users[name] = u
	}
	return u
}

// dropUser removes a user without jobs and slots.
func (s *Scheduler) dropUser(u *usage) {
	if len(u.shares) == 0 && u.slots == 0 {
		delete(s.users, u.name)
	}
}

// dropShare removes what is empty without the last job of a share.
func (s *Scheduler) dropShare(sh *share) {
	g, user := sh.group, sh.user
	delete(g.users, user)
	user.shares = without(user.shares, sh)
	s.dropUser(user)
	if len(g.users) > 0 {
		return
	}
	if g.class.groups = without(g.class.groups, g); len(g.class.groups) == 0 {
		s.classes = without(s.classes, g.class)
	}
}

func without[T comparable](list []T, x T) []T {
	return slices.DeleteFunc(list, func(o T) bool { return o == x })
}

// offer makes a job runnable: a task of it may be open.
func (j *jobQueue) offer() {
	j.share.runnable.Put(j)
	j.share.rank()
}

// withdraw makes a job not runnable.
func (j *jobQueue) withdraw() {
	j.share.runnable.Remove(j)
	j.share.rank()
}

// charge adds to the load of a job, and to the load and the slots of its user.
func (j *jobQueue) charge(load int64, slots int) {
	j.load += load
	j.share.user.load += load
	if j.at > 0 {
		j.share.runnable.Put(j)
	}
	j.share.user.use(slots)
}

// use adds to the slots of a user, and updates the places of the user's shares.
func (u *usage) use(slots int) {
	u.slots += slots
	if u.rank() {
		u.scheduler.freed = true
	}
}

// rank updates the places of a user's shares, and reports whether one has become available.
func (u *usage) rank() (more bool) {
	for _, sh := range u.shares {
		before := sh.at
		sh.rank()
		more = more || before == 0 && sh.at > 0
	}
	return more
}

// rank updates the place of a share, which has none if no job is runnable, or if the quota does not allow a task.
func (s *share) rank() {
	if len(s.runnable) > 0 && (s.user.free() >= s.group.Slots || s.user.ahead && !s.group.strict) {
		s.group.shares.Put(s)
	} else {
		s.group.shares.Remove(s)
	}
}
