// Package state is the replicated state machine: jobs, stages, tasks, workers, and who may use them.
//
// Commands go in, in log order; the new state and events come out:
//
//	Entry (a batch of commands)  ->  log  ->  Machine.Apply  ->  Result (events, verdicts)
//
// The machine has no clock, randomness, I/O or goroutine: time and names arrive inside the commands. Every leader that applies the
// same log has the same state, byte for byte, and a command that is refused (a Rejection) is refused by all. Volatile state is not
// here: leases, heartbeats and which open tasks run belong to the leader's core.
//
// A job has a plan: stages, each with the earlier stages that it comes from (StageSpec). A stage is ready, and its tasks may run, if
// all that it comes from are complete and it has open tasks. Only completions and failures of ready stages count. The transitions of
// a job (a transition that is not in a table cannot happen):
//
//	         | stages done | tasks dead | stop asked | retry asked | cleanup done | cleanup failed
//	active   | done        | failing    | stopping   |             |              |
//	stopping |             |            |            |             | stopped      | stopped
//	failing  |             |            | stopping   |             | failed       | failed
//	done     |             |            |            | active      |              |
//	failed   |             |            | stopping   | active      |              |
//	stopped  |             |            |            | active      |              |
//
// A failed job keeps its outputs for a retry, which runs the dead tasks, and the done ones whose file has changed. A stopped job has removed them (or published them, if
// partial results were requested), so its retry starts from the beginning. A job cannot be stopped while tasks of its commit stage may run.
// A job that is done is retried only if outputs that it keeps in the spool are lost: their tasks run.
//
// The transitions of a task:
//
//	     | attempt done | attempt failed | budget spent | task retried | output lost
//	open | done         | open           | dead         |              |
//	done |              |                |              |              | open
//	dead |              |                |              | open         |
//
// A done task keeps its winner, unless the winner's output is lost while the job is active and a stage needs it. Then the stages that come from its stage
// wait, their attempts so far are void (Stage.Fence), and the task runs again, if that has not been so too often (LostOutput). Their done tasks stay done if it
// makes the same output again, by size and checksum; otherwise they are opened too.
//
// A job waits, before it is active, for the jobs that it comes after, for its locks, and for its input to be planned (after.go, locks.go). What
// has the locks of jobs and clients, and in which order the others get them, is a table of its own (locktable.go).
//
// The transitions of a worker. A registration makes a dead worker alive; a removed one that registers is a new one:
//
//	from, to | alive | dead | draining | removed
//	alive    |       | dead | draining | removed
//	dead     | alive |      |          | removed
//	draining |       | dead |          | removed
//
// Tasks are columns in pages of 256, allocated when the first of a page is done or fails: 23 bytes for a done task, 47 with
// output, 60 if it has failed before (BenchmarkMemory). Splits are derived from the input, not stored. A Snapshot shares the pages,
// and Apply copies a page before writing to it, so a snapshot is taken in microseconds and written concurrently with Apply
// (BenchmarkStall).
//
// The blocks of a large input are staged before the submit that takes them (staged.go), so no entry and no record of a snapshot grows with
// the input.
//
// The latest 4,096 facts are part of the state (FactsAfter), so a client that follows them can continue at any leader.
package state

// MaxTasks is the largest number of tasks of one stage.
const MaxTasks = 1 << 32
