package sim

import (
	"fmt"
	"time"

	"github.com/bridgefour/bridgefour/internal/state"
)

// The part of a node that serves named locks, as node.Lock and node.Unlock do.

// lockCallMax is how long a call waits for a lock.
const lockCallMax = 2 * time.Second

// acquire carries out an operation. It answers with the fencing number, if the lock is held then; with neither that nor a refusal, if it waits, was released, or
// is unknown.
func (l *simLeader) acquire(op state.LockOp, answer func(reply)) {
	if l.controller.Machine().Level() < 2 {
		answer(reply{again: true, leader: l.leaderHint()})
		return
	}
	l.w.asks++
	key := fmt.Sprint("lock/", l.w.asks)
	l.write(key, func(e *state.Entry) { e.Lock(key, op) }, func(r reply) {
		if r.again || r.unknown || len(r.event.Locks) == 0 || op.Release {
			answer(r)
			return
		}
		switch a := r.event.Locks[0]; {
		case a.Err != nil:
			r.refused = true
			answer(r)
		case a.Fence != 0:
			l.granted(a.ID, answer)
		default:
			l.await(a.ID, answer)
		}
	})
}

// granted answers with a lock that the log has granted.
func (l *simLeader) granted(id state.LockID, answer func(reply)) {
	lock, core := l.controller.Machine().Lock(id), l.controller.Core()
	if lock == nil || core == nil || !core.RenewLock(l.now(), id) {
		answer(reply{unknown: true})
		return
	}
	answer(reply{leader: l.addr, fence: lock.Fence})
}

// await waits until a request is granted or gone, or for a time.
func (l *simLeader) await(id state.LockID, answer func(reply)) {
	core := l.controller.Core()
	if core == nil {
		answer(reply{unknown: true})
		return
	}
	core.AwaitLock(id)
	done := false
	end := func() {
		if done {
			return
		}
		done = true
		if l.controller.Core() != core {
			answer(reply{unknown: true})
			return
		}
		core.ReturnLock(l.now(), id)
		if lock := l.controller.Machine().Lock(id); lock != nil && lock.Held() {
			l.granted(id, answer)
			return
		}
		answer(reply{leader: l.addr})
	}
	l.lockCalls[id] = append(l.lockCalls[id], end)
	l.after(lockCallMax, end)
}

// wakeLockCalls ends the calls that wait for requests.
func (l *simLeader) wakeLockCalls(ids []state.LockID) {
	for _, id := range ids {
		calls := l.lockCalls[id]
		delete(l.lockCalls, id)
		for _, end := range calls {
			end()
		}
	}
}

// renew renews a lock. A lock is lost if a node that leads does not have it, once it has all that was committed before.
func (l *simLeader) renew(op state.LockOp, fence uint64, answer func(reply)) {
	if !l.controller.Leading() {
		answer(reply{again: true, leader: l.leaderHint()})
		return
	}
	l.tryRenew(op, fence, answer, func() {
		l.tryRenew(op, fence, answer, func() {
			if !l.controller.Leading() {
				answer(reply{unknown: true})
				return
			}
			answer(reply{leader: l.addr, refused: true})
		})
	})
}

// tryRenew renews a lock, or calls absent after a while if this node does not have it. A renewal counts only if this node leads after it, in the same term.
func (l *simLeader) tryRenew(op state.LockOp, fence uint64, answer func(reply), absent func()) {
	renewed, term := l.renewNow(op, fence), l.controller.Term()
	l.read(0, strongRead, 0, func(r reply) {
		switch s := l.core.Status(); {
		case r.again, renewed && (!s.Leader || s.Term != term):
			answer(reply{unknown: true})
		case renewed:
			answer(reply{leader: l.addr, fence: fence})
		default:
			l.after(0, absent)
		}
	})
}

func (l *simLeader) renewNow(op state.LockOp, fence uint64) bool {
	lock, core := l.controller.Machine().LockedBy(op.User, op.Holder, op.Names), l.controller.Core()
	return lock != nil && lock.Fence == fence && core != nil && (l.w.cfg.Plant == DropRenewal || core.RenewLock(l.now(), lock.ID))
}
