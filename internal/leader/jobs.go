package leader

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// updateJobStates is the second duty of a leader: to act on what the log has decided.
func (c *Core) updateJobStates(now time.Time) {
	for i := range c.result.Verdicts {
		c.verdict(&c.result.Verdicts[i])
	}
	c.joined = c.joined[:0]
	workers := false
	for i := range c.result.Events {
		c.event(now, &c.result.Events[i])
		workers = workers || c.result.Events[i].Kind == state.WorkerChanged
	}
	if workers {
		c.forgetDead(now)
	}
	// What a worker holds is judged by the state after the entry, so the scheduler must be as far.
	for i := range c.joined {
		c.register(now, &c.joined[i])
	}
}

// settle ends what waited for the oldest entry of this term, which was applied. Failed leases end also if the state ignored their
// failures because the task, the stage or the job was over.
func (c *Core) settle() {
	failures, thawed := c.pipeline.applied()
	for _, id := range thawed {
		c.sched.Freeze(id, false)
		c.allHungry()
	}
	for _, f := range failures {
		w := c.workers[f.worker]
		if w == nil {
			continue
		}
		c.drop(w, f.lease)
		if w.session != nil {
			work := c.workFor(w.session)
			work.Stale = append(work.Stale, uint64(f.lease))
		}
	}
}

// verdict tells a worker what became of a prepared attempt.
func (c *Core) verdict(v *state.Verdict) {
	c.pipeline.decided()
	c.changed[v.Job] = struct{}{}
	w := c.workers[v.Worker]
	if w == nil {
		return
	}
	c.drop(w, v.Lease)
	if w.session == nil {
		return // it asks when it comes back
	}
	work := c.workFor(w.session)
	if v.Won {
		work.Committed = append(work.Committed, uint64(v.Lease))
	} else {
		work.Stale = append(work.Stale, uint64(v.Lease))
	}
}

func (c *Core) event(now time.Time, e *state.Event) {
	if e.Job != 0 {
		c.changed[e.Job] = struct{}{}
	}
	switch e.Kind {
	case state.JobSubmitted:
		c.fact(*e)
	case state.StageStarted:
		c.startStage(sched.Key{Job: e.Job, Stage: e.Stage})
		c.fact(*e)
	case state.StageEnded:
		c.endStage(sched.Key{Job: e.Job, Stage: e.Stage})
	case state.TaskReopened:
		avoid := e.Worker
		if e.Fault == state.Preempted {
			avoid = 0
		}
		// The tasks of a stage that has started again since are open as it is.
		if e.Lease > c.began[e.Job][e.Stage] {
			c.sched.Reopen(sched.Key{Job: e.Job, Stage: e.Stage}, e.Task, c.backOff(now, e), avoid)
		}
		c.allHungry()
	case state.TaskDied:
		c.fact(*e)
	case state.JobEnding:
		c.revokeJob(e.Job)
		c.fact(*e)
	case state.JobEnded:
		c.endJob(now, e.Job)
		c.fact(*e)
	case state.JobForgotten:
		delete(c.began, e.Job)
		c.forgetting = false
		c.forgetOldest(now)
		c.effects.Forgotten = append(c.effects.Forgotten, e.Job)
		if e.Output != "" {
			c.effects.Spools = append(c.effects.Spools, e.Output)
		}
	case state.WorkerJoined:
		c.fact(*e)
	case state.WorkerChanged:
		c.workerChanged(now, e.Worker)
		c.fact(*e)
	case state.RequestApplied:
		switch {
		case strings.HasPrefix(e.Key, registerPrefix):
			c.joined = append(c.joined, *e)
		case e.Key == "": // the leader's own
			c.forgetting = c.forgetting && e.Err == nil
		default:
			c.effects.Replies = append(c.effects.Replies, *e)
		}
	}
}

// Back-off of a task's next attempt: doubling, with jitter so that tasks that failed together do not return together.
const (
	backOffFirst = 100 * time.Millisecond
	backOffMax   = 30 * time.Second
)

func (c *Core) backOff(now time.Time, e *state.Event) time.Time {
	if e.Fault == state.LostWorker || e.Fault == state.Preempted || e.Fault == state.BadProgram {
		return now // another worker will do better
	}
	d := min(backOffFirst<<min(e.Count-min(e.Count, 1), 16), backOffMax)
	return now.Add(d/2 + time.Duration(c.rand.Int64N(int64(d))))
}

