package state

import (
	"cmp"
	"iter"
	"slices"
)

// runAgain opens the tasks of an active job whose files have changed, or whose outputs were lost. The attempts that run are void.
func (m *Machine) runAgain(job *Job, c *command, out *Result) *Rejection {
	if job.committing(job.commitStage()) {
		return reject(Conflict, "job %d is being committed: it is too late to read files again that have changed", job.ID)
	}
	if len(c.changed) == 0 && !job.anyDone(c.lost) {
		return nil // an earlier retry has opened them
	}
	var ready []int
	for i := range job.Stages {
		if job.Ready(i) {
			ready = append(ready, i)
		}
	}
	job.Fence = max(job.Fence, c.fence)
	m.changeInput(job, c.changed)
	m.redoLost(job, c.lost)
	for _, i := range ready {
		if !job.Ready(i) {
			out.Events = append(out.Events, Event{Kind: StageEnded, Job: job.ID, Stage: uint32(i)})
		}
	}
	m.startReady(job, out)
	return nil
}

// changeInput gives files of a job their new versions, and opens their tasks again with all that was made from their outputs.
func (m *Machine) changeInput(job *Job, changed []FileChange) {
	if len(changed) == 0 {
		return
	}
	spec := *job.Spec
	type file struct{ task, place uint64 }
	versions := map[file]Version{}
	for _, c := range spec.Input.Changed {
		versions[file{c.Task, c.File}] = c.Version
	}
	redone := make([]bool, len(job.Stages))
	for _, c := range changed {
		split, err := m.reading(job).Split(c.Task)
		was, there := split.whole(c.File)
		if err != nil || !there {
			continue
		}
		versions[file{c.Task, c.File}] = c.Version
		spec.Input.Bytes += c.Version.Size - was.Size
		for i := range job.Stages {
			redone[i] = job.Spec.Splits(i) && m.redo(job, i, c.Task) || redone[i]
		}
	}
	spec.Input.Changed = nil
	for f, v := range versions {
		spec.Input.Changed = append(spec.Input.Changed, FileChange{Task: f.task, File: f.place, Version: v})
	}
	slices.SortFunc(spec.Input.Changed, func(a, b FileChange) int { return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.File, b.File)) })
	job.Spec = &spec
	m.redoReaders(job, redone)
}

// redoReaders opens the done tasks of all stages that come from one that is redone.
func (m *Machine) redoReaders(job *Job, redone []bool) {
	for i, stage := range job.Stages { // a stage comes after those that it comes from
		if slices.ContainsFunc(stage.From, func(from uint32) bool { return redone[from] }) {
			for task := range stage.Tasks {
				redone[i] = m.redo(job, i, task) || redone[i]
			}
		}
	}
}

// redoLost opens the done tasks whose outputs were lost, with all that was made from these: the next attempt may write another output.
func (m *Machine) redoLost(job *Job, lost []OutputRange) {
	redone := make([]bool, len(job.Stages))
	for _, r := range lost {
		for task := range job.doneTasks(r) {
			redone[r.Stage] = m.redo(job, int(r.Stage), task) || redone[r.Stage]
		}
	}
	m.redoReaders(job, redone)
}

// doneTasks yields the done tasks in r, of a job that keeps its outputs in the spool: others have published them.
func (j *Job) doneTasks(r OutputRange) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		if !j.Spec.Spool || int(r.Stage) >= len(j.Stages) || j.Stages[r.Stage].Role == RoleCommit {
			return
		}
		for task := range j.Stages[r.Stage].DoneTasks(r.First) {
			if task-r.First >= r.Tasks || !yield(task) {
				return
			}
		}
	}
}

// anyDone reports whether a task of one of the ranges is done.
func (j *Job) anyDone(ranges []OutputRange) bool {
	for _, r := range ranges {
		for range j.doneTasks(r) {
			return true
		}
	}
	return false
}

// redo opens a done task again.
func (m *Machine) redo(job *Job, i int, task uint64) bool {
	stage := job.Stages[i]
	done, ok := stage.Output(task)
	if !ok {
		return false
	}
	stage.lose(task, done.Winner, m.level >= 2, m.epoch)
	stage.void(task, m.epoch)
	m.uncount(job, i, task, done)
	return true
}

// uncount takes a task that was done, and is open again, off the job's totals. What it has read is not kept: its split is as long.
func (m *Machine) uncount(job *Job, i int, task uint64, done Output) {
	job.unwarn(i, task)
	if job.Stages[i] == job.Parts() {
		job.OutputBytes -= done.Size
		job.Records -= done.Records
	}
	if m.level < 2 || job.Spec.Input.Kind != InputFiles || !job.Spec.Splits(i) { // older versions count what is read again twice
		return
	}
	if split, err := m.reading(job).Split(task); err == nil {
		job.ReadBytes -= min(job.ReadBytes, split.Length)
	}
}

// reading returns a reader of a job's input, which is kept for the rest of the entry: thousands of outputs can be lost at one time, and each split takes
// the whole block that holds it.
func (m *Machine) reading(job *Job) *InputReader {
	if m.input == nil || m.input.in != &job.Spec.Input {
		m.input = NewInputReader(&job.Spec.Input)
	}
	return m.input
}
