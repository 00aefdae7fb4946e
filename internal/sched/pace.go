package sched

import (
	"math"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// A job may ask for a pace: a least time between the starts of two of its tasks (Spec.DelayMS), and a number of tasks that run at one time
// (Spec.MaxRunning). A lease stands for a running task then, so none is granted ahead of need. A job that may have no lease now is not
// runnable, which costs nothing, until its pause or one of its leases ends.

// pause is the time in which a job gets no lease. It is in Scheduler.pauses meanwhile.
type pause struct {
	job   *jobQueue
	until time.Time
	at    int // in Scheduler.pauses; 0: none
}

func (p *pause) Place() *int              { return &p.at }
func (p *pause) Before(other *pause) bool { return p.until.Before(other.until) }

// allows is how many leases the pace of a job allows now.
func (j *jobQueue) allows() int {
	switch most := j.job.Spec.MaxRunning; {
	case j.pause.at > 0:
		return 0
	case most > 0:
		return int(most) - j.leases
	}
	return math.MaxInt
}

// begin starts the pause of a job, if it asks for one: a lease was granted.
func (s *Scheduler) begin(now time.Time, j *jobQueue) {
	if ms := j.job.Spec.DelayMS; ms > 0 {
		j.pause.until = now.Add(time.Duration(ms) * time.Millisecond)
		s.pauses.Put(&j.pause)
	}
}

// resumeJobs ends the pauses that are due.
func (s *Scheduler) resumeJobs(now time.Time) {
	for len(s.pauses) > 0 && !s.pauses[0].until.After(now) {
		p := s.pauses[0]
		s.pauses.Remove(p)
		p.job.offer()
	}
}

// ended offers a job again that had as many leases as it may have, of which some have ended: any worker may have room.
func (s *Scheduler) ended(j *jobQueue, n int) {
	if most := int(j.job.Spec.MaxRunning); most > 0 && j.leases < most && j.leases+n >= most {
		j.offer()
		s.freed = true
	}
}

// Pause lets the delay of a job begin, if it has one: an earlier leader may just have started a task.
func (s *Scheduler) Pause(id state.JobID, now time.Time) {
	if j := s.jobs[id]; j != nil {
		s.begin(now, j)
	}
}

// Pace is what holds a job back that has open tasks.
type Pace struct {
	Full  bool      // as many of its tasks run as may
	Until time.Time // the next task may start then; zero: now
}

// Pace returns the pace of a job.
func (s *Scheduler) Pace(id state.JobID) (p Pace) {
	if j := s.jobs[id]; j != nil {
		most := int(j.job.Spec.MaxRunning)
		p.Full = most > 0 && j.leases >= most
		if j.pause.at > 0 {
			p.Until = j.pause.until
		}
	}
	return p
}
