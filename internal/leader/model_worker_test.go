package leader

import (
	"fmt"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// simAttempt is a lease at a simulated worker.
type simAttempt struct {
	job     uint64
	stage   uint32
	index   uint64
	lease   uint64
	attempt uint32
	action  wire.CommitAction
	done    time.Time // when it ends; zero: queued
	state   simState
}

type simState uint8

const (
	simQueued simState = iota
	simRunning
	simFinished // waits for its verdict
)

// simWorker is a worker that follows the protocol, as far as its faults let it.
type simWorker struct {
	w           *world
	name        string
	incarnation int
	slots       int
	memory      uint64
	session     SessionID // 0: not connected
	welcomed    bool
	id          uint64
	retryAt     time.Time
	hungUntil   time.Time
	cutUntil    time.Time // cannot reach the leader
	beatAt      time.Time
	draining    bool
	gone        bool // has left for good
	held        map[uint64]*simAttempt
	order       []uint64 // of held, as they came
	known       map[uint64]bool
	in          []simMessage
	out         []*wire.Report // waits for the welcome
}

// simMessage is on its way to a worker.
type simMessage struct {
	session SessionID
	at      time.Time
	message *wire.ToWorker
}

func (s *simWorker) lively(now time.Time) bool { return !s.gone && !now.Before(s.hungUntil) }

// step lets the worker do what is due.
func (s *simWorker) step(now time.Time) {
	if !s.lively(now) {
		return
	}
	s.receive(now)
	if s.gone {
		return
	}
	s.run(now)
	if s.session == 0 {
		if !now.Before(s.retryAt) && !now.Before(s.cutUntil) {
			s.connect(now)
		}
		return
	}
	if s.welcomed && !now.Before(s.beatAt) {
		s.beat(now)
		if s.draining && len(s.order) == 0 {
			s.w.deliver(now, Drained{Session: s.session})
			s.gone = true
		}
	}
}

func (s *simWorker) beat(now time.Time) {
	s.beatAt = now.Add(heartbeat)
	r := &wire.Report{Heartbeat: true, Draining: s.draining}
	for _, lease := range s.order {
		if s.held[lease].state == simRunning {
			r.Running = append(r.Running, lease)
		}
	}
	s.report(now, r)
}

func (s *simWorker) connect(now time.Time) {
	s.w.lastSession++
	s.session, s.welcomed, s.known = s.w.lastSession, false, map[uint64]bool{}
	h := &wire.Hello{
		Identity: s.name, Incarnation: fmt.Sprint(s.name, s.incarnation), Address: s.name, Slots: uint32(s.slots), Memory: s.memory,
	}
	for _, lease := range s.order {
		a := s.held[lease]
		h.Held = append(h.Held, &wire.Held{
			Job: a.job, Stage: a.stage, Index: a.index, Lease: lease, Attempt: a.attempt, Started: a.state != simQueued,
		})
	}
	s.w.deliver(now, Hello{Session: s.session, Hello: h})
}

// disconnect ends the session; the leader hears of it after a while.
func (s *simWorker) disconnect(now time.Time, tell bool) {
	if s.session == 0 {
		return
	}
	if tell {
		s.w.deliver(now, Closed{Session: s.session})
	}
	s.session, s.in, s.out = 0, nil, nil
	s.retryAt = now.Add(time.Duration(s.w.rng.IntN(100)) * time.Millisecond)
}

// crash is the end of the process; another is started with the same data directory.
func (s *simWorker) crash(now time.Time) {
	s.disconnect(now, true)
	s.incarnation++
	s.held, s.order, s.draining = map[uint64]*simAttempt{}, nil, false
	s.retryAt = now.Add(time.Duration(s.w.rng.IntN(4000)) * time.Millisecond)
}

func (s *simWorker) report(now time.Time, r *wire.Report) {
	switch {
	case s.session == 0: // the next hello says what is still held
	case s.welcomed:
		s.w.deliver(now, Report{Session: s.session, Report: r})
	default:
		s.out = append(s.out, r)
	}
}

func (s *simWorker) forget(lease uint64) {
	delete(s.held, lease)
	s.order = slices.DeleteFunc(s.order, func(l uint64) bool { return l == lease })
}

// drop ends the worker's interest in a lease, and removes what it wrote.
func (s *simWorker) drop(lease uint64) {
	if a := s.held[lease]; a != nil {
		if a.state == simFinished {
			s.w.removeFile(a.job, lease, fmt.Sprintf("%s was told that it is stale", s.name))
		}
		s.forget(lease)
	}
}

func (s *simWorker) receive(now time.Time) {
	for len(s.in) > 0 && !s.in[0].at.After(now) {
		m := s.in[0]
		s.in = s.in[1:]
		if m.session != s.session {
			continue
		}
		switch m := m.message.GetMessage().(type) {
		case *wire.ToWorker_Welcome:
			s.welcome(now, m.Welcome)
		case *wire.ToWorker_Work:
			s.work(now, m.Work)
		case *wire.ToWorker_Drain:
			s.drain(now)
		case *wire.ToWorker_Log:
		}
	}
}

func (s *simWorker) welcome(now time.Time, m *wire.Welcome) {
	if s.welcomed {
		s.w.t.Fatalf("%s: second welcome in session %d", s.name, s.session)
	}
	s.welcomed, s.id, s.beatAt = true, m.GetWorker(), now.Add(heartbeat)
	for _, lease := range m.GetRevoked() {
		s.drop(lease)
	}
	for _, lease := range slices.Clone(s.order) {
		if a := s.held[lease]; a.state == simFinished {
			s.finished(now, a)
		}
	}
	for _, r := range s.out {
		s.report(now, r)
	}
	s.out = nil
	if m.GetDrain() {
		s.drain(now)
	}
}

func (s *simWorker) drain(now time.Time) {
	s.draining = true
	r := &wire.Report{Draining: true}
	for _, lease := range slices.Clone(s.order) {
		if s.held[lease].state == simQueued {
			s.forget(lease)
			r.Returned = append(r.Returned, lease)
		}
	}
	s.report(now, r)
}

func (s *simWorker) work(now time.Time, m *wire.Work) {
	if !s.welcomed {
		s.w.t.Fatalf("%s: work before the welcome", s.name)
	}
	for _, lease := range m.GetCommitted() {
		if a := s.held[lease]; a != nil && a.state == simFinished {
			s.forget(lease)
		}
	}
	for _, lease := range m.GetStale() {
		s.drop(lease)
	}
	for _, job := range m.GetEnded() {
		delete(s.known, job)
		for _, lease := range slices.Clone(s.order) {
			if a := s.held[lease]; a.job == job && a.state != simFinished {
				s.forget(lease)
			}
		}
	}
	for _, job := range m.GetJobs() {
		if s.known[job.GetId()] {
			s.w.t.Fatalf("%s: job %d was described twice in session %d", s.name, job.GetId(), s.session)
		}
		s.known[job.GetId()] = true
	}
	for _, l := range m.GetLeases() {
		s.granted(now, l)
	}
}

func (s *simWorker) granted(now time.Time, l *wire.Leases) {
	if !s.known[l.GetJob()] {
		s.w.t.Fatalf("%s: leases of job %d, which was not described in session %d", s.name, l.GetJob(), s.session)
	}
	var returned []uint64
	for i, index := range l.GetIndex() {
		lease := l.GetFirstLease() + uint64(i)
		if s.w.seen[lease] {
			s.w.t.Fatalf("%s: lease %d was given twice", s.name, lease)
		}
		s.w.seen[lease] = true
		if s.draining {
			returned = append(returned, lease)
			continue
		}
		a := &simAttempt{job: l.GetJob(), stage: l.GetStage(), index: index, lease: lease, attempt: 1, action: l.GetAction()}
		if i < len(l.GetAttempt()) {
			a.attempt = l.GetAttempt()[i]
		}
		s.held[lease] = a
		s.order = append(s.order, lease)
	}
	if len(returned) > 0 {
		s.report(now, &wire.Report{Returned: returned, Draining: true})
	}
}

// run starts and ends attempts.
func (s *simWorker) run(now time.Time) {
	free := s.slots
	for _, lease := range slices.Clone(s.order) {
		a := s.held[lease]
		if a.state == simRunning && !now.Before(a.done) {
			s.end(now, a)
		}
		if a := s.held[lease]; a != nil && a.state == simRunning {
			free--
		}
	}
	for _, lease := range s.order {
		if a := s.held[lease]; a.state == simQueued && free > 0 && !s.draining {
			a.state, a.done = simRunning, now.Add(s.w.runTime())
			free--
		}
	}
}

// end ends an attempt, well or not.
func (s *simWorker) end(now time.Time, a *simAttempt) {
	w := s.w
	if a.action != 0 {
		if why := w.commit(a); why != "" {
			w.t.Fatalf("%s: commit of job %d by lease %d: %s", s.name, a.job, a.lease, why)
		}
	}
	if w.faults && w.rng.IntN(100) < w.failRate {
		kinds := []state.FailureKind{
			state.ProgramError, state.Timeout, state.OutOfMemory, state.Preempted, state.BadInput, state.BadProgram, state.OutputError,
		}
		weights := []int{40, 50, 60, 70, 71, 80, 100}
		dice := w.rng.IntN(100)
		kind := kinds[slices.IndexFunc(weights, func(n int) bool { return dice < n })]
		s.forget(a.lease)
		s.report(now, &wire.Report{Failed: []*wire.Failure{{
			Job: a.job, Stage: a.stage, Index: a.index, Lease: a.lease, Kind: wire.FailureKind(kind), Message: "bad luck",
		}}})
		return
	}
	a.state = simFinished
	w.addFile(a.job, a.lease)
	s.finished(now, a)
	if w.faults && w.rng.IntN(50) == 0 {
		s.finished(now, a) // told twice
	}
}

func (s *simWorker) finished(now time.Time, a *simAttempt) {
	s.report(now, &wire.Report{Finished: []*wire.Finished{{
		Job: a.job, Stage: a.stage, Index: []uint64{a.index}, Lease: []uint64{a.lease}, Size: []uint64{1}, Micros: []uint64{s.w.micros()},
	}}})
}
