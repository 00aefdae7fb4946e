package core

// span is entries [from, to) of a grant. Those that are no longer queued are skipped.
type span struct {
	g        *grant
	from, to int
}

// queue is the leases that wait for a slot, first in first out.
type queue struct {
	front []span // popped and pushed back, last first
	back  []span
	head  int // of back
}

func (q *queue) push(s span)      { q.back = append(q.back, s) }
func (q *queue) pushFront(s span) { q.front = append(q.front, s) }

// pop removes a run of queued entries of one grant from the front, at most n(grant) of them. It removes none if n is 0.
func (q *queue) pop(n func(*grant) int) (span, bool) {
	for {
		s, ok := q.peek()
		if !ok {
			return span{}, false
		}
		for s.from < s.to && s.g.state[s.from] != queued {
			s.from++
		}
		if s.from == s.to {
			q.popSpan()
			continue
		}
		run := span{s.g, s.from, s.from}
		for most := n(s.g); run.to < s.to && run.to-run.from < most && s.g.state[run.to] == queued; {
			run.to++
		}
		s.from = run.to
		return run, run.from < run.to
	}
}

func (q *queue) peek() (*span, bool) {
	if n := len(q.front); n > 0 {
		return &q.front[n-1], true
	}
	if q.head < len(q.back) {
		return &q.back[q.head], true
	}
	return nil, false
}

func (q *queue) popSpan() {
	if n := len(q.front); n > 0 {
		q.front[n-1] = span{}
		q.front = q.front[:n-1]
		return
	}
	q.back[q.head] = span{}
	q.head++
	if q.head*2 > len(q.back) {
		n := copy(q.back, q.back[q.head:])
		clear(q.back[n:])
		q.back, q.head = q.back[:n], 0
	}
}
