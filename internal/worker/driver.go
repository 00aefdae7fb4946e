package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

// errStopped is the cause of the end of a stopped attempt's context.
var errStopped = errors.New("the attempt was stopped by the leader or a drain")

// driver steps the core and carries out its effects. It belongs to the goroutine of Run.
type driver struct {
	*Worker
	core    *core.Core
	exiting bool

	link       *link
	links      sync.WaitGroup
	stops      []context.CancelCauseFunc // by slot, of its chunk
	membership *membershipFile
	answer     chan<- error // of the invitation in this step

	searches       sync.WaitGroup          // discoveries and the announcement
	stopAnnouncing context.CancelCauseFunc // nil: it is not announced
	warned         bool                    // that there is no leader
	removed        error                   // why the worker was removed from its cluster; nil: it was not
}

// Run works until ctx ends and the drain that this starts is complete, which returns nil. A leader that refuses the worker does
// not end it: the refusal is logged, and the worker tries again later. If the worker's key was revoked, its attempts are stopped, and the
// *api.Problem is returned. Run can be called once.
func (w *Worker) Run(ctx context.Context) error {
	// Everything that is started here outlives ctx, which only starts a drain.
	life, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	searching, stopSearching := context.WithCancelCause(life)
	d := &driver{
		Worker: w, stops: make([]context.CancelCauseFunc, len(w.slots)),
		membership: newMembershipFile(w.cfg.DataDir, w.dir.member, w.logger),
		core: core.New(core.Config{
			Hello: &wire.Hello{
				Identity: w.dir.identity, Incarnation: randomHex(), Version: w.cfg.Version, Address: w.cfg.Address,
				Slots: uint32(w.cfg.Slots), Memory: w.cfg.Memory, Labels: w.cfg.Labels, Host: w.cfg.host(),
				ClusterName: w.cfg.ClusterName, Protocol: wire.Protocol, ProtocolMin: wire.ProtocolMin,
				Confinement: w.cfg.confinement(), Claim: w.cfg.Claim, Resources: w.cfg.resourceCounts(),
			},
			Resources: w.cfg.Resources,
			Leaders:   w.cfg.Leaders, Known: w.dir.member.Leaders, ClusterID: w.status.Load().ClusterID, Waits: w.dir.member.Waits,
			Discovers: w.cfg.Discover != nil, DrainGrace: w.cfg.DrainGrace, Seed: seed(),
		}),
	}
	var slots, disk sync.WaitGroup
	for _, s := range w.slots {
		slots.Go(func() { s.run(func() { w.post(core.SlotIdle{Slot: s.id}) }) })
	}
	disk.Go(func() { w.disk.runSync(life, w.post) })
	disk.Go(func() { w.disk.runRemove(life) })
	disk.Go(d.membership.run)

	d.loop(ctx, life, searching)

	close(w.done)
	stopSearching(errExited)
	if d.link != nil && w.status.Load().Leader != "" {
		d.link.flush()
	}
	d.hangUp(errExited)
	d.links.Wait()
	d.searches.Wait()
	for _, s := range w.slots {
		close(s.work)
	}
	for _, stop := range d.stops {
		if stop != nil {
			stop(errExited)
		}
	}
	waitAtMost(&slots, core.KillTimeout)
	close(w.disk.sync)
	close(w.disk.wake)
	close(d.membership.wake)
	disk.Wait()
	stop(errExited)
	w.logs.group.Wait()
	return d.removed
}

// waitAtMost abandons a built-in job that ignores its context: the process is about to end.
func waitAtMost(group *sync.WaitGroup, d time.Duration) {
	ended := make(chan struct{})
	go func() {
		group.Wait()
		close(ended)
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
}

// loop steps the core until it exits. Only its select blocks. The end of ctx starts a drain; life is the context of all that an
// effect starts, searching that of discoveries and the announcement.
func (d *driver) loop(ctx, life, searching context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ended := ctx.Done()
	var inputs []core.Input
	for !d.exiting {
		inputs = inputs[:0]
		select {
		case in := <-d.inputs:
			inputs = d.pending(append(inputs, in))
		case <-timer.C:
		case in := <-d.invites:
			d.answer = in.answer
			inputs = append(inputs, in.Invite)
		case <-ended:
			ended = nil
			inputs = append(inputs, core.Drain{StopRunning: errors.Is(context.Cause(ctx), ErrStopNow)})
			d.logger.InfoContext(ctx, "draining", "reason", context.Cause(ctx))
		}
		now := time.Now()
		effects := d.core.Step(now, inputs...)
		for _, e := range effects.List {
			d.carryOut(life, searching, e)
		}
		for _, in := range inputs {
			if ended, ok := in.(core.SessionEnded); ok && d.link != nil && ended.Epoch == d.link.epoch {
				d.hangUp(ended.Err) // releases its resources
			}
		}
		if effects.Wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(effects.Wake.Sub(now))
		}
	}
}

// pending appends the inputs that are waiting.
func (d *driver) pending(inputs []core.Input) []core.Input {
	for len(inputs) < cap(d.inputs) {
		select {
		case in := <-d.inputs:
			inputs = append(inputs, in)
		default:
			return inputs
		}
	}
	return inputs
}

func (d *driver) carryOut(life, searching context.Context, e core.Effect) {
	switch e := e.(type) {
	case core.Start:
		ctx, cancel := context.WithCancelCause(life)
		d.stops[e.Slot] = cancel
		d.slots[e.Slot].work <- slotWork{ctx, cancel, e.Chunk}
	case core.Stop:
		d.stops[e.Slot](errStopped)
	case core.Send:
		if d.link != nil && d.link.epoch == e.Epoch {
			d.link.send(e)
		}
	case core.Sync:
		d.disk.sync <- e.Files
	case core.Remove:
		d.disk.removeLater(e.Files...)
	case core.RemoveStage:
		d.disk.removeStageLater(e)
	case core.Connect:
		d.connect(life, e)
	case core.Disconnect:
		d.hangUp(errReplaced)
	case core.SendLog:
		d.logs.answer(life, e.Request)
	case core.SaveMembership:
		d.membership.save(e.Membership)
		d.updateStatus(func(s *State) { s.ClusterID = e.Membership.ClusterID })
	case core.Discover:
		d.searches.Go(func() {
			found, err := d.cfg.Discover(searching, e.ClusterID)
			d.post(core.Discovered{Leaders: found, Err: err})
		})
	case core.InviteAnswered:
		d.answer <- e.Err
	case core.Exit:
		d.exiting = true
	case core.Welcomed, core.LeaderLost, core.Unled, core.NoLeader, core.Refused, core.Removed, core.Released, core.StaleLeader, core.DiscoveryFailed, core.DrainOrdered,
		core.BadMessage:
		d.observe(searching, e)
	}
}

func (d *driver) connect(ctx context.Context, c core.Connect) {
	d.hangUp(errReplaced)
	l, err := openLink(ctx, d.cfg.Dial, c, d.post, d.log.Flush)
	if err != nil {
		// Posted by a goroutine, because the loop must not wait for itself.
		d.links.Go(func() { d.post(core.SessionEnded{Epoch: c.Epoch, Err: err}) })
		return
	}
	d.link = l
	d.links.Go(func() { <-l.over })
}

func (d *driver) hangUp(why error) {
	if d.link != nil {
		d.link.cancel(why)
		d.link = nil
	}
}
