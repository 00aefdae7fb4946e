package node

import (
	"context"
	"slices"
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

// volatileEvery is how often the leader sends its volatile state to each other node.
const volatileEvery = 200 * time.Millisecond

// sentVolatile is the volatile state that the leader has sent last.
type sentVolatile struct {
	state *wire.ShadowState // immutable: several streams send it
	at    time.Time
}

// Shadow sends the volatile state of the leader to another node.
func (n *Node) Shadow(req *wire.ShadowRequest, rpc grpc.ServerStreamingServer[wire.ShadowState]) error {
	if ours := n.members.Load().Cluster; req.GetClusterId() != ours {
		return status.Errorf(codes.FailedPrecondition, "leader %d belongs to cluster %q, this one to cluster %q", req.GetId(), req.GetClusterId(), ours)
	}
	every := time.NewTicker(volatileEvery)
	defer every.Stop()
	for {
		var state *wire.ShadowState
		if err := n.do(rpc.Context(), func() { state = n.volatileMessage(time.Now()) }); err != nil {
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

// volatileMessage returns the volatile state of the leader; nil: this node does not lead. Called in the goroutine of Run.
func (n *Node) volatileMessage(now time.Time) *wire.ShadowState {
	if !n.loop.controller.Leading() {
		return nil
	}
	if n.loop.sent.state != nil && now.Sub(n.loop.sent.at) < volatileEvery/2 {
		return n.loop.sent.state
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
		s.WorkerAside = append(s.WorkerAside, w.Quarantined != leader.NotQuarantined)
		s.WorkerAsideCause = append(s.WorkerAsideCause, uint32(w.Quarantined))
		s.WorkerSlots = append(s.WorkerSlots, &wire.WorkerSlots{Slots: w.Slots})
		s.WorkerResources = append(s.WorkerResources, &wire.ResourceUse{Used: w.Used})
	}
	for _, id := range m.Live() {
		if m.Job(id).Status == state.JobWaiting {
			continue
		}
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
	n.loop.sent = sentVolatile{s, now}
	return s
}

func millisSince(t, now time.Time) uint64 { return uint64(max(0, now.Sub(t).Milliseconds())) }

// volatileState is the volatile state of the leader as a follower has received it. It is immutable. Nil shows no attempt as running and no
// job as halted.
type volatileState struct {
	term     uint64
	index    uint64
	received time.Time
	notReady string
	jobs     map[state.JobID]volatileJob
	workers  map[state.WorkerID]leader.WorkerState
	leaders  map[uint64]volatileLeader
}

type volatileJob struct {
	leased   uint64
	eligible bool
}

type volatileLeader struct {
	match uint64
	heard time.Time
}

// quarantineCause is why a worker is quarantined. An older leader quarantines those that fail, and sends no cause.
func quarantineCause(s *wire.ShadowState, i int) leader.QuarantineCause {
	cause := leader.QuarantineCause(wire.Entry(s.GetWorkerAsideCause(), i)) //nolint:gosec // one that is too large is not known
	switch {
	case !wire.Entry(s.GetWorkerAside(), i):
		return leader.NotQuarantined
	case slices.Contains(leader.QuarantineCauses(), cause):
		return cause
	}
	return leader.Failing
}

func newVolatileState(s *wire.ShadowState, now time.Time) *volatileState {
	out := &volatileState{
		term: s.GetTerm(), index: s.GetIndex(), received: now, notReady: s.GetNotReady(), jobs: make(map[state.JobID]volatileJob, len(s.GetJob())),
		workers: make(map[state.WorkerID]leader.WorkerState, len(s.GetWorker())), leaders: make(map[uint64]volatileLeader, len(s.GetLeader())),
	}
	ago := func(ms uint64) time.Time { return now.Add(-time.Duration(ms) * time.Millisecond) }
	for i, id := range s.GetWorker() {
		out.workers[state.WorkerID(id)] = leader.WorkerState{
			Busy: wire.Entry(s.GetWorkerBusy(), i), Queued: wire.Entry(s.GetWorkerQueued(), i), Heard: ago(wire.Entry(s.GetWorkerSilentMs(), i)),
			Quarantined: quarantineCause(s, i), Slots: wire.Entry(s.GetWorkerSlots(), i).GetSlots(), Used: wire.Entry(s.GetWorkerResources(), i).GetUsed(),
		}
	}
	for i, id := range s.GetJob() {
		out.jobs[state.JobID(id)] = volatileJob{leased: wire.Entry(s.GetJobLeased(), i), eligible: wire.Entry(s.GetJobEligible(), i)}
	}
	for i, id := range s.GetLeader() {
		out.leaders[id] = volatileLeader{match: wire.Entry(s.GetLeaderMatch(), i), heard: ago(wire.Entry(s.GetLeaderSilentMs(), i))}
	}
	return out
}

func (s *volatileState) Leased(id state.JobID) uint64 {
	if s == nil {
		return 0
	}
	return s.jobs[id].leased
}

func (s *volatileState) Eligible(job *state.Job) bool {
	if s == nil {
		return true
	}
	known, ok := s.jobs[job.ID]
	return !ok || known.eligible
}

func (s *volatileState) WorkerState(id state.WorkerID) (leader.WorkerState, bool) {
	if s == nil {
		return leader.WorkerState{}, false
	}
	w, ok := s.workers[id]
	return w, ok
}

// volatile returns the volatile state as far as this node knows it.
func (n *Node) volatile() view.Volatile {
	if c := n.loop.controller.Core(); c != nil {
		return c
	}
	return n.received.Load()
}

// storeVolatile stores the volatile state from the leader. Called in the goroutine of Run.
func (n *Node) storeVolatile(next *volatileState) {
	last := n.received.Load()
	if n.ready.leading() || last != nil && next.term < last.term {
		return // of an earlier term
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

// dropOldVolatile drops volatile state that has become too old.
func (n *Node) dropOldVolatile(now time.Time) {
	if last := n.received.Load(); last == nil || now.Sub(last.received) < volatileAgeMax {
		return
	}
	n.received.Store(nil)
	for _, id := range n.loop.controller.Machine().Live() {
		n.loop.publisher.Invalidate(id)
	}
}

// The stream of volatile state from the leader.
const (
	volatileSilenceMax = 5 * volatileEvery // then the stream is opened again
	volatileAgeMax     = 5 * time.Second
	volatileRetryMin   = 50 * time.Millisecond
	volatileRetryMax   = time.Second
)

// receiveVolatile keeps a stream of volatile state open to the leader.
func (n *Node) receiveVolatile(ctx context.Context) {
	pause := volatileRetryMin
	retry := time.NewTimer(pause)
	defer retry.Stop()
	for ctx.Err() == nil {
		changed := n.ready.changed.Changed()
		address, self := n.LeaderAddress()
		if address != "" && !self {
			heard, err := n.receiveVolatileFrom(ctx, address)
			n.log.DebugContext(ctx, "stream of volatile state ended", "leader", address, "error", err)
			if heard {
				pause = volatileRetryMin
			}
			retry.Reset(pause)
			pause = min(2*pause, volatileRetryMax)
		}
		select {
		case <-changed:
		case <-retry.C:
		case <-ctx.Done():
		}
	}
}

// receiveVolatileFrom stores the volatile state from the leader at address, until the stream ends or is silent, or the leader changes.
func (n *Node) receiveVolatileFrom(ctx context.Context, address string) (heard bool, err error) {
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
		n.awaitOtherLeader(ctx, address)
		cancel()
	})
	silence := time.AfterFunc(volatileSilenceMax, cancel)
	defer silence.Stop()
	to := wire.NewLeaderClient(conn)
	watch.Go(func() { n.forwardRefused(ctx, to) })
	rpc, err := to.Shadow(ctx, &wire.ShadowRequest{Id: n.cfg.Log.Status().ID, ClusterId: n.members.Load().Cluster})
	if err != nil {
		return false, err
	}
	for {
		s, err := rpc.Recv()
		if err != nil {
			return heard, err
		}
		heard = true
		silence.Reset(volatileSilenceMax)
		if err := n.do(ctx, func() { n.storeVolatile(newVolatileState(s, time.Now())) }); err != nil {
			return heard, err
		}
	}
}

// awaitOtherLeader returns when the leader is no longer at address.
func (n *Node) awaitOtherLeader(ctx context.Context, address string) {
	_ = n.ready.changed.Wait(ctx, func() (bool, error) { // an error ends the wait as well
		now, self := n.LeaderAddress()
		return now != address || self, nil
	})
}
