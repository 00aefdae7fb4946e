package core

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// randomLeaders is the leaders of a [randomWorld]: at most one leads; some are down, or stopped with an old state; they move.
type randomLeaders struct {
	nodes       []*randomNode
	dialed      *randomNode // nil: no listener
	term        uint64      // the highest of a leader
	followed    uint64      // the highest that the worker has followed
	discovers   bool        // the worker can; if not, the first node never moves
	discovering bool
	moves       int
	calm        bool // no more faults
}

type randomNode struct {
	address string
	term    uint64 // in which it leads, or did when it was stopped; 0: it follows
	down    bool   // refuses connections
	stopped bool   // sends nothing
	refuses bool   // this worker
}

func (n *randomNode) faulty() bool { return n.down || n.stopped || n.refuses }

func (w *randomWorld) openLeaders() {
	l := &w.leaders
	for range 1 + w.rng.IntN(5) {
		l.nodes = append(l.nodes, &randomNode{})
		w.move(len(l.nodes) - 1)
	}
	l.discovers = w.rng.IntN(2) == 0
	l.term = 1
	l.nodes[0].term = 1
}

func (w *randomWorld) move(i int) {
	w.leaders.moves++
	w.leaders.nodes[i].address = fmt.Sprintf("n%d:%d", i, w.leaders.moves)
}

func (w *randomWorld) addresses() []string {
	var list []string
	for _, n := range w.leaders.nodes {
		list = append(list, n.address)
	}
	return list
}

// leading is the address of the leader that followers know.
func (w *randomWorld) leading() string {
	for _, n := range w.leaders.nodes {
		if n.term == w.leaders.term {
			return n.address
		}
	}
	return ""
}

func (w *randomWorld) dials(address string) {
	w.leaders.dialed = nil
	for _, n := range w.leaders.nodes {
		if n.address == address {
			w.leaders.dialed = n
		}
	}
}

// talks reports whether there is a session with a running leader.
func (w *randomWorld) talks() bool {
	return w.up && w.leaders.dialed != nil && !w.leaders.dialed.stopped
}

// changeLeaders changes one of the leaders.
func (w *randomWorld) changeLeaders() {
	i := w.rng.IntN(len(w.leaders.nodes))
	n := w.leaders.nodes[i]
	what := w.rng.IntN(7)
	if w.leading() == "" {
		what = 0
	}
	if faulty := slices.IndexFunc(w.leaders.nodes, (*randomNode).faulty); faulty >= 0 && w.rng.IntN(3) > 0 {
		s := w.leaders.nodes[faulty]
		s.down, s.stopped, s.refuses = false, false, false
	}
	switch what {
	case 0: // an election, without the stopped nodes
		if n.down || n.stopped {
			return
		}
		for _, other := range w.leaders.nodes {
			if !other.stopped {
				w.stepDown(other)
			}
		}
		w.leaders.term += 1 + w.rng.Uint64N(2)
		n.term = w.leaders.term
	case 1:
		n.down = !n.down && w.rng.IntN(3) == 0
		w.stepDown(n)
		if w.leaders.dialed == n {
			w.lose()
		}
	case 2: // it resumes with the state it had
		n.stopped = !n.stopped && (n.term > 0 || w.rng.IntN(2) == 0)
	case 3:
		if w.leaders.discovers || i > 0 {
			w.stepDown(n)
			if w.leaders.dialed == n {
				w.lose()
			}
			w.move(i)
		}
	case 4:
		n.refuses = !n.refuses && w.rng.IntN(6) == 0
	case 5: // an old leader resumes just when the worker searches
		for _, old := range w.leaders.nodes {
			if old.stopped && old.term > 0 && old.term < w.leaders.term {
				old.stopped = false
				w.lose()
				return
			}
		}
	case 6:
		if w.talks() {
			w.step(Received{w.epoch, &wire.ToWorker{Message: &wire.ToWorker_Leaders{Leaders: &wire.Leaders{Addresses: w.addresses()}}}})
		}
	}
}

func (w *randomWorld) stepDown(n *randomNode) {
	n.term = 0
	if w.talks() && w.leaders.dialed == n {
		w.elsewhere()
	}
}

