package state

import (
	"errors"
	"fmt"
)

// EventKind is what a fact is about. Snapshots have the numbers: never renumber.
type EventKind uint8

// The facts that Apply returns.
const (
	JobSubmitted   EventKind = iota
	StageStarted             // Stage of Job has tasks to run
	TaskReopened             // Task failed and waits for its next attempt
	TaskDied                 // Task is dead
	JobEnding                // told to stop, or failing: its running attempts are of no use any more
	JobEnded                 // it is over
	JobForgotten             // it is gone; Output says what it leaves
	WorkerJoined             // Worker is alive, new or again
	WorkerChanged            // its status is another
	RequestApplied           // Key was applied: Job or Worker, or Err
	StageEnded               // Stage of a Job that goes on has no task to run any more, or not until StageStarted says so again
	TaskLost                 // the output of Task, made under Lease, was lost: it is open again
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
	// Message is of TaskDied: what the attempt said.
	Message string
	Output  string // of JobForgotten: its spool folder, if it had one
}

// Verdict is the log's word on one prepared attempt.
type Verdict struct {
	Worker WorkerID
	Job    JobID
	Stage  uint32
	Lease  Lease
	Won    bool
}

// Result is what applying an entry has done. Its slices are reused by the next Apply.
type Result struct {
	Events   []Event
	Verdicts []Verdict
}

// Rejection is a command that was applied and refused: a result like any other.
type Rejection struct { //nolint:errname // it is an answer like any other, not a failure
	Code    RejectionCode
	Message string
}

func (r *Rejection) Error() string { return r.Message }

// RejectionCode says what sort of refusal it is.
type RejectionCode uint8

// The codes of a rejection.
const (
	NotFound RejectionCode = iota + 1
	Conflict
)

func reject(code RejectionCode, format string, args ...any) *Rejection {
	return &Rejection{Code: code, Message: fmt.Sprintf(format, args...)}
}

// ErrVersion is an entry or snapshot of a newer program.
var ErrVersion = errors.New("written by a newer version of bridgefour")
