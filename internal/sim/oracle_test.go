package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/replica/core"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
	worker "github.com/bridgefour/bridgefour/internal/worker/core"
)

// oracle checks the promises. It sees more than any process: the log as it was first delivered anywhere, and every attempt.
type oracle struct {
	w       *World
	log     []logged       // ascending by index
	state   *state.Machine // of the log
	result  state.Result
	owners  map[uint64]addr        // leaders by term
	snaps   map[uint64]uint64      // sum of the state, by log position
	acked   uint64                 // the highest log position whose outcome was acknowledged
	keys    map[string]state.JobID // submits that were acknowledged
	lines   map[stageKey]*line
	leases  map[uint64]*leaseBook            // by term
	again   map[stageKey]bool                // stages of which an output was lost
	locked  map[state.JobID][]state.LockName // of jobs that hold their locks, or have held them
	running []*attempt
	forgeries
	holds []*hold // of locks
	fence uint64  // the last one that was granted
	calm  bool    // no attempt may be run again: workers and network have no faults
}

type logged struct{ index, term, sum uint64 }

type stageKey struct {
	job   state.JobID
	stage uint32
}

// line is the tasks of a stage.
type line struct {
	winner []state.Lease
	latest []state.Lease // the last one that was granted
}

// attempt is one lease and its outcome.
type attempt struct {
	job      state.JobID
	task     uint64
	stage    uint32
	worker   int32 // number of the worker that got it, from 0
	state    attemptState
	won      bool
	stale    bool        // its worker was told so
	returned bool        // its leader has received its failure or its return
	before   state.Lease // the one granted before it for the same task
	session  *session    // over which it was granted
	read     []int64     // the versions of its files
	size     uint64      // of its output
	inputs   uint64      // what it has read of other stages: oracle.inputs
	hostile  bool        // what becomes of it is up to a hostile worker
	begun    time.Duration
	granted  time.Duration
}

// isOf reports whether a lease was granted, and to this worker.
func (a *attempt) isOf(s *simWorker) bool { return a != nil && int(a.worker) == s.number }

// attemptState is the state of an attempt at its worker.
type attemptState uint8

const (
	attemptGranted attemptState = iota
	attemptRunning
	attemptFinished
	attemptFailed
	attemptCanceled
	attemptLost // with its worker
)

// jobKey begins the keys of submits.
const jobKey = "job/"

func newOracle(w *World) *oracle {
	return &oracle{
		w: w, state: state.New(), owners: map[uint64]addr{}, snaps: map[uint64]uint64{}, keys: map[string]state.JobID{},
		lines: map[stageKey]*line{}, leases: map[uint64]*leaseBook{}, again: map[stageKey]bool{}, locked: map[state.JobID][]state.LockName{}, forgeries: newForgeries(),
		calm: !slices.ContainsFunc(w.cfg.Kinds, func(k FaultKind) bool { return !slices.Contains(OfLeaders(), k) }),
	}
}

func leaseName(l state.Lease) string { return fmt.Sprintf("%d.%d", l.Term(), sequence(l)) }

func (c *oracle) attempt(l state.Lease) *attempt {
	b, seq := c.leases[l.Term()], sequence(l)
	if b == nil || seq == 0 || seq > b.last {
		return nil
	}
	a := &b.pages[seq/leasePage][seq%leasePage]
	if a.session == nil {
		return nil // it was granted and never sent
	}
	return a
}

// sequence is the number of a lease in its term, from 1.
func sequence(l state.Lease) uint64 { return uint64(l) & (1<<40 - 1) }

// leaseBook is the leases of one term. They do not move.
type leaseBook struct {
	last  uint64 // the highest one sent
	floor uint64 // the highest one sent in earlier steps of the leader
	pages []*[leasePage]attempt
}

const leasePage = 1024

// at returns the attempt of a lease.
func (b *leaseBook) at(seq uint64) *attempt {
	for uint64(len(b.pages)) <= seq/leasePage {
		b.pages = append(b.pages, new([leasePage]attempt))
	}
	b.last = max(b.last, seq)
	return &b.pages[seq/leasePage][seq%leasePage]
}

