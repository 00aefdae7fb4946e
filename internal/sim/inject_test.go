package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/replica/core"
	"github.com/bridgefour/bridgefour/internal/state"
)

func (u *undo) end() {
	if !u.done {
		u.done = true
		u.do()
	}
}

// until ends a fault after a while, at the latest when all faults end.
func (w *World) until(after time.Duration, do func()) {
	u := &undo{do: do}
	w.lasting = append(w.lasting, u)
	w.after(after, u.end)
}

// inject starts a fault.
func (w *World) inject(f Fault) {
	w.stats.Faults++
	w.trace("fault", uint64(f.Kind), uint64(f.Who), uint64(f.Other), uint64(f.For), uint64(f.Size))
	if w.verbose != nil {
		_, _ = fmt.Fprintf(w.verbose, "%v\n", f)
	}
	k := &faultTable[f.Kind]
	if k.onWorker != nil {
		k.onWorker(w.workers[f.Who%len(w.workers)], f)
		return
	}
	all := w.members()
	l := all[f.Who%len(all)]
	if k.cut != nil {
		w.cut(f.For, k.cut(f, l.addr, all[f.Other%len(all)].addr))
		return
	}
	k.onLeader(l, f)
}

// during counts a fault while it lasts: several of a kind may overlap.
func (w *World) during(lasts time.Duration, count *int) {
	*count++
	w.until(lasts, func() { *count-- })
}

func (l *simLeader) revive() {
	if !l.up && !l.gone {
		l.boot()
	}
}

func (s *simWorker) revive() {
	if !s.up {
		s.boot()
	}
}

func (w *World) powerLoss(down time.Duration) {
	for _, l := range w.order {
		l.kill(true)
		w.until(down+between(l.rng, 0, time.Second), l.revive)
	}
	for _, s := range w.workers {
		s.kill(true)
		w.until(down+between(s.rng, 0, time.Second), s.revive)
	}
}

// restart has a leader transfer its leadership before it ends.
func (w *World) restart(l *simLeader, down time.Duration) {
	const timeout = 2 * time.Second
	life := l.life
	end := func() {
		if l.life == life && w.now < w.cfg.Span {
			l.kill(false)
		}
	}
	l.exec(func() {
		l.after(timeout, end)
		// Without a successor it ends nevertheless.
		l.ask(func(ref core.Ref) core.Input { return core.Transfer{Ref: ref} }, func(core.Answer) { l.after(0, end) })
	})
	w.until(down+timeout, l.revive)
}

func anyone(addr) bool { return true }

func is(a addr) func(addr) bool { return func(b addr) bool { return a == b } }

func (w *World) cut(lasts time.Duration, c *cut) {
	w.net.cuts = append(w.net.cuts, c)
	w.until(lasts, func() { w.net.cuts = slices.DeleteFunc(w.net.cuts, func(x *cut) bool { return x == c }) })
}

func (w *World) badNetwork(f Fault, a addr) {
	touches := anyone
	if f.Size%2 == 0 {
		touches = is(a)
	}
	bad := &disturbance{
		touches: touches, delay: time.Duration(f.Size) * time.Millisecond / 4, lose: f.Size / 2, repeat: f.Size,
	}
	w.net.disturbances = append(w.net.disturbances, bad)
	w.until(f.For, func() {
		w.net.disturbances = slices.DeleteFunc(w.net.disturbances, func(x *disturbance) bool { return x == bad })
	})
}

// diskRoom inputs to the leader whether its disk has room.
func (l *simLeader) diskRoom() {
	l.full = l.disk.full > 0
	room := core.DiskRoom{}
	if l.full {
		room.Full = errFull
	}
	l.drive(room)
	l.propose()
}

// setWorker has a user drain a worker, or remove it. It reports false if no leader can be asked.
func (w *World) setWorker(s *simWorker, status state.WorkerStatus) bool {
	id := state.WorkerID(s.id)
	for _, l := range w.members() {
		if id != 0 && l.up && l.paused == 0 && l.controller.Leading() {
			return l.handle(leader.Command{Key: "user", Add: func(e *state.Entry) { e.SetWorker("user", id, status) }})
		}
	}
	return false
}

// replace removes a leader's machine for good, and adds a new one with another id.
func (w *World) replace(l *simLeader) {
	if w.replacing || w.moved != nil || !w.whole() {
		return // no user would do that now
	}
	w.replacing, w.replaced = true, true
	l.kill(true)
	l.gone = true
	id := uint64(l.addr)
	w.change(core.Change{Op: core.OpRemove, Member: core.Member{ID: id}}, func(core.Member) {
		next := addr(1)
		for _, m := range w.order {
			next = max(next, m.addr+1)
		}
		member := core.Member{ID: uint64(next), Address: addressOf(next, firstPort), Directory: dirOf(next)}
		w.change(core.Change{Op: core.OpAdd, Member: member}, func(m core.Member) {
			w.addLeader(addr(m.ID), core.NewMember(clusterID)).boot()
			w.replacing = false
		})
	})
}

// move restarts a leader at another address.
func (w *World) move(l *simLeader, down time.Duration) {
	if w.replaced || w.moved != nil && w.moved != l || !w.whole() {
		return // a moved leader must find the others at the addresses on its disk
	}
	w.moved = l
	l.kill(false)
	l.port++
	w.until(down, l.revive)
}

// whole reports whether all leaders are up, have a vote, and are known to all by their addresses: a user checks that before one is
// replaced or moved.
func (w *World) whole() bool {
	all := w.members()
	return !slices.ContainsFunc(all, func(l *simLeader) bool {
		return !l.up || len(l.core.Members().List) != len(all) || slices.ContainsFunc(all, func(other *simLeader) bool {
			m, known := l.core.Members().Get(uint64(other.addr))
			return !known || !m.Voter || m.Address != other.address()
		})
	})
}

// change changes the members, with retries until a leader has done it.
func (w *World) change(c core.Change, then func(core.Member)) {
	open := true
	for _, l := range w.order {
		if !l.up || l.paused > 0 || !l.core.Status().Leader {
			continue
		}
		l.ask(func(ref core.Ref) core.Input { return core.ChangeMembers{Ref: ref, Change: c} }, func(a core.Answer) {
			switch {
			case a.Err != nil:
				w.trace("no change", uint64(l.addr))
			case open:
				open = false
				then(a.Member)
			}
		})
		break
	}
	w.after(200*time.Millisecond, func() {
		if open {
			open = false
			w.change(c, then)
		}
	})
}