// startStage opens the tasks of a stage, which may be one that starts again.
func (c *Core) startStage(key sched.Key) {
	c.endStage(key)
	if c.began[key.Job] == nil {
		c.began[key.Job] = map[uint32]state.Lease{}
	}
	c.began[key.Job][key.Stage] = state.NewLease(c.term, c.seq)
	if job := c.machine.Job(key.Job); job != nil { // the same entry may have ended and forgotten it
		c.sched.Start(job, key.Stage, false)
	}
	c.allHungry()
}

// endStage revokes the leases of a stage, and gives no more of it.
func (c *Core) endStage(key sched.Key) {
	if c.sched.StageLeased(key) > 0 { // others have ended: their verdicts come from the log
		c.revoke(func(l lease) bool { return l.job == key.Job && l.stage == key.Stage })
	}
	c.sched.EndStage(key)
}

// revokeJob revokes the leases of a job, and gives no more of it.
func (c *Core) revokeJob(id state.JobID) {
	if c.sched.Leased(id) > 0 {
		c.revoke(func(l lease) bool { return l.job == id })
	}
	c.sched.End(id)
}

// revoke revokes the leases for which void is true. The workers stop those attempts and remove what they wrote.
func (c *Core) revoke(void func(lease) bool) {
	for _, worker := range c.sorted(c.workers) {
		w := c.workers[worker]
		for _, number := range w.standing() {
			l := w.leases[number]
			if !void(l) {
				continue
			}
			c.drop(w, number)
			c.giveBack(w, l)
			if w.session != nil {
				work := c.workFor(w.session)
				work.Stale = append(work.Stale, uint64(number))
			}
		}
	}
}

func (c *Core) endJob(now time.Time, id state.JobID) {
	c.revokeJob(id)
	delete(c.readers, id)
	for _, s := range c.sessions {
		if _, ok := s.known[id]; ok {
			delete(s.known, id)
			c.workFor(s).Ended = append(c.workFor(s).Ended, uint64(id))
		}
	}
	if job := c.machine.Job(id); job != nil && job.Status == state.JobStopped && job.Spec.Spool {
		c.effects.Spools = append(c.effects.Spools, job.Spec.Output)
	}
	c.forgetOldest(now)
}

// forgetOldest has the log drop the oldest job that is over, if there are too many. One at a time: which is the next is
// known when it is gone.
func (c *Core) forgetOldest(now time.Time) {
	if c.forgetting || c.machine.Len()-len(c.machine.Live()) <= endedJobsMax {
		return
	}
	if oldest, ok := c.machine.OldestEnded(); ok {
		c.open(now).Forget("", oldest)
		c.forgetting = true
	}
}

// workerChanged acts on a new status that the log has.
func (c *Core) workerChanged(now time.Time, id state.WorkerID) {
	if c.machine.Worker(id) == nil {
		c.arrived(id)
	}
	w := c.workers[id]
	if w == nil {
		return
	}
	info := c.machine.Worker(id)
	switch {
	case info == nil:
		if w.session != nil {
			c.dismiss(w.session)
		}
		c.reopenAll(now, w, nil)
		c.sched.Leave(id)
		delete(c.workers, id)
		w.lost = true  // rebalance may still look at it
		c.leased = nil // what has ended went with it
	case info.Status == state.WorkerDraining && !w.draining:
		w.draining = true
		c.sched.Leave(id)
		if w.session != nil {
			c.send(w.session, &wire.ToWorker{Message: &wire.ToWorker_Drain{Drain: &wire.Drain{Reason: "a user has asked for it"}}})
		}
	}
}

// forgetDead removes the oldest dead worker when there are too many: containers that never come back with the same data
// folder would grow the state for ever.
func (c *Core) forgetDead(now time.Time) {
	var oldest state.WorkerID
	dead := 0
	for _, id := range c.machine.Workers() {
		if c.machine.Worker(id).Status != state.WorkerDead {
			continue
		}
		if dead++; dead == 1 {
			oldest = id
		}
	}
	if dead > deadWorkersMax {
		c.open(now).SetWorker("", oldest, state.WorkerRemoved)
	}
}

// assignable reports whether a worker may be given leases.
func (w *worker) assignable() bool {
	return w.session != nil && w.session.worker == w && !w.lost && !w.draining && w.aside.IsZero()
}

// rebalance is the third duty of a leader: to give open tasks to free slots. Only workers for which something has changed
// are looked at. They take turns, a grant each, so that work is spread over them.
func (c *Core) rebalance(now time.Time) {
	defer c.sendWork()
	if c.famine {
		c.famine = false
		for _, w := range c.workers {
			c.feed(w)
		}
	}
	if c.pipeline.behind() {
		return // the log is behind; they stay hungry
	}
	if len(c.hungry) == 0 {
		return
	}
	alone := c.able(2) == 1
	slices.SortFunc(c.hungry, func(a, b *worker) int { return cmp.Compare(a.ID, b.ID) })
	for len(c.hungry) > 0 {
		c.hungry = slices.DeleteFunc(c.hungry, func(w *worker) bool {
			ok := w.assignable()
			if ok {
				w.Alone = alone
				var g sched.Grant
				if g, ok = c.sched.Next(now, &w.Worker); ok {
					c.grant(w, &g)
				}
			}
			w.hungry = ok
			return !ok
		})
	}
}

