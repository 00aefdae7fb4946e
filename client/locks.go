package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/api"
)

// LocksPath is the path of all locks.
const LocksPath = "/v1/locks"

// LockPath is the path of a lock.
func LockPath(name string) string { return LocksPath + "/" + url.PathEscape(name) }

// LockOptions are how Client.Lock locks names. The zero value is an exclusive lock that is waited for until the context ends.
type LockOptions struct {
	// Shared locks exclude exclusive ones only.
	Shared bool
	// Max is how many holders may have the names together, if all of them give the same number. Defaults to 1.
	Max uint32
	// TTL is the time after which the lock is lost if it has not been renewed, 1 s to 1 h. It is renewed three times as often. Defaults to 30 s.
	TTL time.Duration
	// Wait bounds the wait for the lock. Defaults to no bound but the context.
	Wait time.Duration
	// NoWait gives up at once if the lock is not free.
	NoWait bool
	// Holder names the request, uniquely among those of the user. Defaults to a random name.
	Holder string
	// Note is shown in lists.
	Note string
	// OnWait, if set, is called with the reason if the lock is not free, at once and then about every api.LockCallMax, by the goroutine of Lock.
	OnWait func(*api.LockConflict)
	// OnRenew, if set, is called with the time at which the lock is lost unless it is renewed again, when it is acquired and at each renewal, one call at a time.
	OnRenew func(expires time.Time)
}

// ErrLockLost is the cause of the end of Lock.Context when the lock is no longer held, or may no longer be.
var ErrLockLost = errors.New("lock lost")

// IsLocked reports whether err is that of Lock for names that are not free.
func IsLocked(err error) (conflict *api.LockConflict, ok bool) {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok || p.Status != http.StatusConflict || p.Lock == nil {
		return nil, false
	}
	return p.Lock, true
}

// Lock is held until Release, or until it is lost. It is renewed in the background.
type Lock struct {
	c       *Client
	request api.LockRequest // with the fence
	ttl     time.Duration
	onRenew func(time.Time)

	ctx    context.Context //nolint:containedctx // what it guards
	cancel context.CancelCauseFunc
	stop   context.CancelFunc // ends the renewals
	done   chan struct{}      // closed when they have ended

	mu      sync.Mutex
	expires time.Time
}

// Lock locks names, all of them together, and returns when it holds them. It waits for the earlier requests of others that conflict with it, and holds
// nothing meanwhile, so users of several locks cannot wait for each other in a circle. A name is a path: a/b conflicts with a and with a/b/c, and
// not with a/bc.
//
// The request survives the loss of connections and of leaders: it is sent again under the same name and keeps its place. The error is one that IsLocked
// recognizes if the names did not become free in time. If ctx ends first, the request is withdrawn.
//
// Mutual exclusion rests on time: the lock is considered lost when it has not been renewed for its TTL, counted from when the last successful renewal
// was sent, so before the cluster gives it to others. A process that was stopped meanwhile learns that late; what must never be written by two holders must
// check Fence.
func (c *Client) Lock(ctx context.Context, names []string, o LockOptions) (*Lock, error) {
	if o.TTL < 0 || o.Wait < 0 || o.TTL > 0 && (o.TTL < api.LockTTLMin || o.TTL > api.LockTTLMax) {
		return nil, fmt.Errorf("lock %q: TTL is %v, Wait %v: want a TTL of %v to %v, or 0 for the default, and a wait that is not negative", names, o.TTL, o.Wait,
			api.LockTTLMin, api.LockTTLMax)
	}
	l := &Lock{c: c, ttl: cmp.Or(o.TTL, api.LockTTLDefault), onRenew: o.OnRenew, done: make(chan struct{})}
	l.request = api.LockRequest{LockTerms: api.LockTerms{
		Holder: cmp.Or(o.Holder, rand.Text()), Max: o.Max, TTLMillis: millis(l.ttl), Note: o.Note,
	}}
	mode := api.LockExclusive
	if o.Shared {
		mode = api.LockShared
	}
	for _, name := range names {
		l.request.Names = append(l.request.Names, api.LockName{Name: name, Mode: mode})
	}
	if err := l.acquire(ctx, &o); err != nil {
		return nil, err
	}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go func() {
		defer close(l.done)
		l.renewals(renewing)
	}()
	return l, nil
}

