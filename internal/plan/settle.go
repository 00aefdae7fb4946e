package plan

import (
	"context"
	"time"
)

// Two changes of a file within one tick of its file system's clock give it one time, so a second one of the same size could not be
// noticed. A job is therefore planned until the tick of the latest change has passed.
const (
	tick       = 20 * time.Millisecond // the clock of Linux has 1 to 10 ms, but for file systems with exact times
	tickCoarse = 2 * time.Second       // of file systems with whole seconds; FAT has even ones
)

// latest is the last change of the files of an input, in Unix ns.
type latest int64

// add adds a file. One from the future is ignored: its machine has another clock.
func (l *latest) add(modified int64) {
	if modified > int64(*l) && modified <= time.Now().UnixNano() {
		*l = latest(modified)
	}
}

// settle waits until a further change of the files would give them another time.
func (l *latest) settle(ctx context.Context) error {
	end := time.Unix(0, int64(*l)).Add(tick)
	if int64(*l)%int64(time.Second) == 0 {
		end = time.Unix(0, int64(*l)).Add(tickCoarse)
	}
	wait := time.Until(end)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
