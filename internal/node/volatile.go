package node

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/view"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// shadowEvery is how often the leader tells the others what it knows beyond the log.
const shadowEvery = 200 * time.Millisecond

// told is what a leader has told the others last.
type told struct {
	state *wire.ShadowState // never changed once it is here: several streams send it
	at    time.Time
}

// Shadow tells another leader what this one, leading, knows beyond the log.
func (n *Node) Shadow(req *wire.ShadowRequest, rpc grpc.ServerStreamingServer[wire.ShadowState]) error {
	if ours := n.members.Load().Cluster; req.GetClusterId() != ours {
		return status.Errorf(codes.FailedPrecondition, "leader %d is of cluster %q, and this is cluster %q", req.GetId(), req.GetClusterId(), ours)
	}
	every := time.NewTicker(shadowEvery)
	defer every.Stop()
	for {
		var state *wire.ShadowState
		if err := n.do(rpc.Context(), func() { state = n.shadowState(time.Now()) }); err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		if state == nil {
			return status.Error(codes.Unavailable, notLeading)
		}
		if err := rpc.Send(state); err != nil {
			return err
		}
		select {
		case <-every.C:
		case <-rpc.Context().Done():
			return context.Cause(rpc.Context())
		case <-n.stopped:
			return status.Error(codes.Unavailable, n.stopping().Error())
		}
	}
}

// shadowState is what this node knows beyond the log; nil where it does not lead. Called in the loop.
func (n *Node) shadowState(now time.Time) *wire.ShadowState {
	if !n.loop.controller.Leading() {
		return nil
	}
	if n.loop.told.state != nil && now.Sub(n.loop.told.at) < shadowEvery/2 {
		return n.loop.told.state
	}
	c, m := n.loop.controller.Core(), n.loop.controller.Machine()
	log := n.cfg.Log.Status()
	s := &wire.ShadowState{Term: n.loop.controller.Term(), Index: n.index(), NotReady: n.ready.refusal()}
	for _, id := range m.Workers() {
		w, ok := c.WorkerState(id)
		if !ok {
			continue
		}
		s.Worker = append(s.Worker, uint64(id))
		s.WorkerBusy = append(s.WorkerBusy, w.Busy)
		s.WorkerQueued = append(s.WorkerQueued, w.Queued)
		s.WorkerSilentMs = append(s.WorkerSilentMs, millisSince(w.Heard, now))
		s.WorkerAside = append(s.WorkerAside, w.Quarantined)
	}
	for _, id := range m.Live() {
		leased := c.Leased(id)
		s.Job = append(s.Job, uint64(id))
		s.JobLeased = append(s.JobLeased, leased)
		s.JobEligible = append(s.JobEligible, leased > 0 || c.Eligible(m.Job(id)))
	}
	for _, p := range log.Peers {
		s.Leader = append(s.Leader, p.ID)
		s.LeaderMatch = append(s.LeaderMatch, p.Match)
		s.LeaderSilentMs = append(s.LeaderSilentMs, millisSince(p.Heard, now))
	}
	n.loop.told = told{s, now}
	return s
}

func millisSince(t, now time.Time) uint64 { return uint64(max(0, now.Sub(t).Milliseconds())) }

// shadow is what the leader has told this node, which follows.
type shadow struct {
	term     uint64
	index    uint64
	received time.Time
	notReady string
	jobs     map[state.JobID]shadowJob
	workers  map[state.WorkerID]leader.WorkerState
	leaders  map[uint64]shadowLeader
}

type shadowJob struct {
	leased   uint64
	eligible bool
}

type shadowLeader struct {
	match uint64
	heard time.Time
}

func newShadow(s *wire.ShadowState, now time.Time) *shadow {
	out := &shadow{
		term: s.GetTerm(), index: s.GetIndex(), received: now, notReady: s.GetNotReady(), jobs: make(map[state.JobID]shadowJob, len(s.GetJob())),
		workers: make(map[state.WorkerID]leader.WorkerState, len(s.GetWorker())), leaders: make(map[uint64]shadowLeader, len(s.GetLeader())),
	}
	ago := func(ms uint64) time.Time { return now.Add(-time.Duration(ms) * time.Millisecond) }
	for i, id := range s.GetWorker() {
		out.workers[state.WorkerID(id)] = leader.WorkerState{
			Busy: wire.Entry(s.GetWorkerBusy(), i), Queued: wire.Entry(s.GetWorkerQueued(), i), Heard: ago(wire.Entry(s.GetWorkerSilentMs(), i)),
			Quarantined: wire.Entry(s.GetWorkerAside(), i),
		}
	}
	for i, id := range s.GetJob() {
		out.jobs[state.JobID(id)] = shadowJob{leased: wire.Entry(s.GetJobLeased(), i), eligible: wire.Entry(s.GetJobEligible(), i)}
	}
	for i, id := range s.GetLeader() {
		out.leaders[id] = shadowLeader{match: wire.Entry(s.GetLeaderMatch(), i), heard: ago(wire.Entry(s.GetLeaderSilentMs(), i))}
	}
	return out
}

