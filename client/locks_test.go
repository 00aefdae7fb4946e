package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// locksmith answers the requests for one lock, each as the test says.
type locksmith struct {
	t      *testing.T
	answer func(r *api.LockRequest, call int) any // a grant, a problem, or nil: the connection breaks

	mu       sync.Mutex // answers that the client no longer waits for go on
	calls    int
	holders  map[string]int
	released []api.LockOperation
	received time.Time // the last request that was granted
}

func (l *locksmith) RoundTrip(r *http.Request) (*http.Response, error) {
	var batch api.LockBatch
	if err := json.NewDecoder(r.Body).Decode(&batch); err != nil || r.Method != http.MethodPost || r.URL.Path != LocksPath {
		l.t.Errorf("request %s %s: %v", r.Method, r.URL, err)
	}
	answer := inMemory(func(w http.ResponseWriter, _ *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(batch.Operations) > 0 && batch.Operations[0].Op == api.LockAcquire {
			l.calls++
			p := conflict(api.LockConflict{Waiting: true, Place: 2})
			sendJSON(w, http.StatusOK, api.LockResults{Results: []api.LockResult{{Problem: p}}})
			return
		}
		if len(batch.Operations) > 0 {
			l.released = append(l.released, batch.Operations...)
			sendJSON(w, http.StatusOK, api.LockResults{Results: make([]api.LockResult, len(batch.Operations))})
			return
		}
		l.calls++
		l.holders[batch.Holder]++
		call := l.calls
		l.mu.Unlock()
		a := l.answer(&batch.LockRequest, call)
		l.mu.Lock()
		switch a := a.(type) {
		case api.LockGrant:
			l.received = time.Now()
			sendJSON(w, http.StatusOK, a)
		case *api.Problem:
			sendJSON(w, a.Status, a)
		default:
			sendJSON(w, http.StatusBadGateway, api.NewProblem(http.StatusBadGateway, "broken"))
		}
	})
	answered := make(chan *http.Response, 1)
	go func() {
		a, _ := answer.RoundTrip(r) //nolint:bodyclose // it cannot fail, and the client closes it
		answered <- a
	}()
	select {
	case a := <-answered:
		return a, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// locksmithOf is a client of a locksmith in a bubble, and the locksmith.
func locksmithOf(t *testing.T, answer func(r *api.LockRequest, call int) any) (*Client, *locksmith) {
	t.Helper()
	l := &locksmith{t: t, answer: answer, holders: map[string]int{}}
	return newClient(t, Options{HTTP: &http.Client{Transport: l}}, "http://leader"), l
}

// grant is the answer of the cluster that gives so much time.
func grant(ttl time.Duration) api.LockGrant {
	return api.LockGrant{Fence: 7, ExpiresInMillis: millis(ttl)}
}

func conflict(c api.LockConflict) *api.Problem {
	p := api.Conflict("held by another")
	p.Lock = &c
	return p
}

func TestLockIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := locksmithOf(t, func(r *api.LockRequest, call int) any {
			if call > 1 && r.Fence != 7 {
				t.Errorf("renewal with fence %d, want 7: a lost lock must not be taken again", r.Fence)
			}
			if call%5 == 0 {
				return nil // a renewal that fails is sent again
			}
			return grant(9 * time.Second)
		})
		var renewed []time.Time
		lock, err := c.Lock(t.Context(), []string{"a", "b"}, LockOptions{TTL: 9 * time.Second, OnRenew: func(at time.Time) { renewed = append(renewed, at) }})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if err := context.Cause(lock.Context()); err != nil || lock.Fence() != 7 || !lock.Expires().After(time.Now()) {
			t.Errorf("after ten minutes: %v, fence %d, expires in %v; want that it is held", err, lock.Fence(), time.Until(lock.Expires()))
		}
		if err := lock.Release(t.Context()); err != nil || len(l.released) != 1 || len(l.released[0].Names) != 2 || len(l.holders) != 1 {
			t.Errorf("Release() = %v with %+v by %v", err, l.released, l.holders)
		}
		if lock.Context().Err() == nil || len(renewed) < 10*60/9 || len(renewed) > 10*60 {
			t.Errorf("context %v, %d renewals", lock.Context().Err(), len(renewed))
		}
	})
}

