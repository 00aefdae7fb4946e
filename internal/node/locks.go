package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/leader"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/view"
)

// lockCalls are the calls that wait for requests for locks. A channel is closed when its request was granted or has gone.
type lockCalls map[state.LockID][]chan struct{}

func (c lockCalls) wake(ids []state.LockID) {
	for _, id := range ids {
		for _, call := range c[id] {
			close(call)
		}
		delete(c, id)
	}
}

func (c lockCalls) wakeAll() {
	for id := range c {
		c.wake([]state.LockID{id})
	}
}

func (c lockCalls) remove(id state.LockID, call chan struct{}) {
	if c[id] = slices.DeleteFunc(c[id], func(o chan struct{}) bool { return o == call }); len(c[id]) == 0 {
		delete(c, id)
	}
}

// conflictHolders bounds the holders that a refusal names.
const conflictHolders = 10

// lockOp converts a request of a user.
func lockOp(user string, r *api.LockRequest) (state.LockOp, error) {
	op := state.LockOp{
		User: user, Holder: r.Holder, Max: r.Max, TTLMS: cmp.Or(r.TTLMillis, uint64(api.LockTTLDefault.Milliseconds())), NoWait: r.WaitMillis == 0, Note: r.Note,
	}
	var names []state.LockName
	for i, n := range r.Names {
		switch n.Mode {
		case "", api.LockExclusive, api.LockShared:
		default:
			return op, api.Invalid("invalid request for a lock").With(fmt.Sprintf("body.names[%d].mode", i), "want exclusive or shared", n.Mode)
		}
		names = append(names, state.LockName{Name: n.Name, Shared: n.Mode == api.LockShared})
	}
	var bad *state.Rejection
	if op.Names, bad = state.CleanLocks(names); bad == nil {
		bad = op.Check()
	}
	if bad != nil {
		return op, api.Invalid("%s", bad.Message)
	}
	return op, nil
}

// acceptsLocks returns the reason why this node serves no locks now.
func (n *Node) acceptsLocks(ctx context.Context) error {
	if err := n.acceptsWrites(ctx); err != nil {
		return err
	}
	return n.awaitLevel(ctx, "a lock", 2)
}

// Lock acquires names for a holder of the principal in ctx, or renews what the holder has. It waits at most api.LockCallMax. The problem is a 409 with
// its Lock set if the names are not free, or if the lock with r.Fence is lost.
func (n *Node) Lock(ctx context.Context, r *api.LockRequest) (api.LockGrant, error) {
	op, err := lockOp(access.From(ctx).Name, r)
	if err != nil {
		return api.LockGrant{}, err
	}
	if err := n.acceptsLocks(ctx); err != nil {
		return api.LockGrant{}, err
	}
	grant, ok, err := n.renewLock(ctx, &op, r.Fence)
	if err == nil && !ok && r.Fence != 0 { // a node that no longer leads, and does not know it, may lack the grant
		var index uint64
		if index, err = n.ReadIndex(ctx); err == nil {
			err = n.WaitIndex(ctx, index)
		}
		if err == nil {
			grant, ok, err = n.renewLock(ctx, &op, r.Fence)
		}
	}
	switch {
	case ok || err != nil:
		return grant, err
	case r.Fence != 0:
		return grant, n.lockRefused(ctx, &op, 0, api.LockConflict{Lost: true})
	}
	key := newID()
	e, err := n.executeBy(ctx, key, nil, func(e *state.Entry) { e.Lock(key, op) })
	if err != nil {
		return grant, err
	}
	switch answer := e.Locks[0]; {
	case answer.Place > 0:
		var c *api.LockConflict
		if err := n.leading(ctx, func(_ *state.Machine, core *leader.Core) {
			c = view.LockConflictWith(op.Names, answer.Before, answer.Place, core, time.Now())
		}); err != nil {
			return grant, err
		}
		return grant, lockProblem(access.From(ctx), &op, c)
	case answer.Err != nil:
		return grant, problem(answer.Err)
	case answer.Fence != 0:
		return n.granted(ctx, answer.ID)
	default:
		return n.awaitLock(ctx, answer.ID, &op, time.Duration(r.WaitMillis)*time.Millisecond) //nolint:gosec // bounded by the API
	}
}

