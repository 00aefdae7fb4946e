package blob

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// Locker is a store that can give a folder to one caller at a time, over all processes that see it.
type Locker interface {
	// LockDir waits until nobody else holds dir, which must be there, and holds it until unlock is called or the process ends.
	LockDir(ctx context.Context, dir Location) (unlock func(), err error)
}

// LockDir implements Locker with flock(2). A file system that has no locks for folders, as some network ones, gives none: what
// is done under the lock is then as safe as it is without.
func (*Files) LockDir(ctx context.Context, dir Location) (unlock func(), err error) {
	f, err := os.Open(string(dir))
	if err != nil {
		return nil, explain("lock", dir, err)
	}
	unlock = func() { _ = f.Close() } // only read from, and the lock goes with it
	const waitMax = 100 * time.Millisecond
	for wait := time.Millisecond; ; wait = min(2*wait, waitMax) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a file descriptor is small
		switch {
		case errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, syscall.EINTR):
		default:
			return unlock, nil // locked, or there are no locks here
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			unlock()
			return nil, context.Cause(ctx)
		}
	}
}
