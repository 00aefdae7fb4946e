package worker

import (
	"context"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Rate of the failures that carry what their attempt wrote last, of all slots of a worker: a million failures must not flood the leader.
const (
	tailsBurst = 16
	tailsEvery = 500 * time.Millisecond
)

// tailLimit limits a rate.
type tailLimit struct {
	mu   sync.Mutex
	next time.Time // when a steady rate would allow the next one
}

// take reports whether one more is allowed.
func (l *tailLimit) take(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next.Sub(now) >= tailsBurst*tailsEvery {
		return false
	}
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(tailsEvery)
	return true
}

// keepTail adds what the attempt wrote last to its failure.
func (s *slot) keepTail(ctx context.Context, f *wire.Failure) {
	log, logBytes := s.sink.Tail()
	stdout := s.stdout
	s.stdout = runner.Outcome{}
	if logBytes == 0 && stdout.StdoutBytes == 0 || !s.tails.take(time.Now()) {
		return
	}
	var err error
	if f.Tail, err = wire.NewTail(log, logBytes, stdout.Stdout, stdout.StdoutBytes); err != nil {
		s.logger.WarnContext(ctx, "last output of a failed attempt not kept", "lease", f.GetLease(), "error", err)
	}
}
