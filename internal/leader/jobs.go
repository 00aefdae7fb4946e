package leader

import (
	"strings"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Bounds of the history in the state: enough for a person to look at, little enough for snapshots to stay small.
const (
	deadWorkersMax = 1000
	// inputsKept is how many bytes of input blocks are kept: the rest of what may be held is for jobs to come.
	inputsKept = state.InputsBytesMax / 2
)

// updateJobStates is the second duty of a leader: to act on the entry that was just applied.
func (c *Core) updateJobStates() {
	for i := range c.result.Verdicts {
		c.handleVerdict(&c.result.Verdicts[i])
	}
	workers := false
	for i := range c.result.Events {
		c.handleEvent(&c.result.Events[i])
		workers = workers || c.result.Events[i].Kind == state.WorkerChanged
	}
	if workers {
		c.forgetDead()
	}
	// Registrations last: what a worker holds is judged by the state after the entry, and the scheduler must have caught up with it.
	for i := range c.result.Events {
		if e := &c.result.Events[i]; e.Kind == state.RequestApplied && strings.HasPrefix(e.Key, registerPrefix) {
			c.completeRegistration(e)
		}
	}
}

// settle ends what waited for the oldest entry of this term, which was applied. Failed leases end also if the state ignored their
// failures because the task, the stage or the job was over.
func (c *Core) settle() {
	failures, thawed := c.pipeline.applied(c.now)
	for _, id := range thawed {
		c.sched.Freeze(id, false)
		c.dirty.markAll()
	}
	for _, f := range failures {
		if w := c.registry.workers[f.worker]; w != nil {
			c.leases.drop(w.leases, f.lease)
			c.outbox.stale(w, f.lease)
		}
	}
}

// handleVerdict ends the lease of a finished attempt, and reports to its worker whether it has won. A worker that is not connected asks when it
// comes back.
func (c *Core) handleVerdict(v *state.Verdict) {
	c.pipeline.decided()
	c.changed[v.Job] = struct{}{}
	if v.Won {
		key := taskKey{sched.Key{Job: v.Job, Stage: v.Stage}, v.Task}
		c.effects.Done++
		c.exits.done(key)
		c.revokeOther(key, v.Lease)
	}
	w := c.registry.workers[v.Worker]
	if w == nil {
		return
	}
	c.leases.drop(w.leases, v.Lease)
	if v.Won {
		c.outbox.committed(w, v.Lease)
	} else {
		c.outbox.stale(w, v.Lease)
	}
}

func (c *Core) handleEvent(e *state.Event) {
	if e.Job != 0 {
		c.changed[e.Job] = struct{}{}
	}
	stage := sched.Key{Job: e.Job, Stage: e.Stage}
	if e.Fault != 0 {
		c.effects.Failed = append(c.effects.Failed, e.Fault)
	}
	switch e.Kind {
	case state.JobSubmitted:
		c.forgetOne() // it may have a large input
		c.addFact(e)
	case state.TaskDied:
		c.revokeOther(taskKey{stage, e.Task}, e.Lease)
		c.addFact(e)
	case state.WorkerJoined:
		c.addFact(e)
	case state.StageStarted:
		c.startStage(stage)
		c.addFact(e)
	case state.StageEnded:
		c.endStage(stage)
	case state.StageGrown:
		c.growStage(stage)
	case state.TaskLost:
		c.resume(stage, e.Task)
	case state.TaskReopened:
		c.taskFailed(stage, e)
	case state.JobEnding:
		c.endLeases(e.Job)
		c.addFact(e)
	case state.JobEnded:
		c.endJob(e.Job)
		c.addFact(e)
	case state.JobForgotten:
		c.jobForgotten(e)
	case state.WorkerChanged:
		c.workerChanged(e.Worker)
		c.addFact(e)
	case state.QuotasChanged:
		c.sched.SetQuotas(c.machine.Access().Quotas())
		c.dirty.markAll()
	case state.RequestApplied:
		c.handleResult(e)
	case state.InputDue:
		c.effects.Due = append(c.effects.Due, e.Job)
	case state.LockOver:
		if l := c.machine.Lock(e.Lock); l != nil && l.Over {
			c.lockOver(l)
		}
	case state.LockHeld, state.LockWaiting, state.LockGone, state.PriorityChanged:
		c.handleLock(e)
	case state.Audited, state.JobWaits, state.WorkerQuarantined, state.WorkerReleased: // only in the history, or in the views
	}
}

// jobForgotten drops what is kept of a job, and looks for the next one to forget.
func (c *Core) jobForgotten(e *state.Event) {
	c.leases.forget(e.Job)
	c.forgetting = false
	c.forgetOne()
	c.effects.Forgotten = append(c.effects.Forgotten, e.Job)
	if e.Output != "" {
		c.effects.Spools = append(c.effects.Spools, e.Output)
	}
}

// setPriority follows the priority of a job, which it has from those that wait for its locks.
func (c *Core) setPriority(id state.JobID) {
	if job := c.machine.Job(id); job != nil {
		c.sched.SetPriority(job, c.machine.Priority(job))
		c.dirty.markAll()
	}
}

// handleResult handles the result of a command: the leader's own, which have no key, and those of clients. Registrations are completed
// later, see updateJobStates.
func (c *Core) handleResult(e *state.Event) {
	switch {
	case strings.HasPrefix(e.Key, registerPrefix):
	case e.Key == "":
		c.forgetting = c.forgetting && e.Err == nil
	default:
		c.effects.Replies = append(c.effects.Replies, *e)
	}
}

// taskFailed opens a task again whose attempt has failed.
func (c *Core) taskFailed(stage sched.Key, e *state.Event) {
	avoid := e.Worker
	if e.Fault == state.Preempted {
		avoid = 0
	}
	_, twice := c.leases.other(taskKey{stage, e.Task}, e.Lease) // which still runs, or has failed too and opens it
	if !twice && c.leases.current(e.Lease, stage) {             // if its stage has started again since, the task is open already
		c.sched.Reopen(stage, e.Task, c.now.Add(c.wait(c.machine.Job(e.Job).Spec, e.Fault, e.Count, e.Wait)), avoid, c.exits.apart(taskKey{stage, e.Task}))
	}
	c.dirty.markAll()
}

// resume opens a task again whose output was lost. Unless its stage is ready, that starts as a whole later on.
func (c *Core) resume(stage sched.Key, task uint64) {
	delete(c.leases.twice, taskKey{stage, task})
	if job := c.machine.Job(stage.Job); job != nil && job.Open(int(stage.Stage), task) {
		c.sched.Resume(job, stage.Stage, task, c.now)
		c.dirty.markAll()
	}
}

// startStage opens the tasks of a stage, which may be one that starts again.
func (c *Core) startStage(key sched.Key) {
	c.endStage(key)
	c.leases.startStage(key)
	delete(c.readers, key.Job)                     // files of the input may have changed
	if job := c.machine.Job(key.Job); job != nil { // the same entry may have ended and forgotten it
		c.sched.Start(job, key.Stage, false)
	}
	c.dirty.markAll()
}

// dropSegments asks a worker to remove the segments that a stage has read, unless another stage needs them. Those that the parts were made of are kept until the
// job is done: if a part is lost before it is published, its task alone runs again. It is asked once: what is left is removed with the
// folder, when the job is published or forgotten. Files of later leases are not meant: those are made when a segment is needed again.
func (c *Core) dropSegments(id state.JobID, stage uint32) {
	job := c.machine.Job(id)
	if job == nil || job.Stages[stage].Role != state.RoleReduce || job.Needs(job.Stages[stage].From[0]) {
		return
	}
	if parts := int(stage) == job.Spec.PartStage(); job.Status != state.JobDone && (parts || job.Status != state.JobActive) {
		return
	}
	for _, w := range c.registry.inOrder {
		if w.session == nil {
			continue
		}
		if _, knows := w.session.known[id]; knows {
			work := c.outbox.workWith(w.session, 3*numberBytes)
			work.Unneeded = append(work.Unneeded, &wire.StageFiles{Job: uint64(id), Stage: job.Stages[stage].From[0], Lease: uint64(c.leases.last)})
			return
		}
	}
}

// growStage offers the tasks that a stage has more of.
func (c *Core) growStage(key sched.Key) {
	delete(c.readers, key.Job)
	c.sched.Grow(key)
	c.dirty.markAll()
}

// endStage revokes the leases of a stage, and grants no more of it. What it has read is removed if it is complete.
func (c *Core) endStage(key sched.Key) {
	c.dropSegments(key.Job, key.Stage)
	if c.sched.StageLeased(key) > 0 { // others have ended: their verdicts come from the log
		c.revoke(func(l *lease) bool { return l.Key == key })
	}
	c.sched.EndStage(key)
	delete(c.runTimes[key.Job], key.Stage)
}

// endLeases revokes the leases of a job, and grants no more of it.
func (c *Core) endLeases(id state.JobID) {
	if c.sched.Leased(id) > 0 {
		c.revoke(func(l *lease) bool { return l.Job == id })
	}
	c.sched.End(id)
	delete(c.runTimes, id)
	delete(c.exits, id)
}

// revoke revokes the leases for which void is true: their workers stop the attempts and remove what they wrote.
func (c *Core) revoke(void func(*lease) bool) {
	for _, w := range c.registry.inOrder {
		for _, number := range w.leases.standing() {
			if l := w.leases[number]; void(l) {
				c.leases.drop(w.leases, number)
				c.release(w, l)
				c.leaveBehind(w, number, l.Job)
				c.outbox.stale(w, number)
			}
		}
	}
}

func (c *Core) endJob(id state.JobID) {
	c.endLeases(id)
	if job := c.machine.Job(id); job != nil {
		c.dropSegments(id, uint32(job.Spec.PartStage())) //nolint:gosec // few
	}
	delete(c.readers, id)
	for _, s := range c.registry.sessions {
		if _, ok := s.known[id]; ok {
			delete(s.known, id)
			work := c.outbox.workWith(s, numberBytes)
			work.Ended = append(work.Ended, uint64(id))
		}
	}
	if job := c.machine.Job(id); job != nil && job.Status == state.JobStopped && job.Spec.Spool {
		c.effects.Spools = append(c.effects.Spools, job.Spec.Output)
	}
	c.forgetOne()
}

// forgetOne drops an ended job that retention does not keep, or the oldest with a large input, if the inputs take too much memory. One at a
// time: the next one is known once it is gone.
func (c *Core) forgetOne() {
	if c.forgetting {
		return
	}
	id, ok := c.machine.Beyond(c.now.UnixMilli())
	if !ok && c.machine.InputBytes() > c.inputsKept {
		id, ok = c.machine.OldestEnded(state.StageBytes)
	}
	if ok {
		c.open().Forget("", id)
		c.forgetting = true
	}
}

// workerChanged handles a new status of a worker.
func (c *Core) workerChanged(id state.WorkerID) {
	info, w := c.machine.Worker(id), c.registry.workers[id]
	if info == nil {
		c.arrived(id)
		c.leftovers.removed(id, w)
	} else {
		c.leftovers.status(info)
	}
	if w == nil {
		return
	}
	switch {
	case info == nil:
		if !w.lost {
			c.loseLeftovers(w)
		}
		if w.session != nil {
			c.dismiss(w.session, id)
		}
		c.reopenAll(w, nil)
		c.sched.Leave(&w.Worker)
		c.registry.remove(w)
		c.leases.remove(id)
	case info.Status == state.WorkerDraining && !w.draining:
		w.draining = true
		c.sched.Leave(&w.Worker)
		if w.session != nil {
			c.outbox.send(w.session, &wire.ToWorker{Message: &wire.ToWorker_Drain{Drain: &wire.Drain{Reason: "drained by a user"}}})
		}
	}
}

// forgetDead removes the oldest dead worker if there are too many: containers that never come back with the same data directory would
// let the state grow for ever.
func (c *Core) forgetDead() {
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
		c.leftovers.forgotten[oldest] = struct{}{}
		c.open().SetWorker("", oldest, state.WorkerRemoved)
	}
}
