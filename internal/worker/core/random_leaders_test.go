package core

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// randomLeaders is the leaders of a [randomWorld]: one leads, or none; some are down, or stopped and believe things that are
// over; they move.
type randomLeaders struct {
	nodes    []*randomNode
	dialed   *randomNode // nil: nobody listens there
	term     uint64      // the highest in which one leads
	followed uint64      // the highest that the worker has followed
	looks    bool        // the worker can look around; if not, the first node never moves
	looking  bool
	moves    int
	calm     bool // no more faults
}

type randomNode struct {
	address string
	term    uint64 // in which it believes that it leads; 0: it knows that it does not
	down    bool   // refuses connections
	stopped bool   // says nothing
	refuses bool   // does not want this worker
}

func (n *randomNode) sick() bool { return n.down || n.stopped || n.refuses }

func (w *randomWorld) openLeaders() {
	l := &w.leaders
	for range 1 + w.rng.IntN(5) {
		l.nodes = append(l.nodes, &randomNode{})
		w.move(len(l.nodes) - 1)
	}
	l.looks = w.rng.IntN(2) == 0
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

// leading is the address of the leader, as a node that does not lead knows it.
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

// talks says whether there is a session with a leader that is awake.
func (w *randomWorld) talks() bool {
	return w.up && w.leaders.dialed != nil && !w.leaders.dialed.stopped
}

// changeLeaders does something to the leaders.
func (w *randomWorld) changeLeaders() {
	i := w.rng.IntN(len(w.leaders.nodes))
	n := w.leaders.nodes[i]
	what := w.rng.IntN(7)
	if w.leading() == "" {
		what = 0
	}
	if sick := slices.IndexFunc(w.leaders.nodes, (*randomNode).sick); sick >= 0 && w.rng.IntN(3) > 0 {
		s := w.leaders.nodes[sick]
		s.down, s.stopped, s.refuses = false, false, false
	}
	switch what {
	case 0: // an election; those who sleep do not hear of it
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
	case 2: // when it wakes up it goes by what it knew, until it hears of another
		n.stopped = !n.stopped && (n.term > 0 || w.rng.IntN(2) == 0)
	case 3:
		if w.leaders.looks || i > 0 {
			w.stepDown(n)
			if w.leaders.dialed == n {
				w.lose()
			}
			w.move(i)
		}
	case 4:
		n.refuses = !n.refuses && w.rng.IntN(6) == 0
	case 5: // one that was stopped wakes up with what it knew, just when the worker looks for a leader
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

// session has the node that is dialed answer, or breaks the session.
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

// late has messages of a session that is over come in: nothing of them may be done.
func (w *randomWorld) late() {
	if w.epoch < 2 {
		return
	}
	m := &wire.Work{Jobs: []*wire.Job{jobMessage(1)}, Leases: []*wire.Leases{{Job: 1, FirstLease: 1 << 40, Index: []uint64{1, 2}}}}
	for _, lease := range slices.Sorted(maps.Keys(w.leases)) {
		if l := w.leases[lease]; l.result == "finished" && l.verdict == "" {
			m.Committed = append(m.Committed, lease) // or it would not be told again
			break
		}
	}
	w.step(Received{1 + w.rng.Uint64N(w.epoch-1), &wire.ToWorker{Message: &wire.ToWorker_Work{Work: m}}})
}

func (w *randomWorld) answerLook() {
	if !w.leaders.looking {
		return
	}
	w.leaders.looking = false
	in := Discovered{Leaders: w.addresses()}
	if !w.leaders.calm && w.rng.IntN(2) == 0 {
		in = Discovered{Err: errors.New("no answer")}
	}
	w.step(in)
}

// attach ends all faults but that one node may sleep for ever; the worker must then find the leader in its time.
func (w *randomWorld) attach() {
	l := &w.leaders
	l.calm = true
	asleep := slices.Index(l.nodes, l.dialed)
	if asleep < 1 { // the first must be awake: it may be the one that a worker knows
		asleep = 1 + w.rng.IntN(4)
	}
	for i, n := range l.nodes {
		n.down, n.refuses = false, false
		n.stopped = n.stopped && i == asleep
		if !n.stopped && n.term < l.term {
			w.stepDown(n)
		}
	}
	if awake := l.nodes[0]; w.leading() == "" || asleep < len(l.nodes) && l.nodes[asleep].stopped && l.nodes[asleep].term == l.term {
		l.term++
		awake.term = l.term
	}
	// A minute for a refusal of the last moment, and one for the rest.
	for end := w.now.Add(2 * time.Minute); !w.talks() || l.dialed.term != l.term; {
		if w.now.After(end) {
			w.fatalf("no session two minutes after the last fault: %+v", w.core.search)
		}
		w.session()
		w.answerLook()
		w.tick()
	}
}
