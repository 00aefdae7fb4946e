package worker

import (
	"context"
	"errors"

	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// errFound is why an announcement ends.
var errFound = errors.New("the worker has a leader")

// tell makes what the core has come to known: in the log, and to those who ask for the worker's state.
func (w *Worker) tell(ctx context.Context, e core.Effect) {
	switch e := e.(type) {
	case core.Welcomed:
		w.welcomed(e)
	case core.LeaderLost:
		w.leader.set(nil)
		w.told(func(t *tie) { t.leader = "" })
		w.logger.WarnContext(ctx, "leader lost; running attempts go on", "error", e.Err)
	case core.NoLeader:
		w.told(func(t *tie) { t.reason, t.refused = e.Reason, e.Refused })
		if !w.alone && !e.Refused { // a refusal is told by itself
			w.alone = true
			w.logger.WarnContext(ctx, "worker has no leader", "reason", e.Reason)
		}
		w.announce(ctx)
	case core.Refused:
		w.logger.ErrorContext(ctx, "worker refused; it stays, and asks again every minute", "error", e.Err)
	case core.StaleLeader:
		w.logger.WarnContext(ctx, "leader left; its term is over", "leader", e.Leader, "term", e.Term, "term_now", e.LatestTerm)
	case core.DrainOrdered:
		w.logger.InfoContext(ctx, "worker drains, as the leader tells it to", "reason", e.Reason)
	case core.DiscoveryFailed:
		w.logger.WarnContext(ctx, "leaders may be there that are not found", "error", e.Err)
	}
}

func (w *Worker) welcomed(e core.Welcomed) {
	m := e.Welcome
	w.number.Store(m.GetWorker())
	w.told(func(t *tie) {
		t.leader, t.cluster, t.term, t.reason, t.refused = e.Leader, m.GetCluster(), m.GetTerm(), "", false
	})
	w.alone = false
	if w.hush != nil {
		w.hush(errFound)
		w.hush = nil
	}
	w.leader.set(w.link.conn)
	w.logger.Info("worker joined", "worker", m.GetWorker(), "cluster", m.GetCluster(), "leader", e.Leader, "term", m.GetTerm(),
		"revoked", len(m.GetRevoked()))
}

// announce lets others know that this worker waits for a leader.
func (w *Worker) announce(ctx context.Context) {
	if w.cfg.Announce == nil || w.hush != nil {
		return
	}
	ctx, w.hush = context.WithCancelCause(ctx)
	clusterID := w.tie.Load().clusterID
	w.seekers.Go(func() { w.cfg.Announce(ctx, w.dir.identity, clusterID) })
}

// told changes what is told of the worker. Only Run's goroutine calls it.
func (w *Worker) told(change func(*tie)) {
	t := *w.tie.Load()
	change(&t)
	w.tie.Store(&t)
}
