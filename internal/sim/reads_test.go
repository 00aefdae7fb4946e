package sim

import (
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/replica/core"
	"github.com/bridgefour/bridgefour/internal/state"
)

// pendingRead waits for a log position.
type pendingRead struct {
	asked  time.Duration
	index  uint64
	job    state.JobID
	answer func(reply)
}

// readTimeout is how long a read may wait.
const readTimeout = 2 * time.Second

// read answers with the state of a job, as fresh as requested.
func (l *simLeader) read(job state.JobID, how consistency, index uint64, answer func(reply)) {
	p := &pendingRead{asked: l.w.now, job: job, answer: answer}
	switch how {
	case staleRead:
	case indexRead:
		p.index = index
	case strongRead:
		if l.w.cfg.Plant != LazyRead {
			l.askIndex(p)
		}
	}
	l.reads = append(l.reads, p)
	l.serveReads()
}

// askIndex requests the committed index of the log.
func (l *simLeader) askIndex(p *pendingRead) {
	p.index = ^uint64(0)
	ref := l.ask(func(ref core.Ref) core.Input { return core.ReadIndex{Ref: ref} }, func(a core.Answer) { p.index = a.Index })
	l.after(readTimeout+time.Millisecond, func() { l.drive(core.Cancel{Ref: ref}) })
}

// serveReads answers the reads whose position is applied, and those that have waited for too long.
func (l *simLeader) serveReads() {
	l.reads = slices.DeleteFunc(l.reads, func(p *pendingRead) bool {
		switch {
		case p.index <= l.applied:
			r := reply{index: l.applied, missing: true}
			if job := l.controller.Machine().Job(p.job); job != nil {
				r.missing, r.status, r.progress = false, job.Status, job.Stages[0].Done+job.Stages[0].Failed // never falls, not even if an output is lost
			}
			p.answer(r)
			return true
		case l.w.now-p.asked > readTimeout:
			p.answer(reply{again: true})
			return true
		}
		return false
	})
}
