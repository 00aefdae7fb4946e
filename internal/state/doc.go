// Package state is the replicated state machine: jobs, stages, tasks and workers.
package state

// MaxTasks is the largest number of tasks of one stage.
const MaxTasks = 1 << 32
