package sim

import "time"

// agenda is the queue of events, by time. Events of the same time run in the order in which they were added.
type agenda struct {
	heap []event
	last uint64
}

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

func (a *agenda) add(at time.Duration, do func()) {
	a.last++
	a.heap = append(a.heap, event{at, a.last, do})
	for i := len(a.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !a.less(i, up) {
			return
		}
		a.heap[i], a.heap[up] = a.heap[up], a.heap[i]
		i = up
	}
}

// next removes and returns the first event; ok is false if there is none before end.
func (a *agenda) next(end time.Duration) (e event, ok bool) {
	if len(a.heap) == 0 || a.heap[0].at > end {
		return event{}, false
	}
	e = a.heap[0]
	last := len(a.heap) - 1
	a.heap[0] = a.heap[last]
	a.heap[last] = event{}
	a.heap = a.heap[:last]
	for i := 0; ; {
		least := i
		for _, k := range [...]int{2*i + 1, 2*i + 2} {
			if k < last && a.less(k, least) {
				least = k
			}
		}
		if least == i {
			return e, true
		}
		a.heap[i], a.heap[least] = a.heap[least], a.heap[i]
		i = least
	}
}

func (a *agenda) less(i, j int) bool {
	x, y := &a.heap[i], &a.heap[j]
	return x.at < y.at || x.at == y.at && x.seq < y.seq
}