func (c *oracle) book(term uint64) *leaseBook {
	b := c.leases[term]
	if b == nil {
		b = &leaseBook{}
		c.leases[term] = b
	}
	return b
}

// delivered checks an entry that a leader's log has delivered as committed: all logs must deliver the same.
func (c *oracle) delivered(by addr, e core.Entry) {
	if len(e.Data) > leader.EntryBytesMax {
		c.w.fail("leader %d has an entry of %d bytes at %d, which no message can carry", by, len(e.Data), e.Index)
	}
	sum := xxhash.Sum64(e.Data)
	n := len(c.log)
	if n == 0 || c.log[n-1].index < e.Index {
		c.log = append(c.log, logged{e.Index, e.Term, sum})
		c.apply(e)
		return
	}
	i, ok := slices.BinarySearchFunc(c.log, e.Index, func(l logged, index uint64) int { return int(int64(l.index) - int64(index)) })
	if !ok {
		c.w.fail("leader %d has an entry at %d in term %d, where the log has none", by, e.Index, e.Term)
		return
	}
	if c.log[i].term != e.Term || c.log[i].sum != sum {
		c.w.fail("leader %d has another entry at %d than was committed: term %d for %d", by, e.Index, e.Term, c.log[i].term)
	}
}

// apply applies an entry to the oracle's state, and checks its events.
func (c *oracle) apply(e core.Entry) {
	if err := c.state.Apply(e.Index, e.Data, &c.result); err != nil {
		c.w.fail("entry %d: %v", e.Index, err)
		return
	}
	// Verdicts first: the entry's completions of a job precede its retry.
	for i := range c.result.Verdicts {
		if v := &c.result.Verdicts[i]; v.Won {
			c.won(v, e.Term)
		}
	}
	changed := false
	for i := range c.result.Events {
		if ev := &c.result.Events[i]; ev.Kind == state.TaskLost {
			c.taskLost(ev)
		}
		if ev := &c.result.Events[i]; ev.Kind == state.StageStarted || ev.Kind == state.JobForgotten {
			c.stageStarted(ev.Job)
		}
		if ev := &c.result.Events[i]; ev.Kind == state.JobEnded {
			c.jobEnded(ev.Job)
		}
		switch ev := &c.result.Events[i]; ev.Kind { //nolint:exhaustive // of locks
		case state.WorkerChanged:
			c.workerChanged(ev.Worker)
		case state.LockHeld:
			c.lockGranted(ev.Lock)
			changed = true
		case state.StageStarted:
			if l := c.state.LockOf(ev.Job); l != nil {
				c.exclude(ev.Job, c.attemptLocks(ev.Job))
			}
			changed = true
		case state.LockWaiting, state.LockGone:
			changed = true
		}
		c.w.trace("event", uint64(c.result.Events[i].Kind), uint64(c.result.Events[i].Job), uint64(c.result.Events[i].Worker), e.Index, e.Term)
	}
	if changed {
		c.locks()
	}
}

// taskLost forgets the winner of a task whose output was lost, or that has read one that was lost and is another one now.
func (c *oracle) taskLost(e *state.Event) {
	job := c.state.Job(e.Job)
	read := job != nil && slices.ContainsFunc(job.Stages[e.Stage].From, func(from uint32) bool { return c.again[stageKey{e.Job, from}] })
	c.again[stageKey{e.Job, e.Stage}] = true
	if c.mayLose(e) || read {
		c.w.store.lost[e.Lease] = true
	}
	if !c.w.store.lost[e.Lease] {
		c.w.fail("task %d/%d/%d is open again; the file of lease %s is not lost", e.Job, e.Stage, e.Task, leaseName(e.Lease))
	}
	c.w.stats.Lost++
	if l := c.line(stageKey{e.Job, e.Stage}); l.winner[e.Task] == e.Lease {
		l.winner[e.Task] = 0
	}
}

