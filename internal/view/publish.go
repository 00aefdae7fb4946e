package view

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/placeholder"
	"github.com/bridgefour/bridgefour/internal/state"
)

const (
	// publishEvery is the shortest interval between publications, except for changes that a client waits for.
	publishEvery = 5 * time.Millisecond
	// clusterEvery is the same for the view of the cluster.
	clusterEvery = 100 * time.Millisecond
)

// Volatile is the volatile state, which is not in the log. The leader's core has it, and sends it to the followers.
type Volatile interface {
	Leased(id state.JobID) uint64
	Eligible(job *state.Job) bool // a live worker can run an attempt of the job
	WorkerState(id state.WorkerID) (leader.WorkerState, bool)
}

// Publisher publishes the views. It belongs to the goroutine that owns the state.
type Publisher struct {
	views     *Views
	cluster   api.Cluster // its constant fields
	stale     map[state.JobID]struct{}
	urgent    bool
	published time.Time
}

// NewPublisher returns a publisher of views. Cluster has the constant fields: name, version, spool.
func NewPublisher(views *Views, cluster api.Cluster) *Publisher {
	return &Publisher{views: views, cluster: cluster, stale: map[state.JobID]struct{}{}}
}

// Invalidate marks the view of a job as old.
func (p *Publisher) Invalidate(id state.JobID) { p.stale[id] = struct{}{} }

// Forget removes the views of jobs at once.
func (p *Publisher) Forget(ids []state.JobID) { p.views.forget(ids) }

// Hurry makes the next call of Publish publish.
func (p *Publisher) Hurry() { p.urgent = true }

// Due returns when to call Publish next if nothing happens; zero: not before something happens.
func (p *Publisher) Due(now time.Time) time.Time {
	switch {
	case len(p.stale) > 0:
		return p.published.Add(publishEvery)
	case p.views.waiting.Load() > 0: // raft's own entries come without an event
		return now.Add(publishEvery)
	}
	return time.Time{}
}

// Publish publishes the changes up to the log position index, unless it is too early and no client waits.
func (p *Publisher) Publish(now time.Time, index uint64, m *state.Machine, v Volatile) {
	awaited := p.views.waiting.Load() > 0 && index > p.views.index.Load()
	if !p.urgent && !awaited && now.Sub(p.published) < publishEvery {
		return
	}
	last := p.views.cluster.Load()
	if p.urgent || now.Sub(last.made) >= clusterEvery || len(m.Live()) != last.cluster.Jobs || m.Kept().Jobs() != last.cluster.Kept.Jobs {
		p.views.cluster.Store(p.clusterView(now, m, v))
	}
	for id := range p.stale {
		delete(p.stale, id)
		if job := m.Job(id); job != nil {
			p.views.put(publicJob(m, job, v))
		}
	}
	if facts, ok := m.FactsAfter(state.Position{Index: p.views.facts.Load(), Seq: math.MaxUint32}); len(facts) > 0 || !ok {
		p.views.facts.Store(m.Index())
	}
	p.views.index.Store(index)
	p.published, p.urgent = now, false
	p.views.changed.Notify()
}

// publicJob returns the public form of a job.
func publicJob(m *state.Machine, j *state.Job, volatile Volatile) *api.Job {
	spec := j.Spec
	v := &api.Job{
		ID: uint64(j.ID), Name: spec.Name, User: spec.User, Program: apiProgram(spec), Error: j.Error, Inputs: spec.InputNames,
		Set: spec.Settings, Priority: int(spec.Priority), Retries: int(spec.Retries), Spool: spec.Spool, Output: spec.Output, NameParts: spec.NameParts,
		Env: slices.Sorted(maps.Keys(spec.Env)), Secrets: spec.SecretNames(), Sandbox: spec.Sandbox, NoNetwork: spec.NoNetwork, RecordKind: spec.Records, Header: spec.Header, Class: spec.Class,
		FirstSuccess: spec.FirstSuccess,
		InputBytes:   spec.Input.Bytes, ReadBytes: j.ReadBytes, OutputBytes: j.OutputBytes, Records: j.Records,
		Created: time.UnixMilli(j.Created).UTC(), Started: Time(j.Started), Ended: Time(j.Ended),
		Stages: make([]api.Stage, len(j.Stages)),
	}
	if spec.GraceMS > 0 {
		v.Grace = (time.Duration(spec.GraceMS) * time.Millisecond).String() //nolint:gosec // bounded at the submit
	}
	if spec.MaxFails != nil {
		v.MaxFails = spec.MaxFails.String()
	}
	for _, d := range spec.After {
		v.After = append(v.After, api.Dependency{Job: uint64(d.Job), Any: d.Any, Pending: j.Status == state.JobWaiting && m.Pending(d)})
	}
	if j.Blocker != 0 {
		v.Blocker = uint64(j.ID)
		if blocker := m.Blocker(j); blocker != nil {
			v.Blocker = uint64(blocker.ID)
		}
	}
	for _, w := range j.Warnings {
		v.Warnings = append(v.Warnings, fmt.Sprintf("task %d/%s/%d: %s", j.ID, spec.Stages[w.Stage].Name, w.Task, w.Text))
	}
	if len(j.Warnings) == state.WarningsMax {
		v.Warnings = append(v.Warnings, fmt.Sprintf("more tasks may have warnings: the first %d of a job are kept", state.WarningsMax))
	}
	v.Partial = j.Status.Ended() && j.Status != state.JobDone && slices.ContainsFunc(j.Stages, func(s *state.Stage) bool {
		return s.Role == state.RoleCommit && s.Action == state.CommitPartial && s.Done == s.Tasks
	})
	leased := volatile.Leased(j.ID)
	for i, s := range j.Stages {
		stage := api.Stage{
			Name: s.Name, Role: s.Role.String(), Parts: i == spec.PartStage(), Tasks: s.Tasks, Done: s.Done, Dead: s.Dead, Retried: s.Failed - min(s.Failed, s.Dead), Second: s.Second,
		}
		if j.Ready(i) { // of stages that run side by side, the first are taken to hold the leases
			stage.Running = min(leased, s.Tasks-s.Done-s.Dead)
			leased -= stage.Running
		}
		if stage.Open = s.Tasks - s.Done - s.Dead - stage.Running; s.Closed && s.Role == state.RoleCheck {
			stage.Open = 0
		}
		v.Stages[i] = stage
	}
	for _, n := range spec.Locks {
		v.Locks = append(v.Locks, LockText(n))
	}
	if l := m.LockOf(j.ID); l != nil {
		v.Locking = !l.Held()
	}
	v.Status, v.Pinned, v.Growing = jobStatus(j, volatile), j.Pinned, j.Growing()
	return v
}

