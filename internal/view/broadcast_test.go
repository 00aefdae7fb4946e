package view

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestBroadcast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBroadcast()
		ready, closed, left := false, errors.New("closed"), errors.New("left")
		wait := func(ctx context.Context) <-chan error {
			ended := make(chan error, 1)
			go func() { ended <- b.Wait(ctx, func() (bool, error) { return ready, nil }) }()
			synctest.Wait()
			return ended
		}
		first, second := wait(t.Context()), wait(t.Context())
		b.Notify() // of something else
		synctest.Wait()
		if len(first)+len(second) != 0 {
			t.Error("Wait() returns though it is not done")
		}
		ready = true
		b.Notify()
		if err := errors.Join(<-first, <-second); err != nil {
			t.Errorf("Wait() = %v, want nil after a notification", err)
		}
		ready = false
		ctx, cancel := context.WithCancelCause(t.Context())
		third, fourth := wait(ctx), wait(t.Context())
		cancel(left)
		if err := <-third; !errors.Is(err, left) {
			t.Errorf("Wait() = %v, want the cause of the context's end", err)
		}
		b.Close(closed)
		if err := <-fourth; !errors.Is(err, closed) {
			t.Errorf("Wait() = %v, want the error of Close", err)
		}
		if err := <-wait(t.Context()); !errors.Is(err, closed) {
			t.Errorf("Wait() after Close() = %v, want its error", err)
		}
		ready = true
		if err := <-wait(t.Context()); err != nil {
			t.Errorf("Wait() after Close() = %v, want nil when it is done", err)
		}
	})
}
