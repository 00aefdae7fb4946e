package view

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
)

// Views are copies of the state that are published as a whole and never changed.
type Views struct {
	mu   sync.RWMutex
	jobs map[uint64]*atomic.Pointer[api.Job]
	ids  []uint64 // ascending

	index   atomic.Uint64 // log position that the views reflect
	facts   atomic.Uint64 // the last position whose views had a new fact
	cluster atomic.Pointer[clusterView]
	waiting atomic.Int64 // readers that wait for a log position
	changed *Broadcast   // of each publication
}

// NewViews returns views of an empty state.
func NewViews() *Views {
	v := &Views{jobs: map[uint64]*atomic.Pointer[api.Job]{}, changed: NewBroadcast()}
	v.cluster.Store(&clusterView{})
	return v
}

// Index returns the log position that the views reflect.
func (v *Views) Index() uint64 { return v.index.Load() }

// Changed notifies of each publication.
func (v *Views) Changed() *Broadcast { return v.changed }

// Cluster returns the cluster as it was last published, and its workers, by number. The slice is shared: do not change it.
func (v *Views) Cluster() (api.Cluster, []api.Worker) {
	c := v.cluster.Load()
	return c.cluster, c.workers
}

// Job returns a job as it was last published.
func (v *Views) Job(id uint64) (api.Job, bool) {
	v.mu.RLock()
	view := v.jobs[id]
	v.mu.RUnlock()
	if view == nil {
		return api.Job{}, false
	}
	return *view.Load(), true
}

// Tasks returns how many tasks of jobs that have not ended are open and how many run.
func (v *Views) Tasks() (open, running uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, view := range v.jobs {
		if job := view.Load(); !job.IsEnded() {
			for i := range job.Stages {
				open += job.Stages[i].Open
				running += job.Stages[i].Running
			}
		}
	}
	return open, running
}

func (v *Views) put(job *api.Job) {
	v.mu.RLock()
	view := v.jobs[job.ID]
	v.mu.RUnlock()
	if view != nil {
		view.Store(job)
		return
	}
	view = &atomic.Pointer[api.Job]{}
	view.Store(job)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.jobs[job.ID] = view
	at, _ := slices.BinarySearch(v.ids, job.ID)
	v.ids = slices.Insert(v.ids, at, job.ID)
}

func (v *Views) forget(ids []state.JobID) {
	if len(ids) == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		delete(v.jobs, uint64(id))
		if at, ok := slices.BinarySearch(v.ids, uint64(id)); ok {
			v.ids = slices.Delete(v.ids, at, at+1)
		}
	}
}

// before returns up to n jobs with numbers below id, newest first.
func (v *Views) before(id uint64, n int) []api.Job {
	v.mu.RLock()
	defer v.mu.RUnlock()
	at, _ := slices.BinarySearch(v.ids, id)
	list := make([]api.Job, 0, min(n, at))
	for at--; at >= 0 && len(list) < n; at-- {
		list = append(list, *v.jobs[v.ids[at]].Load())
	}
	return list
}
