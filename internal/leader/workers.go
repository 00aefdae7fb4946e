package leader

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// updateClusterStatus is the first duty of a leader: to know who lives. It gives up workers that were silent for too long,
// and ends the waiting for those of before the term. Since is the time since it was last called: where that is long, the
// leader itself was stopped or starved, its workers' news may wait unread, and the time does not count as their silence.
func (c *Core) updateClusterStatus(now time.Time, since time.Duration) {
	const starved = lossAfter / 4
	if since > starved {
		c.release = c.release.Add(since)
	}
	for _, id := range c.sorted(c.workers) {
		w := c.workers[id]
		if since > starved {
			w.heard = earlier(w.heard.Add(since), now)
			w.rivalSince = earlier(w.rivalSince.Add(since), now) // that the first was heard of since then would not be true
		}
		switch {
		case !w.lost && now.Sub(w.heard) > w.patience():
			c.lose(now, w)
		case !w.aside.IsZero() && !now.Before(w.aside):
			w.aside = time.Time{}
			clear(w.failed)
			c.feed(w)
		}
		if w.session != nil {
			c.ping(now, w.session)
		}
	}
	c.pingNewcomers(now)
	if len(c.awaited) > 0 && now.After(c.release) {
		c.stopWaiting(now)
	}
	if !c.leasedUsed {
		c.leased = nil
	}
	c.leasedUsed = false
	for _, id := range c.machine.Live() { // a job may have become halted, or no longer be
		c.changed[id] = struct{}{}
	}
	if _, ok := c.sched.Wake(); ok { // the backstop: Step wakes them when a back-off ends
		c.allHungry()
	}
}

// patience is how long a worker may be silent. One whose connection is gone is not merely idle.
func (w *worker) patience() time.Duration {
	if w.session != nil && len(w.leases) == 0 {
		return idleLossAfter
	}
	return lossAfter
}

// stopWaiting gives up the workers of before the term that have not come. Those whose registrations are on their way through a
// slow log have come: their attempts must not be given to others a moment before they can be adopted.
func (c *Core) stopWaiting(now time.Time) {
	coming := map[state.WorkerID]struct{}{}
	for _, s := range c.sessions {
		if s.worker != nil {
			continue
		}
		if w := c.machine.ByIdentity(s.hello.GetIdentity()); w != nil {
			coming[w.ID] = struct{}{}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.awaited)) {
		if _, ok := coming[id]; !ok {
			c.open(now).SetWorker("", id, state.WorkerDead)
			delete(c.awaited, id)
		}
	}
	if len(c.awaited) == 0 {
		c.releaseJobs()
	}
}

func (c *Core) releaseJobs() {
	c.sched.Release()
	c.allHungry()
}

func (c *Core) allHungry() { c.famine = true }

// arrived takes a worker off those that are awaited, and ends the waiting with the last.
func (c *Core) arrived(id state.WorkerID) {
	if _, ok := c.awaited[id]; !ok {
		return
	}
	delete(c.awaited, id)
	if len(c.awaited) == 0 {
		c.releaseJobs()
	}
}

// rivalProof is for how long two processes must claim one identity before the second is refused for good. Before that, the
// first may be dead and its stream not yet known to be: the second is the same worker, started again.
const rivalProof = time.Second

