package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// proposeBytesMax bounds what is proposed in one step, so that the loop does not turn away from all else for long.
const proposeBytesMax = 1 << 20

// loop is the goroutine that owns the core. It never blocks: what others do not take at once waits in its fields, which
// inFlightBytesMax, deliverBytesMax and, on a follower, the leader's sendBytesMax bound.
type loop struct {
	r     *Replica
	core  *Core
	saver *saver

	ticked  time.Time // when the core last ticked
	members *Members  // as they were last told
	peers   []PeerStatus

	deliveries []Delivery
	next       batch     // for the saver, when it is free
	saving     time.Time // when the saver took its batch; zero: it is free
	full       error     // why there is no room for the log

	bytes      int64 // the log's growth since the last snapshot
	snapshotAt int64 // growth at which a snapshot is asked for
	asked      bool  // a snapshot was asked for, or is being written
	writing    bool  // a snapshot is being written
	covered    int64 // of bytes, by the snapshot that is being written
	recorded   chan<- []Position
	patience   int // ticks before which none is asked for because a member needs it: one has just failed

	arrival *arrival                  // was stepped; settle finds out what becomes of it
	arrived chan<- error              // then answered
	bodies  map[entryID]*openSnapshot // of snapshots that are being installed

	changes  []*memberChange
	handings []handing
	reads    reads

	campaigned time.Time
	saverEnded bool
}

func newLoop(r *Replica, s *saver) *loop {
	l := &loop{
		r: r, core: r.core, saver: s, bytes: r.bytes, snapshotAt: r.cfg.SnapshotBytes, bodies: map[entryID]*openSnapshot{},
		ticked: time.Now(),
	}
	if b := r.body; b != nil {
		r.body = nil
		l.deliveries = append(l.deliveries, Delivery{Event: Event{Snapshot: b, SnapshotIndex: b.at.Index}})
	}
	return l
}

// close gives back what the consumer has not got.
func (l *loop) close() error {
	var errs []error
	for _, b := range l.bodies { // in any order: nothing depends on it
		errs = append(errs, b.Close())
	}
	for _, d := range l.deliveries {
		if d.Event.Snapshot != nil {
			errs = append(errs, d.Event.Snapshot.Close())
		}
	}
	return errors.Join(errs...)
}

// run drives the core until ctx is done or something breaks. failed tells of the end of the saver.
func (l *loop) run(ctx context.Context, failed <-chan error) (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case raftPanic:
			err = fmt.Errorf("the log in %s breaks a rule of raft (%s): it may have lost entries; restore the data directory from a copy, "+
				"or, where other leaders live, remove this one and let it join anew with an empty directory", l.r.cfg.Dir, string(v))
		default:
			panic(v)
		}
	}()
	if l.core.sole() {
		if err := l.core.Campaign(); err != nil {
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
			event = l.deliveries[0].Event
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
			l.tick()
		case messages := <-l.r.inbox:
			l.catchUp()
			l.step(messages)
		case p := <-l.open():
			l.catchUp()
			l.propose(p)
		case save <- l.next:
			l.next, l.saving = batch{}, time.Now()
		case b := <-l.saver.out:
			err = l.saved(b)
		case events <- event:
			err = l.delivered()
		case full := <-l.saver.room:
			l.tellRoom(full)
		case q := <-l.r.reads:
			l.reads.waiting = append(l.reads.waiting, q)
		case call := <-l.r.calls:
			l.catchUp()
			call(l)
		}
		if err != nil {
			return err
		}
	}
}

// electionTime is how long the others wait for a leader before they elect another.
func (l *loop) electionTime() time.Duration { return electionTicks * l.r.cfg.Tick }

// catchUp is called before anything that a leader alone may do: when this process was stopped for a while, there may be another.
func (l *loop) catchUp() {
	if time.Since(l.ticked) > l.electionTime() {
		l.core.CatchUp()
		l.ticked = time.Now()
	}
}

func (l *loop) tick() {
	l.catchUp()
	l.ticked = time.Now()
	hung := !l.saving.IsZero() && l.ticked.Sub(l.saving) > l.electionTime()
	if hung && !l.core.disk.hung && l.full == nil { // that it is full was told already
		l.r.log.Warn("the disk under the log does not answer", "dir", l.r.cfg.Dir, "for", l.ticked.Sub(l.saving).Round(time.Millisecond))
	}
	l.core.SetDisk(hung, l.full != nil)
	l.core.Tick()
	l.peers = l.peerStatus()
	l.dropReads()
}

