package leader

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/sched"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// totalMax bounds the bytes and records of a job. Those of an attempt are bounded where reports are decoded.
const totalMax = 1 << 62

// handleReport handles a report of a connected worker.
func (c *Core) handleReport(w *worker, r *wire.Report) {
	w.heard = c.now
	if r.GetHeartbeat() {
		w.running = r.GetRunning()
		w.session.heard = max(w.session.heard, r.GetNumber())
		for _, number := range w.running {
			if l := w.leases[state.Lease(number)]; l != nil && l.begun == 0 {
				l.begun = c.now.UnixMilli()
			}
		}
	}
	if list := r.GetSlots(); len(list) > 0 {
		w.slots = list
	}
	if r.GetDraining() && !w.draining {
		w.draining = true
		c.sched.Leave(&w.Worker)
	}
	for _, f := range r.GetFinished() {
		c.handleFinished(w, f)
	}
	for _, f := range r.GetFailed() {
		c.handleFailed(w, f)
	}
	if len(r.GetLost()) > 0 {
		c.handleLost(w, r.GetLost())
	}
	for _, number := range r.GetReturned() {
		c.leftovers.end(w.ID, state.Lease(number))
		if l, ok := w.leases[state.Lease(number)]; ok && !l.ended {
			w.Behind = true
			c.reopen(w, state.Lease(number), l)
		}
	}
	if len(c.machine.Live()) > 0 {
		c.dirty.mark(w) // also after a heartbeat: a task that avoids it may not have found another worker
	}
}

// handleLost opens tasks again whose outputs could not be read, if those are still the winners. Only a worker that has a lease of a stage that
// reads them is believed.
func (c *Core) handleLost(w *worker, list []*wire.OutputLost) {
	leased := map[sched.Key]struct{}{}
	for _, l := range w.leases {
		leased[l.Key] = struct{}{}
	}
	for _, o := range list {
		key, number := newTaskKey(o.GetJob(), uint64(o.GetStage()), o.GetIndex()), state.Lease(o.GetLease())
		if !c.won(key, number) || !reads(leased, c.machine.Job(key.Job), key.Stage) {
			continue
		}
		message := wire.FailureMessage(o.GetMessage())
		if c.machine.Level() == 0 {
			c.failReaders(w, key.Key, message)
			continue
		}
		c.handleCommand(Command{Add: func(e *state.Entry) { e.OutputLost(key.Job, key.Stage, key.task, number, w.ID, message) }})
	}
}

// failReaders fails the attempts of a worker that read a stage. A log of feature level 0 cannot open a task again that is done, and they would be leased for ever.
func (c *Core) failReaders(w *worker, stage sched.Key, message string) {
	job := c.machine.Job(stage.Job)
	for _, number := range w.leases.standing() {
		if l := w.leases[number]; l.Job == stage.Job && !l.ended && slices.Contains(job.Stages[l.Stage].From, stage.Stage) {
			c.fail(w, number, state.Failure{Kind: state.OutputError, Message: message}, nil)
		}
	}
}

// reads reports whether one of the stages that are leased reads a stage of the job.
func reads(leased map[sched.Key]struct{}, job *state.Job, stage uint32) bool {
	for i, s := range job.Stages {
		if _, ok := leased[sched.Key{Job: job.ID, Stage: uint32(i)}]; ok && slices.Contains(s.From, stage) {
			return true
		}
	}
	return false
}