// renewLock renews what a holder has, if it has it: with the fencing number, if that is not 0. The renewal is in no log entry; but it counts only if a majority
// confirms after it that this node leads, in the same term, so that no other leader can have measured the time from before.
func (n *Node) renewLock(ctx context.Context, op *state.LockOp, fence uint64) (grant api.LockGrant, ok bool, err error) {
	var term uint64
	if err := n.leading(ctx, func(m *state.Machine, core *leader.Core) {
		term = n.loop.controller.Term()
		l := m.LockedBy(op.User, op.Holder, op.Names)
		same := l != nil && l.Held() && (fence == l.Fence || fence == 0 && l.Max == max(op.Max, 1) && slices.Equal(l.Names(), op.Names))
		if ok = same && core.RenewLock(time.Now(), l.ID); ok {
			grant = api.LockGrant{Fence: l.Fence, ExpiresInMillis: l.TTLMS}
		}
	}); err != nil || !ok {
		return grant, false, err
	}
	if _, err := n.cfg.Log.ReadIndex(ctx); err != nil {
		return api.LockGrant{}, false, api.Unavailable("this node cannot tell whether it still leads, and so whether the lock is renewed: send the request again (%v)", err)
	}
	if s := n.cfg.Log.Status(); !s.Leader || s.Term != term { // another leader has answered
		return api.LockGrant{}, false, api.Unavailable("leadership was lost before the lock was renewed: send the request again")
	}
	return grant, true, nil
}

// leading runs f in the goroutine of Run, or returns the reason why this node does not lead.
func (n *Node) leading(ctx context.Context, f func(*state.Machine, *leader.Core)) error {
	leads := false
	if err := n.do(ctx, func() {
		if core := n.loop.controller.Core(); core != nil {
			leads = true
			f(n.loop.controller.Machine(), core)
		}
	}); err != nil {
		return err
	}
	if !leads {
		return n.notLeader()
	}
	return nil
}

// stillLeading is leading after a command was carried out: the error does not say that the request had no effect.
func (n *Node) stillLeading(ctx context.Context, f func(*state.Machine, *leader.Core)) error {
	err := n.leading(ctx, f)
	if p, ok := errors.AsType[*api.Problem](err); ok && p.Type == api.TypeNotLeader {
		return api.Unavailable("the request was carried out, and leadership was lost before its outcome was known here: send it again")
	}
	return err
}

// granted returns the grant of a request that the log has granted.
func (n *Node) granted(ctx context.Context, id state.LockID) (grant api.LockGrant, err error) {
	err = n.stillLeading(ctx, func(m *state.Machine, core *leader.Core) {
		if l := m.Lock(id); l != nil && core.RenewLock(time.Now(), id) {
			grant = api.LockGrant{Fence: l.Fence, ExpiresInMillis: l.TTLMS}
		}
	})
	if err == nil && grant.Fence == 0 {
		err = api.Conflict("the lock was granted, and released or lost since")
	}
	return grant, err
}

// awaitLock waits until a request is granted or gone, or for a time.
func (n *Node) awaitLock(ctx context.Context, id state.LockID, op *state.LockOp, wait time.Duration) (api.LockGrant, error) {
	waiting, cancel := context.WithTimeout(ctx, min(wait, api.LockCallMax))
	defer cancel()
	call := make(chan struct{})
	held := false
	if err := n.stillLeading(ctx, func(m *state.Machine, core *leader.Core) {
		if l := m.Lock(id); l == nil || l.Held() {
			held = l != nil
			close(call)
			return
		}
		core.AwaitLock(id)
		n.loop.lockCalls[id] = append(n.loop.lockCalls[id], call)
	}); err != nil {
		return api.LockGrant{}, err
	}
	over := false
	select {
	case <-call:
	case <-waiting.Done():
		over = true
	case <-n.stopped:
		return api.LockGrant{}, n.stopping()
	}
	there := false
	if err := n.stillLeading(context.WithoutCancel(ctx), func(m *state.Machine, core *leader.Core) {
		n.loop.lockCalls.remove(id, call)
		core.ReturnLock(time.Now(), id)
		l := m.Lock(id)
		there, held = l != nil, l != nil && l.Held()
	}); err != nil {
		return api.LockGrant{}, err
	}
	switch {
	case held:
		return n.granted(ctx, id)
	case !there:
		return api.LockGrant{}, n.lockRefused(ctx, op, 0, api.LockConflict{})
	case ctx.Err() != nil:
		return api.LockGrant{}, context.Cause(ctx)
	case !over || wait > api.LockCallMax: // or there was another term meanwhile
		return api.LockGrant{}, n.lockRefused(ctx, op, id, api.LockConflict{Waiting: true})
	}
	return n.withdrawLock(ctx, id, op)
}

// withdrawLock ends a request whose wait is over, unless it was granted meanwhile.
func (n *Node) withdrawLock(ctx context.Context, id state.LockID, op *state.LockOp) (api.LockGrant, error) {
	key, held := newID(), false
	if _, err := n.executeBy(ctx, key, nil, func(e *state.Entry) { e.Withdraw(key, id) }); err != nil {
		return api.LockGrant{}, err
	}
	if err := n.stillLeading(ctx, func(m *state.Machine, _ *leader.Core) { held = m.Lock(id) != nil }); err != nil {
		return api.LockGrant{}, err
	}
	if held {
		return n.granted(ctx, id)
	}
	return api.LockGrant{}, n.lockRefused(ctx, op, 0, api.LockConflict{})
}

