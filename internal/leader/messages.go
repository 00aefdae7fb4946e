package leader

import (
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// welcome is the answer to the Hello of a worker that is registered.
func (c *Core) welcome(w *worker) *wire.Welcome {
	return &wire.Welcome{
		Worker: uint64(w.ID), Term: c.term, HeartbeatMs: uint32(heartbeat.Milliseconds()), Cluster: c.cluster, Drain: w.draining,
		ClusterId: c.members.ClusterID, Leaders: c.members.Addresses, SilenceMs: uint32(silence.Milliseconds()),
		IdleHeartbeatMs: uint32(idleHeartbeat.Milliseconds()), IdleSilenceMs: uint32(idleSilence.Milliseconds()),
		Claim: w.session.hello.GetClaim(),
	}
}

// handleMembers sends the leaders' addresses to every connected worker, if they have changed.
func (c *Core) handleMembers(m Members) {
	moved := !slices.Equal(m.Addresses, c.members.Addresses)
	c.members = m
	if !moved {
		return
	}
	for _, w := range c.registry.inOrder {
		if w.session != nil {
			c.outbox.send(w.session, &wire.ToWorker{Message: &wire.ToWorker_Leaders{Leaders: &wire.Leaders{Addresses: m.Addresses}}})
		}
	}
}

func newPing() *wire.ToWorker {
	return &wire.ToWorker{Message: &wire.ToWorker_Ping{Ping: &wire.Ping{}}}
}

// wireJob is the description of a job for workers, with its secrets. Unled is how long its attempts run without a leader, if it holds named locks. Fence is the number of its locks; 0: it has none.
func wireJob(j *state.Job, unled time.Duration, fence uint64, cluster string, openSecret func(uid string, s *state.Secret) (string, error)) *wire.Job {
	spec := j.Spec
	out := &wire.Job{
		Id: uint64(j.ID), Uid: j.UID, Name: spec.Name, Output: spec.Output, Spool: spec.Spool, Settings: spec.Settings,
		TimeoutMs: spec.TimeoutMS, GraceMs: spec.GraceMS, Memory: spec.Memory, Dir: spec.Dir, KeepPartial: spec.KeepPartial,
		CreatedUnixMs: uint64(j.Created), StartedUnixMs: uint64(j.Started), User: spec.User, Overwrite: spec.Overwrite,
		Records: spec.Records, Header: spec.Header, Slots: spec.SlotsPerTask,
		Env: spec.Env, Sandbox: spec.Sandbox, NoNetwork: spec.NoNetwork,
		Columns: spec.Input.Columns(), Batch: spec.Input.Batch > 0, NameParts: spec.NameParts, Reduce: spec.Reduce, Combine: spec.Combine,
	}
	if len(spec.Locks) > 0 {
		out.UnledMs = uint64(unled.Milliseconds()) //nolint:gosec // positive
	}
	if fence != 0 {
		out.Fence, out.ClusterId = fence, cluster
	}
	for _, r := range spec.Resources {
		if out.Resources == nil {
			out.Resources = map[string]uint32{}
		}
		out.Resources[r.Name] = uint32(r.N) //nolint:gosec // bounded at the submit
	}
	if spec.Input.Kind == state.InputRange {
		out.RangeFrom, out.Range = spec.Input.From, true
	}
	if spec.Builtin != "" {
		out.Program = &wire.Program{Kind: &wire.Program_Builtin{Builtin: spec.Builtin}}
	} else {
		out.Program = &wire.Program{Kind: &wire.Program_Command{Command: &wire.Command{
			Argv: spec.Argv, Placeholders: uint32(spec.Placeholders), Placeholder: spec.Placeholder, Shell: spec.Shell,
		}}}
	}
	for i := range spec.Secrets {
		s := &wire.Secret{Name: spec.Secrets[i].Name}
		var err error
		if s.Value, err = openSecret(j.UID, &spec.Secrets[i]); err != nil {
			s.Error = err.Error()
		}
		out.Secrets = append(out.Secrets, s)
	}
	for i, s := range j.Stages {
		out.Stages = append(out.Stages, s.Name)
		tasks := s.Tasks
		if i == 0 && j.Growing() {
			tasks = 0 // not known
		}
		// The numbers of the wire begin one later, because its zero is no role.
		out.Plan = append(out.Plan, &wire.Stage{Name: s.Name, Role: wire.StageRole(s.Role) + 1, From: s.From, Tasks: tasks, Ranges: s.Ranges})
	}
	return out
}
