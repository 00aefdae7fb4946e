package leadertest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
)

// wantLock is an exclusive request.
func wantLock(holder string, wait time.Duration, names ...string) *api.LockRequest {
	r := &api.LockRequest{LockTerms: api.LockTerms{Holder: holder, WaitMillis: uint64(wait.Milliseconds())}} //nolint:gosec // of a test
	for _, name := range names {
		r.Names = append(r.Names, api.LockName{Name: name, Mode: api.LockExclusive})
	}
	return r
}

// held acquires a lock that is free.
func (s *suite) held(r *api.LockRequest) api.LockGrant {
	s.Helper()
	grant, err := s.leader.Lock(s.Context(), r)
	if err != nil || grant.Fence == 0 || grant.ExpiresInMillis == 0 || grant.ExpiresInMillis > uint64(api.LockTTLDefault.Milliseconds()) {
		s.Fatalf("Lock(%s) = %+v, %v; want a grant of up to 30 s", r.Holder, grant, err)
	}
	return grant
}

// locked checks that a request is refused.
func (s *suite) locked(r *api.LockRequest, placeWant uint64, holdersWant ...string) {
	s.Helper()
	_, err := s.leader.Lock(s.Context(), r)
	s.fails("Lock() of what is held", err, http.StatusConflict)
	p := &api.Problem{}
	if problem, ok := err.(*api.Problem); ok { //nolint:errorlint // see fails
		p = problem
	}
	if p.Lock == nil {
		s.Fatalf("Lock() = %v, want a conflict", err)
	}
	var holders []string
	for _, h := range p.Lock.Holders {
		holders = append(holders, h.Holder)
	}
	if placeWant > 2 && !strings.Contains(err.Error(), fmt.Sprintf("%d requests are before", placeWant)) {
		s.Errorf("Lock() = %v, want that it names its place", err)
	}
	if p.Lock.Place != placeWant || p.Lock.Waiting || !slices.Equal(holders, holdersWant) {
		s.Errorf("conflict %+v, want place %d behind %q, and that it is gone", p.Lock, placeWant, holdersWant)
	}
}

func (s *suite) locks() {
	first := s.held(wantLock("one", 0, "a/b", "c"))
	if again := s.held(wantLock("one", 0, "a/b", "c")); again.Fence != first.Fence {
		s.Errorf("the same holder got fence %d, then %d", first.Fence, again.Fence)
	}
	renewal := wantLock("one", 0, "a/b", "c")
	renewal.Fence = first.Fence
	s.held(renewal)
	for _, name := range []string{"a", "a/b", "a/b/c", "c"} {
		s.locked(wantLock("two", 0, name), 1, "one")
	}
	s.held(wantLock("beside", 0, "a/bc"))

	for name, nameWant := range map[string]string{"a/b": "", "a": "a/b", "a/b/c": "a/b"} { // what a name conflicts with is listed at it
		page, err := s.leader.Locks(s.Context(), api.LockQuery{Name: name})
		if err != nil || len(page.Locks) != 1 || page.Locks[0].Name != name || page.Locks[0].Holders[0].Holder != "one" || page.Locks[0].Holders[0].Name != nameWant {
			s.Errorf("Locks(%s) = %+v, %v; want the holder of a/b", name, page, err)
		}
	}

	shared := wantLock("reader", 0, "r")
	shared.Names[0].Mode = api.LockShared
	s.held(shared)
	shared.Holder = "reader 2"
	s.held(shared)
	s.locked(wantLock("writer", 0, "r"), 2, "reader", "reader 2")

	if err := s.leader.Unlock(s.Context(), "one", []string{"c"}); err != nil { // one name of several
		s.Errorf("Unlock() = %v", err)
	}
	if err := s.leader.Unlock(s.Context(), "one", []string{"c"}); err != nil {
		s.Errorf("Unlock() of nothing = %v", err)
	}
	_, err := s.leader.Lock(s.Context(), renewal)
	if p, ok := err.(*api.Problem); !ok || p.Lock == nil || !p.Lock.Lost || p.Lock.Name != "a/b" { //nolint:errorlint // it is a problem
		s.Errorf("Lock() with a fence that is over = %v, want that the lock is lost", err)
	}
	if next := s.held(wantLock("two", 0, "a/b")); next.Fence <= first.Fence {
		s.Errorf("fence %d after %d", next.Fence, first.Fence)
	}
	_, err = s.leader.Lock(s.Context(), &api.LockRequest{LockTerms: api.LockTerms{Holder: "none"}})
	s.fails("Lock() of nothing", err, http.StatusUnprocessableEntity)
}

// lockQueue: requests that wait are granted in their order, none overtakes, and one whose call ends is sent again.
func (s *suite) lockQueue() {
	first := s.held(wantLock("first", 0, "x"))
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.leader.Lock(ctx, wantLock("gone", time.Hour, "x")); err == nil {
		s.Error("Lock() of what is held was granted")
	}
	if err := s.leader.Unlock(s.Context(), "gone", []string{"x"}); err != nil {
		s.Error(err)
	}
	fences := make(chan uint64, 2)
	for _, holder := range []string{"second", "third"} {
		go func() {
			grant, err := s.leader.Lock(s.Context(), wantLock(holder, time.Hour, "x"))
			if err != nil {
				s.Errorf("Lock(%s) = %v", holder, err)
			}
			fences <- grant.Fence
		}()
		s.untilLocked("x", holder)
	}
	s.locked(wantLock("fourth", 0, "x"), 3, "first", "second", "third")
	last := first.Fence
	for i, holder := range []string{"first", "second", "third"} {
		if err := s.leader.Unlock(s.Context(), holder, []string{"x"}); err != nil {
			s.Error(err)
		}
		if i == 2 {
			break
		}
		if fence := <-fences; fence <= last {
			s.Errorf("fence %d after %d", fence, last)
		} else {
			last = fence
		}
	}
	page, err := s.leader.Locks(s.Context(), api.LockQuery{Name: "x"})
	if err != nil || len(page.Locks) > 0 {
		s.Errorf("Locks(x) = %+v, %v; want none", page, err)
	}
}

