package sim

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// hostile is a malicious program that runs with the key of a worker instead of the worker: it sends leaders whatever may do harm, and knows all
// leases. What the leader has granted it is lost to its job; nothing else may change.
type hostile struct {
	worker *simWorker
	rng    *rand.Rand
	links  []*end
}

// hostileLinks bounds the sessions that it has open, hostileItems what it sends of a kind in one message.
const (
	hostileLinks = 6
	hostileItems = 6
)

// turnHostile replaces the worker's process by a hostile one for a while.
func (s *simWorker) turnHostile(f Fault) {
	s.kill(false)
	s.start()
	s.running, s.left = make([]*run, s.slots), make([]uint64, s.slots)
	s.wasRemoved = true // it may say that it has drained
	h := &hostile{worker: s, rng: stream(uint64(f.Size), "hostile", uint64(f.At))}
	s.hostile = h
	h.act()
	s.w.until(f.For, func() {
		if s.hostile == h {
			s.kill(false)
			s.boot()
		}
	})
}

// stop ends its sessions.
func (h *hostile) stop(quiet bool) {
	if h == nil {
		return
	}
	for _, e := range h.links {
		if quiet {
			e.lose()
		} else {
			e.close()
		}
	}
	h.worker.hostile = nil
}

// act does something, and again after a while.
func (h *hostile) act() {
	s := h.worker
	h.links = slices.DeleteFunc(h.links, func(e *end) bool { return !e.open })
	dice := h.rng.IntN(100)
	s.w.trace("hostile", uint64(s.number), uint64(dice))
	switch {
	case dice < 15 || len(h.links) == 0:
		h.connect()
	case dice < 18:
		h.send(&wire.FromWorker{Message: &wire.FromWorker_Goodbye{Goodbye: &wire.Goodbye{}}})
	case dice < 20:
		h.send(&wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: h.hello()}})
	case dice < 21:
		h.send(&wire.FromWorker{})
	case dice < 24:
		h.links[h.rng.IntN(len(h.links))].close()
	case dice < 26:
		const flood = 100
		for range flood {
			h.report()
		}
	default:
		h.report()
	}
	s.after(between(h.rng, 0, 100*time.Millisecond), h.act)
}

// connect opens a session with a leader.
func (h *hostile) connect() {
	s := h.worker
	if len(h.links) == hostileLinks {
		h.links[0].close()
		h.links = h.links[1:]
	}
	all := s.w.members()
	to, hello := all[h.rng.IntN(len(all))], h.hello()
	here := s.w.net.dial(&s.process, &to.process, func(there *end) { to.accept(there, hello) }, func() {})
	here.recv = func(m any) {
		if w, ok := m.(*wire.ToWorker); ok && w.GetWelcome() != nil {
			s.id = w.GetWelcome().GetWorker()
		}
	}
	here.broken = func() {}
	h.links = append(h.links, here)
}

// hello is a Hello as its own worker or, in vain, as another one.
func (h *hostile) hello() *wire.Hello {
	s, rng := h.worker, h.rng
	m := &wire.Hello{
		Identity: s.identity, Incarnation: pick(rng, "a", "a", "a", "b", ""), Version: "hostile", Slots: uint32(s.slots), Memory: s.memory, ClusterName: clusterName,
		Protocol: wire.Protocol, ProtocolMin: wire.ProtocolMin,
	}
	if oneIn(rng, 4) {
		m.Identity = pick(rng, s.w.workers...).identity
	}
	if oneIn(rng, 3) {
		m.Slots = pick(rng, uint32(1), 2, 9, 0, wire.SlotsMax, wire.SlotsMax+1, math.MaxUint32)
	}
	if oneIn(rng, 5) {
		m.Memory = pick(rng, uint64(1), 59, 1<<60, math.MaxUint64)
	}
	if oneIn(rng, 8) {
		m.Protocol = pick(rng, uint32(0), 1, math.MaxUint32)
	}
	if oneIn(rng, 8) {
		m.ClusterId = pick(rng, clusterID, "other")
	}
	if oneIn(rng, 2) {
		for range rng.IntN(2 * hostileItems) {
			t := h.task()
			if slices.ContainsFunc(m.GetHeld(), func(x *wire.Held) bool { return x.GetLease() == uint64(t.lease) }) {
				continue // the leader would revoke it, and adopt it
			}
			m.Held = append(m.Held, &wire.Held{Job: uint64(t.job), Stage: t.stage, Index: t.task, Lease: uint64(t.lease), Started: oneIn(rng, 2)})
		}
	}
	return m
}

// leasedTask is a lease and a task, which may not be that of the lease.
type leasedTask struct {
	stageKey

	task  uint64
	lease state.Lease
}

