package replica

import (
	"context"
	"fmt"
	"time"
)

// proposeBytesMax bounds what is proposed in one step, so that the loop does not turn away from all else for long.
const proposeBytesMax = 1 << 20

// loop is the goroutine that owns the core. It never blocks: what others do not take at once waits in its fields, which
// inFlightBytesMax and deliverBytesMax bound.
type loop struct {
	r     *Replica
	core  *core
	saver *saver

	deliveries []delivery
	next       batch // for the saver, when it is free
	full       error // why there is no room for the log

	bytes      int64 // the log's growth since the last snapshot
	snapshotAt int64 // growth at which a snapshot is asked for
	asked      bool  // a snapshot was asked for, or is being saved
	saving     bool  // a snapshot is being saved
	covered    int64 // of bytes, by the snapshot that is being saved
	recorded   chan<- []snapMeta

	saverEnded bool
}

// run drives the core until ctx is done or something breaks. failed tells of the end of the saver.
func (l *loop) run(ctx context.Context, failed <-chan error) error {
	if b := l.r.body; b != nil {
		l.deliveries = append(l.deliveries, delivery{event: Event{Snapshot: b, SnapshotIndex: b.meta.index}})
	}
	if l.core.lone() {
		if err := l.core.campaign(); err != nil {
			return err
		}
	}
	tick := time.NewTicker(l.r.cfg.Tick)
	defer tick.Stop()
	for {
		if err := l.settle(); err != nil {
			return err
		}
		var event Event
		events := l.r.events
		if len(l.deliveries) > 0 {
			event = l.deliveries[0].event
		} else {
			events = nil
		}
		save := l.saver.in
		if !l.next.urgent {
			save = nil
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case err = <-failed:
			l.saverEnded = true
			return err // nil: it has seen the end of ctx first
		case <-tick.C:
			l.core.tick()
		case p := <-l.open():
			l.propose(p)
		case save <- l.next:
			l.next = batch{}
		case b := <-l.saver.out:
			err = l.saved(b)
		case events <- event:
			err = l.delivered()
		case full := <-l.saver.room:
			l.tellRoom(full)
		case call := <-l.r.calls:
			call(l)
		}
		if err != nil {
			return err
		}
	}
}

// settle takes the core's work and publishes the status. Deliveries without an event are done with as soon as they are first.
func (l *loop) settle() error {
	for {
		w, err := l.core.ready()
		if err != nil {
			return err
		}
		if len(w.messages) > 0 {
			return fmt.Errorf("message for member %d, but this cluster has one member", w.messages[0].GetTo())
		}
		l.next.add(w.saves)
		l.deliveries = append(l.deliveries, w.deliveries...)
		if len(l.deliveries) == 0 || !l.deliveries[0].silent {
			break
		}
		if err := l.delivered(); err != nil {
			return err
		}
	}
	c := l.core
	now := Status{
		ID: c.id, Term: c.term, Leader: c.role.Leader, LeaderID: c.role.LeaderID,
		Committed: c.committed, Applied: c.applied, Last: c.last, LogFull: l.full,
	}
	if now != *l.r.status.Load() {
		l.r.status.Store(&now)
	}
	return nil
}

// delivered goes on after the first delivery has reached the consumer.
func (l *loop) delivered() error {
	d := l.deliveries[0]
	l.deliveries[0] = delivery{} // lets go of its entries
	l.deliveries = l.deliveries[1:]
	if d.event.Snapshot != nil {
		l.r.body = nil // the consumer's now
	}
	return l.core.delivered(d)
}

func (l *loop) saved(b batch) error {
	if err := l.core.saved(b.saves); err != nil {
		return err
	}
	l.bytes += b.bytes
	if b.snap != nil {
		if err := l.snapshotRecorded(*b.snap, b.keep); err != nil {
			return err
		}
	}
	l.askForSnapshot()
	return nil
}

// askForSnapshot asks once for each snapshot that is due.
func (l *loop) askForSnapshot() {
	if !l.asked && l.bytes >= l.snapshotAt {
		l.asked = true
		l.deliveries = append(l.deliveries, delivery{event: Event{WantSnapshot: true}})
	}
}

// open is where proposals come from: nowhere while too much is in flight. While the disk is full they are taken to be refused.
func (l *loop) open() <-chan proposal {
	if l.full == nil && !l.core.room() {
		return nil
	}
	return l.r.proposals
}

// propose proposes p and what is queued behind it, in one step.
func (l *loop) propose(p proposal) {
	waiting, data, bytes := []proposal{p}, [][]byte{p.data}, len(p.data)
	for more := true; more && bytes < proposeBytesMax; {
		select {
		case q := <-l.r.proposals:
			waiting, data, bytes = append(waiting, q), append(data, q.data), bytes+len(q.data)
		default:
			more = false
		}
	}
	err := l.full
	if err == nil {
		err = l.core.propose(data)
	}
	for _, q := range waiting {
		q.verdict <- err
	}
}

func (l *loop) tellRoom(full error) {
	l.full = full
	l.deliveries = append(l.deliveries, delivery{event: Event{LogFull: full, LogRoom: full == nil}})
}

// beginSnapshot says what the snapshot at index must say of the log. Until endSnapshot there can be no other.
func (l *loop) beginSnapshot(index uint64) (snapMeta, error) {
	if l.saving {
		return snapMeta{}, fmt.Errorf("snapshot at entry %d: another one is being saved", index)
	}
	l.saving, l.asked, l.covered = true, true, l.bytes
	meta, err := l.core.snapshotAt(index)
	if err != nil {
		l.endSnapshot(true)
	}
	return meta, err
}

// endSnapshot lets another one begin. One that failed is asked for again only when the log has grown by another quarter: it
// would most likely fail again now.
func (l *loop) endSnapshot(failed bool) {
	l.saving, l.asked = false, false
	if failed {
		l.snapshotAt = l.bytes + l.r.cfg.SnapshotBytes/4
	}
	l.askForSnapshot()
}

// recordSnapshot has the snapshot, whose file is durable, recorded in the log; then the snapshots to keep are sent to out.
func (l *loop) recordSnapshot(meta snapMeta, out chan<- []snapMeta) {
	l.next.snap, l.next.urgent = &meta, true
	if len(l.r.snaps) > 0 {
		l.next.keep = l.r.snaps[0].index
	}
	l.recorded = out
}

func (l *loop) snapshotRecorded(meta snapMeta, keep uint64) error {
	l.r.snaps = append([]snapMeta{meta}, l.r.snaps[:min(1, len(l.r.snaps))]...)
	l.bytes, l.snapshotAt = l.bytes-l.covered, l.r.cfg.SnapshotBytes
	l.recorded <- append([]snapMeta(nil), l.r.snaps...)
	return l.core.snapshotted(meta, keep)
}