func (l *loop) step(messages []*raftpb.Message) {
	for _, m := range messages {
		if err := l.core.Step(m); err != nil {
			l.r.log.Warn("message refused", "error", err)
		}
	}
}

// settle takes the core's work and publishes the status. Deliveries without an event are done with as soon as they are first.
func (l *loop) settle() error {
	l.settleChanges()
	l.settleReads()
	for {
		w, err := l.core.Ready()
		if err != nil {
			return err
		}
		if err := l.send(w.Messages); err != nil {
			return err
		}
		l.next.add(w.Saves)
		l.takeBody(w.Saves)
		for _, d := range w.Deliveries {
			if d.Snapshot != nil {
				d.Event.Snapshot = l.bodies[d.Snapshot.id()]
				delete(l.bodies, d.Snapshot.id())
			}
			l.deliveries = append(l.deliveries, d)
		}
		l.answerReads(w.Reads)
		if len(l.deliveries) == 0 || !l.deliveries[0].Silent {
			break
		}
		if err := l.delivered(); err != nil {
			return err
		}
	}
	if l.arrival != nil {
		l.arrived <- nil
		l.arrival, l.arrived = nil, nil
	}
	if l.core.Removed() && l.flushed() {
		return fmt.Errorf("leader %d was removed from the cluster %s: to let it lead again, start it with an empty data directory "+
			"instead of %s, and --join: %w", l.core.id, l.r.head.Cluster, l.r.cfg.Dir, ErrRemoved)
	}
	l.settleHandings()
	l.askForSnapshot(l.core.WantsSnapshot())
	l.publish()
	return nil
}

// flushed says whether all that was to be saved is saved; if not, it will be soon. A member that was removed must know it when it is
// started again, for nobody will tell it any more, and a commit index alone is in no hurry otherwise.
func (l *loop) flushed() bool {
	l.next.urgent = l.next.urgent || len(l.next.saves) > 0
	return !l.next.urgent && l.saving.IsZero()
}

// send passes messages on. Before the members change for the transport, what is still for those who were removed goes out.
func (l *loop) send(messages []*raftpb.Message) error {
	members := l.core.Members()
	known := func(m *raftpb.Message) bool {
		_, ok := members.Get(m.GetTo())
		return ok
	}
	transport := l.r.cfg.Transport
	if transport == nil && len(messages) > 0 {
		return fmt.Errorf("message for member %d, but there is nothing that could carry it", messages[0].GetTo())
	}
	if members != l.members {
		l.members = members
		told := l.r.setMembers(members)
		if transport == nil {
			return nil
		}
		if last := slices.DeleteFunc(slices.Clone(messages), known); len(last) > 0 {
			transport.Send(last)
			messages = slices.DeleteFunc(messages, func(m *raftpb.Message) bool { return !known(m) })
		}
		transport.SetMembers(*told)
	}
	if len(messages) > 0 {
		transport.Send(messages)
	}
	return nil
}

// publish makes the status what it is now.
func (l *loop) publish() {
	now, old := l.core.status(), l.r.status.Load()
	if now.Term != old.Term || (now.Role == roleCandidate && old.Role != roleCandidate) {
		l.campaigned = time.Now()
	}
	now.LogFull, now.Campaigned, now.Peers = l.full, l.campaigned, l.peers
	if now.Role != roleLeader {
		now.Peers = nil
	}
	if l.core.heardLead > 0 {
		now.Heard = l.timeOf(l.core.heardLead)
	}
	l.r.status.Store(&now)
}

// timeOf is when the core had ticked that often.
func (l *loop) timeOf(ticks int) time.Time {
	return l.ticked.Add(-time.Duration(l.core.ticks-ticks) * l.r.cfg.Tick)
}

func (l *loop) peerStatus() []PeerStatus {
	peers := l.core.peerStatus()
	for i, p := range peers {
		if at, ok := l.core.heard[p.ID]; ok {
			peers[i].Heard = l.timeOf(at)
		}
	}
	return peers
}