// handleFinished adds finished attempts whose leases stand to the log, which decides the winner.
func (c *Core) handleFinished(w *worker, f *wire.Finished) {
	n := len(f.GetIndex())
	if len(f.GetLease()) != n {
		return
	}
	id := state.JobID(f.GetJob())
	job, stage := c.machine.Job(id), sched.Key{Job: id, Stage: f.GetStage()}
	list := make([]state.Completion, 0, n)
	var micros, age uint64 // age is that of the job, ms
	var cost int64
	if job != nil {
		age = uint64(max(0, c.now.UnixMilli()-job.Created))
	}
	for i, index := range f.GetIndex() {
		number := state.Lease(f.GetLease()[i])
		l, ok := w.leases[number]
		key := taskKey{stage, index}
		if !ok || job == nil || l.taskKey != key {
			c.leftovers.end(w.ID, number)
			c.answerLate(w, key, number)
			continue
		}
		if l.ended { // reported twice, before and after a reconnect
			continue
		}
		if job.ReadBytes|job.OutputBytes|job.Records >= totalMax { // what the pipeline holds cannot overflow the rest
			c.fail(w, number, state.Failure{Kind: state.OutputError, Message: fmt.Sprintf("the bytes or records of the job are more than %d", uint64(totalMax))}, nil)
			continue
		}
		cost += l.cost
		l.ended = true
		took := wire.Entry(f.GetMicros(), i)
		micros += took
		millis := took / 1000
		if len(list) < comparedMax && job.Stages[stage.Stage].Tasks > othersMin {
			c.observeRunTime(w, stage, runTime{w.ID, millis, wire.Entry(f.GetInputBytes(), i)})
		}
		list = append(list, state.Completion{
			Index: index, Lease: number, Size: wire.Entry(f.GetSize(), i), Records: wire.Entry(f.GetRecords(), i),
			Checksum: wire.Entry(f.GetChecksum(), i), InputBytes: wire.Entry(f.GetInputBytes(), i),
			Started: saturate(age - min(age, millis+wire.Entry(f.GetAgeMs(), i))), Millis: saturate(millis),
			PeakKiB: saturate(wire.Entry(f.GetPeakKib(), i)), Second: c.leases.overtakes(key, number),
		})
	}
	if len(list) == 0 {
		return
	}
	warnings := newWarnings(job, f)
	w.quarantine.succeed(c.now)
	w.Behind = false
	c.sched.Return(&w.Worker, job, stage.Stage, len(list), cost)
	c.sched.Observe(stage, len(list), micros)
	c.pipeline.addCompletions(len(list))
	for others := c.others(id); len(list) > 0; {
		k := min(len(list), entryItems)
		e := c.pipeline.open(c.now)
		e.Others = others
		e.Done(w.ID, id, stage.Stage, list[:k], warnings...)
		list = list[k:]
	}
	if c.sched.StageLeased(stage) == 0 || job.Spec.FirstSuccess { // the stage may end with these
		c.pipeline.urge()
	}
}

// newWarnings returns the reported warnings that the job may not have yet.
func newWarnings(job *state.Job, f *wire.Finished) (list []state.Warning) {
	for _, r := range f.GetWarnings() {
		if len(job.Warnings)+len(list) >= state.WarningsMax {
			return list
		}
		if int(r.GetEntry()) >= len(f.GetIndex()) {
			continue
		}
		w := state.Warning{Stage: f.GetStage(), Task: f.GetIndex()[r.GetEntry()], Text: wire.FailureMessage(r.GetText())}
		same := func(k state.Warning) bool { return k.Text == w.Text }
		if !slices.ContainsFunc(job.Warnings, same) && !slices.ContainsFunc(list, same) {
			list = append(list, w)
		}
	}
	return list
}

// answerLate answers a report on a lease that the worker does not have: it has won, and the verdict crossed this report; or it is void.
func (c *Core) answerLate(w *worker, key taskKey, number state.Lease) {
	if c.won(key, number) {
		c.outbox.committed(w, number)
	} else {
		c.outbox.stale(w, number)
	}
}

// saturate is v, or the largest number that fits.
func saturate(v uint64) uint32 { return uint32(min(v, math.MaxUint32)) }

// handleFailed adds a failed attempt whose lease stands to the log.
func (c *Core) handleFailed(w *worker, f *wire.Failure) {
	number := state.Lease(f.GetLease())
	l, ok := w.leases[number]
	if !ok {
		c.leftovers.end(w.ID, number)
		c.outbox.stale(w, number)
	}
	if !ok || l.ended {
		return
	}
	w.Behind = false
	kind := state.ProgramError // also what a newer worker gives another name
	if k := f.GetKind(); k > 0 && k <= wire.FailureKind(state.OutputError) {
		kind = state.FailureKind(k)
	}
	// The message goes into the log: cut here, its bound does not depend on the worker.
	c.fail(w, number, state.Failure{
		Kind: kind, Millis: saturate(f.GetMicros() / 1000), Message: wire.FailureMessage(f.GetMessage()),
		WaitMS: min(f.GetWaitMs(), uint64(retryDelayMax.Milliseconds())), Cancel: f.GetCancel(),
	}, c.tail(f.GetTail()))
	if kind != state.BadInput && kind != state.Preempted && w.quarantine.fail(l.taskKey) {
		c.quarantineFailing(w)
	}
}

// tailsBurst and tailsInterval limit the tails of all workers that go into the log: a million failures must not fill it and its snapshots.
const (
	tailsBurst    = 32
	tailsInterval = 250 * time.Millisecond
)

// tail returns what of a reported tail goes into the log; nil: nothing.
func (c *Core) tail(t *wire.Tail) *state.Tail {
	if t == nil || !c.tails.Take(c.now) {
		return nil
	}
	return &state.Tail{Log: t.GetLog(), LogBytes: t.GetLogBytes(), Output: t.GetOutput(), OutputBytes: t.GetOutputBytes()}
}