// rival turns away a process that claims the identity of a worker that is connected.
func (c *Core) rival(now time.Time, id SessionID, w *worker, h *wire.Hello) {
	if w.rival != h.GetIncarnation() {
		w.rival, w.rivalSince = h.GetIncarnation(), now
	}
	reason := fmt.Sprintf("worker %d at %s is connected with the same identity %s: two workers cannot share a data directory; "+
		"give this one a --data-dir of its own", w.ID, orElse(w.session.hello.GetAddress(), w.session.hello.GetHost()), h.GetIdentity())
	refused := now.Sub(w.rivalSince) >= rivalProof && w.heard.After(w.rivalSince)
	c.effects.Close = append(c.effects.Close, Close{Session: id, Refused: refused, Reason: reason})
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

const registerPrefix = "register/"

func registerKey(id SessionID) string { return fmt.Sprintf("%s%d", registerPrefix, id) }

func (c *Core) refuse(id SessionID, reason string) {
	c.effects.Close = append(c.effects.Close, Close{Session: id, Refused: true, Reason: reason})
}

// register goes on with the session that asked for a worker's number when the log has given it.
func (c *Core) register(now time.Time, e *state.Event) {
	number, err := strconv.ParseUint(strings.TrimPrefix(e.Key, registerPrefix), 10, 64)
	if err != nil {
		return // not a key of ours
	}
	s, info := c.sessions[SessionID(number)], c.machine.Worker(e.Worker)
	switch {
	case info == nil && s != nil: // removed by the same entry
		c.dismiss(s)
	case info == nil:
	case s == nil: // its stream broke meanwhile: the log takes it for alive, so its silence is counted from now
		if w := c.worker(e.Worker); w.session == nil {
			w.heard, w.lost = now, false
		}
	default:
		c.registered(now, s, info)
	}
}

const removedReason = "this worker was removed from the cluster"

// dismiss ends the session and the process of a worker that was removed: left alone, it would come back as a new one.
func (c *Core) dismiss(s *session) {
	delete(c.sessions, s.id)
	c.send(s, &wire.ToWorker{Message: &wire.ToWorker_Drain{Drain: &wire.Drain{StopRunning: true, Reason: removedReason}}})
	c.refuse(s.id, removedReason)
}

// worker is the worker of that number, which may be new to this term.
func (c *Core) worker(id state.WorkerID) *worker {
	w := c.workers[id]
	if w == nil {
		w = &worker{leases: map[state.Lease]lease{}, failed: map[taskKey]struct{}{}}
		w.ID = id
		c.workers[id] = w
	}
	return w
}

// registered makes s the session of its worker.
func (c *Core) registered(now time.Time, s *session, info *state.Worker) {
	id := info.ID
	w := c.worker(id)
	if w.session != nil && w.session != s { // a reconnect that was faster than the news of the break
		if w.incarnation != s.hello.GetIncarnation() {
			delete(c.sessions, s.id)
			c.rival(now, s.id, w, s.hello)
			return
		}
		delete(c.sessions, w.session.id)
		c.effects.Close = append(c.effects.Close, Close{Session: w.session.id, Reason: "the worker has connected anew"})
	}
	if !w.lost && w.incarnation != "" && w.incarnation != s.hello.GetIncarnation() {
		c.chargeRunning(now, w, fmt.Sprintf("the process of worker %d ended while it ran this", id))
	}
	w.Slots, w.Memory, w.Labels = int(info.Slots), info.Memory, info.Labels
	w.session, w.incarnation, w.heard, w.lost = s, s.hello.GetIncarnation(), now, false
	w.draining = info.Status == state.WorkerDraining
	w.running, w.Behind = nil, false
	s.worker = w
	c.adopt(now, w, s.hello.GetHeld())
	c.arrived(id)
	c.feed(w)
	if c.able(3) < 3 {
		c.allHungry() // another is no longer alone
	}
}

// adopt takes over the leases that a worker came back with, and answers its Hello. What it held in the leader's view and
// does not hold itself is open again; what it holds and may not is revoked. A winner's file is never revoked: a worker that
// missed the verdict gets it now.
func (c *Core) adopt(now time.Time, w *worker, held []*wire.Held) {
	welcome := c.welcome(w)
	holds := make(map[state.Lease]struct{}, len(held))
	var committed []uint64
	for _, h := range held {
		number := state.Lease(h.GetLease())
		holds[number] = struct{}{}
		if _, ok := w.leases[number]; ok {
			continue
		}
		job := c.machine.Job(state.JobID(h.GetJob()))
		key := taskKey{job: state.JobID(h.GetJob()), stage: h.GetStage(), task: h.GetIndex()}
		if stage := stageOf(job, key); stage != nil {
			if out, done := stage.Output(key.task); done && out.Winner == number {
				committed = append(committed, uint64(number))
				continue
			}
			_, leased := c.leasedTasks()[key]
			open := job.Open(int(key.stage), key.task)
			valid := !leased && number > c.began[key.job][key.stage] && !job.Fenced(number)
			if open && valid {
				cost := c.sched.Adopt(&w.Worker, sched.Key{Job: key.job, Stage: key.stage}, key.task)
				c.hold(w, number, lease{job: key.job, stage: key.stage, task: key.task, cost: cost})
				c.changed[key.job] = struct{}{}
				continue
			}
		}
		welcome.Revoked = append(welcome.Revoked, uint64(number))
	}
	c.reopenAll(now, w, holds)
	c.send(w.session, &wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: welcome}})
	if len(committed) > 0 {
		c.workFor(w.session).Committed = committed
	}
}

