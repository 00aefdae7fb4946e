package leader

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
)

// renderEvery bounds how often the views of busy jobs are made anew; news that somebody waits for is shown at once.
const renderEvery = 5 * time.Millisecond

// views are what reads are served from: copies that the loop publishes and nobody changes, so that a read neither waits for
// the loop nor slows it.
type views struct {
	mu   sync.RWMutex
	jobs map[uint64]*jobView
	ids  []uint64 // ascending

	index   atomic.Uint64 // log position that the views reflect
	cluster atomic.Pointer[clusterView]
	// news is closed, and replaced, at each publication.
	news atomic.Pointer[chan struct{}]
}

type jobView struct {
	job atomic.Pointer[api.Job]
}

type clusterView struct {
	made    time.Time
	cluster api.Cluster
	workers []api.Worker
}

func newViews() *views {
	v := &views{jobs: map[uint64]*jobView{}}
	v.cluster.Store(&clusterView{})
	news := make(chan struct{})
	v.news.Store(&news)
	return v
}

func (v *views) job(id uint64) (api.Job, bool) {
	v.mu.RLock()
	view := v.jobs[id]
	v.mu.RUnlock()
	if view == nil {
		return api.Job{}, false
	}
	return *view.job.Load(), true
}

func (v *views) put(job *api.Job) {
	v.mu.RLock()
	view := v.jobs[job.ID]
	v.mu.RUnlock()
	if view != nil {
		view.job.Store(job)
		return
	}
	view = &jobView{}
	view.job.Store(job)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.jobs[job.ID] = view
	at, _ := slices.BinarySearch(v.ids, job.ID)
	v.ids = slices.Insert(v.ids, at, job.ID)
}

func (v *views) forget(ids []state.JobID) {
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
func (v *views) before(id uint64, n int) []api.Job {
	v.mu.RLock()
	defer v.mu.RUnlock()
	at, _ := slices.BinarySearch(v.ids, id)
	list := make([]api.Job, 0, min(n, at))
	for at--; at >= 0 && len(list) < n; at-- {
		list = append(list, *v.jobs[v.ids[at]].job.Load())
	}
	return list
}

// published tells those who wait.
func (v *views) published() {
	next := make(chan struct{})
	close(*v.news.Swap(&next))
}

// render publishes the views of what has changed.
func (l *Leader) render(now time.Time) {
	c := l.loop.core
	if !l.loop.urgent && now.Sub(l.loop.rendered) < renderEvery {
		return
	}
	if l.loop.urgent || now.Sub(l.views.cluster.Load().made) >= tick {
		l.views.cluster.Store(c.clusterView(l.cfg, l.cfg.Log.Status(), now))
	}
	for id := range l.loop.stale {
		delete(l.loop.stale, id)
		if job := l.loop.machine.Job(id); job != nil {
			l.views.put(c.jobView(job))
		}
	}
	l.views.index.Store(l.loop.machine.Index())
	l.loop.rendered, l.loop.urgent = now, false
	l.views.published()
}

// jobView makes the public view of a job.
func (c *Core) jobView(j *state.Job) *api.Job {
	spec := j.Spec
	v := &api.Job{
		ID: uint64(j.ID), Name: spec.Name, User: spec.User, Program: apiProgram(spec), Error: j.Error, Inputs: spec.InputNames,
		Set: spec.Settings, Priority: int(spec.Priority), Retries: int(spec.Retries), Spool: spec.Spool, Output: spec.Output,
		InputBytes: spec.Input.Bytes, ReadBytes: j.ReadBytes, OutputBytes: j.OutputBytes, Records: j.Records,
		Created: time.UnixMilli(j.Created).UTC(), Started: stamp(j.Started), Ended: stamp(j.Ended),
		Stages: make([]api.Stage, len(j.Stages)),
	}
	leased := uint64(c.sched.Leased(j.ID))
	for i, s := range j.Stages {
		stage := api.Stage{Name: s.Kind.String(), Tasks: s.Tasks, Done: s.Done, Dead: s.Dead, Retried: s.Failed}
		if i == j.Current && !j.Status.Ended() {
			stage.Running = min(leased, s.Tasks-s.Done-s.Dead)
		}
		stage.Open = s.Tasks - s.Done - s.Dead - stage.Running
		v.Stages[i] = stage
	}
	v.Status = c.jobStatus(j, leased)
	return v
}

func (c *Core) jobStatus(j *state.Job, leased uint64) string {
	switch j.Status {
	case state.JobDone:
		return api.JobDone
	case state.JobFailed:
		return api.JobFailed
	case state.JobStopped:
		return api.JobStopped
	case state.JobActive, state.JobStopping, state.JobFailing:
	}
	switch {
	case leased > 0:
		return api.JobRunning
	case !c.anyEligible(j.Spec):
		return api.JobHalted
	case j.Started == 0:
		return api.JobWaiting
	}
	return api.JobRunning
}

// anyEligible reports whether a live worker could run an attempt of the job.
func (c *Core) anyEligible(spec *state.Spec) bool {
	for _, w := range c.workers {
		if w.assignable() && sched.Eligible(spec, &w.Worker) {
			return true
		}
	}
	return false
}

func apiProgram(spec *state.Spec) api.Program {
	if spec.Builtin != "" {
		return api.Program{Builtin: spec.Builtin}
	}
	p := api.Program{}
	for _, a := range spec.Argv {
		p.Command = append(p.Command, string(a))
	}
	return p
}

// stamp is a time of the state; nil where it has not come yet.
func stamp(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := time.UnixMilli(ms).UTC()
	return &t
}

// busy is how many slots run an attempt: a worker begins what it is given at once, as far as it has slots.
func (w *worker) busy() int { return min(w.Leases(), w.Slots) }

// clusterView makes the public view of the workers and the cluster.
func (c *Core) clusterView(cfg Config, log replica.Status, now time.Time) *clusterView {
	v := &clusterView{cluster: api.Cluster{
		Name: cfg.Cluster, Version: cfg.Version, Leader: log.ID, Term: c.term, Index: c.machine.Index(), Spool: cfg.Spool,
		Jobs: len(c.machine.Live()), Status: "healthy",
	}}
	for _, id := range c.machine.Workers() {
		info := c.machine.Worker(id)
		w := api.Worker{
			ID: uint64(id), Identity: info.Identity, Status: info.Status.String(), Host: info.Host, Address: info.Address,
			Version: info.Version, Slots: info.Slots, Memory: info.Memory, Labels: info.Labels,
		}
		if live := c.workers[id]; live != nil {
			w.Busy = uint32(live.busy())
			w.Queued = uint32(live.Leases() - live.busy())
			w.Seen, w.Aside = live.heard, !live.aside.IsZero()
		}
		v.workers = append(v.workers, w)
		if info.Status == state.WorkerDead {
			v.cluster.Dead++
			continue
		}
		v.cluster.Workers++
		v.cluster.Slots += info.Slots
		v.cluster.Free += info.Slots - w.Busy
	}
	switch {
	case v.cluster.Workers == 0:
		v.cluster.Status = "dead"
	case v.cluster.Dead > 0:
		v.cluster.Status = "degraded"
	}
	v.made = now
	return v
}