// stageStarted forgets the winners of stages that start again.
func (c *oracle) stageStarted(id state.JobID) {
	job := c.state.Job(id)
	if job == nil {
		maps.DeleteFunc(c.lines, func(key stageKey, _ *line) bool { return key.job == id })
		return
	}
	for i := range job.Stages {
		l := c.lines[stageKey{id, uint32(i)}]
		if l != nil && job.Stages[i].Done == 0 {
			clear(l.winner)
		}
		for k := 0; l != nil && job.Spec.Splits(i) && k < len(job.Spec.Input.Changed); k++ { // its file is read again
			if task := job.Spec.Input.Changed[k].Task; job.Stages[i].Status(task) == state.TaskOpen {
				l.winner[task] = 0
			}
		}
	}
	if job.Parts().Done == 0 {
		delete(c.w.store.parts, id) // which the stopped job may have published
	}
}

func (c *oracle) line(key stageKey) *line {
	l := c.lines[key]
	if l == nil {
		tasks := uint64(0)
		if job := c.state.Job(key.job); job != nil {
			tasks = job.Stages[key.stage].Tasks
		}
		l = &line{winner: make([]state.Lease, tasks), latest: make([]state.Lease, tasks)}
		c.lines[key] = l
	}
	return l
}

// won checks the winner of a task.
func (c *oracle) won(v *state.Verdict, term uint64) {
	if c.wonByClaim(v) {
		return
	}
	a := c.attempt(v.Lease)
	if a == nil || a.job != v.Job || a.stage != v.Stage {
		c.w.fail("lease %s has won a task of job %d; no leader granted it", leaseName(v.Lease), v.Job)
		return
	}
	a.won = true
	c.w.trace("won", uint64(v.Lease))
	l := c.line(stageKey{a.job, a.stage})
	switch was := l.winner[a.task]; {
	case was != 0 && !c.w.store.lost[was]:
		c.w.fail("task %d/%d/%d has the winners %s and %s", a.job, a.stage, a.task, leaseName(was), leaseName(v.Lease))
	case a.hostile:
	case a.state != attemptFinished && a.state != attemptLost:
		c.w.fail("task %d/%d/%d was won by lease %s, which has not finished", a.job, a.stage, a.task, leaseName(v.Lease))
	case a.stale:
		c.w.fail("task %d/%d/%d was won by lease %s, whose worker was told that it is stale", a.job, a.stage, a.task, leaseName(v.Lease))
	}
	l.winner[a.task] = v.Lease
	// A leader that has leased a task again stands by that lease, unless it has come to nothing.
	if latest := l.latest[a.task]; latest > v.Lease && latest.Term() == term {
		b := c.attempt(latest)
		if b.session.open && !b.returned && !b.stale && b.session.worker.up && !c.mayBeSecond(b, a) {
			c.w.fail("task %d/%d/%d was won by lease %s in term %d, though that leader had leased it again as %s", a.job, a.stage, a.task,
				leaseName(v.Lease), term, leaseName(latest))
		}
	}
}

// jobEnded checks the output of a job.
func (c *oracle) jobEnded(id state.JobID) {
	job := c.state.Job(id)
	if job == nil {
		return
	}
	c.honestOutputs(job)
	if job.Status != state.JobDone {
		return
	}
	c.bounded(job)
	c.checkInput(job)
	c.sameOutputs(job)
	if job.Spec.Spool {
		if name, task, lease, lost := c.w.store.missing(job, len(job.Stages)); lost {
			c.w.fail("job %d is done; the file of the winner of %s/%d, lease %s, is gone", id, name, task, leaseName(lease))
		}
		return
	}
	stage, parts := job.Parts(), c.w.store.parts[id]
	last := len(job.Stages) - 1
	if out, _ := job.Stages[last].Output(0); c.forged(leasedTask{stageKey{id, uint32(last)}, 0, out.Winner}) {
		return // a hostile worker has published them, or has not
	}
	for i := range stage.Tasks {
		if out, done := stage.Output(i); done && out.Size > 0 && parts[i] != out.Winner {
			c.w.fail("job %d is done; part %d is of lease %s, the winner is %s", id, i, leaseName(parts[i]), leaseName(out.Winner))
		}
	}
}

// inputs identifies the outputs that a stage reads, by their content.
func (c *oracle) inputs(id state.JobID, number uint32) (sum uint64) {
	job := c.state.Job(id)
	if job == nil || job.Stages[number].Role != state.RoleReduce {
		return 0
	}
	for _, from := range job.Stages[number].From {
		for i := range job.Stages[from].Tasks {
			out, _ := job.Stages[from].Output(i)
			sum = lot(sum, i, out.Size)
		}
	}
	return sum
}