// millis is d in milliseconds, rounded down.
func millis(d time.Duration) uint64 { return uint64(max(0, d.Milliseconds())) } //nolint:gosec // not negative

// Fence is the fencing number of the lock: the log position of its grant. Of two grants of the cluster, the later one has the larger number.
func (l *Lock) Fence() uint64 { return l.request.Fence }

// Context is derived from that of Client.Lock, and ends when the lock is lost, with the cause ErrLockLost, or was released.
func (l *Lock) Context() context.Context { return l.ctx }

// Expires is when the lock is lost unless it is renewed.
func (l *Lock) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}

// withdrawTime bounds the try to withdraw a request. If it fails, the request ends after its TTL.
const withdrawTime = 5 * time.Second

// acquire returns when the lock is held for at least half of its TTL from now.
func (l *Lock) acquire(ctx context.Context, o *LockOptions) error {
	wait := cmp.Or(o.Wait, api.LockWaitMax)
	begun, patience := time.Now(), l.c.options.Patience
	for queue := o.OnWait != nil && !o.NoWait; ; queue = false { // the first call does not wait: then its reason is known
		var left time.Duration
		if !o.NoWait {
			left = max(0, wait-time.Since(begun))
		}
		expires, err := l.send(ctx, left, min(patience, max(left, l.c.options.Patience)), queue)
		conflict, locked := IsLocked(err)
		switch {
		case err == nil && time.Until(expires) > l.ttl/2:
			l.renewed(expires)
			return nil
		case err == nil: // granted some time after it was sent: renew it before anything relies on it
			continue
		case locked && conflict.Lost:
			l.request.Fence = 0
			continue
		case locked && conflict.Waiting && left > 0:
			patience = l.c.options.WaitPatience
			if o.OnWait != nil {
				o.OnWait(conflict)
			}
			continue
		}
		if p, ok := errors.AsType[*api.Problem](err); !ok || p.Status >= http.StatusInternalServerError || locked && conflict.Waiting {
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTime)
			defer cancel()
			_ = l.release(limited) // it ends without, later
		}
		return err
	}
}

// send requests or renews the lock, which is lost at expires. The time counts from before the request was sent first, so it is never too late. Queue: it
// does not wait for the lock in this call.
func (l *Lock) send(ctx context.Context, wait, patience time.Duration, queue bool) (expires time.Time, err error) {
	r := l.request
	r.WaitMillis = millis(wait)
	q := repeatable(http.MethodPost, LocksPath)
	q.patience = patience
	if q.timeout += min(wait, api.LockCallMax); patience < 0 {
		q.timeout = max(l.ttl/4, renewTimeMin)
	}
	sent := time.Now()
	var grant api.LockGrant
	if queue {
		grant, err = l.c.lockOperation(ctx, api.LockOperation{Op: api.LockAcquire, LockRequest: r})
	} else {
		grant, err = askWith[api.LockGrant](ctx, l.c, q, &r)
	}
	if err != nil {
		return time.Time{}, err
	}
	if l.request.Fence == 0 {
		l.request.Fence = grant.Fence
	}
	return sent.Add(time.Duration(grant.ExpiresInMillis) * time.Millisecond), nil //nolint:gosec // at most api.LockTTLMax
}

// renewTimeMin is the least timeout of a renewal: a TTL of a second leaves time for several.
const renewTimeMin = 200 * time.Millisecond

func (l *Lock) renewed(expires time.Time) {
	l.mu.Lock()
	l.expires = expires
	l.mu.Unlock()
	if l.onRenew != nil {
		l.onRenew(expires)
	}
}

