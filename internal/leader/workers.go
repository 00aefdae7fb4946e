package leader

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// updateClusterStatus updates which workers are alive. It removes those that were silent for too long and
// those of before the term that have not come in time.
func (c *Core) updateClusterStatus() {
	stopped := c.registry.startCheck(c.now)
	c.leftovers.shift(stopped)
	c.pipeline.shift(stopped, c.now)
	for _, w := range c.registry.inOrder {
		switch {
		case w.silent(c.now):
			c.lose(w)
		case w.quarantine.expired(c.now), w.quarantine.cause.tried() && !w.lost && c.needed(w):
			c.lift(w)
		}
		c.ping(w.session)
	}
	c.leftovers.expire(c.now)
	for _, s := range c.registry.unregistered() {
		if c.ping(s); s.leaving != 0 {
			c.leave(s, s.leaving)
		}
	}
	for _, id := range c.registry.overdue(c.machine, c.now) {
		c.open().SetWorker("", id, state.WorkerDead)
		c.arrived(id)
	}
	c.leases.tick()
	c.forgetOne()                                   // by age, or since the retention was changed
	if fleet := c.sched.Fleet(); fleet != c.fleet { // a job may have become halted, or no longer be
		c.fleet = fleet
		for _, id := range c.machine.Live() {
			c.changed[id] = struct{}{}
		}
	}
	if _, ok := c.sched.Wake(); ok { // the backstop: Step marks them when a back-off ends
		c.dirty.markAll()
	}
}

// arrived ends the wait for a worker of before the term; after the last, the jobs that were held for them are released.
func (c *Core) arrived(id state.WorkerID) {
	if c.registry.arrived(id) {
		c.sched.Release()
		c.dirty.markAll()
	}
}

// ping sends something on a session that has been quiet.
func (c *Core) ping(s *session) {
	if s != nil && s.pingDue(c.now) {
		c.outbox.send(s, newPing())
	}
}

// sameIdentity is why another process with the identity of a connected worker is refused.
func (w *worker) sameIdentity() string {
	h := w.session.hello
	return fmt.Sprintf("worker %d at %s is connected with the same identity %s: two workers cannot share a data directory; give this one a --data-dir of its own",
		w.ID, cmp.Or(h.GetAddress(), h.GetHost()), h.GetIdentity())
}

// duplicateProof is how long two processes must use one identity, or one id, before the second is refused for good. Before that the first may be
// dead, with a stream that has not ended yet: then the second is the same worker, started again.
const duplicateProof = time.Second

// rejectDuplicate rejects a process that has the identity or the id of a worker that is connected.
func (c *Core) rejectDuplicate(id SessionID, w *worker, h *wire.Hello, reason string) {
	d := &w.duplicate
	if d.incarnation != h.GetIncarnation() {
		*d = duplicate{h.GetIncarnation(), c.now}
	}
	refused := c.now.Sub(d.since) >= duplicateProof && w.heard.After(d.since)
	c.effects.Close = append(c.effects.Close, Close{Session: id, Refused: refused, Reason: reason})
}

// registerPrefix begins the keys of registrations; the number of the session follows.
const registerPrefix = "register/"

func registerKey(id SessionID) string { return fmt.Sprintf("%s%d", registerPrefix, id) }

// reject ends a session for good.
func (c *Core) reject(id SessionID, reason string) {
	c.effects.Close = append(c.effects.Close, Close{Session: id, Refused: true, Reason: reason})
}

// completeRegistration completes the registration of a session once its entry is applied.
func (c *Core) completeRegistration(e *state.Event) {
	number, err := strconv.ParseUint(strings.TrimPrefix(e.Key, registerPrefix), 10, 64)
	if err != nil {
		return // not a key of a session
	}
	s, info := c.registry.sessions[SessionID(number)], c.machine.Worker(e.Worker)
	if s != nil && s.leaving != 0 { // completeInfo, as it was removed
		s = nil
	}
	switch {
	case e.Err != nil && s != nil: // another worker was faster to claim its id
		c.registry.detach(s.id)
		c.effects.Close = append(c.effects.Close, Close{Session: s.id, Reason: e.Err.Error()})
	case info == nil && s != nil: // removed by the same entry
		c.dismiss(s, e.Worker)
	case info == nil:
	case s != nil && s.worker != nil: // completeInfo
	case s == nil: // its stream has ended meanwhile: it is alive in the log, so its silence counts from now
		if w := c.registry.worker(e.Worker, &c.leases); w.session == nil {
			w.heard, w.lost = c.now, false
		}
	default:
		c.connect(s, info)
	}
}

const removedReason = "this worker was removed from the cluster"

// dismiss ends the session and the process of a worker that was removed: otherwise it would come back as a new one. One with an id of its own waits:
// it may be added again.
func (c *Core) dismiss(s *session, id state.WorkerID) {
	c.outbox.send(s, &wire.ToWorker{Message: &wire.ToWorker_Drain{Drain: &wire.Drain{
		StopRunning: true, Reason: removedReason, Wait: s.hello.GetClaim() != 0,
	}}})
	c.leave(s, id)
}

