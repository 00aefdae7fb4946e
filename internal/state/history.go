package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of the history.
const (
	historyMax = 4096 // facts
	detailMax  = 256  // bytes of a fact's detail
	deathsMax  = 100  // dead tasks of a stage of which each is a fact
)

// Position is the position of a fact in the history. The zero value is before all of them.
type Position struct {
	Index uint64 // of the log entry
	Seq   uint32 // counts the facts of one entry, from 0
}

// Compare orders positions as the log does.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Index, q.Index), cmp.Compare(p.Seq, q.Seq))
}

// Fact is an event in the history, for clients that follow it. It is self-contained: the job or worker may be gone when it is read.
type Fact struct {
	Position

	Time   int64     // Unix ms
	Kind   EventKind // not TaskReopened, RequestApplied, StageEnded, TaskLost, QuotasChanged, JobWaits, and of locks all but a loss: those are the leader's
	Job    JobID
	Stage  string // name, of StageStarted and TaskDied
	Task   uint64 // of TaskDied
	Worker WorkerID
	// JobStatus and WorkerStatus are those after the event, if Kind is about a job or a worker.
	JobStatus    JobStatus
	WorkerStatus WorkerStatus
	Detail       string // for users: the job's name, its error, the worker's host
	Audit        *Audit // of Audited; never changes
	User         string // of LockGone: the holder's
}

// history is the latest facts, oldest first. It is part of the state, so every leader has the same ones, also after it was restored
// from a snapshot.
type history struct {
	// facts holds up to twice historyMax; only the last historyMax count, so that the result does not depend on when the rest was
	// dropped. Elements never change: snapshots and readers share them.
	facts []Fact
	lost  Position // of the last fact that was dropped from facts
}

func (h *history) add(f *Fact) {
	if len(h.facts) == 2*historyMax {
		h.lost = h.facts[historyMax-1].Position
		h.facts = append(make([]Fact, 0, 2*historyMax), h.facts[historyMax:]...)
	}
	h.facts = append(h.facts, *f)
}

// kept returns the facts that count, and the position of the last one before them.
func (h *history) kept() (facts []Fact, lost Position) {
	if n := len(h.facts) - historyMax; n > 0 {
		return slices.Clip(h.facts[n:]), h.facts[n-1].Position
	}
	return slices.Clip(h.facts), h.lost
}

// FactsAfter returns the facts after a position, oldest first; ok is false if some of them are no longer kept. The slice never changes:
// any goroutine may read it.
func (m *Machine) FactsAfter(p Position) (facts []Fact, ok bool) {
	facts, lost := m.history.kept()
	if p.Compare(lost) < 0 {
		return nil, false
	}
	at, found := slices.BinarySearchFunc(facts, p, func(f Fact, p Position) int { return f.Compare(p) })
	if found {
		at++
	}
	return facts[at:], true
}

// record adds a fact to the result of Apply and to the history.
func (m *Machine) record(e Event, out *Result) {
	out.Events = append(out.Events, e)
	f := Fact{Kind: e.Kind, Job: e.Job, Worker: e.Worker}
	if e.Kind == LockGone {
		f.Detail, f.User = e.Message, e.User
	}
	if job := m.jobs[e.Job]; job != nil {
		f.JobStatus = job.Status
		switch e.Kind {
		case JobSubmitted:
			f.Detail = job.Spec.Name
		case StageStarted:
			f.Stage = job.Stages[e.Stage].Name
		case TaskDied:
			stage := job.Stages[e.Stage]
			if stage.Dead > deathsMax {
				return // the job's counts include the rest
			}
			f.Stage, f.Task, f.Detail = stage.Name, e.Task, fmt.Sprintf("%v: %s", e.Fault, e.Message)
		case JobEnding, JobEnded:
			f.Detail = job.Error
		case LockHeld, LockWaiting, LockGone, LockOver, PriorityChanged, TaskReopened, JobForgotten, WorkerJoined, WorkerChanged, RequestApplied, StageEnded, TaskLost, QuotasChanged, Audited, JobWaits, StageGrown, InputDue, WorkerQuarantined, WorkerReleased:
		}
	}
	if w := m.workers[e.Worker]; w != nil && e.Job == 0 {
		if f.WorkerStatus, f.Detail = w.Status, w.Host; e.Kind == WorkerQuarantined {
			f.Detail = e.Message
		}
	} else if e.Kind == WorkerChanged {
		f.WorkerStatus = WorkerRemoved
	}
	f.Detail = shorten(f.Detail)
	m.addFact(&f)
}

// kept reports whether there may be facts of a kind. Some of those up to WorkerChanged are written by no version.
func (k EventKind) kept() bool {
	return k <= WorkerChanged || k == Audited || k == LockGone || k == WorkerQuarantined || k == WorkerReleased
}

// addFact adds a fact of the entry that is being applied.
func (m *Machine) addFact(f *Fact) {
	f.Position, f.Time = Position{Index: m.index, Seq: m.facts}, m.time
	m.facts++
	m.history.add(f)
}

// FirstFact is the position before the oldest fact that is kept.
func (m *Machine) FirstFact() Position {
	_, lost := m.history.kept()
	return lost
}

// shorten cuts a text to detailMax bytes, at a character boundary. It returns a copy, so that the rest is not retained.
func shorten(s string) string {
	if len(s) <= detailMax {
		return s
	}
	n := detailMax
	for n > detailMax-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}

func (c *codec) history(h *history, tails *[]KeptTail) {
	facts, lost := h.kept()
	number(c, 1, &lost.Index)
	number(c, 2, &lost.Seq)
	records(c, 3, &facts, (*codec).fact)
	if c.level >= 2 {
		records(c, 4, tails, (*codec).keptTail)
	}
	c.end("the history")
	if c.d != nil {
		h.facts, h.lost = facts, lost
	}
	c.check(h.valid)
}

// valid reports whether a history that was read is in order, and not too long.
func (h *history) valid() bool {
	last := h.lost
	for i := range h.facts {
		f := &h.facts[i]
		if f.Compare(last) <= 0 || !f.Kind.kept() || (f.Kind == Audited) != (f.Audit != nil) || f.JobStatus > JobWaiting || f.WorkerStatus > WorkerRemoved {
			return false
		}
		last = f.Position
	}
	return len(h.facts) <= historyMax
}

func (c *codec) fact(f *Fact) {
	number(c, 1, &f.Index)
	number(c, 2, &f.Seq)
	c.int(3, &f.Time)
	number(c, 4, &f.Kind)
	number(c, 5, &f.Job)
	if c.level == 0 {
		c.stageNameV1(f)
	} else {
		c.string(6, &f.Stage)
	}
	number(c, 7, &f.Task)
	number(c, 8, &f.Worker)
	number(c, 9, &f.JobStatus)
	number(c, 10, &f.WorkerStatus)
	c.string(11, &f.Detail)
	if c.level >= 2 {
		optional(c, 12, &f.Audit, (*codec).audit)
		c.string(13, &f.User)
	}
	c.end("a fact")
}
