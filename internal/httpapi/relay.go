package httpapi

import (
	"context"
	"time"
)

// sink writes an unbounded answer. Its methods are called by one goroutine.
type sink[T any] interface {
	write(item T) error
	beat() error  // sends a sign of life after a silence
	flush() error // sends what was written
}

// relayAhead bounds the items that wait for the client. A slow client blocks the producer.
const relayAhead = 64

// relay writes what produce emits to out, and flushes whenever no item is waiting. It sends a beat after first, then after each
// interval of silence. It returns the error of produce or of out, after produce has returned.
func relay[T any](ctx context.Context, first, interval time.Duration, out sink[T],
	produce func(ctx context.Context, emit func(T) error) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	items := make(chan T, relayAhead)
	var ended error // read after items is closed
	go func() {
		defer close(items)
		ended = produce(ctx, func(item T) error {
			select {
			case items <- item:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	defer func() {
		cancel()
		for range items { // until produce has returned
		}
	}()
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case item, ok := <-items:
			if !ok {
				return ended
			}
			if err := out.write(item); err != nil {
				return err
			}
			if len(items) > 0 {
				continue
			}
			if err := out.flush(); err != nil {
				return err
			}
		case <-timer.C:
			if err := out.beat(); err != nil {
				return err
			}
		}
		timer.Reset(interval)
	}
}