// lockRefused returns the problem of a request whose names are not free, or whose lock is lost. Own is the request, if it waits.
func (n *Node) lockRefused(ctx context.Context, op *state.LockOp, own state.LockID, c api.LockConflict) error {
	if err := n.stillLeading(ctx, func(m *state.Machine, core *leader.Core) {
		found := view.LockConflict(m, op.Names, m.Lock(own), core, time.Now(), conflictHolders)
		c.Name, c.Holders, c.Place = cmp.Or(found.Name, op.Names[0].Name), found.Holders, found.Place
	}); err != nil {
		return err
	}
	return lockProblem(access.From(ctx), op, &c)
}

// lockProblem is the problem of a conflict, without what a principal may not see of the requests of others.
func lockProblem(who access.Principal, op *state.LockOp, c *api.LockConflict) *api.Problem {
	hideHolders(who, c.Holders)
	text := fmt.Sprintf("%s: not free", op.Names[0].Name)
	switch {
	case c.Lost:
		text = "the lock is lost: it was not renewed in time, or was released"
	case len(c.Holders) > 0:
		h := &c.Holders[0]
		text = fmt.Sprintf("%s: not free: %s %s it", c.Name, holderText(h), verbOf(h))
		if c.Place > 1 {
			text += fmt.Sprintf("; %d requests are before this one", c.Place)
		}
	}
	p := api.Conflict("%s", text)
	p.Lock = c
	return p
}

func holderText(h *api.LockHolder) string {
	switch {
	case h.Ended:
		text, _ := view.EndedHolder(h)
		return fmt.Sprintf("job %d (ended, %s)", h.Job, text)
	case h.Job != 0:
		return fmt.Sprintf("job %d", h.Job)
	case h.Holder == "":
		return fmt.Sprintf("user %s", h.User)
	}
	return h.Holder
}

func verbOf(h *api.LockHolder) string {
	if h.Fence != 0 {
		return "holds"
	}
	return "waits for"
}

// hideHolders leaves out what a principal may not see of the requests of others.
func hideHolders(who access.Principal, list []api.LockHolder) {
	for i := range list {
		if h := &list[i]; !who.Owns(h.User) {
			h.Holder, h.Note, h.Name = "", "", ""
		}
	}
}

// Unlock ends the request of a holder that has these names, one of them is enough, whether it holds them or waits. There may be none. One who may
// operate ends also those of other users, if there is none of their own.
func (n *Node) Unlock(ctx context.Context, holder string, names []string) error {
	who := access.From(ctx)
	r := api.LockRequest{LockTerms: api.LockTerms{Holder: holder}}
	for _, name := range names {
		r.Names = append(r.Names, api.LockName{Name: name})
	}
	op, err := lockOp(who.Name, &r)
	if err != nil {
		return err
	}
	if err := n.acceptsLocks(ctx); err != nil {
		return err
	}
	op.Release = true
	var by *state.Audit
	if who.Permissions&access.Operate != 0 {
		if err := n.leading(ctx, func(m *state.Machine, _ *leader.Core) {
			if l := m.LockAt(who.Name, holder, op.Names, true); l != nil && l.User != who.Name {
				op.User, by = l.User, auditOf(ctx)
			}
		}); err != nil {
			return err
		}
	}
	key := newID()
	_, err = n.executeBy(ctx, key, by, func(e *state.Entry) { e.Lock(key, op) })
	return err
}

// LockBatch carries out operations one after the other, in one entry of the log. One that may wait does so without the call: the result is a problem
// with Lock.Waiting.
func (n *Node) LockBatch(ctx context.Context, list []api.LockOperation) ([]api.LockResult, error) {
	if len(list) == 0 || len(list) > api.LockOperationsMax {
		return nil, api.Invalid("%d operations: want 1 to %d", len(list), api.LockOperationsMax)
	}
	who := access.From(ctx)
	results, at := make([]api.LockResult, len(list)), make([]int, 0, len(list))
	ops := make([]state.LockOp, 0, len(list))
	for i := range list {
		op, err := lockOp(who.Name, &list[i].LockRequest)
		if err == nil && list[i].Op != api.LockAcquire && list[i].Op != api.LockRelease {
			err = api.Invalid("invalid operation").With(fmt.Sprintf("body.operations[%d].op", i), "want acquire or release", list[i].Op)
		}
		if err != nil {
			return nil, err
		}
		op.Release = list[i].Op == api.LockRelease
		ops, at = append(ops, op), append(at, i)
	}
	if err := n.acceptsLocks(ctx); err != nil {
		return nil, err
	}
	key := newID()
	e, err := n.executeBy(ctx, key, nil, func(e *state.Entry) { e.Lock(key, ops...) })
	if err != nil {
		return nil, err
	}
	err = n.stillLeading(ctx, func(m *state.Machine, core *leader.Core) {
		now := time.Now()
		for i, answer := range e.Locks {
			results[at[i]] = lockResult(m, core, now, who, &ops[i], &answer)
		}
	})
	return results, err
}

