package worker

import (
	"cmp"
	"context"
	"errors"

	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// errJoined is the cause of the end of an announcement.
var errJoined = errors.New("the worker has joined a cluster")

// State is a worker's state for users.
type State struct {
	Worker    uint64 // its number; 0: never welcomed yet
	Claim     uint64 // its id on the original system's routes, plus 1; 0: none
	Connected bool   // it has a leader
	Leader    string // address; empty: it has none
	Term      uint64 // of its leader
	Cluster   string // name of its cluster, according to the last leader
	ClusterID string // its cluster, or the one it was configured to join; empty: none yet
	Reason    string // why it has no leader; empty: it has one, or has just started to search
	Refused   bool   // a leader rejects it as it is configured
	Slots     []SlotState
}

// SlotState is one slot. While it is idle, only ID and Status count.
type SlotState struct {
	ID      int
	Status  wire.SlotStatus
	Running bool
	Job     uint64
	Stage   string
	Index   uint64
	Attempt uint32
	Lease   uint64
}

// State returns a snapshot; it is safe for concurrent use.
func (w *Worker) State() State {
	s := *w.status.Load()
	s.Worker, s.Connected, s.Slots = w.number.Load(), s.Leader != "", w.Slots()
	return s
}

// Slots returns what each slot runs; it is safe for concurrent use.
func (w *Worker) Slots() []SlotState {
	states := make([]SlotState, len(w.slots))
	for i, s := range w.slots {
		states[i].ID, states[i].Status = i, wire.SlotStatus(s.endedIn.Load())
		ch := s.chunk.Load()
		if ch == nil {
			continue
		}
		at, ok := ch.Running()
		if !ok || at >= ch.Len() {
			continue
		}
		states[i] = SlotState{
			ID: i, Status: wire.SlotStatus_SLOT_RUNNING, Running: true, Job: ch.Job.GetId(), Stage: ch.StageName(), Index: ch.Index[at],
			Attempt: ch.AttemptNumber(at), Lease: ch.Lease(at),
		}
	}
	return states
}

// updateStatus is called by the driver only.
func (w *Worker) updateStatus(update func(*State)) {
	s := *w.status.Load()
	update(&s)
	w.status.Store(&s)
}

// observe records the core's facts in the log and the status.
func (d *driver) observe(ctx context.Context, e core.Effect) {
	switch e := e.(type) {
	case core.Welcomed:
		d.welcomed(ctx, e)
	case core.LeaderLost:
		d.leader.set(nil)
		d.updateStatus(func(s *State) { s.Leader = "" })
		d.logger.WarnContext(ctx, "connection to the leader lost; running attempts continue", "error", e.Err)
	case core.Unled:
		d.logger.WarnContext(ctx, "no leader for too long: attempts of jobs with named locks stopped", "leases", e.Leases, "limit", e.For)
	case core.NoLeader:
		d.updateStatus(func(s *State) { s.Reason, s.Refused = e.Reason, e.Refused })
		if !d.warned && !e.Refused { // a refusal has its own message
			d.warned = true
			d.logger.WarnContext(ctx, "worker has no leader", "reason", e.Reason)
		}
		d.announce(ctx)
	case core.Refused:
		d.logger.ErrorContext(ctx, "worker refused; trying again every minute", "error", e.Err)
	case core.Removed:
		d.removed = e.Err
		d.leader.set(nil)
		d.updateStatus(func(s *State) { s.Leader, s.Reason, s.Refused = "", e.Err.Error(), true })
		d.logger.ErrorContext(ctx, "worker removed from the cluster; stopping its attempts", "reason", e.Err)
	case core.Released:
		d.leader.set(nil)
		d.warned = true
		d.number.Store(0)
		d.updateStatus(func(s *State) { s.Leader, s.ClusterID = "", "" })
		d.logger.WarnContext(ctx, "worker removed from the cluster; its attempts are stopped, and it waits for an invitation", "reason", e.Reason)
	case core.StaleLeader:
		d.logger.WarnContext(ctx, "stale leader left", "leader", e.Leader, "term", e.Term, "latest_term", e.LatestTerm)
	case core.DrainOrdered:
		d.logger.InfoContext(ctx, "draining, as ordered by the leader", "reason", e.Reason)
	case core.DiscoveryFailed:
		d.logger.WarnContext(ctx, "discovery of leaders incomplete", "error", e.Err)
	case core.BadMessage:
		d.logger.WarnContext(ctx, "invalid message of the leader ignored", "reason", e.Reason, "job", e.Job, "lease", e.Lease)
	}
}

func (d *driver) welcomed(ctx context.Context, e core.Welcomed) {
	m := e.Welcome
	d.number.Store(m.GetWorker())
	d.updateStatus(func(s *State) {
		s.Leader, s.Cluster, s.Term, s.Reason, s.Refused, s.Claim = e.Leader, m.GetCluster(), m.GetTerm(), "", false, cmp.Or(m.GetClaim(), s.Claim)
	})
	d.warned = false
	if d.stopAnnouncing != nil {
		d.stopAnnouncing(errJoined)
		d.stopAnnouncing = nil
	}
	d.leader.set(d.link.conn)
	d.logger.InfoContext(ctx, "worker joined", "worker", m.GetWorker(), "cluster", m.GetCluster(), "leader", e.Leader,
		"term", m.GetTerm(), "revoked", len(m.GetRevoked()))
}

// announce makes this worker known to leaders while it has none.
func (d *driver) announce(ctx context.Context) {
	if d.cfg.Announce == nil || d.stopAnnouncing != nil {
		return
	}
	ctx, d.stopAnnouncing = context.WithCancelCause(ctx)
	clusterID := d.status.Load().ClusterID
	d.searches.Go(func() { d.cfg.Announce(ctx, d.dir.identity, clusterID) })
}
