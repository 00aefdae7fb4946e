package leader

import (
	"cmp"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Timing of the control plane. It follows from two promises: a lost worker's tasks run on another one within three seconds, and a worker finds
// a new leader about as soon as one is elected (half a second to a second).
const (
	heartbeat = 300 * time.Millisecond
	// silence is how long a worker waits for a message of its leader before it looks for another: three heartbeats.
	silence = time.Second
	// LossAfter is how long a worker may be silent before its leases are void. With the check every tick and the new lease, its
	// tasks run on another one within the promised three seconds.
	LossAfter = 2 * time.Second
	// The same for workers without a lease: nothing waits for them, and a thousand of them should cost little.
	idleHeartbeat = time.Second
	idleSilence   = 2500 * time.Millisecond
	idleLossAfter = 3 * time.Second
	// tick is how often silence is checked: its share of the three seconds.
	tick = 100 * time.Millisecond
	// starved is the time between two ticks beyond which the leader itself was stopped or starved.
	starved = LossAfter / 4
)

// registry is the workers of the term and their sessions.
type registry struct {
	workers map[state.WorkerID]*worker
	// inOrder is the workers by number: what the core does must not depend on the order of a map, or the simulator could not replay a
	// failure.
	inOrder  []*worker
	sessions map[SessionID]*session
	// awaited are the workers that were alive when the term began and have not come back. Until they have, or awaitUntil has passed,
	// jobs older than the term are not leased: their attempts may still run.
	awaited    map[state.WorkerID]struct{}
	awaitUntil time.Time
	checked    time.Time // when silence was last checked
}

// session is one stream of a worker.
type session struct {
	id     SessionID
	hello  *wire.Hello
	worker *worker                  // nil until the log has registered it, and once it is removed
	known  map[state.JobID]struct{} // jobs that were described to the worker
	sent   time.Time                // last message
	heard  uint64                   // the number of the last heartbeat; 1: the Hello
	// leaving is the worker if it was removed, and attempts may run there: see Core.leave.
	leaving state.WorkerID

	work      *wire.Work // to be sent at the end of the step
	workBytes int        // of the jobs and leases in work, about
}

// worker is the volatile state of a registered worker.
type worker struct {
	sched.Worker
	session     *session // nil: its stream has ended; it may come back
	incarnation string
	duplicate   duplicate
	heard       time.Time // last report
	lost        bool      // given up in this term, until it comes back
	draining    bool      // by itself, or because a user asked for it
	ends        bool      // see wire.Hello.ends
	dirty       bool      // it is in Core.dirty
	leases      leaseSet
	running     []uint64          // leases in a slot, as of its last heartbeat
	slots       []wire.SlotStatus // as of its last report; never changed in place
	quarantine  quarantine
}

// duplicate is a connection attempt of another process with a worker's identity.
type duplicate struct {
	incarnation string
	since       time.Time
}

// newRegistry starts a term: the workers that are alive in the state are awaited.
func newRegistry(m *state.Machine, now time.Time) registry {
	r := registry{
		workers: map[state.WorkerID]*worker{}, sessions: map[SessionID]*session{}, awaited: map[state.WorkerID]struct{}{},
		awaitUntil: now.Add(LossAfter), checked: now,
	}
	for _, id := range m.Workers() {
		if m.Worker(id).Status != state.WorkerDead {
			r.awaited[id] = struct{}{}
		}
	}
	return r
}

// worker returns the worker with a number, which may be new to this term.
func (r *registry) worker(id state.WorkerID, leases *leaseBook) *worker {
	w := r.workers[id]
	if w == nil {
		w = &worker{leases: leases.open(id)}
		w.ID = id
		r.workers[id] = w
		at, _ := r.find(id)
		r.inOrder = slices.Insert(r.inOrder, at, w)
	}
	return w
}

// remove deletes a worker that was removed from the cluster.
func (r *registry) remove(w *worker) {
	if at, ok := r.find(w.ID); ok {
		r.inOrder = slices.Delete(r.inOrder, at, at+1)
	}
	delete(r.workers, w.ID)
	w.lost = true // it may still be dirty
}

// find returns the place of a worker in inOrder.
func (r *registry) find(id state.WorkerID) (int, bool) {
	return slices.BinarySearchFunc(r.inOrder, id, func(w *worker, id state.WorkerID) int { return cmp.Compare(w.ID, id) })
}

// unregistered returns the sessions whose registrations are on their way through the log, and those of removed workers, by number.
func (r *registry) unregistered() []*session {
	var list []*session
	for _, s := range r.sessions {
		if s.worker == nil {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	return list
}

// assignable counts the workers that may be granted leases, up to a limit.
func (r *registry) assignable(limit int) (n int) {
	for _, w := range r.workers {
		if w.assignable() {
			if n++; n == limit {
				break
			}
		}
	}
	return n
}

// attach makes s the session of w, and returns the session that it replaces.
func (r *registry) attach(w *worker, s *session, now time.Time) (old *session) {
	if old = w.session; old == s {
		old = nil
	} else if old != nil {
		delete(r.sessions, old.id)
	}
	w.session, w.incarnation, w.heard, w.lost = s, s.hello.GetIncarnation(), now, false
	w.running, w.slots = nil, nil
	s.worker = w
	return old
}

// detach ends a session, and returns the worker that has none now. Its leases stand until it has been silent for too long: it may
// come back at once.
func (r *registry) detach(id SessionID) *worker {
	s := r.sessions[id]
	delete(r.sessions, id)
	if s == nil || s.worker == nil || s.worker.session != s {
		return nil
	}
	s.worker.session = nil
	return s.worker
}

// startCheck starts a check of who is silent. If the leader was stopped or starved since the last one, reports may wait unread: that time
// does not count as silence. It returns that time.
func (r *registry) startCheck(now time.Time) (stopped time.Duration) {
	since := now.Sub(r.checked)
	r.checked = now
	if since <= starved {
		return 0
	}
	r.awaitUntil = r.awaitUntil.Add(since)
	for _, w := range r.workers {
		w.heard = earlier(w.heard.Add(since), now)
		w.duplicate.since = earlier(w.duplicate.since.Add(since), now) // nor was the first process heard since then
	}
	return since
}

// arrived takes a worker off those that are awaited, and reports whether it was the last.
func (r *registry) arrived(id state.WorkerID) (last bool) {
	if _, ok := r.awaited[id]; !ok {
		return false
	}
	delete(r.awaited, id)
	return len(r.awaited) == 0
}

// overdue returns the awaited workers whose time is up, by number. Those whose registrations are on their way through a slow log have
// come: their attempts must not be given to others a moment before they can be adopted.
func (r *registry) overdue(m *state.Machine, now time.Time) []state.WorkerID {
	if len(r.awaited) == 0 || !now.After(r.awaitUntil) {
		return nil
	}
	registering := map[state.WorkerID]struct{}{}
	for _, s := range r.unregistered() {
		if w := m.ByIdentity(s.hello.GetIdentity()); w != nil {
			registering[w.ID] = struct{}{}
		}
	}
	var list []state.WorkerID
	for id := range r.awaited {
		if _, ok := registering[id]; !ok {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}

// assignable reports whether a worker may be granted leases.
func (w *worker) assignable() bool {
	return w.session != nil && w.session.worker == w && !w.lost && !w.draining && !w.quarantine.active()
}

// silent reports whether a worker has been silent for too long. One without a connection is not merely idle.
func (w *worker) silent(now time.Time) bool {
	limit := LossAfter
	if w.session != nil && len(w.leases) == 0 {
		limit = idleLossAfter
	}
	return !w.lost && now.Sub(w.heard) > limit
}

// pingDue reports whether nothing was sent on a session for a heartbeat, or would not have been by the next tick: a leader that is
// cut off, stopped or gone is known by its silence.
func (s *session) pingDue(now time.Time) bool {
	every := heartbeat
	if s.worker != nil && len(s.worker.leases) == 0 {
		every = idleHeartbeat
	}
	return now.Sub(s.sent)+tick > every
}
