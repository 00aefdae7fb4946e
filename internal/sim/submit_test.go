package sim

import (
	"fmt"
	"strings"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
)

// longLines returns an input of so many lines, 4 at least, in several blocks.
func longLines(n int) state.Input {
	const bytes = 200 << 10
	lines := state.NewLines()
	for i := range n {
		lines.AddLine(fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", bytes/n)))
	}
	input, err := lines.Input()
	if err != nil {
		panic(err)
	}
	return input
}

// submit adds a job to the log. An input of several blocks is staged, each block in an entry of its own, under a uid of its own: another
// try may be under way.
func (l *simLeader) submit(p *jobPlan, answer func(reply)) {
	blocks := p.spec.Input.Blocks
	if p.packed > 0 && l.controller.Machine().Level() < 2 {
		answer(reply{again: true, leader: l.leaderHint()})
		return
	}
	if len(blocks) < 2 || l.controller.Machine().Level() < 2 {
		l.write(p.key, func(e *state.Entry) { e.Submit(p.key, p.uid, p.spec.User, p.spec) }, answer)
		return
	}
	l.w.asks++
	uid := fmt.Sprint(p.uid, "-", l.w.asks)
	l.w.plans[uid] = p
	var stage func(n int)
	then := func(n int) func(reply) {
		return func(r reply) {
			switch failed := r.again || r.unknown || r.event.Err != nil; {
			case failed:
				l.handle(leader.Command{Key: "unstage/" + uid, Add: func(e *state.Entry) { e.Unstage("unstage/"+uid, uid) }})
				r.again, r.event = !r.unknown, state.Event{}
				answer(r)
			case n > len(blocks):
				answer(r)
			default:
				stage(n)
			}
		}
	}
	stage = func(n int) {
		if n == len(blocks) {
			sum := p.spec.RequestSum(p.spec.User)
			l.write(p.key, func(e *state.Entry) { e.SubmitStaged(p.key, uid, sum, p.spec) }, then(n+1))
			return
		}
		key := fmt.Sprint("stage/", uid, "/", n)
		l.write(key, func(e *state.Entry) { e.Stage(key, uid, n, blocks[n:n+1]) }, then(n+1))
	}
	stage(0)
}

// largeKey begins the keys of large requests.
const largeKey = "large/"

// largeRequest has a client submit a job that no entry can hold. It must be refused, and nothing else may be.
func (l *simLeader) largeRequest() {
	l.w.asks++
	key := fmt.Sprint(largeKey, l.w.asks)
	spec := &state.Spec{Output: "/" + key, Settings: map[string]string{"x": strings.Repeat("x", leader.EntryBytesMax)}}
	spec.Input, _ = state.RangeInput(1, 1)
	add := func(e *state.Entry) { e.Submit(key, key, "", spec) }
	if l.w.cfg.Plant == LargeEntry && l.leading {
		e := state.NewEntry(0, 0)
		add(e)
		l.proposals = append(l.proposals, e.Data())
		l.propose()
		return
	}
	l.write(key, add, func(r reply) {
		if !r.again && !r.unknown && r.event.Err == nil {
			l.w.fail("leader %d has accepted a submit of more than %d bytes", l.addr, leader.EntryBytesMax)
		}
	})
}
