package leader

import (
	"cmp"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
)

// A straggler is a task that runs far longer than others of its stage. While slots are free, it gets a second attempt on another worker, as in MapReduce
// (Dean and Ghemawat, 2004, "backup tasks"); the log takes the output of the first one that ends, and the other one is revoked.
const (
	stragglerFactor = 3 // times the median of the run times
	// StragglerMin is the least run time of a straggler.
	StragglerMin     = 5 * time.Second
	stragglerDone    = 3           // tasks that must be done: without them the median says little; and half of the stage
	stragglersLooked = time.Second // between two looks
	stragglerSamples = 1000        // done tasks of a stage that are looked at
)

// straggler is a running attempt that takes too long.
type straggler struct {
	key    taskKey
	lease  held
	millis int64 // its run time
}

// speculate grants second attempts of stragglers to idle workers.
func (c *Core) speculate() {
	if c.idle || c.now.Sub(c.speculated) < stragglersLooked || c.pipeline.behind() {
		return
	}
	c.speculated = c.now
	limits := c.stragglerLimits()
	if len(limits) == 0 {
		return
	}
	idle := slices.DeleteFunc(slices.Clone(c.registry.inOrder), func(w *worker) bool { return !w.assignable() || w.Busy() >= w.Slots })
	if len(idle) == 0 {
		return
	}
	for _, s := range c.stragglers(limits) {
		slices.SortStableFunc(idle, func(a, b *worker) int { return cmp.Compare(b.Slots-b.Busy(), a.Slots-a.Busy()) })
		for _, w := range idle {
			if w.ID == s.lease.worker {
				continue
			}
			if g, ok := c.sched.Second(c.now, &w.Worker, s.key.Key, s.key.task); ok {
				c.grant(w, &g)
				c.leases.second(s.key, s.lease, held{w.ID, c.leases.last})
				break
			}
		}
	}
}

// stragglerLimit is from when on the attempts of a stage are stragglers.
type stragglerLimit struct {
	job    *state.Job
	millis int64  // of an attempt of average size
	bytes  uint64 // of an average split; 0: they have none
}

// stragglerLimits are those of the stages that may have stragglers: all their tasks are leased or done, and half of them are done.
func (c *Core) stragglerLimits() map[sched.Key]stragglerLimit {
	limits := map[sched.Key]stragglerLimit{}
	for _, id := range c.machine.Live() {
		job := c.machine.Job(id)
		if job.Spec.NoSecond || job.Spec.DelayMS > 0 {
			continue
		}
		for i, stage := range job.Stages {
			key := sched.Key{Job: id, Stage: uint32(i)}
			if (stage.Role != state.RoleMap && stage.Role != state.RoleReduce) || stage.Done < max(stragglerDone, stage.Tasks/2) || c.sched.StageLeased(key) == 0 {
				continue
			}
			l := stragglerLimit{job: job, millis: max(stragglerFactor*medianMillis(stage), StragglerMin.Milliseconds())}
			if job.Spec.Splits(i) {
				l.bytes = job.Spec.Input.Bytes / stage.Tasks
			}
			limits[key] = l
		}
	}
	return limits
}

// medianMillis is the median run time of the done tasks of a stage, or of a sample of them.
func medianMillis(stage *state.Stage) int64 {
	var list []uint32
	for i := uint64(0); i < stage.Tasks; i += max(1, stage.Tasks/stragglerSamples) {
		if out, done := stage.Output(i); done {
			list = append(list, out.Millis)
		}
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return int64(list[len(list)/2])
}

// stragglers returns the stragglers without a second attempt, those that have run longest first.
func (c *Core) stragglers(limits map[sched.Key]stragglerLimit) (list []straggler) {
	for _, w := range c.registry.inOrder {
		for _, n := range w.running {
			number := state.Lease(n)
			l := w.leases[number]
			if l == nil || l.ended || l.begun == 0 {
				continue
			}
			limit, ok := limits[l.Key]
			millis := c.now.UnixMilli() - l.begun
			if !ok || millis < limit.millis || len(c.leases.twice[l.taskKey]) > 0 || millis < c.scaled(&limit, l.task) {
				continue
			}
			list = append(list, straggler{l.taskKey, held{w.ID, number}, millis})
		}
	}
	slices.SortStableFunc(list, func(a, b straggler) int { return cmp.Compare(b.millis, a.millis) })
	return list
}

// scaled is the limit of a task, whose split may be longer than others.
func (c *Core) scaled(limit *stragglerLimit, task uint64) int64 {
	if limit.bytes == 0 {
		return limit.millis
	}
	split := c.split(limit.job, task)
	length := split.GetFile().GetLength()
	for _, f := range split.GetFiles().GetList() {
		length += f.GetLength()
	}
	return int64(float64(limit.millis) * max(1, float64(length)/float64(limit.bytes)))
}

// revokeOther revokes the second lease of a task that is over.
func (c *Core) revokeOther(key taskKey, number state.Lease) {
	other, ok := c.leases.other(key, number)
	if !ok {
		return
	}
	if w := c.registry.workers[other.worker]; w != nil {
		if l := w.leases[other.number]; l != nil && !l.ended {
			c.observeRevoked(w, l)
			c.leases.drop(w.leases, other.number)
			c.release(w, l)
			c.leaveBehind(w, other.number, l.Job)
			c.outbox.stale(w, other.number)
		}
	}
}