// lockResult is the result of an operation.
func lockResult(m *state.Machine, core *leader.Core, now time.Time, who access.Principal, op *state.LockOp, answer *state.LockAnswer) (r api.LockResult) {
	switch {
	case answer.Place > 0:
		r.Problem = lockProblem(who, op, view.LockConflictWith(op.Names, answer.Before, answer.Place, core, now))
	case answer.Err != nil:
		r.Problem = api.Conflict("%s", answer.Err.Message)
		if answer.Err.Code == state.OverQuota {
			r.Problem = api.OverQuota("%s", answer.Err.Message)
		}
	case answer.ID == 0: // a release
	case answer.Fence != 0:
		r.Fence = answer.Fence
		if core.RenewLock(now, answer.ID) { // otherwise it was released by a later operation, or its expiry is on its way into the log: no time is left
			r.ExpiresInMillis = op.TTLMS
		}
	case !core.RenewLock(now, answer.ID): // a sign of life, if it is not too late
		r.Problem = api.Unavailable("%s: the request that waited is given up, because it was not sent again in time: send it again", op.Names[0].Name)
	default:
		c := view.LockConflict(m, op.Names, m.Lock(answer.ID), core, now, conflictHolders)
		c.Waiting = true
		r.Problem = lockProblem(who, op, c)
	}
	return r
}

// Locks returns a page of the names that are held or waited for. Only the node that leads knows when they expire.
func (n *Node) Locks(ctx context.Context, q api.LockQuery) (list api.LockList, err error) {
	if q.Limit <= 0 || q.Limit > api.LockListMax {
		q.Limit = api.LockListMax
	}
	names, err := n.lockNames(ctx, q)
	if err != nil {
		return list, err
	}
	if len(names) > q.Limit {
		names = names[:q.Limit]
		list.Next = lockCursor(names[q.Limit-1])
	}
	who := access.From(ctx)
	list.Locks = []api.Lock{}
	err = n.leading(ctx, func(m *state.Machine, core *leader.Core) {
		now := time.Now()
		for _, name := range names {
			at := m.LocksAt(name)
			if q.Name != "" {
				at, _ = m.Conflicts(names, nil, api.LockListMax)
			}
			if l := publicLock(at, core, now, name); visible(who, &l) {
				list.Locks = append(list.Locks, l)
			}
		}
	})
	return list, err
}

// lockCursor is the place of a name in the list.
func lockCursor(n state.LockName) string {
	if n.Data {
		return "d" + n.Name
	}
	return "n" + n.Name
}

// lockNames returns the names that are asked for after the cursor, in their order.
func (n *Node) lockNames(ctx context.Context, q api.LockQuery) (names []state.LockName, err error) {
	if q.Name != "" {
		names, bad := state.CleanLocks([]state.LockName{{Name: q.Name}})
		if bad != nil {
			return nil, api.Invalid("%s", bad.Message)
		}
		return names, nil
	}
	err = n.leading(ctx, func(m *state.Machine, _ *leader.Core) {
		for l := range m.Locks() {
			names = append(names, l.Names()...)
		}
	})
	for i := range names {
		names[i].Shared = false
	}
	slices.SortFunc(names, func(a, b state.LockName) int { return strings.Compare(lockCursor(a), lockCursor(b)) })
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(n state.LockName) bool { return lockCursor(n) <= q.Cursor }), err
}

// publicLock is the public form of a name and of requests that have it, or one above or below it.
func publicLock(requests []*state.Lock, core *leader.Core, now time.Time, name state.LockName) api.Lock {
	out := api.Lock{Name: name.Name, Data: name.Data}
	for _, l := range requests {
		h := view.LockHolderAt(l, &name, core, now)
		if l.Held() {
			out.Holders = append(out.Holders, h)
		} else {
			out.Waiting = append(out.Waiting, h)
		}
	}
	return out
}

// visible leaves out what a principal may not see of a lock, and reports whether anything is left. The inputs of the jobs of others are not
// shown; their outputs are.
func visible(who access.Principal, l *api.Lock) bool {
	input := func(h api.LockHolder) bool { return l.Data && h.Mode == api.LockShared && !who.Owns(h.User) }
	l.Holders, l.Waiting = slices.DeleteFunc(l.Holders, input), slices.DeleteFunc(l.Waiting, input)
	hideHolders(who, l.Holders)
	hideHolders(who, l.Waiting)
	return len(l.Holders)+len(l.Waiting) > 0
}
