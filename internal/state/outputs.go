package state

import (
	"path"
	"slices"
)

// outputIndex finds the jobs whose outputs overlap with a path, without a look at each job.
type outputIndex struct {
	at    map[string][]JobID // by cleaned output, in the order in which they were added
	below map[string]int     // how many outputs lie below a folder
}

func newOutputIndex() outputIndex {
	return outputIndex{at: map[string][]JobID{}, below: map[string]int{}}
}

// parents yields the folders above a cleaned path, the nearest first.
func parents(p string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for parent := path.Dir(p); parent != p; p, parent = parent, path.Dir(parent) {
			if !yield(parent) {
				return
			}
		}
	}
}

func (x *outputIndex) add(job *Job) {
	p := path.Clean(job.Spec.Output)
	x.at[p] = append(x.at[p], job.ID)
	for parent := range parents(p) {
		x.below[parent]++
	}
}

func (x *outputIndex) remove(job *Job) {
	p := path.Clean(job.Spec.Output)
	if x.at[p] = slices.DeleteFunc(x.at[p], func(id JobID) bool { return id == job.ID }); len(x.at[p]) == 0 {
		delete(x.at, p)
	}
	for parent := range parents(p) {
		if x.below[parent]--; x.below[parent] == 0 {
			delete(x.below, parent)
		}
	}
}

// first returns the smallest number for which conflicts is true, of the jobs whose output is a path, lies above it or lies below it; 0: there
// is none.
func (x *outputIndex) first(p string, conflicts func(JobID) bool) (first JobID) {
	p = path.Clean(p)
	try := func(list []JobID) {
		for _, id := range list {
			if (first == 0 || id < first) && conflicts(id) {
				first = id
			}
		}
	}
	try(x.at[p])
	for parent := range parents(p) {
		try(x.at[parent])
	}
	if x.below[p] > 0 {
		for other, list := range x.at {
			for parent := range parents(other) {
				if parent == p {
					try(list)
				}
			}
		}
	}
	return first
}

// Writer returns the job that has not ended and whose output is a path, lies above it or lies below it; 0: there is none.
func (m *Machine) Writer(output string) JobID {
	return m.outputs.first(output, func(id JobID) bool { return !m.jobs[id].Status.Ended() })
}

// WritesBefore reports whether one of the jobs that a job comes after, and that is not done, writes at a path, above or below it.
func (m *Machine) WritesBefore(location string, after []Dependency) bool {
	return m.outputs.first(location, func(id JobID) bool {
		return m.jobs[id].Status != JobDone && slices.ContainsFunc(after, func(d Dependency) bool { return d.Job == id })
	}) != 0
}

// outputFree refuses an output that overlaps with that of a live job.
func (m *Machine) outputFree(spec *Spec) *Rejection {
	if id := m.Writer(spec.Output); id != 0 {
		return reject(Conflict, "output %q: job %d, which has not ended, writes to %q; wait for it, stop it, or name another output",
			spec.Output, id, m.jobs[id].Spec.Output)
	}
	return nil
}

// outputLeft refuses to change the output of an ended job once a later job has published there, or may: its parts have the same names.
func (m *Machine) outputLeft(job *Job) *Rejection {
	if err := m.outputFree(job.Spec); err != nil {
		return err
	}
	published := func(id JobID) bool { return id > job.ID && m.jobs[id].Status == JobDone }
	if id := m.outputs.first(job.Spec.Output, published); id != 0 {
		return reject(Conflict, "output %q: job %d, which came after job %d, has published in %q; submit it again with another output",
			job.Spec.Output, id, job.ID, m.jobs[id].Spec.Output)
	}
	return nil
}