// untilLocked waits until a holder is the last one of a name.
func (s *suite) untilLocked(name, holder string) {
	s.Helper()
	for {
		page, err := s.leader.Locks(s.Context(), api.LockQuery{Name: name})
		if err != nil {
			s.Fatal(err)
		}
		if len(page.Locks) == 1 {
			lock := page.Locks[0]
			if all := slices.Concat(lock.Holders, lock.Waiting); lock.Name == name && all[len(all)-1].Holder == holder {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// lockHolders: a name is in one request of a holder, so its release frees it. The holder does not wait for itself.
func (s *suite) lockHolders() {
	asks := func(names ...string) *api.LockRequest { return wantLock("h", time.Hour, names...) }
	shared, pooled := asks("m", "n"), asks("m", "n")
	shared.Names[0].Mode, pooled.Max = api.LockShared, 2
	s.held(asks("m", "n"))
	for what, r := range map[string]*api.LockRequest{
		"one of its names": asks("n"), "more names": asks("m", "n", "o"), "a name above": asks("o", "m"), "a name below": asks("n/x"), "another mode": shared, "another max": pooled,
	} {
		for _, wait := range []uint64{0, r.WaitMillis} {
			r.WaitMillis = wait
			_, err := s.leader.Lock(s.Context(), r)
			s.fails("Lock() of a holder that has a request, for "+what, err, http.StatusConflict)
			if p, ok := err.(*api.Problem); ok && p.Lock != nil { //nolint:errorlint // see fails
				s.Fatalf("%s: conflict %+v, want that it is no matter of waiting", what, p.Lock)
			}
		}
	}
	other := s.held(asks("o"))
	first := s.held(asks("n", "m"))
	if again := s.held(asks("m", "n")); again.Fence != first.Fence || again.Fence >= other.Fence {
		s.Errorf("the same request got fence %d, then %d in another order", again.Fence, first.Fence)
	}
	if err := s.leader.Unlock(s.Context(), "h", []string{"n"}); err != nil {
		s.Error(err)
	}
	s.held(wantLock("i", 0, "m", "n"))
	s.locked(wantLock("i2", 0, "o"), 1, "h")
}

func (s *suite) lockBatch() {
	acquire := func(holder string) api.LockOperation {
		return api.LockOperation{Op: api.LockAcquire, LockRequest: *wantLock(holder, 0, "n")}
	}
	release := acquire("a")
	release.Op = api.LockRelease
	results, err := s.leader.LockBatch(s.Context(), []api.LockOperation{acquire("a"), acquire("b"), release, release, acquire("b")})
	if err != nil || len(results) != 5 {
		s.Fatalf("LockBatch() = %+v, %v; want 5 results", results, err)
	}
	for i, conflictWant := range []bool{false, true, false, false, false} {
		if p := results[i].Problem; (p != nil) != conflictWant || p != nil && (p.Status != http.StatusConflict || p.Lock == nil) {
			s.Errorf("result %d = %+v, %v; want a conflict: %v", i, results[i], p, conflictWant)
		}
	}
	if results[0].Fence == 0 || results[4].Fence <= results[0].Fence || results[2].Fence != 0 {
		s.Errorf("fences %+v, want those of the grants, growing", results)
	}
	queued := acquire("c")
	queued.WaitMillis = 3_600_000
	if behind, err := s.leader.LockBatch(s.Context(), []api.LockOperation{queued}); err != nil || behind[0].Problem == nil || !behind[0].Problem.Lock.Waiting {
		s.Errorf("LockBatch() of a request that may wait = %+v, %v; want that it has a place", behind, err)
	}
	s.locked(wantLock("d", 0, "n"), 2, "b", "c")
	_, err = s.leader.LockBatch(s.Context(), []api.LockOperation{acquire("e"), {Op: api.LockAcquire}})
	s.fails("LockBatch() with an operation without names", err, http.StatusUnprocessableEntity)
	s.locked(wantLock("d", 0, "n"), 2, "b", "c")
}

// lockOwners: users have holders of their own, and only operators release those of others.
func (s *suite) lockOwners() {
	bob := access.WithPrincipal(s.T.Context(), access.Principal{Name: "bob", Permissions: access.Read | access.Submit})
	if _, err := s.leader.Lock(bob, wantLock("h", 0, "n")); err != nil {
		s.Fatal(err)
	}
	s.locked(wantLock("h", 0, "n"), 1, "h")
	carol := access.WithPrincipal(s.T.Context(), access.Principal{Name: "carol", Permissions: access.Read | access.Submit})
	_ = s.leader.Unlock(carol, "h", []string{"n"}) // refused, or without effect
	s.locked(wantLock("h", 0, "n"), 1, "h")
	if err := s.leader.Unlock(s.Context(), "h", []string{"n"}); err != nil {
		s.Errorf("Unlock() by an operator = %v", err)
	}
	s.held(wantLock("h", 0, "n"))
}