// A node that has been told nothing yet shows no attempt as running, and no job as halted.

func (s *shadow) Leased(id state.JobID) uint64 {
	if s == nil {
		return 0
	}
	return s.jobs[id].leased
}

func (s *shadow) Eligible(job *state.Job) bool {
	if s == nil {
		return true
	}
	told, ok := s.jobs[job.ID]
	return !ok || told.eligible
}

func (s *shadow) WorkerState(id state.WorkerID) (leader.WorkerState, bool) {
	if s == nil {
		return leader.WorkerState{}, false
	}
	w, ok := s.workers[id]
	return w, ok
}

// volatile is the volatile state as far as this node knows it.
func (n *Node) volatile() view.Volatile {
	if c := n.loop.controller.Core(); c != nil {
		return c
	}
	return n.received.Load()
}

// takeShadow takes in what the leader has told. Called in the loop.
func (n *Node) takeShadow(next *shadow) {
	last := n.received.Load()
	if n.ready.leading() || last != nil && next.term < last.term {
		return // of a term that is over
	}
	n.received.Store(next)
	for id, job := range next.jobs {
		if last != nil {
			if before, ok := last.jobs[id]; ok && before == job {
				continue
			}
		}
		n.loop.publisher.Invalidate(id)
	}
}

// dropShadow lets go of what a leader has told long ago: it is not true any more.
func (n *Node) dropShadow(now time.Time) {
	if told := n.received.Load(); told == nil || now.Sub(told.received) < shadowKept {
		return
	}
	n.received.Store(nil)
	for _, id := range n.loop.controller.Machine().Live() {
		n.loop.publisher.Invalidate(id)
	}
}

// How a follower keeps in touch with the leader.
const (
	shadowSilence  = 5 * shadowEvery // then the stream is opened anew
	shadowKept     = 5 * time.Second
	shadowPauseMin = 50 * time.Millisecond
	shadowPauseMax = time.Second
)

// receiveVolatile keeps a stream open to whoever leads, for what that one knows beyond the log.
func (n *Node) receiveVolatile(ctx context.Context) {
	pause := shadowPauseMin
	retry := time.NewTimer(pause)
	defer retry.Stop()
	for ctx.Err() == nil {
		changed := n.ready.changed.Changed()
		address, self := n.LeaderAddress()
		if address != "" && !self {
			heard, err := n.receiveShadows(ctx, address)
			n.log.DebugContext(ctx, "not following the leader's news any more", "leader", address, "error", err)
			if heard {
				pause = shadowPauseMin
			}
			retry.Reset(pause)
			pause = min(2*pause, shadowPauseMax)
		}
		select {
		case <-changed:
		case <-retry.C:
		case <-ctx.Done():
		}
	}
}

// receiveShadows takes in what the leader at address tells, until it says no more, is silent, or is not the leader any more.
func (n *Node) receiveShadows(ctx context.Context, address string) (heard bool, err error) {
	conn, err := n.cfg.Dial.Open(address)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer func() {
		cancel()
		watch.Wait()
		if cerr := conn.Close(); err == nil {
			err = cerr
		}
	}()
	watch.Go(func() {
		n.whileLeads(ctx, address)
		cancel()
	})
	silence := time.AfterFunc(shadowSilence, cancel)
	defer silence.Stop()
	rpc, err := wire.NewLeaderClient(conn).Shadow(ctx, &wire.ShadowRequest{Id: n.cfg.Log.Status().ID, ClusterId: n.members.Load().Cluster})
	if err != nil {
		return false, err
	}
	for {
		s, err := rpc.Recv()
		if err != nil {
			return heard, err
		}
		heard = true
		silence.Reset(shadowSilence)
		if err := n.do(ctx, func() { n.takeShadow(newShadow(s, time.Now())) }); err != nil {
			return heard, err
		}
	}
}

// whileLeads returns when the leader is somebody else than the one at address.
func (n *Node) whileLeads(ctx context.Context, address string) {
	for {
		changed := n.ready.changed.Changed()
		if now, self := n.LeaderAddress(); now != address || self {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