// delivered goes on after the first delivery has reached the consumer.
func (l *loop) delivered() error {
	d := l.deliveries[0]
	l.deliveries[0] = Delivery{} // lets go of its entries
	l.deliveries = l.deliveries[1:]
	return l.core.Delivered(d)
}

func (l *loop) saved(b batch) error {
	l.saving = time.Time{}
	if err := l.core.Saved(b.saves); err != nil {
		return err
	}
	l.bytes += b.bytes
	if b.installed != nil {
		l.r.snaps = []Position{*b.installed}
		l.bytes, l.covered = 0, 0
	}
	if b.snap != nil {
		if err := l.snapshotRecorded(*b.snap, b.keep); err != nil {
			return err
		}
	}
	l.askForSnapshot(false)
	return nil
}

// askForSnapshot asks once for each snapshot that is due, when there is something to put into it.
func (l *loop) askForSnapshot(wanted bool) {
	if !l.asked && l.core.applied > l.core.log.newest.Index && ((wanted && l.core.ticks >= l.patience) || l.bytes >= l.snapshotAt) {
		l.asked = true
		l.deliveries = append(l.deliveries, Delivery{Event: Event{WantSnapshot: true}})
	}
}

// open is where proposals come from: nowhere while too much is in flight. While the disk is full they are taken to be refused.
func (l *loop) open() <-chan proposal {
	if l.full == nil && !l.core.Room() {
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
	if err == nil || !l.core.role.Leader {
		err = l.core.Propose(data)
	}
	for _, q := range waiting {
		q.verdict <- err
	}
}

func (l *loop) tellRoom(full error) {
	l.full = full
	l.deliveries = append(l.deliveries, Delivery{Event: Event{LogFull: full, LogRoom: full == nil}})
}

// arrive steps a snapshot that has come from a peer. settle answers.
func (l *loop) arrive(a *arrival, out chan<- error) {
	if err := l.core.Step(a.message); err != nil {
		out <- err
		return
	}
	l.arrival, l.arrived = a, out
}

// takeBody keeps the body of the snapshot that was stepped, if it is to be installed.
func (l *loop) takeBody(saves []*raftpb.Message) {
	for _, m := range saves {
		if raft.IsEmptySnap(m.GetSnapshot()) {
			continue
		}
		at := l.arrival.body.at
		l.bodies[at.id()] = l.arrival.body
		l.arrival.taken.Store(true)
		l.next.installed = &at
		if l.next.snap != nil { // this node's own is older, and of no use any more
			l.next.snap = nil
			l.recorded <- nil
		}
	}
}

// beginSnapshot says what the snapshot at index must say of the log. Until endSnapshot there can be no other.
func (l *loop) beginSnapshot(index uint64) (Position, error) {
	if l.writing {
		return Position{}, fmt.Errorf("snapshot at entry %d: another one is being saved", index)
	}
	l.writing, l.asked, l.covered = true, true, l.bytes
	p, err := l.core.SnapshotAt(index)
	if err != nil {
		l.endSnapshot(true)
	}
	return p, err
}

// endSnapshot lets another one begin. One that failed is asked for again only when the log has grown by another quarter: it
// would most likely fail again now.
func (l *loop) endSnapshot(failed bool) {
	l.writing, l.asked = false, false
	if failed {
		l.snapshotAt = l.bytes + l.r.cfg.SnapshotBytes/4
		l.patience = l.core.ticks + electionTicks
	}
	l.askForSnapshot(false)
}

// recordSnapshot has the snapshot, whose file is durable, recorded in the log; then the snapshots to keep are sent to out: none when
// a peer's has overtaken it.
func (l *loop) recordSnapshot(p Position, out chan<- []Position) {
	if l.core.Overtaken(p) || l.next.installed != nil || len(l.bodies) > 0 {
		out <- nil
		return
	}
	l.next.snap, l.next.urgent = &p, true
	if len(l.r.snaps) > 0 {
		l.next.keep = l.r.snaps[0].Index
	}
	l.recorded = out
}

func (l *loop) snapshotRecorded(p Position, keep uint64) error {
	l.r.snaps = append([]Position{p}, l.r.snaps[:min(1, len(l.r.snaps))]...)
	l.bytes, l.snapshotAt = l.bytes-l.covered, l.r.cfg.SnapshotBytes
	l.recorded <- append([]Position(nil), l.r.snaps...)
	return l.core.Snapshotted(p, keep)
}
