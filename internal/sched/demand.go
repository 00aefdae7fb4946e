package sched

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Need is what an attempt needs of a worker.
type Need struct {
	Labels map[string]string
	Job    string // see state.Spec.OwnJob
	Slots  int
	Memory uint64 // bytes; 0: any
	// Resources are the others, by name.
	Resources []state.Resource
	// Protocol is the version of the workers' protocol.
	Protocol uint32

	amounts []state.Resource // see amounts
}

func needOf(spec *state.Spec) Need {
	return Need{
		Labels: spec.Labels, Job: spec.OwnJob(), Slots: slots(spec), Memory: spec.Memory, Resources: spec.Resources, Protocol: spec.Protocol(), amounts: amounts(spec),
	}
}

// eligible reports whether worker w, if it is empty, has what is needed.
func (n *Need) eligible(w *Worker) bool {
	for k, v := range n.Labels {
		if !state.HasLabel(w.Labels, k, v, n.Job) {
			return false
		}
	}
	for _, a := range n.amounts {
		if a.N > w.total(a.Name) {
			return false
		}
	}
	return n.Protocol <= w.Protocol && n.Slots <= w.Slots
}

// key is equal for equal needs.
func (n *Need) key() string {
	key := fmt.Append(nil, n.Slots, n.amounts, n.Protocol, n.Job)
	for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
		key = fmt.Appendf(key, " %q=%q", k, n.Labels[k])
	}
	return string(key)
}

// Demand is how many tasks wait for workers, by what they need.
type Demand struct {
	Need

	Tasks uint64 // open and not leased, also those whose back-off has not ended
	Jobs  []JobDemand
}

// JobDemand is the part of one job in a demand.
type JobDemand struct {
	Job   state.JobID
	Tasks uint64
}

// Demand returns the demand, that of the job that goes first first. Its cost does not depend on the number of tasks.
func (s *Scheduler) Demand() []Demand {
	jobs := slices.SortedFunc(maps.Values(s.jobs), func(a, b *jobQueue) int {
		return cmp.Or(cmp.Compare(b.priority(), a.priority()), cmp.Compare(a.job.ID, b.job.ID))
	})
	var list []Demand
	at := map[string]int{}
	for _, j := range jobs {
		tasks := uint64(0)
		for _, q := range j.stages {
			tasks += q.unleased()
		}
		if tasks == 0 {
			continue
		}
		g := j.share.group
		i, known := at[g.key]
		if !known {
			i = len(list)
			at[g.key], list = i, append(list, Demand{Need: g.Need})
		}
		list[i].Tasks += tasks
		list[i].Jobs = append(list[i].Jobs, JobDemand{Job: j.job.ID, Tasks: tasks})
	}
	return list
}

// unleased is the number of open tasks that are not leased.
func (q *queue) unleased() uint64 {
	open := q.stage.Tasks - q.stage.Done - q.stage.Dead
	if q.stage.Closed {
		return 0
	}
	return open - min(open, uint64(q.leases))
}
