package replica

import (
	"context"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	// reserveBytes is the free space below which the log takes nothing new: two files, so that what is in flight and the
	// file that is prepared next still fit.
	reserveBytes = 2 * segmentBytes
	// spaceCheckEvery is how often the disk is looked at when nothing is written.
	spaceCheckEvery = 250 * time.Millisecond
	// retryTicksMax bounds, in those checks, how long a write that failed for want of room waits: each try reads the whole log,
	// and under a quota the free space does not tell.
	retryTicksMax = 16
)

// batch is what the saver makes durable at once.
type batch struct {
	saves []*raftpb.Message
	snap  *Position // a snapshot file to record, or nil
	keep  uint64    // with snap: the log is wanted from here on
	bytes int64     // of the entries
	// installed: saves hold a snapshot that came from a peer, the last one of them here.
	installed *Position
	// urgent: something waits for it. Without, the batch is a new commit index alone and can ride with the next one.
	urgent bool
}

func (b *batch) add(saves []*raftpb.Message) {
	b.saves = append(b.saves, saves...)
	for _, m := range saves {
		b.urgent = b.urgent || len(m.GetEntries()) > 0 || len(m.GetResponses()) > 0 || m.GetSnapshot() != nil
		for _, e := range m.GetEntries() {
			b.bytes += int64(len(e.GetData()))
		}
	}
}

// saver owns the journal while the replica runs.
type saver struct {
	journal *journal
	store   snapStore
	log     *slog.Logger
	reserve int64         // free space below which nothing new is taken
	every   time.Duration // the disk is looked at
	before  func()        // called before each save; nil: nothing
	full    bool
	tick    *time.Ticker

	in   chan batch
	out  chan batch // batches that are durable, in order
	room chan error // what changed about the room for the log: why there is none, or nil: there is
}

// run saves what comes until ctx is done. It returns early when the log cannot be written for another reason than a full disk:
// after a failed fsync nobody knows what is on disk, so the process must start again and read it.
func (s *saver) run(ctx context.Context) error {
	s.tick = time.NewTicker(s.every)
	defer s.tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.tick.C:
			s.watch(ctx)
		case b := <-s.in:
			s.watch(ctx)
			if s.before != nil {
				s.before()
			}
			if saved, err := s.save(ctx, b); err != nil || !saved {
				return err
			}
			if p := b.installed; p != nil {
				if err := removeOld(s.journal.walDir(), s.store, []Position{*p}, p.Index); err != nil {
					return err
				}
			}
			select {
			case s.out <- b:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// save saves b, however long it takes until there is room for it; only the end of ctx leaves it unsaved.
func (s *saver) save(ctx context.Context, b batch) (bool, error) {
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
			s.tell(ctx, s.journal.full(err))
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

// lacksRoom looks at the disk. Once it was too full, it must have a quarter more before it counts as having room, so that
// the answer does not flicker.
func (s *saver) lacksRoom() bool {
	free, err := freeBytes(s.journal.dir)
	if err != nil {
		s.log.Warn("free space of the log's disk is unknown", "error", err)
		return false // the writes themselves will tell
	}
	need := s.reserve
	if s.full {
		need += s.reserve / 4
	}
	return free < need
}

// watch tells the loop when the disk becomes too full and when it is no more.
func (s *saver) watch(ctx context.Context) {
	switch lacks := s.lacksRoom(); {
	case lacks && !s.full:
		s.tell(ctx, s.journal.full(nil))
	case !lacks && s.full:
		s.tell(ctx, nil)
	}
}

func (s *saver) tell(ctx context.Context, full error) {
	if full != nil && !s.full {
		s.log.WarnContext(ctx, "the log takes nothing new", "error", full)
	}
	if full == nil {
		s.log.InfoContext(ctx, "the log has room again")
	}
	s.full = full != nil
	select {
	case s.room <- full:
	case <-ctx.Done():
	}
}
