// Package state is the replicated state machine: jobs, stages, tasks and workers.
//
// Commands go in, in the order of the log; the new state and facts come out:
//
//	Entry (a batch of commands)  ->  log  ->  Machine.Apply  ->  Result (events, verdicts)
//
// The machine has no clock, randomness, I/O or goroutine: time and names arrive inside the commands. So every leader that
// applies the same log has the same state, byte for byte, and a command that is refused (a Rejection) is refused by all.
// What the log does not know is not here: leases, heartbeats and which open task runs just now are the leader's.
//
// A job has a plan: stages, each with the earlier stages that it comes from (StageSpec). A stage is ready, and its tasks run,
// while all that it comes from is complete; only completions and failures of ready stages count. A job's life (what is not in a
// table cannot happen, and changes nothing):
//
//	         | stages done | tasks dead | stop asked | retry asked | cleanup done | cleanup failed
//	active   | done        | failing    | stopping   |             |              |
//	stopping |             |            |            |             | stopped      | stopped
//	failing  |             |            | stopping   |             | failed       | failed
//	done     |             |            |            |             |              |
//	failed   |             |            | stopping   | active      |              |
//	stopped  |             |            |            | active      |              |
//
// A failed job leaves what is done for a retry, which runs the dead tasks alone. A stopped job has removed it (or published
// it, where partial results were asked for), so its retry starts afresh. Once the commit stage of an active job has started it
// is too late to stop it.
//
// A task's life:
//
//	     | attempt done | attempt failed | budget spent | task retried | output lost
//	open | done         | open           | dead         |              |
//	done |              |                |              |              | open
//	dead |              |                |              | open         |
//
// A task that is done has its winner, for good unless the winner's output is lost while the job runs. Then the stages that come
// from its stage wait, their attempts so far are void (Stage.Fence), and the job goes back to the one task. That costs no budget.
//
// A worker's life. Besides, a registration makes a dead worker alive, and a removed one comes back as a new one:
//
//	from, to | alive | dead | draining | removed
//	alive    |       | dead | draining | removed
//	dead     | alive |      |          | removed
//	draining |       | dead |          | removed
//
// Tasks are columns in pages of 256, made when the first of a page is over or fails: 23 bytes for a done task, 47 with
// output, 60 when it has failed before (BenchmarkMemory). Splits are derived from the input, not stored. A Snapshot shares
// the pages, and Apply copies one before it writes to it, so a snapshot is taken in microseconds and written beside Apply
// (BenchmarkStall).
//
// The latest 4,096 facts are part of the state (FactsAfter), so whoever follows what happens may go on at another leader,
// also at one that has just read a snapshot.
package state

// MaxTasks is the largest number of tasks of one stage.
const MaxTasks = 1 << 32