// connect makes s the session of its worker.
func (c *Core) connect(s *session, info *state.Worker) {
	w := c.registry.worker(info.ID, &c.leases)
	another := w.incarnation != s.hello.GetIncarnation()
	if w.session != nil && another && !w.lost { // a reconnect that was faster than the end of the first stream
		delete(c.registry.sessions, s.id)
		c.rejectDuplicate(s.id, w, s.hello, w.sameIdentity())
		return
	}
	if !w.lost && w.incarnation != "" && another {
		c.chargeRunning(w, true, fmt.Sprintf("the process of worker %d ended while it ran this", w.ID))
	}
	if old := c.registry.attach(w, s, c.now); old != nil {
		c.effects.Close = append(c.effects.Close, Close{Session: old.id, Reason: "the worker has connected again"})
	}
	if another { // it may have moved to another machine
		w.quarantine.losses.times = nil
		if w.quarantine.cause.tried() {
			c.lift(w)
		}
	}
	w.Behind = w.quarantine.onTrial(c.now)
	w.Slots, w.Memory, w.Labels, w.Resources = int(info.Slots), info.Memory, info.Labels, info.Resources
	w.Protocol = s.hello.GetProtocol()
	w.draining = info.Status == state.WorkerDraining
	c.sched.Leave(&w.Worker) // what it has may have changed
	c.come(w, s.hello)
	c.adopt(w, s.hello.GetHeld())
	// The held leases are adopted now, and may be many: do not keep them.
	s.hello = &wire.Hello{
		Identity: s.hello.GetIdentity(), Incarnation: s.hello.GetIncarnation(), Address: s.hello.GetAddress(), Host: s.hello.GetHost(),
		Confinement: s.hello.GetConfinement(), Claim: cmp.Or(info.Claim, s.hello.GetClaim()), Resources: s.hello.GetResources(),
	}
	c.completeInfo(w)
	c.arrived(w.ID)
	c.dirty.mark(w)
	if c.registry.assignable(3) < 3 {
		c.dirty.markAll() // another is no longer alone
	}
}

// completeInfo registers a worker again if the entry of its registration was of a feature level that has no confinement, resources and claims.
func (c *Core) completeInfo(w *worker) {
	const completeLevel = 2
	known := c.machine.Worker(w.ID)
	if c.machine.Level() < completeLevel || w.session == nil || known == nil {
		return
	}
	hello := w.session.hello
	info := known.WorkerInfo
	info.Confinement, info.Resources, info.Claim = hello.GetConfinement(), state.Resources(hello.GetResources()), hello.GetClaim()
	if slices.Equal(known.Confinement, info.Confinement) && slices.Equal(known.Resources, info.Resources) && known.Claim == info.Claim {
		return
	}
	c.open().Register(registerKey(w.session.id), &info)
	c.sched.Leave(&w.Worker) // what it has has changed
	w.Resources = info.Resources
}

// adopt takes over the leases that a worker has come with, and answers its Hello. What it held in the leader's view and does not hold
// is open again; what it holds and may not is revoked. A winner's file is never revoked: a worker that missed the verdict gets it
// now.
func (c *Core) adopt(w *worker, held []*wire.Held) {
	welcome := c.welcome(w)
	holds := make(map[state.Lease]struct{}, len(held))
	var committed []state.Lease
	for _, h := range held {
		number := state.Lease(h.GetLease())
		holds[number] = struct{}{}
		key := newTaskKey(h.GetJob(), uint64(h.GetStage()), h.GetIndex())
		_, known := w.leases[number]
		switch {
		case known:
		case c.won(key, number):
			committed = append(committed, number)
		case c.adoptable(key, number):
			cost := c.sched.Adopt(c.now, &w.Worker, key.Key, key.task)
			c.leases.put(w.leases, number, &lease{taskKey: key, cost: cost})
			c.leftovers.end(w.ID, number)
			c.changed[key.Job] = struct{}{}
		default:
			c.leaveClaimed(w, number, key.Job)
			welcome.Revoked = append(welcome.Revoked, uint64(number))
		}
	}
	c.reopenAll(w, holds)
	c.outbox.send(w.session, &wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: welcome}})
	c.outbox.committed(w, committed...)
}

// adoptable reports whether a worker that comes with a lease may go on with it: the lease can have been granted, the task is open, no other worker
// holds it, and nothing has voided the lease since. Whom an earlier leader has granted it is not known.
func (c *Core) adoptable(key taskKey, number state.Lease) bool {
	job := c.machine.Job(key.Job)
	if number == 0 || number > c.leases.last || stageOf(job, key) == nil || !job.Open(int(key.Stage), key.task) {
		return false
	}
	return !c.leases.leased(key) && c.leases.current(number, key.Key) && !job.Fenced(int(key.Stage), key.task, number)
}

