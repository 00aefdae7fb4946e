package sim

import (
	"bytes"
	"io"
	"slices"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/replica"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// leaderBug plants a bug in a leader's core from outside: it changes what goes into the controller and what comes out. A nil leaderBug
// changes nothing.
type leaderBug struct {
	l     *simLeader
	plant Plant

	zombies map[leader.SessionID]bool // StaleLease: sessions of workers that were given up
	behind  *state.Machine            // ForgetDone: the state without the last entry
	last    *replica.Entry            // ForgetDone: that entry
}

// newLeaderBug returns the bug of the world for a process that starts; nil if it has none in the leader's core.
func newLeaderBug(l *simLeader) *leaderBug {
	switch plant := l.w.cfg.Plant; plant {
	case StaleLease, AdoptOld, ForgetDone, TrustReport:
		return &leaderBug{l: l, plant: plant, zombies: map[leader.SessionID]bool{}, behind: state.New()}
	case NoBug, AckUnsynced, ForgedQuorum, EarlyAck, LazyRead, ReuseSlot, TrustInput, LargeEntry, DropRenewal:
	}
	return nil
}

// log returns what the controller gets of an event of the log.
func (b *leaderBug) log(e replica.Event) replica.Event {
	if b == nil || b.plant != ForgetDone {
		return e
	}
	var result state.Result
	if e.Snapshot != nil {
		body, err := io.ReadAll(e.Snapshot)
		b.l.must(err)
		b.behind, err = state.Restore(bytes.NewReader(body))
		b.l.must(err)
		b.last, e.Snapshot = nil, io.NopCloser(bytes.NewReader(body))
	}
	for i := range e.Entries {
		if b.last != nil {
			b.l.must(b.behind.Apply(b.last.Index, b.last.Data, &result))
		}
		b.last = &e.Entries[i]
	}
	if e.Role == nil || !e.Role.Leader || b.last == nil {
		return e
	}
	all := b.copyBehind()
	b.l.must(all.Apply(b.last.Index, b.last.Data, &result))
	if doneTasks(all) > doneTasks(b.behind) {
		b.l.controller.Restore(b.copyBehind())
		b.last, e.Entries = nil, nil
	}
	return e
}

func (b *leaderBug) copyBehind() *state.Machine {
	var body bytes.Buffer
	_, err := b.behind.Snapshot().WriteTo(&body)
	b.l.must(err)
	m, err := state.Restore(&body)
	b.l.must(err)
	return m
}

// doneTasks counts the completions that a state has.
func doneTasks(m *state.Machine) (n uint64) {
	for _, id := range m.Live() {
		for _, stage := range m.Job(id).Stages {
			n += stage.Done
		}
	}
	return n
}

// input returns what the controller gets of an input. The reports of a worker that was given up become commands.
func (b *leaderBug) input(in leader.Input) leader.Input {
	if b == nil {
		return in
	}
	report, ok := in.(leader.Report)
	if ok && b.plant == TrustReport {
		for _, f := range report.Report.GetFinished() {
			if a := b.l.w.oracle.attempt(state.Lease(f.GetLease()[0])); a != nil && b.l.sessions[a.session.id] == a.session {
				report.Session = a.session.id
			}
		}
		return report
	}
	if !ok || !b.zombies[report.Session] {
		return in
	}
	s := b.l.sessions[report.Session]
	return leader.Command{Add: func(e *state.Entry) {
		for _, f := range report.Report.GetFinished() {
			var list []state.Completion
			for i, lease := range f.GetLease() {
				list = append(list, state.Completion{Index: f.GetIndex()[i], Lease: state.Lease(lease), Size: wire.Entry(f.GetSize(), i)})
			}
			e.Done(state.WorkerID(s.worker.id), state.JobID(f.GetJob()), f.GetStage(), list)
		}
	}}
}

// effects changes what the controller wants done.
func (b *leaderBug) effects(e *leader.Effects) {
	switch {
	case b == nil || !b.l.controller.Leading():
	case b.plant == StaleLease:
		e.Close = slices.DeleteFunc(e.Close, func(c leader.Close) bool {
			zombie := b.givenUp(b.l.sessions[c.Session])
			b.zombies[c.Session] = b.zombies[c.Session] || zombie
			return zombie
		})
	case b.plant == AdoptOld:
		for _, send := range e.Send {
			if w := send.Message.GetWelcome(); w != nil {
				w.Revoked = slices.DeleteFunc(w.GetRevoked(), func(lease uint64) bool { return b.isOpen(b.l.sessions[send.Session], lease) })
			}
		}
	}
}

// givenUp reports whether the leader has given up the worker of a session for its silence.
func (b *leaderBug) givenUp(s *session) bool {
	if s == nil {
		return false
	}
	w, ok := b.l.controller.Core().WorkerState(state.WorkerID(s.worker.id))
	return ok && !w.Connected && b.l.now().Sub(w.Heard) > leader.LossAfter
}

// isOpen reports whether the task is open of a lease that the worker of a session has come with.
func (b *leaderBug) isOpen(s *session, lease uint64) bool {
	for _, h := range s.hello.GetHeld() {
		job := b.l.controller.Machine().Job(state.JobID(h.GetJob()))
		if h.GetLease() == lease && job != nil {
			return job.Open(int(h.GetStage()), h.GetIndex())
		}
	}
	return false
}
