package leader

import (
	"fmt"

	"github.com/bridgefour/bridgefour/internal/state"
)

// exitsApart is how many processes of workers may end while they run a task before it runs apart, on a worker that runs no other such task. If one more ends
// then, the task is the cause, and not another one that has run beside it each time.
//
// The functions of a program's own jobs run in the worker's process, where a panic in a goroutine that they have started, and os.Exit, end all of its
// attempts. What ends the process of a command ends its keeper at most, and is a program error too. Dask has the same limit (allowed-failures, 3), and
// charges all tasks that ran.
const exitsApart = 2

// exitBook counts the processes of workers that have ended while they ran a task, of tasks that are not done. It is volatile: a new leader starts to count
// again, and the budget of lost workers, which is in the log, is what remains.
type exitBook map[state.JobID]map[taskKey]int

// apart reports whether a task runs apart.
func (b exitBook) apart(key taskKey) bool { return b[key.Job][key] >= exitsApart }

// add counts the end of a process that ran these tasks, and returns the one that is the cause; nil if it is not known.
func (b exitBook) add(running []*lease) (cause *lease) {
	apart := 0
	for _, l := range running {
		if b.apart(l.taskKey) {
			apart++
			cause = l
		}
		if b[l.Job] == nil {
			b[l.Job] = map[taskKey]int{}
		}
		b[l.Job][l.taskKey]++
	}
	if apart != 1 {
		return nil
	}
	return cause
}

// done forgets a task.
func (b exitBook) done(key taskKey) {
	if tasks := b[key.Job]; tasks != nil {
		if delete(tasks, key); len(tasks) == 0 {
			delete(b, key.Job)
		}
	}
}

// runsApart reports whether a worker has a lease of a task that runs apart.
func (c *Core) runsApart(w *worker) bool {
	if len(c.exits) == 0 {
		return false
	}
	for _, l := range w.leases {
		if !l.ended && c.exits.apart(l.taskKey) {
			return true
		}
	}
	return false
}

// chargeRunning charges the loss of a worker to the tasks that it was running. If its process has ended, and it is known which of them is the cause, that is
// a program error.
func (c *Core) chargeRunning(w *worker, ended bool, message string) {
	numbers := c.started(w)
	var cause *lease
	if ended {
		running := make([]*lease, len(numbers))
		for i, number := range numbers {
			running[i] = w.leases[number]
		}
		cause = c.exits.add(running)
	}
	for _, number := range numbers {
		f := state.Failure{Kind: state.LostWorker, Message: message}
		if l := w.leases[number]; l == cause {
			f.Kind = state.ProgramError
			f.Message = fmt.Sprintf("%s, as %d others did before: does the program exit, panic in a goroutine of its own, or take all memory? "+
				"The standard error of the worker may tell", message, c.exits[l.Job][l.taskKey]-1)
		}
		c.fail(w, number, f, nil)
	}
	w.running = nil
}
