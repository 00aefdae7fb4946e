package view

import (
	"context"
	"sync/atomic"
)

// Broadcast wakes every goroutine that waits for a change: Changed returns a channel that Notify closes.
type Broadcast struct {
	changed atomic.Pointer[chan struct{}]
	closed  atomic.Pointer[error]
}

// NewBroadcast returns a broadcast without waiters.
func NewBroadcast() *Broadcast {
	b := &Broadcast{}
	b.changed.Store(new(make(chan struct{})))
	return b
}

// Changed returns a channel that the next Notify closes. Take it before looking at what changes, and no change is missed.
func (b *Broadcast) Changed() <-chan struct{} { return *b.changed.Load() }

// Notify wakes all waiters. Notify and Close belong to one goroutine.
func (b *Broadcast) Notify() {
	close(*b.changed.Swap(new(make(chan struct{}))))
}

// Close ends every Wait with err, now and later.
func (b *Broadcast) Close(err error) {
	b.closed.Store(&err)
	b.Notify()
}

// Wait returns when done reports true or an error, which is asked at first and after each Notify; when ctx is done, with its
// cause; or after Close.
func (b *Broadcast) Wait(ctx context.Context, done func() (bool, error)) error {
	for {
		changed := b.Changed()
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := b.closed.Load(); err != nil {
			return *err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
