package peer

import (
	"context"
	"sync"
)

// reports are pending reports to the replica. They are delivered by a goroutine of their own: Send is called from the replica's
// loop and must not wait for that loop.
type reports struct {
	some chan struct{} // room for one

	mu      sync.Mutex
	waiting map[uint64]report // by member
}

type report struct{ unreachable, snapshotLost bool }

func newReports() reports { return reports{some: make(chan struct{}, 1), waiting: map[uint64]report{}} }

func (q *reports) add(id uint64, r report) {
	q.mu.Lock()
	was := q.waiting[id]
	q.waiting[id] = report{was.unreachable || r.unreachable, was.snapshotLost || r.snapshotLost}
	q.mu.Unlock()
	signal(q.some)
}

func (q *reports) run(ctx context.Context, r Replica) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.some:
		}
		q.mu.Lock()
		waiting := q.waiting
		q.waiting = map[uint64]report{}
		q.mu.Unlock()
		for id, what := range waiting {
			if what.unreachable {
				r.ReportUnreachable(id)
			}
			if what.snapshotLost {
				r.ReportSnapshot(id, false)
			}
		}
	}
}
