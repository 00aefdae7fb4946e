package httpapitest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
)

// lockEntry is a request for locks, in the order of their acquisition.
type lockEntry struct {
	api.LockRequest

	id    uint64
	user  string
	fence uint64 // 0: it waits
	since time.Time
}

// Lock implements httpapi.Leader. Locks do not expire: see LoseLocks.
func (l *Fake) Lock(ctx context.Context, r *api.LockRequest) (api.LockGrant, error) {
	e, err := l.request(ctx, r)
	if err != nil {
		return api.LockGrant{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, min(time.Duration(r.WaitMillis)*time.Millisecond, api.LockCallMax)) //nolint:gosec // bounded
	defer cancel()
	if err := l.until(waiting, func() (bool, error) { return e.fence > 0, nil }); err == nil {
		return e.grant(), nil
	}
	return l.outcome(e, ctx.Err() == nil && r.WaitMillis > millis(api.LockCallMax))
}

// lockNow is Lock that does not wait: a request that may has its place in the queue.
func (l *Fake) lockNow(ctx context.Context, r *api.LockRequest) (api.LockGrant, error) {
	e, err := l.request(ctx, r)
	if err != nil {
		return api.LockGrant{}, err
	}
	return l.outcome(e, r.WaitMillis > 0)
}

// outcome is that of a call; stays: a request that was not granted keeps its place.
func (l *Fake) outcome(e *lockEntry, stays bool) (api.LockGrant, error) {
	var p *api.Problem
	l.Change(func() {
		if e.fence > 0 { // meanwhile
			return
		}
		p = l.conflictOf(e, stays)
		if !stays {
			l.withdraw(e)
		}
	})
	if p != nil {
		return api.LockGrant{}, p
	}
	return e.grant(), nil
}

// millis is d in milliseconds.
func millis(d time.Duration) uint64 { return uint64(d.Milliseconds()) } //nolint:gosec // not negative

func (e *lockEntry) grant() api.LockGrant {
	return api.LockGrant{Fence: e.fence, ExpiresInMillis: cmp.Or(e.TTLMillis, millis(api.LockTTLDefault))}
}

// request returns the entry of a request, which is new unless the same holder has made it before. A holder has one request for a name.
func (l *Fake) request(ctx context.Context, r *api.LockRequest) (e *lockEntry, err error) {
	if len(r.Names) == 0 || r.Holder == "" {
		return nil, api.Invalid("validation failed").With("body.names", "want a holder and names", nil)
	}
	user, names := access.From(ctx).Name, slices.Clone(r.Names)
	for i := range names {
		names[i].Mode = cmp.Or(names[i].Mode, api.LockExclusive)
	}
	slices.SortFunc(names, func(a, b api.LockName) int { return strings.Compare(a.Name, b.Name) })
	l.Change(func() {
		var own *lockEntry // another request of the holder that conflicts
		for _, other := range l.locks {
			switch {
			case other.user != user || other.Holder != r.Holder:
			case slices.Equal(other.Names, names) && max(other.Max, 1) == max(r.Max, 1), r.Fence > 0 && r.Fence == other.fence:
				e = other
			case slices.ContainsFunc(names, func(n api.LockName) bool {
				return slices.ContainsFunc(other.Names, func(o api.LockName) bool { return n.Name == o.Name || conflicts(n, o) })
			}):
				own = other
			}
		}
		switch {
		case r.Fence > 0 && (e == nil || e.fence != r.Fence):
			p := api.Conflict("the lock %q is lost", r.Names[0].Name)
			p.Lock = &api.LockConflict{Name: r.Names[0].Name, Lost: true}
			err = p
		case e == nil && own != nil:
			err = api.Conflict("holder %q has requested %q already", r.Holder, namesOf(&own.LockRequest))
		case e == nil:
			e = &lockEntry{LockRequest: *r, id: l.Index + 1, user: user, since: time.Now()}
			e.Names = names
			l.locks = append(l.locks, e)
			l.grantLocks()
		}
	})
	return e, err
}

func namesOf(r *api.LockRequest) (names []string) {
	for _, n := range r.Names {
		names = append(names, n.Name)
	}
	return names
}

// Unlock implements httpapi.Leader.
func (l *Fake) Unlock(ctx context.Context, holder string, names []string) error {
	who := access.From(ctx)
	l.Change(func() {
		for _, e := range slices.Clone(l.locks) {
			if e.Holder == holder && who.Owns(e.user) && slices.ContainsFunc(namesOf(&e.LockRequest), func(n string) bool { return slices.Contains(names, n) }) {
				l.withdraw(e)
			}
		}
	})
	return nil
}

// LoseLocks ends all requests, as if none had been renewed.
func (l *Fake) LoseLocks() { l.Change(func() { l.locks = nil }) }

// LockBatch implements httpapi.Leader.
func (l *Fake) LockBatch(ctx context.Context, ops []api.LockOperation) ([]api.LockResult, error) {
	results := make([]api.LockResult, len(ops))
	for i := range ops {
		if r := &ops[i].LockRequest; len(r.Names) == 0 || r.Holder == "" || ops[i].Op != api.LockAcquire && ops[i].Op != api.LockRelease {
			return nil, api.Invalid("validation failed").With("body.operations", "want an operation, a holder and names", nil)
		}
	}
	for i := range ops {
		var err error
		if ops[i].Op == api.LockRelease {
			err = l.Unlock(ctx, ops[i].Holder, namesOf(&ops[i].LockRequest))
		} else {
			results[i].LockGrant, err = l.lockNow(ctx, &ops[i].LockRequest)
		}
		if p, ok := errors.AsType[*api.Problem](err); ok {
			results[i].Problem = p
		}
	}
	return results, nil
}

// Locks implements httpapi.Leader. All locks are shown to everyone, on one page.
func (l *Fake) Locks(_ context.Context, q api.LockQuery) (api.LockList, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var page api.LockList
	for _, e := range l.locks {
		for _, name := range e.Names {
			at, h := cmp.Or(q.Name, name.Name), l.holder(e, name.Mode)
			if at != name.Name {
				if !conflicts(api.LockName{Name: at}, name) {
					continue
				}
				h.Name = name.Name
			}
			i, found := slices.BinarySearchFunc(page.Locks, at, func(lock api.Lock, name string) int { return strings.Compare(lock.Name, name) })
			if !found {
				page.Locks = slices.Insert(page.Locks, i, api.Lock{Name: at})
			}
			if lock := &page.Locks[i]; e.fence > 0 {
				lock.Holders = append(lock.Holders, h)
			} else {
				lock.Waiting = append(lock.Waiting, h)
			}
		}
	}
	return page, nil
}

func (l *Fake) holder(e *lockEntry, mode string) api.LockHolder {
	h := api.LockHolder{ID: e.id, Holder: e.Holder, User: e.user, Mode: cmp.Or(mode, api.LockExclusive), Max: e.Max, Note: e.Note, Fence: e.fence, Since: e.since}
	if h.Place = uint64(len(l.before(e))); e.fence > 0 {
		h.Place, h.ExpiresInMillis = 0, e.grant().ExpiresInMillis
	}
	return h
}

func (l *Fake) withdraw(e *lockEntry) {
	l.locks = slices.DeleteFunc(l.locks, func(other *lockEntry) bool { return other == e })
	l.grantLocks()
}

// grantLocks grants what can be, within Change.
func (l *Fake) grantLocks() {
	for _, e := range l.locks {
		if e.fence == 0 && len(l.before(e)) < int(max(1, e.Max)) {
			l.fence = max(l.fence, l.Index) + 1
			e.fence, e.since = l.fence, time.Now()
		}
	}
}

// before are the earlier requests that conflict with e.
func (l *Fake) before(e *lockEntry) (list []*lockEntry) {
	for _, other := range l.locks {
		if other == e {
			return list
		}
		if slices.ContainsFunc(e.Names, func(n api.LockName) bool {
			return slices.ContainsFunc(other.Names, func(o api.LockName) bool { return conflicts(n, o) })
		}) {
			list = append(list, other)
		}
	}
	return list
}

func conflicts(a, b api.LockName) bool {
	if a.Mode == api.LockShared && b.Mode == api.LockShared {
		return false
	}
	return strings.HasPrefix(a.Name+"/", b.Name+"/") || strings.HasPrefix(b.Name+"/", a.Name+"/")
}

func (l *Fake) conflictOf(e *lockEntry, stays bool) *api.Problem {
	before := l.before(e)
	c := &api.LockConflict{Name: e.Names[0].Name, Place: uint64(len(before)), Waiting: stays}
	for _, other := range before {
		c.Holders = append(c.Holders, l.holder(other, other.Names[0].Mode))
	}
	p := api.Conflict("the lock %q is held by %q; %d requests are before this one", c.Name, c.Holders[0].Holder, c.Place)
	p.Lock = c
	return p
}