// feed has rebalance look at a worker.
func (c *Core) feed(w *worker) {
	if !w.hungry {
		w.hungry = true
		c.hungry = append(c.hungry, w)
	}
}

// able counts the workers that may be given leases, up to a limit.
func (c *Core) able(limit int) (n int) {
	for _, w := range c.workers {
		if w.assignable() {
			if n++; n == limit {
				break
			}
		}
	}
	return n
}

// grant leases the tasks of g to w.
func (c *Core) grant(w *worker, g *sched.Grant) {
	job, stage := g.Job, g.Job.Stages[g.Stage]
	if _, ok := w.session.known[job.ID]; !ok {
		w.session.known[job.ID] = struct{}{}
		message := wireJob(job)
		work := c.workWith(w.session, proto.Size(message))
		work.Jobs = append(work.Jobs, message)
	}
	var out *wire.Leases
	bytes := 0
	send := func() {
		work := c.workWith(w.session, bytes)
		work.Leases = append(work.Leases, out)
	}
	splits := job.Spec.Splits(int(g.Stage))
	for _, task := range g.Tasks {
		c.seq++
		if out != nil && bytes > workBytesMax/2 {
			send()
			out = nil
		}
		if out == nil {
			bytes = 0
			out = &wire.Leases{
				Job: uint64(job.ID), Stage: g.Stage, FirstLease: uint64(state.NewLease(c.term, c.seq)), Action: wire.CommitAction(stage.Action),
				Index: make([]uint64, 0, len(g.Tasks)),
			}
		}
		c.hold(w, state.NewLease(c.term, c.seq), lease{job: job.ID, stage: g.Stage, task: task, cost: g.Cost})
		if attempt := stage.Attempt(task); attempt > 1 || out.Attempt != nil {
			for len(out.Attempt) < len(out.Index) {
				out.Attempt = append(out.Attempt, 1)
			}
			out.Attempt = append(out.Attempt, attempt)
		}
		if splits {
			split := c.split(job, task)
			bytes += len(split.GetItem()) + len(split.GetFile().GetPath())
			out.Splits = append(out.Splits, split)
		}
		out.Index = append(out.Index, task)
		bytes += leaseBytes
	}
	send()
	c.changed[job.ID] = struct{}{}
}

// split is what task of a job's map stage reads. A block that cannot be read gives a split that no runner accepts, so the
// task fails as bad input and says so.
func (c *Core) split(job *state.Job, task uint64) *wire.Split {
	r := c.readers[job.ID]
	if r == nil {
		r = state.NewInputReader(&job.Spec.Input)
		c.readers[job.ID] = r
	}
	s, err := r.Split(task)
	if err != nil {
		return &wire.Split{}
	}
	if s.Path == nil {
		return &wire.Split{Kind: &wire.Split_Item{Item: s.Item}}
	}
	return &wire.Split{Kind: &wire.Split_File{File: &wire.FileSplit{Path: s.Path, Offset: s.Offset, Length: s.Length, Whole: s.Whole}}}
}

// wireJob is what a worker needs to know of a job.
func wireJob(j *state.Job) *wire.Job {
	spec := j.Spec
	out := &wire.Job{
		Id: uint64(j.ID), Uid: j.UID, Name: spec.Name, Output: spec.Output, Spool: spec.Spool, Settings: spec.Settings,
		TimeoutMs: spec.TimeoutMS, Memory: spec.Memory, Dir: spec.Dir, KeepPartial: spec.KeepPartial,
		CreatedUnixMs: uint64(j.Created), StartedUnixMs: uint64(j.Started), User: spec.User, Overwrite: spec.Overwrite,
	}
	if spec.Input.Kind == state.InputRange {
		out.RangeFrom, out.Range = spec.Input.From, true
	}
	if spec.Builtin != "" {
		out.Program = &wire.Program{Kind: &wire.Program_Builtin{Builtin: spec.Builtin}}
	} else {
		out.Program = &wire.Program{Kind: &wire.Program_Command{Command: &wire.Command{Argv: spec.Argv}}}
	}
	for _, s := range j.Stages {
		out.Stages = append(out.Stages, s.Name)
	}
	return out
}