// won reports whether a lease is the winner of its task.
func (c *Core) won(key taskKey, number state.Lease) bool {
	stage := stageOf(c.machine.Job(key.Job), key)
	if stage == nil {
		return false
	}
	out, done := stage.Output(key.task)
	return done && out.Winner == number
}

// stageOf returns the stage of a task; nil if there is no such task.
func stageOf(job *state.Job, key taskKey) *state.Stage {
	if job == nil || int(key.Stage) >= len(job.Stages) || key.task >= job.Stages[key.Stage].Tasks {
		return nil
	}
	return job.Stages[key.Stage]
}

// release gives back what a lease cost.
func (c *Core) release(w *worker, l *lease) {
	if job := c.machine.Job(l.Job); job != nil {
		c.sched.Return(&w.Worker, job, l.Stage, 1, l.cost)
	}
	c.changed[l.Job] = struct{}{}
	c.dirty.mark(w)
}

// reopen drops a lease whose attempt has come to nothing through no fault of the task.
func (c *Core) reopen(w *worker, number state.Lease, l *lease) {
	_, twice := c.leases.other(l.taskKey, number)
	c.leases.drop(w.leases, number)
	c.release(w, l)
	if !twice {
		c.sched.Reopen(l.Key, l.task, c.now, 0, c.exits.apart(l.taskKey))
	}
	c.dirty.markAll()
}

// reopenAll drops the leases of a worker that it does not hold. Those that have ended wait for the log.
func (c *Core) reopenAll(w *worker, holds map[state.Lease]struct{}) {
	for _, number := range w.leases.standing() {
		if _, ok := holds[number]; !ok {
			c.reopen(w, number, w.leases[number])
		}
	}
}

// drained ends the registration of a worker that has drained. One with an id of its own is expected back, unless a user has asked for the drain.
func (c *Core) drained(w *worker) {
	c.reopenAll(w, nil)
	c.leftovers.known(w.ID, nil) // nothing of it runs any more
	w.lost = true
	c.sched.Leave(&w.Worker)
	status := state.WorkerRemoved
	if info := c.machine.Worker(w.ID); info != nil && info.Claim != 0 && info.Status != state.WorkerDraining {
		status = state.WorkerDead
	}
	c.open().SetWorker("", w.ID, status)
}

// lose declares a worker dead: its leases are void, and its tasks are open again. What it was running is charged to the tasks, in a budget
// of its own: a task that takes down worker after worker must end.
func (c *Core) lose(w *worker) {
	w.lost = true
	c.sched.Leave(&w.Worker)
	ended, message := w.session == nil, fmt.Sprintf("no heartbeat of worker %d for %v while it ran this", w.ID, LossAfter)
	if ended { // a machine that is gone or cut off does not end its connections
		message = fmt.Sprintf("the process of worker %d ended while it ran this, or its connection", w.ID)
	} else {
		delete(c.registry.sessions, w.session.id)
		c.effects.Close = append(c.effects.Close, Close{Session: w.session.id, Reason: "no heartbeat for too long"})
		w.session = nil
	}
	c.loseLeftovers(w)
	leased := len(w.leases.standing()) > 0
	c.chargeRunning(w, ended, message)
	c.reopenAll(w, nil)
	if leased && w.quarantine.losses.add(c.now) {
		c.quarantineFlapping(w)
	}
	if info := c.machine.Worker(w.ID); info != nil && info.Status != state.WorkerDead {
		c.open().SetWorker("", w.ID, state.WorkerDead)
	}
}

// started returns the leases that a worker was running: those that its last heartbeat named, and as many of the oldest as it has slots,
// because it starts them in order. A task that takes down its worker at once is named by no heartbeat, and must be charged too.
func (c *Core) started(w *worker) []state.Lease {
	named := make(map[state.Lease]struct{}, len(w.running))
	for _, number := range w.running {
		named[state.Lease(number)] = struct{}{}
	}
	free := w.Slots
	return slices.DeleteFunc(w.leases.standing(), func(number state.Lease) bool {
		if job := c.machine.Job(w.leases[number].Job); job != nil {
			free -= max(1, int(job.Spec.SlotsPerTask))
		}
		_, ok := named[number]
		return !ok && free < 0
	})
}

// fail ends a lease, and adds the failure of its attempt to the log. The tail may be nil.
func (c *Core) fail(w *worker, number state.Lease, f state.Failure, tail *state.Tail) {
	l := w.leases[number]
	c.release(w, l)
	l.ended = true
	f.Worker, f.Lease = w.ID, number
	e := c.open()
	e.Others = c.others(l.Job)
	e.Failed(l.Job, l.Stage, l.task, f, tail)
	c.pipeline.addFailure(failedLease{w.ID, number})
}
