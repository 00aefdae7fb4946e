package worker

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
	"github.com/bridgefour/bridgefour/internal/worker/core"
)

const (
	// filesFew is more than an attempt opens.
	filesFew = 16
	// filesPause is the time until a slot goes on after its process had no file left: meanwhile other workers may have the task.
	filesPause = time.Second
)

// returnForFiles turns the failure of an attempt into a returned lease if this process has reached its limit of open files: that is the worker's
// fault, and not charged to the task. The slot pauses then.
func (s *slot) returnForFiles(ctx context.Context, res core.Result) core.Result {
	f := res.Failure
	if f == nil || !strings.Contains(f.GetMessage(), syscall.EMFILE.Error()) || f.GetKind() != wire.FailureKind_OUTPUT_ERROR && filesLeft(filesFew) {
		return res
	}
	level := slog.LevelError // which run shows
	if s.warned {
		level = slog.LevelInfo
	}
	s.warned = true
	s.logger.Log(ctx, level, "attempt returned: this worker has too many open files; raise its limit (ulimit -n), or start it with fewer --slots",
		"slot", s.id, "error", f.GetMessage())
	s.replaceRunner() // it may hold files
	timer := time.NewTimer(filesPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return core.Result{Canceled: true}
}

// filesLeft reports whether the process can open n more files.
func filesLeft(n int) bool {
	for range n {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return false
		}
		defer func() { _ = f.Close() }() // it was not written
	}
	return true
}