func stageOf(job *state.Job, key taskKey) *state.Stage {
	if job == nil || int(key.stage) >= len(job.Stages) || key.task >= job.Stages[key.stage].Tasks {
		return nil
	}
	return job.Stages[key.stage]
}

// leasedTasks is all tasks that are leased now.
func (c *Core) leasedTasks() map[taskKey]state.Lease {
	c.leasedUsed = true
	if c.leased == nil {
		c.leased = map[taskKey]state.Lease{}
		for _, w := range c.workers {
			for number, l := range w.leases {
				key := taskKey{l.job, l.stage, l.task}
				c.leased[key] = max(number, c.leased[key]) // of a stage that began anew, there may be one that has ended
			}
		}
	}
	return c.leased
}

// hold puts a lease into the books.
func (c *Core) hold(w *worker, number state.Lease, l lease) {
	w.leases[number] = l
	if c.leased != nil {
		c.leased[taskKey{l.job, l.stage, l.task}] = number
	}
}

// drop takes a lease out of the books.
func (c *Core) drop(w *worker, number state.Lease) {
	if c.leased != nil {
		l := w.leases[number]
		if key := (taskKey{l.job, l.stage, l.task}); c.leased[key] == number {
			delete(c.leased, key)
		}
	}
	delete(w.leases, number)
}

// giveBack frees what a lease cost.
func (c *Core) giveBack(w *worker, l lease) {
	if job := c.machine.Job(l.job); job != nil {
		c.sched.Return(&w.Worker, job, l.stage, 1, l.cost)
	}
	c.changed[l.job] = struct{}{}
	c.feed(w)
}

// reopen drops a lease that came to nothing through no fault of the task.
func (c *Core) reopen(now time.Time, w *worker, number state.Lease, l lease) {
	c.drop(w, number)
	c.giveBack(w, l)
	c.sched.Reopen(sched.Key{Job: l.job, Stage: l.stage}, l.task, now, 0)
	c.allHungry()
}

// reopenAll drops the leases of a worker that it does not hold. Those that have ended await the word of the log.
func (c *Core) reopenAll(now time.Time, w *worker, holds map[state.Lease]struct{}) {
	for _, number := range w.standing() {
		if _, ok := holds[number]; !ok {
			c.reopen(now, w, number, w.leases[number])
		}
	}
}

// standing is the leases of a worker that have not ended, in order.
func (w *worker) standing() []state.Lease {
	var list []state.Lease
	for number, l := range w.leases {
		if !l.ended {
			list = append(list, number)
		}
	}
	slices.Sort(list)
	return list
}

func (c *Core) closed(id SessionID) {
	s := c.sessions[id]
	delete(c.sessions, id)
	if s != nil && s.worker != nil && s.worker.session == s {
		s.worker.session = nil // its leases stand until it is silent for too long: it may come back at once
		c.sched.Leave(s.worker.ID)
	}
}

