package blob

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// Locker is a store that can lock folders across processes.
type Locker interface {
	// LockDir locks dir, which must exist, until unlock is called or the process ends. It blocks while another holds the lock.
	LockDir(ctx context.Context, dir Location) (unlock func(), err error)
}

// LockDir implements Locker with flock(2). Some network file systems have no locks for folders: there it locks nothing.
func (*Files) LockDir(ctx context.Context, dir Location) (unlock func(), err error) {
	f, err := os.Open(string(dir))
	if err != nil {
		return nil, explain("lock", dir, err)
	}
	unlock = func() { _ = f.Close() } // also unlocks
	const waitMax = 100 * time.Millisecond
	for wait := time.Millisecond; ; wait = min(2*wait, waitMax) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a file descriptor is small
		switch {
		case errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, syscall.EINTR):
		default:
			return unlock, nil // locked, or not supported
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
