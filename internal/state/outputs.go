package state

import (
	"path"
	"slices"
)

// outputIndex finds the jobs whose outputs overlap with a path, ended ones included, without a look at each job.
type outputIndex struct {
	root  *pathNode
	byJob map[JobID]*pathEntry
}

func newOutputIndex(root *pathNode) outputIndex {
	return outputIndex{root: root, byJob: map[JobID]*pathEntry{}}
}

func (x *outputIndex) add(job *Job) {
	e := &pathEntry{job: job.ID, use: useOutput, node: x.root.make(job.Spec.outputName().Name)}
	e.add()
	x.byJob[job.ID] = e
}

func (x *outputIndex) remove(job *Job) {
	x.byJob[job.ID].remove()
	delete(x.byJob, job.ID)
}

// first returns the smallest number for which conflicts is true, of the jobs whose output is a path, lies above it or lies below it; 0: there
// is none.
func (x *outputIndex) first(p string, conflicts func(JobID) bool) (first JobID) {
	n, exact := x.root.find(path.Clean(p))
	n.overlaps(useOutput, exact, func(e *pathEntry) bool {
		if (first == 0 || e.job < first) && conflicts(e.job) {
			first = e.job
		}
		return true
	})
	return first
}

// Writer returns the job that has not ended and whose output is a path, lies above it or lies below it; 0: there is none.
func (m *Machine) Writer(output string) JobID {
	return m.outputs.first(output, func(id JobID) bool { return !m.jobs[id].Status.Ended() })
}

// Writes reports whether a job writes at a path, above or below it, and has not ended; of those that a job comes after, also one that is not done.
func (m *Machine) Writes(location string, after []Dependency) bool {
	return m.outputs.first(location, func(id JobID) bool {
		status := m.jobs[id].Status
		return !status.Ended() && m.level >= 2 ||
			status != JobDone && slices.ContainsFunc(after, func(d Dependency) bool { return d.Job == id })
	}) != 0
}

// outputFree refuses, before there are locks, an output that overlaps with that of a live job.
func (m *Machine) outputFree(spec *Spec) *Rejection {
	if m.level >= 2 {
		return nil
	}
	if id := m.Writer(spec.Output); id != 0 {
		return reject(Conflict, "output %q: job %d, which has not ended, writes to %q; wait for it, stop it, or name another output",
			spec.Output, id, m.jobs[id].Spec.Output)
	}
	return nil
}

// published returns the first job that is done, has an output that overlaps with that of another job, and for which counts is true; 0: there is none.
func (m *Machine) published(job *Job, counts func(*Job) bool) JobID {
	return m.outputs.first(job.Spec.outputName().Name, func(id JobID) bool {
		other := m.jobs[id]
		return other.Status == JobDone && counts(other)
	})
}

// outputLeft refuses to change the output of an ended job once a later job has published there, or may: its parts have the same names.
func (m *Machine) outputLeft(job *Job) *Rejection {
	if err := m.outputFree(job.Spec); err != nil {
		return err
	}
	if id := m.published(job, func(other *Job) bool { return other.ID > job.ID }); id != 0 {
		return reject(Conflict, "output %q: job %d, which came after job %d, has published in %q; submit it again with another output",
			job.Spec.Output, id, job.ID, m.jobs[id].Spec.Output)
	}
	return nil
}
