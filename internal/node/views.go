package node

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
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
	facts   atomic.Uint64 // the views of this position had a new fact
	cluster atomic.Pointer[clusterView]
	news    *news // tells of each publication
}

type jobView struct {
	job atomic.Pointer[api.Job]
}

type clusterView struct {
	made    time.Time
	cluster api.Cluster
	workers []api.Worker
	// What a follower was told by the leader.
	notReady  string
	leaders   map[uint64]shadowLeader
	leadersAt uint64 // the leader's own position
}

func newViews() *views {
	v := &views{jobs: map[uint64]*jobView{}, news: newNews()}
	v.cluster.Store(&clusterView{})
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

// workerNews is what only the leader of the term knows of a worker.
type workerNews struct {
	busy, queued uint32
	seen         time.Time
	aside        bool
}

// beyondLog is what views show of what is in no log: the leader's core knows it, and a follower has been told.
type beyondLog interface {
	leased(id state.JobID) uint64
	eligible(job *state.Job) bool // a live worker could run an attempt of the job
	worker(id state.WorkerID) (workerNews, bool)
}

// leaderKnows is what the core of the term knows.
type leaderKnows struct{ core *leader.Core }

func (k leaderKnows) leased(id state.JobID) uint64 { return k.core.Leased(id) }

func (k leaderKnows) eligible(job *state.Job) bool { return k.core.Eligible(job.Spec) }

func (k leaderKnows) worker(id state.WorkerID) (workerNews, bool) {
	w, ok := k.core.WorkerState(id)
	return workerNews{busy: w.Busy, queued: w.Queued, seen: w.Heard, aside: w.Aside}, ok
}

// beyond is what this node knows beyond the log.
func (n *Node) beyond() beyondLog {
	if c := n.loop.controller.Core(); c != nil {
		return leaderKnows{c}
	}
	return n.loop.shadow
}

// render publishes the views of what has changed: now and then, and at once where somebody waits for it.
func (n *Node) render(now time.Time) {
	index := n.index()
	awaited := n.waiting.Load() > 0 && index > n.views.index.Load()
	if !n.loop.urgent && !awaited && now.Sub(n.loop.rendered) < renderEvery {
		return
	}
	m, knows := n.loop.controller.Machine(), n.beyond()
	last := n.views.cluster.Load()
	if n.loop.urgent || now.Sub(last.made) >= lookEvery || len(m.Live()) != last.cluster.Jobs {
		n.views.cluster.Store(n.clusterView(knows, now))
	}
	for id := range n.loop.stale {
		delete(n.loop.stale, id)
		if job := m.Job(id); job != nil {
			n.views.put(makeJobView(job, knows))
		}
	}
	if facts, ok := m.FactsAfter(state.Position{Index: n.views.facts.Load(), Seq: math.MaxUint32}); len(facts) > 0 || !ok {
		n.views.facts.Store(m.Index())
	}
	n.views.index.Store(index)
	n.loop.rendered, n.loop.urgent = now, false
	n.views.news.tell()
}

// makeJobView makes the public view of a job.
func makeJobView(j *state.Job, knows beyondLog) *api.Job {
	spec := j.Spec
	v := &api.Job{
		ID: uint64(j.ID), Name: spec.Name, User: spec.User, Program: apiProgram(spec), Error: j.Error, Inputs: spec.InputNames,
		Set: spec.Settings, Priority: int(spec.Priority), Retries: int(spec.Retries), Spool: spec.Spool, Output: spec.Output,
		InputBytes: spec.Input.Bytes, ReadBytes: j.ReadBytes, OutputBytes: j.OutputBytes, Records: j.Records,
		Created: time.UnixMilli(j.Created).UTC(), Started: stamp(j.Started), Ended: stamp(j.Ended),
		Stages: make([]api.Stage, len(j.Stages)),
	}
	leased := knows.leased(j.ID)
	for i, s := range j.Stages {
		stage := api.Stage{Name: s.Kind.String(), Tasks: s.Tasks, Done: s.Done, Dead: s.Dead, Retried: s.Failed}
		if i == j.Current && !j.Status.Ended() {
			stage.Running = min(leased, s.Tasks-s.Done-s.Dead)
		}
		stage.Open = s.Tasks - s.Done - s.Dead - stage.Running
		v.Stages[i] = stage
	}
	v.Status = jobStatus(j, knows)
	return v
}

func jobStatus(j *state.Job, knows beyondLog) string {
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
	case knows.leased(j.ID) > 0:
		return api.JobRunning
	case !knows.eligible(j):
		return api.JobHalted
	case j.Started == 0:
		return api.JobWaiting
	}
	return api.JobRunning
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

// clusterView makes the public view of the workers and the cluster. Who leads is filled in when it is asked for.
func (n *Node) clusterView(knows beyondLog, now time.Time) *clusterView {
	m := n.loop.controller.Machine()
	v := &clusterView{cluster: api.Cluster{Name: n.cfg.Cluster, Version: n.cfg.Version, Spool: n.cfg.Spool, Jobs: len(m.Live()), Status: api.ClusterHealthy}}
	for _, id := range m.Workers() {
		info := m.Worker(id)
		w := api.Worker{
			ID: uint64(id), Identity: info.Identity, Status: info.Status.String(), Host: info.Host, Address: info.Address,
			Version: info.Version, Slots: info.Slots, Memory: info.Memory, Labels: info.Labels,
		}
		if news, ok := knows.worker(id); ok {
			w.Busy, w.Queued, w.Seen, w.Aside = news.busy, news.queued, news.seen, news.aside
		}
		v.workers = append(v.workers, w)
		if info.Status == state.WorkerDead {
			v.cluster.Dead++
			continue
		}
		v.cluster.Workers++
		v.cluster.Slots += info.Slots
		v.cluster.Free += info.Slots - min(w.Busy, info.Slots)
	}
	switch {
	case v.cluster.Workers == 0:
		v.cluster.Status = api.ClusterDead
	case v.cluster.Dead > 0:
		v.cluster.Status = api.ClusterDegraded
	}
	if n.loop.shadow != nil {
		v.notReady = n.loop.shadow.notReady
		v.leaders, v.leadersAt = n.loop.shadow.leaders, n.loop.shadow.index
	}
	v.made = now
	return v
}
