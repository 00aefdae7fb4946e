package state

import (
	"errors"
	"fmt"
)

// EventKind is the kind of a fact. The numbers are in snapshots: never renumbered.
type EventKind uint8

// The facts that Apply returns.
const (
	JobSubmitted EventKind = iota
	StageStarted           // the tasks of Stage may run
	TaskReopened           // Task failed and is open for its next attempt
	TaskDied               // Task is dead
	JobEnding              // stopping or failing: its running attempts are useless
	JobEnded
	JobForgotten   // it was removed from the state; Output is set
	WorkerJoined   // Worker is new, or alive again
	WorkerChanged  // its status has changed
	RequestApplied // Key was applied: Job or Worker, or Err
	StageEnded     // no task of Stage may run until the next StageStarted; the job is still active
	TaskLost       // the output of Task, made under Lease, was lost: it is open again, or dead
	QuotasChanged
	Audited    // only in the history
	JobWaits   // it waits for other jobs again, or for others than before
	StageGrown // Stage may have more tasks
	InputDue   // it waits only for its deferred input to be planned
	LockHeld   // Lock was granted; with Job, it is that of a job
	LockWaiting
	LockGone        // for Reason
	PriorityChanged // that of Job has: see Machine.Priority
	LockOver        // Lock of Job, which has ended, is held until no attempt of the job runs
	WorkerQuarantined
	WorkerReleased // from its quarantine
)

// Event is a fact: what Apply has changed.
type Event struct {
	Kind   EventKind
	Job    JobID
	Stage  uint32
	Task   uint64
	Worker WorkerID
	Key    string
	Err    error       // of RequestApplied: a *Rejection
	Fault  FailureKind // of TaskReopened and TaskDied
	Lease  Lease       // of TaskReopened, TaskDied and TaskLost
	Count  uint8       // of TaskReopened: failures of that kind so far
	Wait   uint64      // of TaskReopened: Failure.WaitMS
	// Message is of TaskDied: the attempt's failure message; of LockGone: what is lost, if it was held and has expired; of RequestApplied: which locks were
	// released, if a client asked for that whose request is recorded; of WorkerQuarantined: why.
	Message string
	Output  string // of JobForgotten: its spool folder, if any
	Lock    LockID
	Reason  LockReason   // of LockGone
	User    string       // of LockGone: the holder's
	Locks   []LockAnswer // of RequestApplied: one for each operation on locks
}

// Verdict is the decision on one prepared attempt.
type Verdict struct {
	Worker WorkerID
	Job    JobID
	Stage  uint32
	Task   uint64
	Lease  Lease
	Won    bool
}

// Result is the result of applying an entry. Its slices are reused by the next Apply.
type Result struct {
	Events   []Event
	Verdicts []Verdict
}

// Rejection is the result of a command that was refused.
type Rejection struct { //nolint:errname // a result, not a failure
	Code    RejectionCode
	Message string
}

func (r *Rejection) Error() string { return r.Message }

// RejectionCode is the kind of a rejection.
type RejectionCode uint8

// The codes of a rejection.
const (
	NotFound RejectionCode = iota + 1
	Conflict
	TooLarge
	Busy // possible later
	OverQuota
	OwnConflict // with what the same holder has requested
)

func reject(code RejectionCode, format string, args ...any) *Rejection {
	return &Rejection{Code: code, Message: fmt.Sprintf(format, args...)}
}

// ErrVersion is the error for an entry or snapshot that only a newer program can read.
var ErrVersion = errors.New("written by a newer version of bridgefour")

// nameOf returns the name of a value of an enumeration. One that is not known, as of a damaged record, is a noun and its number.
func nameOf[T ~uint8](v T, noun string, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%s %d", noun, uint8(v))
}
