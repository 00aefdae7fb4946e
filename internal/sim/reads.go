package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// pendingRead waits for the log to have come far enough.
type pendingRead struct {
	context string // of the question for the index, while it is open
	asked   time.Duration
	index   uint64
	job     state.JobID
	answer  func(reply)
}

// How often a question for the index is repeated, and how long a read may wait.
const (
	askAgain     = 100 * time.Millisecond
	readPatience = 2 * time.Second
)

// read answers with how a job stands, as fresh as it was asked for.
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

// askIndex asks what the log has committed by now, and asks again when there is no answer.
func (l *simLeader) askIndex(p *pendingRead) {
	if l.w.now-p.asked > readPatience {
		return // serveReads gives up
	}
	l.nextRead++
	p.context = fmt.Sprintf("%d/%d/%d", l.addr, l.life, l.nextRead)
	p.index = ^uint64(0)
	_ = l.core.ReadIndex([]byte(p.context)) // without a leader: asked again
	l.pump()
	l.after(askAgain, func() {
		if p.index == ^uint64(0) && slices.Contains(l.reads, p) {
			l.askIndex(p)
		}
	})
}

// serveReads answers the reads for which the state is far enough, and those that have waited for too long.
func (l *simLeader) serveReads() {
	l.reads = slices.DeleteFunc(l.reads, func(p *pendingRead) bool {
		switch {
		case p.index <= l.applied:
			r := reply{index: l.applied, missing: true}
			if job := l.controller.Machine().Job(p.job); job != nil {
				r.missing, r.status, r.progress = false, job.Status, job.Stages[0].Done
			}
			p.answer(r)
			return true
		case l.w.now-p.asked > readPatience:
			p.answer(reply{again: true})
			return true
		}
		return false
	})
}
