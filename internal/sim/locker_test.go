package sim

import (
	"fmt"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// locker is a client that holds locks: it acquires some, renews them for a while, and releases them, or vanishes. A vanished one does not renew its locks, and
// what it has started goes on until its time is over by its clock, as the command of 'bridgefour lock' does whose process was killed.
type locker struct {
	caller

	number int
	holds  int // counts its holds: each is of a holder of its own
	idle   bool
}

// hold is one request of a locker, from its first call until it is released or its time is over.
type hold struct {
	by    *locker
	op    state.LockOp
	ttl   time.Duration
	fence uint64        // 0: it is not granted yet
	first time.Duration // when it has begun
	sent  time.Duration // when the last call was sent that was answered with the lock
	until time.Duration // until when the holder may act, by its clock, at a time of the world
	end   time.Duration // when it is released; 0: it vanishes before
	over  bool          // the holder does not act any more
}

// marginOf is how long before the end of a lock its holder stops, as in 'bridgefour lock': clocks do not run at one rate.
func marginOf(ttl time.Duration) time.Duration { return min(time.Second, ttl/10) }

// drawLockers draws the number of lockers of a world: half of them have none.
func drawLockers(seed uint64) int {
	rng := stream(seed, "lockers", 0)
	return rng.IntN(2) * (2 + rng.IntN(4))
}

// addLockers adds the lockers.
func (w *World) addLockers() {
	for i := range w.cfg.Lockers {
		k := &locker{number: i, caller: caller{rng: stream(w.cfg.Seed, "locker", uint64(i))}}
		k.process = process{w: w, addr: firstLocker + addr(i), drift: k.rng.Int64N(20_000) - 10_000}
		w.lockers = append(w.lockers, k)
	}
}

// live starts the locker.
func (k *locker) live() {
	k.start()
	k.rest()
}

func (k *locker) rest() { k.after(between(k.rng, 0, thinkMax), k.next) }

// next requests locks.
func (k *locker) next() {
	if k.w.now > k.w.cfg.Span {
		k.idle = true
		return
	}
	k.holds++
	names := []string{"m", "m/x", "n", "n/y/z"}
	h := &hold{by: k, ttl: []time.Duration{time.Second, time.Second, 2 * time.Second, 5 * time.Second}[k.rng.IntN(4)]}
	h.op = state.LockOp{
		User: "ann", Holder: fmt.Sprint("locker ", k.number, "/", k.holds), TTLMS: uint64(h.ttl.Milliseconds()), NoWait: oneIn(k.rng, 4),
		Names: []state.LockName{{Name: names[k.rng.IntN(2)], Shared: oneIn(k.rng, 3)}},
	}
	if oneIn(k.rng, 3) {
		h.op.Names = append(h.op.Names, state.LockName{Name: names[2+k.rng.IntN(2)], Shared: oneIn(k.rng, 3)})
	}
	h.acquire()
}

// acquire repeats a request until it is granted or refused.
func (h *hold) acquire() {
	k := h.by
	sent := k.w.now
	k.ask(k.target(), func(l *simLeader, answer func(reply)) { l.acquire(h.op, answer) }, func(r reply) {
		k.redirect(r)
		switch {
		case r.fence > 0:
			h.fence, h.end = r.fence, k.w.now+between(k.rng, 0, 3*h.ttl)
			if oneIn(k.rng, 4) {
				h.end = 0
			}
			h.extend(sent)
			h.keep()
		case r.refused && h.op.NoWait:
			k.rest()
		case r.refused:
			k.w.fail("the request of %s for %v may wait, and is refused", h.op.Holder, h.op.Names)
		default: // it waits, or its outcome is unknown: to ask again is a sign of life
			k.after(between(k.rng, 10*time.Millisecond, h.ttl/4), h.acquire)
		}
	})
}

// extend lets the holder act for the time to live after a call was sent, unless its time is over.
func (h *hold) extend(sent time.Duration) {
	k := h.by
	until := sent + k.world(h.ttl-marginOf(h.ttl))
	switch {
	case k.w.now >= until || h.over: // it is too late
		h.over = true
		return
	case h.first == 0:
		h.first = k.w.now
		k.w.stats.Holds++
		k.w.oracle.holds = append(k.w.oracle.holds, h)
	}
	h.sent, h.until = sent, max(h.until, until)
	k.w.oracle.held(h)
}

// acts reports whether the holder may act now.
func (h *hold) acts() bool { return !h.over && h.by.w.now < h.until }

// keep renews the lock until its end.
func (h *hold) keep() {
	k := h.by
	switch {
	case h.end == 0 && oneIn(k.rng, 2):
		k.after(h.until-k.w.now+k.world(2*h.ttl), k.next) // nothing is sent any more; see acts
		return
	case !h.acts(), h.end > 0 && k.w.now >= h.end:
		h.over = true
		h.release()
		return
	}
	sent := k.w.now
	k.ask(k.target(), func(l *simLeader, answer func(reply)) { l.renew(h.op, h.fence, answer) }, func(r reply) {
		k.redirect(r)
		switch {
		case r.fence > 0:
			h.extend(sent)
		case r.refused:
			k.w.oracle.toldLost(h)
			h.over = true
			k.rest()
			return
		}
		k.after(between(k.rng, 0, h.ttl/3), h.keep)
	})
}

// release repeats a release until it is answered.
func (h *hold) release() {
	k := h.by
	op := state.LockOp{Release: true, User: h.op.User, Holder: h.op.Holder, Names: h.op.Names}
	k.ask(k.target(), func(l *simLeader, answer func(reply)) { l.acquire(op, answer) }, func(r reply) {
		if k.redirect(r); r.again || r.unknown {
			k.after(between(k.rng, 20*time.Millisecond, 500*time.Millisecond), h.release)
			return
		}
		k.rest()
	})
}
