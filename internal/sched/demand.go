package sched

import (
	"fmt"
	"maps"
	"slices"

	"github.com/bridgefour/bridgefour/internal/state"
)

// Need is what an attempt needs of a worker.
type Need struct {
	Labels map[string]string
	Slots  int
	Memory uint64 // bytes; 0: any
}

func needOf(spec *state.Spec) Need {
	return Need{Labels: spec.Labels, Slots: slots(spec), Memory: spec.Memory}
}

// key is equal for equal needs.
func (n *Need) key() string {
	key := fmt.Append(nil, n.Slots, n.Memory)
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
	var list []Demand
	at := map[string]int{}
	for _, q := range s.order {
		tasks := q.unleased()
		if tasks == 0 {
			continue
		}
		need := needOf(q.job.Spec)
		key := need.key()
		i, known := at[key]
		if !known {
			i = len(list)
			at[key], list = i, append(list, Demand{Need: need})
		}
		d := &list[i]
		d.Tasks += tasks
		if n := len(d.Jobs); n == 0 || d.Jobs[n-1].Job != q.job.ID {
			d.Jobs = append(d.Jobs, JobDemand{Job: q.job.ID})
		}
		d.Jobs[len(d.Jobs)-1].Tasks += tasks
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