// task chooses a lease, and a task: what it was granted, what others were, and what nobody was.
func (h *hostile) task() leasedTask {
	o, rng := h.worker.w.oracle, h.rng
	term := uint64(0)
	for t := range o.leases {
		term = max(term, t)
	}
	if oneIn(rng, 6) && term > 1 {
		term = 1 + rng.Uint64N(term-1)
	}
	last := o.book(term).last
	seq := last - min(last, uint64(rng.IntN(20)))
	switch rng.IntN(10) {
	case 0:
		seq = last + 1 + uint64(rng.IntN(1000))
	case 1:
		term += uint64(rng.IntN(5))
	case 2:
		seq = pick(rng, uint64(0), 1<<40-1)
	}
	t := leasedTask{lease: state.NewLease(term, seq)}
	a := o.attempt(t.lease)
	if a.isOf(h.worker) {
		a.hostile = true
	}
	if a != nil && !oneIn(rng, 5) {
		t.stageKey, t.task = stageKey{a.job, a.stage}, a.task
		return t
	}
	if live := o.state.Live(); len(live) > 0 && !oneIn(rng, 5) {
		job := o.state.Job(pick(rng, live...))
		stage := rng.IntN(len(job.Stages))
		t.stageKey, t.task = stageKey{job.ID, uint32(stage)}, rng.Uint64N(job.Stages[stage].Tasks)
		return t
	}
	t.job, t.stage = pick(rng, state.JobID(0), 1, math.MaxUint64), pick(rng, uint32(0), 1, math.MaxUint32)
	t.task = pick(rng, uint64(0), 1, math.MaxUint64)
	return t
}

// winner chooses a done task with its winner, or any task.
func (h *hostile) winner() leasedTask {
	m := h.worker.w.oracle.state
	live := m.Live()
	if len(live) == 0 || oneIn(h.rng, 5) {
		return h.task()
	}
	job := m.Job(pick(h.rng, live...))
	stage := h.rng.IntN(len(job.Stages))
	t := leasedTask{stageKey: stageKey{job.ID, uint32(stage)}, task: h.rng.Uint64N(job.Stages[stage].Tasks)}
	out, _ := job.Stages[stage].Output(t.task)
	t.lease = out.Winner
	return t
}

// report sends a report over one of its sessions.
func (h *hostile) report() {
	rng, r := h.rng, &wire.Report{Heartbeat: oneIn(h.rng, 3), Draining: oneIn(h.rng, 40)}
	huge := func() uint64 { return pick(rng, uint64(0), 8, 1<<48, 1<<48, 1<<62, math.MaxUint64) }
	many := func() int { return max(0, rng.IntN(2*hostileItems)-hostileItems) }
	for range many() {
		r.Running = append(r.Running, uint64(h.task().lease))
	}
	for range many() {
		r.Returned = append(r.Returned, uint64(h.task().lease))
	}
	for range many() {
		t := h.task()
		r.Failed = append(r.Failed, &wire.Failure{
			Job: uint64(t.job), Stage: t.stage, Index: t.task, Lease: uint64(t.lease), Kind: wire.FailureKind(rng.IntN(11) - 1), Message: "hostile",
		})
	}
	for range many() {
		t := h.winner()
		r.Lost = append(r.Lost, &wire.OutputLost{Job: uint64(t.job), Stage: t.stage, Index: t.task, Lease: uint64(t.lease)})
	}
	for range many() {
		t := h.task()
		f := &wire.Finished{Job: uint64(t.job), Stage: t.stage}
		for range 1 + rng.IntN(3) {
			f.Index, f.Lease = append(f.Index, t.task), append(f.Lease, uint64(t.lease))
			if oneIn(rng, 2) { // the same again, or another one of the stage
				t = h.task()
			}
		}
		if oneIn(rng, 2) {
			for range f.GetIndex() {
				f.Size, f.Records, f.InputBytes = append(f.Size, huge()), append(f.Records, huge()), append(f.InputBytes, huge())
				f.Micros, f.AgeMs = append(f.Micros, huge()), append(f.AgeMs, huge())
			}
		}
		if oneIn(rng, 20) {
			f.Lease = f.GetLease()[1:]
		}
		if oneIn(rng, 4) {
			f.Warnings = append(f.Warnings, &wire.Warning{Entry: pick(rng, uint32(0), math.MaxUint32), Text: pick(rng, "hostile", "again", "\xff")})
		}
		r.Finished = append(r.Finished, f)
	}
	h.send(&wire.FromWorker{Message: &wire.FromWorker_Report{Report: r}})
}