// TestLockIsLost: the context ends before the cluster gives the lock to others, however the renewals fail.
func TestLockIsLost(t *testing.T) {
	const ttl = 9 * time.Second
	for name, fail := range map[string]func() any{
		"unreachable": func() any { return nil },
		"refused":     func() any { return api.NewProblem(http.StatusForbidden, "no longer allowed") },
		"given away":  func() any { return conflict(api.LockConflict{Lost: true}) },
		"hangs":       func() any { time.Sleep(time.Hour); return nil },
		"slow":        func() any { time.Sleep(8 * time.Second); return grant(ttl) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l := locksmithOf(t, func(_ *api.LockRequest, call int) any {
					if call > 3 {
						return fail()
					}
					time.Sleep(time.Second)
					return grant(ttl)
				})
				lock, err := c.Lock(t.Context(), []string{"a"}, LockOptions{TTL: ttl})
				if err != nil {
					t.Fatal(err)
				}
				<-lock.Context().Done()
				l.mu.Lock()
				received := l.received
				l.mu.Unlock()
				if lost := context.Cause(lock.Context()); !errors.Is(lost, ErrLockLost) || time.Since(received) >= ttl && name != "slow" {
					t.Errorf("the context ended %v after the last renewal had arrived: %v; want less than %v, ErrLockLost", time.Since(received), lost, ttl)
				}
				if err := lock.Release(t.Context()); !errors.Is(err, ErrLockLost) {
					t.Errorf("Release() = %v, want ErrLockLost", err)
				}
				time.Sleep(2 * time.Hour) // what hangs ends
			})
		})
	}
}

func TestLockWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left []uint64
		c, l := locksmithOf(t, func(r *api.LockRequest, call int) any {
			left = append(left, r.WaitMillis)
			switch {
			case call == 2:
				return nil // it may have arrived
			case call < 5:
				time.Sleep(20 * time.Second)
				return conflict(api.LockConflict{Waiting: true, Place: 2})
			case call == 5:
				time.Sleep(15 * time.Second) // it has been held for an unknown part of these
			}
			return grant(30 * time.Second)
		})
		waits := 0
		lock, err := c.Lock(t.Context(), []string{"a"}, LockOptions{Wait: time.Minute, OnWait: func(*api.LockConflict) { waits++ }})
		if err != nil {
			t.Fatal(err)
		}
		if waits != 3 || l.calls != 6 || len(l.holders) != 1 || left[0] != 60_000 || left[3] > 20_000 || time.Until(lock.Expires()) < 29*time.Second {
			t.Errorf("%d waits, %d calls by %v, waits of %d ms, %v left; want 3, and 6 by one holder, the first one without a wait, the last a renewal", waits, l.calls, l.holders, left, time.Until(lock.Expires()))
		}
		if err := lock.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestLockIsNotGranted(t *testing.T) {
	waiting := func(r *api.LockRequest) any {
		time.Sleep(min(time.Duration(r.WaitMillis)*time.Millisecond, api.LockCallMax)) //nolint:gosec // of the test
		return conflict(api.LockConflict{Waiting: r.WaitMillis > uint64(api.LockCallMax.Milliseconds()), Place: 1})
	}
	stopped := errors.New("stopped")
	for name, test := range map[string]struct {
		options   LockOptions
		answer    func(r *api.LockRequest) any
		after     time.Duration // the end of the context
		want      error         // nil: that the lock is not free
		withdrawn int
	}{
		"no wait":   {options: LockOptions{NoWait: true}, answer: waiting},
		"wait over": {options: LockOptions{Wait: 50 * time.Second}, answer: waiting},
		"stopped":   {after: 50 * time.Second, answer: waiting, want: stopped, withdrawn: 1},
		"invalid":   {answer: func(*api.LockRequest) any { return api.Invalid("no such name") }, want: api.Invalid("no such name")},
		"told":      {options: LockOptions{Wait: 50 * time.Second, OnWait: func(*api.LockConflict) {}}, answer: waiting},
		"broken":    {answer: func(*api.LockRequest) any { return nil }, want: api.NewProblem(http.StatusBadGateway, "broken"), withdrawn: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l := locksmithOf(t, func(r *api.LockRequest, _ int) any { return test.answer(r) })
				ctx := t.Context()
				if test.after > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeoutCause(ctx, test.after, stopped)
					defer cancel()
				}
				_, err := c.Lock(ctx, []string{"a"}, test.options)
				_, locked := IsLocked(err)
				if locked != (test.want == nil) || test.want != nil && err.Error() != test.want.Error() || len(l.released) != test.withdrawn {
					t.Errorf("Lock() = %v, %d withdrawn; want %v, %d", err, len(l.released), test.want, test.withdrawn)
				}
				time.Sleep(api.LockCallMax) // the last answer
			})
		})
	}
}

// TestLockOptionsAreChecked: times that cannot be renewed are refused before a request is sent.
func TestLockOptionsAreChecked(t *testing.T) {
	c := newClient(t, Options{}, serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("request %s %s", r.Method, r.URL) }))
	for _, o := range []LockOptions{{TTL: -1}, {TTL: time.Millisecond}, {TTL: 2 * time.Hour}, {Wait: -1}} {
		if _, err := c.Lock(t.Context(), []string{"n"}, o); err == nil {
			t.Errorf("Lock() with TTL %v and Wait %v was granted", o.TTL, o.Wait)
		}
	}
}
