package sim

import (
	"errors"

	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/node"
	"github.com/bridgefour/bridgefour/internal/wire"
	worker "github.com/bridgefour/bridgefour/internal/worker/core"
)

// session is the leader's side of a worker's stream.
type session struct {
	leader *simLeader
	worker *simWorker
	hello  *wire.Hello
	id     leader.SessionID
	end    *end
	open   bool
}

// endOfSession is the status with which a leader ends a session.
type endOfSession struct {
	refused bool
	reason  string
}

func (g endOfSession) err(leader string) error {
	if g.refused {
		return &worker.RefusedError{Leader: leader, Reason: g.reason}
	}
	return errors.New(g.reason)
}

// accept accepts a worker's connection.
func (l *simLeader) accept(e *end, hello *wire.Hello) {
	from := l.w.workers[int(e.peer().proc.addr-firstWorker)]
	if err := node.CheckHello(access.Principal{Role: access.RoleWorker, Name: from.identity}, hello); err != nil {
		e.recv, e.broken = func(any) {}, func() {}
		e.send(endOfSession{reason: err.Error()})
		e.close()
		return
	}
	if !l.controller.Leading() {
		there := &wire.Elsewhere{Leaders: l.memberAddresses()}
		if l.leaderID != 0 && l.leaderID != uint64(l.addr) {
			there.Leader = l.addressOfMember(l.leaderID)
		}
		e.recv, e.broken = func(any) {}, func() {}
		e.send(&wire.ToWorker{Message: &wire.ToWorker_Elsewhere{Elsewhere: there}})
		e.send(endOfSession{reason: "this node does not lead"})
		e.close()
		return
	}
	l.w.sessions++
	s := &session{leader: l, worker: from, hello: hello, id: leader.SessionID(l.w.sessions), end: e, open: true}
	l.sessions[s.id] = s
	e.recv = func(m any) {
		if !s.open {
			return
		}
		in, err := node.SessionInput(s.id, m.(*wire.FromWorker))
		if err != nil {
			l.closeSession(s, endOfSession{reason: err.Error()})
			l.handle(leader.Closed{Session: s.id})
			return
		}
		if r, ok := in.(leader.Report); ok {
			l.w.trace("report", uint64(from.number), uint64(s.id))
			l.w.oracle.heard(s, r.Report)
		}
		l.handle(in)
	}
	e.broken = func() {
		if s.open {
			l.w.trace("closed", uint64(from.number), uint64(s.id))
			l.forget(s)
			l.handle(leader.Closed{Session: s.id})
		}
	}
	l.w.trace("hello", uint64(from.number), uint64(s.id))
	l.handle(leader.Hello{Session: s.id, Hello: hello})
}

func (l *simLeader) memberAddresses() []string {
	var list []string
	for _, m := range l.core.Members().List {
		list = append(list, l.addressOfMember(m.ID))
	}
	return list
}

func (l *simLeader) address() string { return addressOf(l.addr, l.port) }

// addressOfMember returns the address of another leader that this one knows: a leader that has moved announces its new one.
func (l *simLeader) addressOfMember(id uint64) string {
	if said, ok := l.book[id]; ok {
		return said
	}
	m, _ := l.core.Members().Get(id)
	return m.Address
}

func (l *simLeader) forget(s *session) {
	s.open = false
	delete(l.sessions, s.id)
}

func (l *simLeader) closeSession(s *session, why endOfSession) {
	if !s.open {
		return
	}
	l.forget(s)
	s.end.send(why)
	s.end.close()
}

// send sends a worker a message.
func (l *simLeader) send(id leader.SessionID, m *wire.ToWorker) {
	s := l.sessions[id]
	if s == nil {
		return
	}
	for _, g := range m.GetWork().GetLeases() {
		l.w.oracle.granted(l.term, s, g)
	}
	s.end.send(m)
}