func jobStatus(j *state.Job, volatile Volatile) string {
	switch j.Status {
	case state.JobDone:
		return api.JobDone
	case state.JobFailed:
		return api.JobFailed
	case state.JobStopped:
		return api.JobStopped
	case state.JobWaiting:
		return api.JobWaiting
	case state.JobActive, state.JobStopping, state.JobFailing:
	}
	switch {
	case volatile.Leased(j.ID) > 0:
		return api.JobRunning
	case !volatile.Eligible(j):
		return api.JobHalted
	case j.Started == 0:
		return api.JobWaiting
	}
	return api.JobRunning
}

func apiProgram(spec *state.Spec) api.Program {
	p := api.Program{Builtin: spec.Builtin, Reduce: spec.Reduce, Combine: spec.Combine, Placeholder: spec.Placeholder, NoPlaceholders: placeholder.Mode(spec.Placeholders) == placeholder.Off}
	if spec.Shell {
		p.Shell = string(spec.Argv[len(spec.Argv)-1])
		return p
	}
	for _, a := range spec.Argv {
		p.Command = append(p.Command, string(a))
	}
	return p
}

// Time converts a time in Unix ms; nil: it is 0, which is none.
func Time(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	return new(time.UnixMilli(ms).UTC())
}

// keptJobs returns what is kept of the jobs of all users.
func keptJobs(m *state.Machine) api.KeptJobs {
	kept, bounds := m.Kept(), m.Access().Retentions().Everyone()
	next, ended := kept.Oldest()
	v := api.KeptJobs{
		RetentionRequest: PublicRetention(&bounds), Jobs: kept.Jobs(), Bytes: kept.Bytes(), Pinned: m.Pinned(), Next: uint64(next),
	}
	if next != 0 && bounds.ForMS > 0 {
		v.Until = Time(ended + int64(bounds.ForMS)) //nolint:gosec // bounded
	}
	return v
}

// PublicRetention returns the public form of a retention.
func PublicRetention(r *state.Retention) api.RetentionRequest {
	return api.RetentionRequest{Jobs: r.Jobs, Seconds: r.ForMS / 1000, Bytes: r.Bytes}
}

type clusterView struct {
	made    time.Time
	cluster api.Cluster
	workers []api.Worker
}

// clusterView returns the view of the cluster and its workers. Fields that depend on the node are added when it is read.
func (p *Publisher) clusterView(now time.Time, m *state.Machine, volatile Volatile) *clusterView {
	v := &clusterView{made: now, cluster: p.cluster}
	v.cluster.Jobs, v.cluster.Level, v.cluster.Status = len(m.Live()), m.Level(), api.ClusterHealthy
	v.cluster.Kept = keptJobs(m)
	for _, id := range m.Workers() {
		info := m.Worker(id)
		w := api.Worker{
			ID: uint64(id), Identity: info.Identity, Status: info.Status.String(), Host: info.Host, Address: info.Address,
			Version: info.Version, Slots: info.Slots, Memory: info.Memory, Labels: info.Labels, Confinement: info.Confinement,
		}
		for _, r := range info.Resources {
			w.Resources = append(w.Resources, api.Resource{Name: r.Name, Total: r.N})
		}
		if s, ok := volatile.WorkerState(id); ok {
			w.Busy, w.Queued, w.Seen, w.Cause = s.Busy, s.Queued, s.Heard, s.Quarantined.String()
			w.Aside = s.Quarantined != leader.NotQuarantined
			for _, status := range s.Slots {
				w.SlotStatus = append(w.SlotStatus, status.Text())
			}
			for i := range w.Resources {
				w.Resources[i].Used = s.Used[w.Resources[i].Name]
			}
		}
		if info.Claim > 0 {
			w.Claim = new(info.Claim - 1)
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
	return v
}