// sameOutputs checks that all tasks of a stage that reduces have read the outputs that the job has at its end.
func (c *oracle) sameOutputs(job *state.Job) {
	for n, stage := range job.Stages {
		want := c.inputs(job.ID, uint32(n))
		for i := range stage.Tasks {
			out, done := stage.Output(i)
			a := c.attempt(out.Winner)
			if done && want != 0 && a != nil && !a.hostile && a.inputs != want {
				c.w.fail("job %d is done; task %d of stage %s, lease %s, has read other outputs than those of the job", job.ID, i, stage.Name, leaseName(out.Winner))
			}
		}
	}
}

// granted checks leases that a leader sends.
func (c *oracle) granted(term uint64, s *session, g *wire.Leases) {
	book := c.book(term)
	for i, task := range g.GetIndex() {
		lease := state.Lease(g.GetFirstLease() + uint64(i))
		if lease.Term() != term || sequence(lease) <= book.floor {
			c.w.fail("leader %d grants lease %s in term %d after %d: fencing numbers grow", s.leader.addr, leaseName(lease), term, book.floor)
			return
		}
		a := book.at(sequence(lease))
		if a.session != nil {
			c.w.fail("leader %d grants lease %s twice", s.leader.addr, leaseName(lease))
			return
		}
		*a = attempt{
			job: state.JobID(g.GetJob()), task: task, stage: g.GetStage(), worker: int32(s.worker.number), session: s, hostile: s.worker.hostile != nil,
			granted: c.w.now,
		}
		if a.hostile {
			c.stages[stageKey{a.job, a.stage}] = true
		}
		if job := c.state.Job(a.job); job != nil && int(a.stage) < len(job.Stages) && task < job.Stages[a.stage].Tasks {
			l := c.line(stageKey{a.job, a.stage})
			a.before, l.latest[task] = l.latest[task], lease
		}
	}
}

// welcomed checks the welcome of a worker that came back. The leader adopts the leases that the worker holds, except those that it
// revokes in the first of these messages, or calls stale in those that follow in the same step.
func (c *oracle) welcomed(l *simLeader, messages []leader.Send) {
	s := l.sessions[messages[0].Session]
	if s == nil {
		return
	}
	welcome := messages[0].Message.GetWelcome()
	c.identified(l, s, welcome)
	void := slices.Clone(welcome.GetRevoked())
	for i := range messages {
		if messages[i].Session == s.id {
			void = append(void, messages[i].Message.GetWork().GetStale()...)
		}
	}
	for _, h := range s.hello.GetHeld() {
		lease, key, task := state.Lease(h.GetLease()), stageKey{state.JobID(h.GetJob()), h.GetStage()}, h.GetIndex()
		job := l.controller.Machine().Job(key.job)
		if slices.Contains(void, h.GetLease()) {
			continue
		}
		if s.worker.hostile != nil && !c.adopted(l, s, state.WorkerID(welcome.GetWorker()), leasedTask{key, task, lease}) {
			continue
		}
		if job == nil || int(key.stage) >= len(job.Stages) || task >= job.Stages[key.stage].Tasks || c.line(key).winner[task] == lease {
			continue
		}
		if job.Fenced(int(key.stage), task, lease) {
			c.w.fail("leader %d goes on with lease %s of worker %d, which was granted before job %d was last stopped or retried",
				l.addr, leaseName(lease), s.worker.number, job.ID)
		}
		latest := c.line(key).latest[task]
		a, b := c.attempt(lease), c.attempt(latest)
		second := a != nil && b != nil && c.mayBeSecond(b, a)
		if latest != lease && !second && b != nil && b.session.leader == l && b.session.open && !b.returned && !b.stale && !b.won {
			c.w.fail("leader %d goes on with lease %s of worker %d, though it has leased that task again as %s", l.addr,
				leaseName(lease), s.worker.number, leaseName(latest))
		}
	}
}

