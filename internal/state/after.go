package state

import (
	"fmt"
	"slices"
)

// Jobs come after others: they wait until those have ended. The order of the jobs in the log is one in which they can run, so there is no
// cycle: a job comes after jobs that there are when it is submitted.

// Dependency is a job that must end before another one starts.
type Dependency struct {
	Job JobID
	Any bool // however it ends; otherwise it must be done
	// Peer is, in the log, the job with that number within the same submission, from 1, in place of Job. It is before its own.
	Peer uint32
}

// AfterMax bounds the jobs that a job comes after.
const AfterMax = 1000

// awaitOthers adds a job to the index of those that come after others.
func (m *Machine) awaitOthers(job *Job) {
	for _, d := range job.Spec.After {
		m.after[d.Job] = append(m.after[d.Job], job.ID)
	}
}

// forgetOrder removes a job from the index. Those that come after it have been released when it ended.
func (m *Machine) forgetOrder(job *Job) {
	delete(m.after, job.ID)
	for _, d := range job.Spec.After {
		if at, ok := slices.BinarySearch(m.after[d.Job], job.ID); ok {
			m.after[d.Job] = slices.Delete(m.after[d.Job], at, at+1)
		}
	}
}

// Pending reports whether a job that another one comes after has not ended. One that was forgotten has.
func (m *Machine) Pending(d Dependency) bool {
	before := m.jobs[d.Job]
	return before != nil && !before.Status.Ended()
}

// standing is what the jobs that a job comes after make of it: it waits for some of them, or blocker has not ended as it must.
func (m *Machine) standing(job *Job) (pending bool, blocker *Job) {
	for _, d := range job.Spec.After {
		before := m.jobs[d.Job]
		switch {
		case m.Pending(d):
			pending = true
		case before != nil && !d.Any && before.Status != JobDone && blocker == nil:
			blocker = before
		}
	}
	return pending, blocker
}

// proceed starts a waiting job if nothing holds it back, or ends it if it cannot be run.
func (m *Machine) proceed(job *Job, out *Result) {
	pending, blocker := m.standing(job)
	switch {
	case blocker != nil:
		job.Blocker, job.Error = blocker.Blocker, blocker.Error
		if job.Blocker == 0 {
			job.Blocker, job.Error = blocker.ID, fmt.Sprintf("not run: it comes after job %d, which %s", blocker.ID, hasEnded(blocker.Status))
		}
		m.endJob(job, Blocked, out)
	case pending:
		m.leave(job) // a job that it comes after must not wait for its locks
		out.Events = append(out.Events, Event{Kind: JobWaits, Job: job.ID})
	default:
		m.enter(job, out)
	}
}

// Deferred is an input that is planned once the jobs that a job comes after have ended: one of them writes it.
type Deferred struct {
	Split uint64 // as Input.SplitSize, or Spec.SplitMax
}

// InputDue reports whether a job waits for nothing but the planning of its input.
func (m *Machine) InputDue(job *Job) bool {
	pending, blocker := m.standing(job)
	l := m.locks.byJob[job.ID]
	return job.Status == JobWaiting && job.Spec.Deferred != nil && !pending && blocker == nil && (l == nil || l.Held())
}

// setInput gives a job its deferred input and starts it, or ends it if that cannot be planned. Several leaders may have planned it: the first
// one counts.
func (m *Machine) setInput(c *command, out *Result) *Rejection {
	blocks := m.takeStaged(c.uid)
	job := m.jobs[c.job]
	if job == nil || !m.InputDue(job) {
		return reject(Conflict, "job %d does not wait for its input", c.job)
	}
	if c.failure != nil {
		job.Error = c.failure.Message
		m.endJob(job, InputFailed, out)
		m.releaseOthers(out)
		return nil
	}
	spec := *job.Spec
	spec.Input, spec.Deferred, spec.Stages = *c.input, nil, slices.Clone(spec.Stages)
	if c.staged > 0 {
		if uint64(len(blocks)) != c.staged {
			return reject(Busy, "the input of the job is no longer staged")
		}
		spec.Input.Blocks = blocks
	}
	for i := range spec.Stages {
		switch stage := &spec.Stages[i]; stage.Role {
		case RoleMap:
			stage.Tasks = max(spec.Input.Tasks, 1)
		case RoleReduce:
			if stage.Fitted {
				stage.Tasks = c.task
			}
		case RoleCollect, RoleCommit, RoleCheck, stageRoles:
		}
	}
	if err := checkPlan(spec.Stages, &spec.Input); err != nil {
		return reject(Conflict, "the input of job %d does not fit its plan: %v", c.job, err)
	}
	job.Spec, job.Stages = &spec, newStages(&spec)
	m.inputs += spec.Input.BlockBytes()
	m.moveJob(job, Opened)
	m.startReady(job, out)
	return nil
}

// Blocker returns the job that must be run again before another one can be, because that comes after it; nil: there is none.
func (m *Machine) Blocker(job *Job) *Job {
	_, blocker := m.standing(job)
	if blocker != nil && m.jobs[blocker.Blocker] != nil {
		return m.jobs[blocker.Blocker]
	}
	return blocker
}

func hasEnded(s JobStatus) string {
	if s == JobStopped {
		return "was stopped"
	}
	return "has failed"
}

// releaseOthers lets the jobs proceed that wait for those that have ended, or for locks that are free, and for those that end thereby. It must not
// recurse: ten thousand jobs may wait in a line.
func (m *Machine) releaseOthers(out *Result) {
	for len(m.locks.granted) > 0 || len(m.ended) > 0 {
		m.grantLocks(out)
		for i := 0; i < len(m.ended); i++ {
			for _, id := range m.after[m.ended[i]] {
				if job := m.jobs[id]; job.Status == JobWaiting {
					m.proceed(job, out)
				}
			}
		}
		m.ended = m.ended[:0]
	}
}

// reviveOthers lets the jobs wait again that could not be run because of a job that runs again, and so on. Those for which there is no room
// any more (a quota, an output in which another job has published) stay as they are.
func (m *Machine) reviveOthers(first JobID, out *Result) {
	again := []JobID{first}
	for i := 0; i < len(again); i++ {
		for _, id := range m.after[again[i]] {
			job := m.jobs[id]
			if job.Status == JobWaiting { // for this one again
				m.proceed(job, out)
			}
			if job.Blocker == 0 || m.Blocker(job) != nil || m.withinQuota(job.Spec, 0) != nil || m.outputLeft(job) != nil {
				continue
			}
			job = m.revive(job)
			m.moveJob(job, RetryAsked)
			job.Blocker, job.Error = 0, ""
			m.proceed(job, out)
			again = append(again, id)
		}
	}
}