// send sends a message over one of its sessions.
func (h *hostile) send(m *wire.FromWorker) {
	if len(h.links) > 0 {
		h.links[h.rng.IntN(len(h.links))].send(m)
	}
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// forgeries are what the oracle knows of hostile workers: the tasks whose outcome is theirs.
type forgeries struct {
	claims map[claimKey][]leasedTask // that a leader has adopted, though the lease was another worker's, or of another task
	stolen map[leasedTask]bool       // those that have won
	stages map[stageKey]bool         // of which a hostile worker had leases
}

type claimKey struct {
	worker state.WorkerID
	lease  state.Lease
}

func newForgeries() forgeries {
	return forgeries{claims: map[claimKey][]leasedTask{}, stolen: map[leasedTask]bool{}, stages: map[stageKey]bool{}}
}

// forged reports whether a lease by which a task is done is a hostile worker's.
func (c *oracle) forged(t leasedTask) bool {
	a := c.attempt(t.lease)
	return a != nil && a.hostile && a.job == t.job && a.stage == t.stage && a.task == t.task || c.stolen[t]
}

// wonByClaim notes a winner whose lease a leader has adopted from a hostile worker, and reports whether it is one.
func (c *oracle) wonByClaim(v *state.Verdict) bool {
	for _, t := range c.claims[claimKey{v.Worker, v.Lease}] {
		job := c.state.Job(t.job)
		if t.job != v.Job || t.stage != v.Stage || job == nil {
			continue
		}
		if out, done := job.Stages[t.stage].Output(t.task); done && out.Winner == v.Lease {
			c.stolen[t] = true
			c.line(t.stageKey).winner[t.task] = v.Lease
			return true
		}
	}
	return false
}

// mayLose reports whether a hostile worker has leases of a stage that reads another one: its report of lost outputs is believed.
func (c *oracle) mayLose(e *state.Event) bool {
	job := c.state.Job(e.Job)
	if job == nil {
		return false
	}
	for i, s := range job.Stages {
		if slices.Contains(s.From, e.Stage) && c.stages[stageKey{e.Job, uint32(i)}] {
			return true
		}
	}
	return false
}

// adopted notes what a hostile worker holds from now on. A leader of a later term cannot know who held a lease, but what was never granted is void.
// It reports whether the leader takes the task to be this one, and not that of which it knows the lease.
func (c *oracle) adopted(l *simLeader, s *session, id state.WorkerID, t leasedTask) bool {
	a := c.attempt(t.lease)
	const unsent = 1 << 16 // leases may have been granted and not sent
	if t.lease == 0 || t.lease > state.NewLease(l.term, c.book(l.term).last+unsent) {
		c.w.fail("leader %d goes on with lease %s of worker %d in term %d, which nobody has granted", l.addr, leaseName(t.lease), s.worker.number, l.term)
	}
	c.stages[t.stageKey] = true
	own := a.isOf(s.worker)
	if own && a.job == t.job && a.stage == t.stage && a.task == t.task {
		a.hostile = true
		return true
	}
	key := claimKey{id, t.lease}
	c.claims[key] = append(c.claims[key], t)
	return !own && len(c.claims[key]) == 1
}

// identified checks that a worker is welcomed under its own number. One that was removed may have been so by the same step.
func (c *oracle) identified(l *simLeader, s *session, welcome *wire.Welcome) {
	w := l.controller.Machine().Worker(state.WorkerID(welcome.GetWorker()))
	if w == nil && !s.worker.wasRemoved || w != nil && w.Identity != s.worker.identity {
		c.w.fail("leader %d takes worker %d for another one: %+v", l.addr, s.worker.number, w)
	}
}

// honestOutputs checks that what the log has of the outputs of a job is what the attempts have made, and of those of hostile workers what one can make.
func (c *oracle) honestOutputs(job *state.Job) {
	for i, stage := range job.Stages {
		for task := range stage.Tasks {
			out, done := stage.Output(task)
			const most = 1 << 48
			if max(out.Size, out.Records) > most {
				c.w.fail("task %d/%d/%d has an output of %d bytes and %d records", job.ID, i, task, out.Size, out.Records)
			}
			t := leasedTask{stageKey{job.ID, uint32(i)}, task, out.Winner}
			if a := c.attempt(out.Winner); done && a != nil && !c.forged(t) && out.Size != a.size {
				c.w.fail("task %d/%d/%d: lease %s has made %d bytes; the log has %d", job.ID, i, task, leaseName(out.Winner), a.size, out.Size)
				return
			}
		}
	}
}

// bounded checks what reports could let overflow.
func (c *oracle) bounded(job *state.Job) {
	var bytes uint64
	for task := range job.Parts().Tasks {
		out, _ := job.Parts().Output(task)
		bytes += out.Size
		if bytes < out.Size || bytes > job.OutputBytes {
			c.w.fail("job %d has outputs of more than %d bytes", job.ID, job.OutputBytes)
			return
		}
	}
}