func (w *randomWorld) elsewhere() {
	m := &wire.Elsewhere{Leader: w.leading()}
	if w.rng.IntN(2) == 0 {
		m.Leaders = w.addresses()
	}
	w.up = false
	w.step(Received{w.epoch, &wire.ToWorker{Message: &wire.ToWorker_Elsewhere{Elsewhere: m}}})
}

func (w *randomWorld) lose() {
	if w.up || w.core.session.phase == sessionDialing {
		w.up = false
		w.step(SessionEnded{Epoch: w.epoch, Err: errors.New("lost")})
	}
}

// session makes the dialed node answer, or breaks the session.
func (w *randomWorld) session() {
	n := w.leaders.dialed
	switch {
	case w.up:
		if !w.leaders.calm && w.rng.IntN(60) == 0 {
			w.lose()
		}
	case w.core.session.phase != sessionDialing:
	case n == nil || n.down:
		w.lose()
	case n.stopped:
	case n.term == 0:
		w.elsewhere()
	case n.refuses:
		w.step(SessionEnded{Epoch: w.epoch, Err: &RefusedError{n.address, "not you"}, Refused: true})
	case n.term < w.leaders.followed:
		w.step(Received{w.epoch, &wire.ToWorker{Message: &wire.ToWorker_Welcome{Welcome: w.welcomeOf(n)}}})
		if w.core.session.phase == sessionUp {
			w.fatalf("follows %s of term %d after one of term %d", n.address, n.term, w.leaders.followed)
		}
	default:
		w.leaders.followed = n.term
		w.welcome()
	}
}

func (w *randomWorld) welcomeOf(n *randomNode) *wire.Welcome {
	m := &wire.Welcome{Worker: 1, Term: n.term, HeartbeatMs: 200, SilenceMs: 1000, ClusterId: "id"}
	if w.rng.IntN(4) > 0 {
		m.Leaders = w.addresses()
	}
	return m
}

// late delivers a message of an ended session: it must be ignored.
func (w *randomWorld) late() {
	if w.epoch < 2 {
		return
	}
	m := &wire.Work{Jobs: []*wire.Job{jobMessage(1)}, Leases: []*wire.Leases{{Job: 1, FirstLease: 1 << 40, Index: []uint64{1, 2}}}}
	for _, lease := range slices.Sorted(maps.Keys(w.leases)) {
		if l := w.leases[lease]; l.result == "finished" && l.verdict == "" {
			m.Committed = append(m.Committed, lease) // else it would not be reported again
			break
		}
	}
	w.step(Received{1 + w.rng.Uint64N(w.epoch-1), &wire.ToWorker{Message: &wire.ToWorker_Work{Work: m}}})
}

func (w *randomWorld) discovered() {
	if !w.leaders.discovering {
		return
	}
	w.leaders.discovering = false
	in := Discovered{Leaders: w.addresses()}
	if !w.leaders.calm && w.rng.IntN(2) == 0 {
		in = Discovered{Err: errors.New("answer timed out")}
	}
	w.step(in)
}

// attach ends all faults, except that one node may stay stopped; the worker must then find the leader in time.
func (w *randomWorld) attach() {
	l := &w.leaders
	l.calm = true
	stopped := slices.Index(l.nodes, l.dialed)
	if stopped < 1 { // the first must run: it may be the only known one
		stopped = 1 + w.rng.IntN(4)
	}
	for i, n := range l.nodes {
		n.down, n.refuses = false, false
		n.stopped = n.stopped && i == stopped
		if !n.stopped && n.term < l.term {
			w.stepDown(n)
		}
	}
	if first := l.nodes[0]; w.leading() == "" || stopped < len(l.nodes) && l.nodes[stopped].stopped && l.nodes[stopped].term == l.term {
		l.term++
		first.term = l.term
	}
	// One minute for a late refusal, and one for the rest.
	for end := w.now.Add(2 * time.Minute); !w.talks() || l.dialed.term != l.term; {
		if w.now.After(end) {
			w.fatalf("no session two minutes after the last fault: %+v", w.core.search)
		}
		w.session()
		w.discovered()
		w.tick()
	}
}
