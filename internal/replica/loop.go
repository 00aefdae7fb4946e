package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

// proposeBytesMax bounds what is proposed in one step, so that the loop does not neglect everything else for long.
const proposeBytesMax = 1 << 20

// loop is the goroutine that owns the core and carries out its effects. It never blocks: what cannot be passed on at once waits in its
// fields, within the core's bounds.
type loop struct {
	r     *Replica
	core  *core.Core
	saver *saver

	deliveries []core.Delivery
	pending    map[core.Ref]func(core.Answer)
	bodies     map[entryID]*openSnapshot // of snapshots to be delivered
	received   *openSnapshot             // of the MsgSnap that is stepped now; nil: none, or it is in bodies

	room bool // for proposals
	wake *time.Timer
	due  time.Time // of wake

	saverEnded bool
}

func newLoop(r *Replica, s *saver) *loop {
	l := &loop{
		r: r, core: r.core, saver: s, pending: map[core.Ref]func(core.Answer){}, bodies: map[entryID]*openSnapshot{},
		wake: time.NewTimer(0),
	}
	if b := r.body; b != nil {
		r.body = nil
		l.bodies[idOf(b.at)] = b
	}
	return l
}

// close closes the snapshots that were not delivered.
func (l *loop) close() error {
	l.wake.Stop()
	var errs []error
	for _, b := range l.bodies { // in any order: nothing depends on it
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// run drives the core until ctx is done or something breaks. failed receives the saver's result.
func (l *loop) run(ctx context.Context, failed <-chan error) error {
	if _, err := l.step(); err != nil {
		return err
	}
	for {
		var event Event
		events := l.r.events
		if len(l.deliveries) > 0 {
			event = l.event(l.deliveries[0])
		} else {
			events = nil
		}
		proposals := l.r.proposals
		if !l.room {
			proposals = nil
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case err = <-failed:
			l.saverEnded = true
			return err // nil: it has seen the end of ctx first
		case <-l.wake.C:
			l.due = time.Time{}
			_, err = l.step()
		case in := <-l.r.inbox:
			err = l.receive(in)
		case p := <-proposals:
			err = l.propose(p)
		case <-l.saver.out:
			_, err = l.step(core.Persisted{})
		case events <- event:
			err = l.delivered()
		case full := <-l.saver.room:
			_, err = l.step(core.DiskRoom{Full: full})
		case q := <-l.r.requests:
			err = l.request(q)
		}
		if err != nil {
			return err
		}
	}
}

// step steps the core and carries out its effects.
func (l *loop) step(inputs ...core.Input) (*core.Effects, error) {
	now := time.Now()
	e, err := l.core.Step(now, inputs...)
	if broken := core.InvariantError(""); errors.As(err, &broken) {
		return nil, fmt.Errorf("the log in %s breaks a rule of raft (%w): it may have lost entries; restore the data directory from a copy, "+
			"or, if other leaders live, remove this one and let it join again with an empty directory", l.r.cfg.Dir, err)
	}
	if err != nil {
		return nil, err
	}
	if err := l.send(e); err != nil {
		return nil, err
	}
	for _, at := range e.Accepted {
		l.bodies[idOf(at)], l.received = l.received, nil
	}
	if e.Persist != nil {
		l.saver.in <- *e.Persist // has room: there is one batch at a time
	}
	l.deliveries = append(l.deliveries, e.Deliveries...)
	l.room = e.Room
	if e.DiskHung > 0 {
		l.r.log.Warn("disk of the log is stalled", "dir", l.r.cfg.Dir, "for", e.DiskHung.Round(time.Millisecond))
	}
	l.r.status.Store(new(l.core.Status()))
	for _, a := range e.Answers {
		if answer := l.pending[a.Ref]; answer != nil {
			delete(l.pending, a.Ref)
			answer(a)
		}
	}
	if e.Removed {
		return nil, fmt.Errorf("leader %d was removed from the cluster %s: to let it lead again, start it with an empty data directory "+
			"instead of %s, and --join with a string of 'bridgefour token create --role leader', or with the address of a leader if the "+
			"cluster is not encrypted: %w", l.r.id, l.r.head.Cluster, l.r.cfg.Dir, ErrRemoved)
	}
	if l.due != e.Wake {
		l.due = e.Wake
		l.wake.Reset(e.Wake.Sub(now))
	}
	return e, nil
}

// send passes messages to the transport.
func (l *loop) send(e *core.Effects) error {
	transport := l.r.cfg.Transport
	if transport == nil {
		if len(e.Messages) > 0 {
			return fmt.Errorf("message for member %d, but there is no transport", e.Messages[0].GetTo())
		}
		if e.Members != nil {
			l.r.setMembers(e.Members)
		}
		return nil
	}
	if len(e.LastMessages) > 0 {
		transport.Send(e.LastMessages)
	}
	if e.Members != nil {
		transport.SetMembers(*l.r.setMembers(e.Members))
	}
	if len(e.Messages) > 0 {
		transport.Send(e.Messages)
	}
	return nil
}

// event makes the consumer's event of a delivery.
func (l *loop) event(d core.Delivery) Event {
	e := Event{Entries: d.Entries, Role: d.Role, WantSnapshot: d.WantSnapshot, LogFull: d.LogFull, LogRoom: d.LogRoom}
	if d.Snapshot != nil {
		e.Snapshot, e.SnapshotIndex = l.bodies[idOf(*d.Snapshot)], d.Snapshot.Index
	}
	return e
}

// delivered acknowledges the first delivery; its snapshot belongs to the consumer now.
func (l *loop) delivered() error {
	d := l.deliveries[0]
	l.deliveries[0] = core.Delivery{} // release its entries
	l.deliveries = l.deliveries[1:]
	if d.Snapshot != nil {
		delete(l.bodies, idOf(*d.Snapshot))
	}
	_, err := l.step(core.Delivered{})
	return err
}

func (l *loop) receive(in received) error {
	inputs := make([]core.Input, len(in.messages))
	for i, m := range in.messages {
		inputs[i] = core.Receive{Message: m}
	}
	e, err := l.step(inputs...)
	if err != nil {
		return err
	}
	in.verdict <- errors.Join(e.Refused...)
	return nil
}

// propose proposes p and what is queued behind it, in one step.
func (l *loop) propose(p proposal) error {
	waiting, data, bytes := []proposal{p}, [][]byte{p.data}, len(p.data)
	for more := true; more && bytes < proposeBytesMax; {
		select {
		case q := <-l.r.proposals:
			waiting, data, bytes = append(waiting, q), append(data, q.data), bytes+len(q.data)
		default:
			more = false
		}
	}
	ref := l.r.newRef()
	l.pending[ref] = func(a core.Answer) {
		for _, q := range waiting {
			q.verdict <- a.Err
		}
	}
	_, err := l.step(core.Propose{Ref: ref, Data: data})
	return err
}

// request steps an input of another goroutine.
func (l *loop) request(q request) error {
	if c, ok := q.input.(core.Cancel); ok {
		delete(l.pending, c.Ref)
	}
	if q.answer != nil {
		l.pending[q.ref] = q.answer
	}
	l.received = q.body
	e, err := l.step(q.input)
	if q.outcome != nil {
		o := outcome{accepted: q.body != nil && l.received == nil}
		if err == nil {
			o.err = errors.Join(e.Refused...)
		}
		q.outcome <- o
	}
	l.received = nil
	return err
}