// heard notes a report that a leader has received.
func (c *oracle) heard(s *session, r *wire.Report) {
	for _, f := range r.GetFinished() {
		for _, lease := range f.GetLease() {
			c.w.trace("reported", uint64(s.worker.number), uint64(s.id), lease)
		}
	}
	for _, lease := range r.GetReturned() {
		c.gone(s.worker, lease)
	}
	for _, f := range r.GetFailed() {
		c.gone(s.worker, f.GetLease())
	}
}

func (c *oracle) gone(s *simWorker, lease uint64) {
	if a := c.attempt(state.Lease(lease)); a.isOf(s) {
		a.returned = true
	}
}

// attemptStarted checks a lease that a slot starts.
func (c *oracle) attemptStarted(s *simWorker, ch *worker.Chunk, i int) *attempt {
	lease := state.Lease(ch.Lease(i))
	a := c.attempt(lease)
	if a == nil || a.state != attemptGranted || int(a.worker) != s.number {
		c.w.fail("worker %d runs lease %s, which it was not given, or for the second time", s.number, leaseName(lease))
		return nil
	}
	a.state, a.begun = attemptRunning, c.w.now
	c.running = append(c.running, a)
	for l := range c.state.Locks() {
		if l.Held() && l.Job != a.job {
			c.apart(a, l.Job, l.Names())
		}
	}
	c.w.stats.Attempts++
	if !c.calm || a.stale {
		return a
	}
	job := c.state.Job(a.job)
	second := true
	for before := a.before; before != 0; {
		b := c.attempt(before)
		live := b.state == attemptRunning || b.state == attemptFinished && !b.won
		if live && !b.stale && !b.returned && job != nil && !job.Fenced(int(a.stage), a.task, before) && job.Ready(int(a.stage)) {
			if second && c.mayBeSecond(a, b) {
				second = false
				before = b.before
				continue
			}
			c.w.fail("task %d/%d/%d is run again as %s on worker %d, though lease %s of worker %d goes on and that worker has had no fault",
				a.job, a.stage, a.task, leaseName(lease), s.number, leaseName(before), b.worker)
			return nil
		}
		before = b.before
	}
	return a
}

func (c *oracle) attemptEnded(a *attempt, how attemptState) {
	a.state = how
	if at := slices.Index(c.running, a); at >= 0 {
		c.running = slices.Delete(c.running, at, at+1)
	}
}

// mayBeSecond reports whether a may have been granted because b, of the same task, took far longer than others. Clocks drift.
func (c *oracle) mayBeSecond(a, b *attempt) bool {
	return a.worker != b.worker && c.w.now-b.begun >= leader.StragglerMin/2
}

// slotUsed checks a slot that starts an attempt: everything that earlier ones have started there must be gone, or it could write into the
// output of this one, and take its processor and memory.
func (c *oracle) slotUsed(s *simWorker, slot int) {
	if lease := s.left[slot]; lease != 0 {
		c.w.fail("worker %d runs an attempt in slot %d, where a process of lease %s lives", s.number, slot, leaseName(state.Lease(lease)))
	}
}

// roomUsed checks that the attempts that a worker runs need no more slots and memory than it has. Those that it was told to stop do not
// count: they are about to end.
func (c *oracle) roomUsed(s *simWorker) {
	slots, memory := 0, uint64(0)
	for _, r := range s.running {
		if r == nil || r.attempt == nil || r.stopped {
			continue
		}
		if job := c.state.Job(r.attempt.job); job != nil {
			slots += int(max(1, job.Spec.SlotsPerTask))
			memory += job.Spec.Memory
		}
	}
	if slots > s.slots || s.memory > 0 && memory > s.memory {
		c.w.fail("worker %d has %d slots and %d bytes; its attempts need %d and %d", s.number, s.slots, s.memory, slots, memory)
	}
}

