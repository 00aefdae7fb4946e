package replica

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/internal/replica/core"
)

const (
	// reserveBytes is the free space below which the log accepts nothing new: two files, so that what is in flight and the next
	// preallocated file still fit.
	reserveBytes = 2 * segmentBytes
	// spaceCheckEvery is the interval between checks of the free space when nothing is written.
	spaceCheckEvery = 250 * time.Millisecond
	// retryTicksMax bounds, in those checks, the back-off of a write that failed on a full disk: each try reads the whole log, and under a
	// quota the free space means nothing.
	retryTicksMax = 16
)

// saver owns the journal while the replica runs.
type saver struct {
	journal *journal
	store   snapStore
	log     *slog.Logger
	reserve int64         // free space below which nothing new is accepted
	every   time.Duration // between checks of the free space
	before  func()        // called before each save; nil: nothing
	full    bool
	tick    *time.Ticker
	usage   *atomic.Pointer[Usage] // kept up to date, so that readers do not wait for the disk

	in   chan core.Batch // room for one, which is all there is at a time
	out  chan struct{}   // a batch is durable
	room chan error      // changes of the room for the log: why there is none; nil: there is
}

// run saves batches until ctx is done. It returns early if the log cannot be written for a reason other than a full disk: after a failed
// fsync the state of the disk is unknown, so the process must restart and read it.
func (s *saver) run(ctx context.Context) error {
	s.tick = time.NewTicker(s.every)
	defer s.tick.Stop()
	s.measure()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.tick.C:
			s.watch(ctx)
			s.measure()
		case b := <-s.in:
			s.watch(ctx)
			if s.before != nil {
				s.before()
			}
			if saved, err := s.save(ctx, b); err != nil || !saved {
				return err
			}
			if p := b.Installed; p != nil {
				if err := removeOld(s.journal.walDir(), s.store, []core.Position{*p}, p.Index); err != nil {
					return err
				}
			}
			select {
			case s.out <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// save saves b, and waits for room as long as it takes; it reports false only when ctx ends.
func (s *saver) save(ctx context.Context, b core.Batch) (bool, error) {
	for wait := 1; ; wait = min(2*wait, retryTicksMax) {
		err := s.journal.save(b)
		if err == nil {
			return true, nil
		}
		if !noSpace(err) {
			return false, err
		}
		if err := s.journal.discard(); err != nil {
			return false, err
		}
		if !s.full {
			s.reportRoom(ctx, s.journal.full(err))
		}
		for ticks := 0; ticks < wait || s.lacksRoom(); ticks++ {
			select {
			case <-ctx.Done():
				return false, nil
			case <-s.tick.C:
			}
		}
	}
}

// measure updates usage.
func (s *saver) measure() {
	if free, err := freeBytes(s.journal.dir); err == nil { // lacksRoom logs it
		s.usage.Store(&Usage{Log: usedBytes(s.journal.walDir(), s.store.dir), Free: free})
	}
}

// lacksRoom checks the free space. After it was too low, it must exceed the reserve by a quarter, so that the answer does not
// oscillate.
func (s *saver) lacksRoom() bool {
	free, err := freeBytes(s.journal.dir)
	if err != nil {
		s.log.Warn("cannot read the free space of the log's disk", "error", err)
		return false // the writes will show
	}
	need := s.reserve
	if s.full {
		need += s.reserve / 4
	}
	return free < need
}

// watch reports to the loop when the disk becomes too full and when it no longer is.
func (s *saver) watch(ctx context.Context) {
	switch lacks := s.lacksRoom(); {
	case lacks && !s.full:
		s.reportRoom(ctx, s.journal.full(nil))
	case !lacks && s.full:
		s.reportRoom(ctx, nil)
	}
}

func (s *saver) reportRoom(ctx context.Context, full error) {
	if full != nil && !s.full {
		s.log.ErrorContext(ctx, "log full", "error", full) // an embedded run shows errors only, and waits from here on
	}
	if full == nil {
		s.log.InfoContext(ctx, "log has room again")
	}
	s.full = full != nil
	select {
	case s.room <- full:
	case <-ctx.Done():
	}
}
