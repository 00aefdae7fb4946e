package leader

import (
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Back-off of a task's next attempt: doubling, with jitter so that tasks that failed together do not return together.
const (
	backOffFirst = 100 * time.Millisecond
	backOffMax   = 30 * time.Second
	// retryDoublings is how often the delay that a job requests is doubled. It is for what is out of order for a while, such as a service
	// that is down at night.
	retryDoublings = 4
	// retryDelayMax bounds that delay.
	retryDelayMax = 7 * 24 * time.Hour
)

// backOff is how long a task of a job waits after its count-th failure of a kind: at least what the job requests.
func (c *Core) backOff(spec *state.Spec, kind state.FailureKind, count uint8) time.Duration {
	if kind == state.LostWorker || kind == state.Preempted || kind == state.BadProgram {
		return 0 // another worker will do better
	}
	doublings := count - min(count, 1)
	if spec.RetryDelayMS > 0 {
		first := min(time.Duration(min(spec.RetryDelayMS, uint64(retryDelayMax.Milliseconds())))*time.Millisecond, retryDelayMax)
		d := first << min(doublings, retryDoublings)
		return d + time.Duration(c.rand.Int64N(int64(d/8)+1))
	}
	d := min(backOffFirst<<min(doublings, 16), backOffMax)
	return d/2 + time.Duration(c.rand.Int64N(int64(d)))
}

// wait is how long a task waits after a failure: for its back-off, and as long as its program has asked for.
func (c *Core) wait(spec *state.Spec, kind state.FailureKind, count uint8, asked uint64) time.Duration {
	return max(c.backOff(spec, kind, count), time.Duration(min(asked, uint64(retryDelayMax.Milliseconds())))*time.Millisecond)
}

// backOffAgain gives the failed tasks of a stage the rest of the delays that their job or its program requests: an earlier leader has counted them. The
// log has the time of the last failures, but not of all: without it, the delay begins now.
func (c *Core) backOffAgain(job *state.Job, i int) {
	stage := job.Stages[i]
	for task := range stage.FailedTasks(0) {
		if stage.Status(task) != state.TaskOpen {
			continue
		}
		failures := stage.Failures(task)
		kind, count, passed, asked := state.ProgramError, slices.Max(failures.Counts[:]), time.Duration(0), uint64(0)
		if n := len(failures.Last); n > 0 {
			last := failures.Last[n-1]
			kind, count, asked = last.Kind, failures.Counts[last.Kind], last.WaitMS
			passed = max(0, c.now.Sub(time.UnixMilli(last.Time)))
		}
		if count == 0 || job.Spec.RetryDelayMS == 0 && asked == 0 { // not since the last retry of the job, or the delay is short
			continue
		}
		if rest := c.wait(job.Spec, kind, count, asked) - passed; rest > 0 {
			c.sched.Resume(job, uint32(i), task, c.now.Add(rest))
		}
	}
}

// RetryAt returns when an open task may be leased again that has failed; ok is false if it has not, or may already.
func (c *Core) RetryAt(id state.JobID, place TaskPlace) (at time.Time, ok bool) {
	at, ok = c.sched.RetryAt(sched.Key{Job: id, Stage: place.Stage}, place.Task)
	return at, ok && at.After(c.now)
}
