package core

// span is entries [from, to) of a grant. Those that are no longer queued are holes.
type span struct {
	g        *grant
	from, to int
}

// queue is the leases that wait for a slot, first come first served.
type queue struct {
	front []span // what was taken and given back, last first
	back  []span
	head  int // of back
}

func (q *queue) push(s span)      { q.back = append(q.back, s) }
func (q *queue) pushFront(s span) { q.front = append(q.front, s) }

// take removes a run of at most n queued entries of one grant from the front. n is asked for once the grant is known.
func (q *queue) take(n func(*grant) int) (span, bool) {
	for {
		s, ok := q.peek()
		if !ok {
			return span{}, false
		}
		for s.from < s.to && s.g.state[s.from] != queued {
			s.from++
		}
		if s.from == s.to {
			q.pop()
			continue
		}
		run := span{s.g, s.from, s.from + 1}
		for most := n(s.g); run.to < s.to && run.to-run.from < most && s.g.state[run.to] == queued; {
			run.to++
		}
		s.from = run.to
		return run, true
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

func (q *queue) pop() {
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
