package leader

import (
	"cmp"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// outbox is the messages of a step to workers. What a session gets of verdicts, jobs and leases is collected and sent at the end of the
// step, after all other messages.
type outbox struct {
	now      time.Time
	messages []Send
	sessions []*session // with collected work
}

// reset starts a step.
func (o *outbox) reset(now time.Time) { o.now, o.messages = now, o.messages[:0] }

func (o *outbox) send(s *session, m *wire.ToWorker) {
	s.sent, m.Heard = o.now, s.heard
	o.messages = append(o.messages, Send{Session: s.id, Message: m})
}

// work returns the work that the session gets at the end of this step.
func (o *outbox) work(s *session) *wire.Work {
	if s.work == nil {
		s.work, s.workBytes = &wire.Work{}, 0
		o.sessions = append(o.sessions, s)
	}
	return s.work
}

// workWith is work with room for some bytes more: if they made the message too large, it is sent, and another one started.
func (o *outbox) workWith(s *session, bytes int) *wire.Work {
	if s.work != nil && s.workBytes+bytes > workBytesMax {
		o.sendWork(s)
		s.work, s.workBytes = &wire.Work{}, 0
	}
	work := o.work(s)
	s.workBytes += bytes
	return work
}

// committed notifies a worker, if it is connected, that leases have won their tasks.
func (o *outbox) committed(w *worker, leases ...state.Lease) {
	if w.session != nil && len(leases) > 0 {
		work := o.workWith(w.session, numberBytes*len(leases))
		for _, l := range leases {
			work.Committed = append(work.Committed, uint64(l))
		}
	}
}

// stale notifies a worker, if it is connected, that a lease is void: it stops the attempt and removes its output.
func (o *outbox) stale(w *worker, l state.Lease) {
	if w.session != nil {
		work := o.workWith(w.session, numberBytes)
		work.Stale = append(work.Stale, uint64(l))
	}
}

// flush ends the step, and returns its messages. Sessions that have ended meanwhile get no work.
func (o *outbox) flush(open map[SessionID]*session) []Send {
	slices.SortFunc(o.sessions, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	for _, s := range o.sessions {
		if open[s.id] == s {
			o.sendWork(s)
		}
		s.work = nil
	}
	o.sessions = o.sessions[:0]
	return o.messages
}

func (o *outbox) sendWork(s *session) {
	o.send(s, &wire.ToWorker{Message: &wire.ToWorker_Work{Work: s.work}})
}
