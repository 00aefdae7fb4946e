package worker

import (
	"context"
	"sync"
	"time"

	"github.com/bridgefour/bridgefour/internal/runner"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// tailLimit limits the tails that all slots of a worker report: a million failures must not flood the leader.
type tailLimit struct {
	mu   sync.Mutex
	rate wire.TailRate
}

func newTailLimit() *tailLimit {
	return &tailLimit{rate: wire.TailRate{Burst: 16, Interval: 500 * time.Millisecond}}
}

func (l *tailLimit) take(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rate.Take(now)
}

// keepTail adds what the attempt wrote last to its failure.
func (s *slot) keepTail(ctx context.Context, f *wire.Failure) {
	log, logBytes := s.sink.Tail()
	last := s.last
	s.last = runner.Outcome{}
	if logBytes == 0 && last.StdoutBytes == 0 || !s.tails.take(time.Now()) {
		return
	}
	var err error
	if f.Tail, err = wire.NewTail(log, logBytes, last.Stdout, last.StdoutBytes); err != nil {
		s.logger.WarnContext(ctx, "last output of a failed attempt not kept", "lease", f.GetLease(), "error", err)
	}
}