func (c *Core) goodbye(now time.Time, id SessionID) {
	s := c.sessions[id]
	if s == nil || s.worker == nil {
		return
	}
	w := s.worker
	c.reopenAll(now, w, nil)
	w.lost = true
	c.sched.Leave(w.ID)
	c.open(now).SetWorker("", w.ID, state.WorkerRemoved)
}

// lose gives up a worker: its leases are void, and its tasks go to others. What it was running is counted against the task,
// in a budget of its own: a task that takes worker after worker down must end.
func (c *Core) lose(now time.Time, w *worker) {
	w.lost = true
	c.sched.Leave(w.ID)
	if w.session != nil {
		delete(c.sessions, w.session.id)
		c.effects.Close = append(c.effects.Close, Close{Session: w.session.id, Reason: "no heartbeat came for too long"})
		w.session = nil
	}
	c.chargeRunning(now, w, fmt.Sprintf("worker %d was not heard of for %v while it ran this", w.ID, lossAfter))
	c.reopenAll(now, w, nil)
	if info := c.machine.Worker(w.ID); info != nil && info.Status != state.WorkerDead {
		c.open(now).SetWorker("", w.ID, state.WorkerDead)
	}
}

// chargeRunning counts what a worker that has gone was running against the tasks.
func (c *Core) chargeRunning(now time.Time, w *worker, message string) {
	for _, number := range c.begun(w) {
		c.fail(now, w, number, state.Failure{Kind: state.LostWorker, Message: message})
	}
	w.running = nil
}

// begun is the leases that a worker was running: those that its last heartbeat named, and as many of the oldest as it has slots,
// because it begins them in order. A task that takes its worker down at once is named by no heartbeat, and must be found out all
// the same.
func (c *Core) begun(w *worker) []state.Lease {
	named := make(map[state.Lease]struct{}, len(w.running))
	for _, number := range w.running {
		named[state.Lease(number)] = struct{}{}
	}
	free := w.Slots
	return slices.DeleteFunc(w.standing(), func(number state.Lease) bool {
		if job := c.machine.Job(w.leases[number].job); job != nil {
			free -= max(1, int(job.Spec.SlotsPerTask))
		}
		_, ok := named[number]
		return !ok && free < 0
	})
}

// fail ends a lease, and has the log count the failure of its attempt.
func (c *Core) fail(now time.Time, w *worker, number state.Lease, f state.Failure) {
	l := w.leases[number]
	c.giveBack(w, l)
	l.ended = true
	w.leases[number] = l
	f.Worker, f.Lease = w.ID, number
	c.open(now).Failed(l.job, l.stage, l.task, f)
	c.pipeline.addFailure(failedLease{w.ID, number})
}

// report takes in a worker's news.
func (c *Core) report(now time.Time, w *worker, r *wire.Report) {
	w.heard = now
	if r.GetHeartbeat() {
		w.running = r.GetRunning()
	}
	if r.GetDraining() && !w.draining {
		w.draining = true
		c.sched.Leave(w.ID)
	}
	for _, f := range r.GetFinished() {
		c.finished(now, w, f)
	}
	for _, f := range r.GetFailed() {
		c.failed(now, w, f)
	}
	for _, number := range r.GetReturned() {
		if l, ok := w.leases[state.Lease(number)]; ok && !l.ended {
			w.Behind = true
			c.reopen(now, w, state.Lease(number), l)
		}
	}
	if len(c.machine.Live()) > 0 {
		c.feed(w) // also after a heartbeat: a task that avoided it may not have found another worker
	}
}