// checkInput checks that the winners of a done job have read what its input was when it was submitted, or retried.
func (c *oracle) checkInput(job *state.Job) {
	if job.Spec.Input.Kind != state.InputFiles {
		return
	}
	reader := state.NewInputReader(&job.Spec.Input)
	for i := range job.Stages[0].Tasks {
		out, done := job.Stages[0].Output(i)
		split, err := reader.Split(i)
		if err != nil {
			c.w.fail("job %d: split %d: %v", job.ID, i, err)
			return
		}
		a := c.attempt(out.Winner)
		if c.forged(leasedTask{stageKey{job.ID, 0}, i, out.Winner}) {
			continue
		}
		for k, f := range filesOf(&split) {
			if done && a != nil && f.Version.Known() && a.read[k] != f.Version.Modified {
				c.w.fail("job %d is done; lease %s has read version %d of %s, and the job is of version %d", job.ID, leaseName(out.Winner), a.read[k],
					f.Path, f.Version.Modified)
				return
			}
		}
	}
}

// isWinner reports whether a lease is the winner of its task, and still needed: the job is not being stopped.
func (c *oracle) isWinner(lease state.Lease) bool {
	a := c.attempt(lease)
	if a == nil || !a.won || c.line(stageKey{a.job, a.stage}).winner[a.task] != lease {
		return false
	}
	job := c.state.Job(a.job)
	return job != nil && (job.Status == state.JobActive || job.Status == state.JobDone)
}

func (c *oracle) toldCommitted(s *simWorker, lease uint64) {
	if a := c.attempt(state.Lease(lease)); a == nil || !a.won {
		c.w.fail("worker %d is told that lease %s is committed; the log does not have it", s.number, leaseName(state.Lease(lease)))
	}
}

func (c *oracle) toldStale(s *simWorker, lease uint64) {
	c.w.trace("told stale", uint64(s.number), lease)
	a := c.attempt(state.Lease(lease))
	if !a.isOf(s) {
		return
	}
	if c.isWinner(state.Lease(lease)) {
		c.w.fail("worker %d is told that lease %s is stale; it is a winner", s.number, leaseName(state.Lease(lease)))
	}
	a.stale = true
}

func (c *oracle) removed(job state.JobID, lease state.Lease, by int) {
	if c.isWinner(lease) {
		c.w.fail("worker %d removes the file of lease %s, a winner of job %d", by, leaseName(lease), job)
	}
}

// refused checks the refusal of a worker.
func (c *oracle) refused(s *simWorker, err error) {
	c.w.trace("refused", uint64(s.number))
	const late = time.Minute // its clock may have been wrong when it connected
	if s.wrongTime == 0 && (s.wrongUntil == 0 || c.w.now-s.wrongUntil > late) && !s.wasRemoved {
		c.w.fail("worker %d is refused: %v", s.number, err)
	}
}

// leads checks a leader that starts a term.
func (c *oracle) leads(l *simLeader, term uint64) {
	if owner, ok := c.owners[term]; ok && owner != l.addr {
		c.w.fail("leaders %d and %d both lead in term %d", owner, l.addr, term)
	}
	c.owners[term] = l.addr
	c.w.stats.Terms++
	if l.applied < c.acked {
		c.w.fail("leader %d leads in term %d with the log up to %d; what was acknowledged goes to %d", l.addr, term, l.applied, c.acked)
	}
}

// acknowledged checks the answer to a request.
func (c *oracle) acknowledged(l *simLeader, e *state.Event) {
	if e.Err != nil && strings.HasPrefix(e.Key, largeKey) {
		return // refused before it came into the log
	}
	index := l.controller.Machine().Index()
	if n := len(c.log); n == 0 || c.log[n-1].index < index {
		c.w.fail("leader %d acknowledges entry %d, which no log has given out", l.addr, index)
	}
	c.acked = max(c.acked, index)
	if e.Err != nil || !strings.HasPrefix(e.Key, jobKey) {
		return
	}
	if was, ok := c.keys[e.Key]; ok && was != e.Job {
		c.w.fail("submit %q was acknowledged as job %d, and now as job %d", e.Key, was, e.Job)
	}
	c.keys[e.Key] = e.Job
}

// snapshot checks the state of a leader at a position of the log, byte for byte: all leaders must have the same.
func (c *oracle) snapshot(by addr, index uint64, body []byte) {
	sum := xxhash.Sum64(body)
	if was, ok := c.snaps[index]; ok && was != sum {
		c.w.fail("the state of leader %d at %d is not that of another leader there", by, index)
	}
	c.snaps[index] = sum
}