// renewals renews the lock until ctx ends, or it is lost.
func (l *Lock) renewals(ctx context.Context) {
	var failed error // the last renewal
	for next := l.ttl / 3; ; {
		expires := l.Expires()
		limited, cancel := context.WithDeadline(ctx, expires)
		err := pause(limited, next)
		if err == nil {
			var renewed time.Time
			if renewed, err = l.send(limited, 0, -1, false); err == nil {
				l.renewed(renewed)
				next, failed = l.ttl/3, nil
			} else {
				next, failed = l.ttl/30, err
			}
		}
		cancel()
		_, locked := IsLocked(err)
		switch {
		case ctx.Err() != nil:
			return
		case locked:
			l.cancel(fmt.Errorf("%w: %w", ErrLockLost, err))
			return
		case !time.Now().Before(l.Expires()):
			l.cancel(fmt.Errorf("%w: not renewed for %v: %w", ErrLockLost, l.ttl, cmp.Or(failed, err)))
			return
		}
	}
}

// Release ends the lock, and its context. The error is ErrLockLost if it had been lost before. If the cluster is not reached, the lock ends after its TTL.
func (l *Lock) Release(ctx context.Context) error {
	l.stop()
	<-l.done
	lost := context.Cause(l.ctx) //nolint:contextcheck // its own
	l.cancel(nil)
	if errors.Is(lost, ErrLockLost) {
		return lost
	}
	return l.release(ctx)
}

func (l *Lock) release(ctx context.Context) error {
	_, err := l.c.lockOperation(ctx, api.LockOperation{Op: api.LockRelease, LockRequest: l.request})
	return err
}

// lockOperation is LockBatch of one operation.
func (c *Client) lockOperation(ctx context.Context, o api.LockOperation) (api.LockGrant, error) {
	results, err := c.LockBatch(ctx, []api.LockOperation{o})
	switch {
	case err != nil:
		return api.LockGrant{}, err
	case results[0].Problem != nil:
		return api.LockGrant{}, results[0].Problem
	}
	return results[0].LockGrant, nil
}

// LockBatch carries out operations, up to api.LockOperationsMax, one after the other, and returns their results. It does not wait: a request that may,
// and is not granted, has a place in the queue from then on, and is to be sent again within its TTL. A batch is sent again if the connection
// breaks: an operation that was carried out already changes nothing.
func (c *Client) LockBatch(ctx context.Context, operations []api.LockOperation) ([]api.LockResult, error) {
	answer, err := askWith[api.LockResults](ctx, c, repeatable(http.MethodPost, LocksPath), struct {
		Operations []api.LockOperation `json:"operations"`
	}{operations})
	if err == nil && len(answer.Results) != len(operations) {
		err = fmt.Errorf("%d results of %d operations: not the answer of a Bridge Four leader", len(answer.Results), len(operations))
	}
	return answer.Results, err
}

// Locks returns the names that are held or waited for, data first, page by page. The sequence ends after its first error.
func (c *Client) Locks(ctx context.Context) iter.Seq2[api.Lock, error] {
	return pages("", func(cursor string) ([]api.Lock, string, error) {
		list, err := ask[api.LockList](ctx, c, get(withQuery(LocksPath, parameters{"cursor": cursor})))
		return list.Locks, list.Next, err
	})
}

// LockHolders returns the requests that hold a name or wait for it, and those for names above and below it.
func (c *Client) LockHolders(ctx context.Context, name string) (api.Lock, error) {
	return ask[api.Lock](ctx, c, get(LockPath(name)))
}

// ReleaseLock takes a lock away from its holder, who may be another user if this one is an operator. A holder that waits is withdrawn. There
// may be none: LockHolders returns those of a name.
func (c *Client) ReleaseLock(ctx context.Context, name, holder string) error {
	return c.call(ctx, repeatable(http.MethodDelete, LockPath(name)+"?holder="+url.QueryEscape(holder)), nil)
}