// finished takes in prepared attempts: those whose lease stands go to the log, which decides.
func (c *Core) finished(now time.Time, w *worker, f *wire.Finished) {
	n := len(f.GetIndex())
	if len(f.GetLease()) != n {
		return
	}
	id := state.JobID(f.GetJob())
	job := c.machine.Job(id)
	list := make([]state.Completion, 0, n)
	var micros uint64
	var cost int64
	for i, index := range f.GetIndex() {
		number := state.Lease(f.GetLease()[i])
		l, ok := w.leases[number]
		if !ok || job == nil || l.job != id || l.stage != f.GetStage() || l.task != index {
			c.tellLate(w, taskKey{id, f.GetStage(), index}, number)
			continue
		}
		if l.ended { // told twice, before and after a reconnect
			continue
		}
		cost += l.cost
		l.ended = true
		w.leases[number] = l
		micros += wire.Entry(f.GetMicros(), i)
		list = append(list, state.Completion{
			Index: index, Lease: number, Size: wire.Entry(f.GetSize(), i), Records: wire.Entry(f.GetRecords(), i),
			Checksum: wire.Entry(f.GetChecksum(), i), InputBytes: wire.Entry(f.GetInputBytes(), i),
		})
	}
	if len(list) == 0 {
		return
	}
	clear(w.failed)
	w.won, w.Behind = now, false
	stage := sched.Key{Job: id, Stage: f.GetStage()}
	c.sched.Return(&w.Worker, job, stage.Stage, len(list), cost)
	c.sched.Observe(stage, len(list), micros)
	c.pipeline.addCompletions(len(list))
	for len(list) > 0 {
		k := min(len(list), entryItems)
		c.pipeline.open(now).Done(w.ID, id, f.GetStage(), list[:k])
		list = list[k:]
	}
	if c.sched.StageLeased(stage) == 0 || job.Spec.FirstSuccess { // the stage may end with these
		c.pipeline.urge()
	}
}

// tellLate answers a report on a lease that is not in the books: it has won, was told so, and crossed this report; or it is
// void.
func (c *Core) tellLate(w *worker, key taskKey, number state.Lease) {
	work := c.workFor(w.session)
	if stage := stageOf(c.machine.Job(key.job), key); stage != nil {
		if out, done := stage.Output(key.task); done && out.Winner == number {
			work.Committed = append(work.Committed, uint64(number))
			return
		}
	}
	work.Stale = append(work.Stale, uint64(number))
}

// failed takes in a failed attempt.
func (c *Core) failed(now time.Time, w *worker, f *wire.Failure) {
	number := state.Lease(f.GetLease())
	l, ok := w.leases[number]
	if !ok || l.ended {
		if !ok {
			c.workFor(w.session).Stale = append(c.workFor(w.session).Stale, uint64(number))
		}
		return
	}
	w.Behind = false
	kind := state.ProgramError // what a newer worker calls something else still is one
	if k := f.GetKind(); k > 0 && k <= wire.FailureKind(state.OutputError) {
		kind = state.FailureKind(k)
	}
	// The log keeps the message, so its bound does not hang on the worker.
	c.fail(now, w, number, state.Failure{Kind: kind, Message: wire.FailureMessage(f.GetMessage())})
	if kind != state.BadInput && kind != state.Preempted {
		c.putAside(now, w, taskKey{l.job, l.stage, l.task})
	}
}

// When a worker is put aside: asideTasks different tasks have failed on it without a success in between, while another
// worker has had one in the last asideProof.
const (
	asideTasks = 8
	asideProof = time.Minute
	asideTime  = 30 * time.Second
)

func (c *Core) putAside(now time.Time, w *worker, key taskKey) {
	if len(w.failed) < asideTasks { // more need not be known: a worker that is alone may fail every task of a job
		w.failed[key] = struct{}{}
	}
	if len(w.failed) < asideTasks {
		return
	}
	for _, other := range c.workers {
		if other != w && other.assignable() && now.Sub(other.won) < asideProof {
			w.aside = now.Add(asideTime)
			c.sched.Leave(w.ID)
			return
		}
	}
}
