// Package heap makes garbage collection keep the process within the memory that the attempts in it were given.
//
// What an attempt holds is bounded where it is held: sort buffers, tables and the cursors of merges know their shares of it. What it no longer holds is not: by default, the
// garbage may take as much as all that is held. With a limit, the runtime collects it in time.
//
// A limit below what is held would make the runtime collect all the time. So after each collection the limit becomes at least a quarter more than what has survived: attempts
// that hold a few long records, or what their functions gather, exceed the limit, and pay for it with more frequent collections, not with a standstill.
package heap

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// baseBytes are for what is not of an attempt: the leader of an embedded run, connections, goroutines, tables of the runtime.
	baseBytes = 24 << 20
	unlimited = math.MaxInt64
)

// process is that of the process, which has one limit.
var process limiter //nolint:gochecknoglobals // as the limit of the runtime is

// Share is what a slot may take of the memory of the process. The zero value is none.
type Share struct {
	bytes int64 // -1: not bounded
}

// Bound sets the share to so many bytes.
func (s *Share) Bound(bytes int64) { process.replace(s, bytes) }

// Unbound makes the share one that is not bounded. The process has no limit then.
func (s *Share) Unbound() { process.replace(s, -1) }

// Close gives the share back.
func (s *Share) Close() { process.replace(s, 0) }

// limiter sets the limit of the runtime: see [debug.SetMemoryLimit].
type limiter struct {
	mu       sync.Mutex
	bounded  int64 // bytes of the shares that are
	unbound  int   // shares that are not
	watching bool  // adjust is called after the next collection
	chosen   bool  // the user has set GOMEMLIMIT, which is left as it is; known if limited
	limited  bool  // a limit was set before
}

func (l *limiter) replace(s *Share, bytes int64) {
	if s.bytes == bytes { // the slot alone changes it
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bounded += max(0, bytes) - max(0, s.bytes)
	l.unbound += boolToInt(bytes < 0) - boolToInt(s.bytes < 0)
	s.bytes = bytes
	if !l.limited {
		if l.limit(0) == unlimited { // as it is
			return
		}
		l.limited, l.chosen = true, debug.SetMemoryLimit(-1) != unlimited
	}
	l.set()
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// limit is that of the shares, with so many bytes of the heap held.
func (l *limiter) limit(held int64) int64 {
	if l.unbound > 0 || l.bounded == 0 {
		return unlimited
	}
	return baseBytes + max(l.bounded, held+held/4)
}

// set sets the limit, and watches it if there is one.
func (l *limiter) set() {
	if l.chosen {
		return
	}
	limit := l.limit(held())
	debug.SetMemoryLimit(limit)
	if limit == unlimited || l.watching {
		return
	}
	l.watching = true
	// It is garbage at once: the next collection finds it.
	runtime.AddCleanup(new([16]byte), (*limiter).adjust, l)
}

// adjust sets the limit after a collection.
func (l *limiter) adjust() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watching = false
	l.set()
}

// held is what survived the last collection, in bytes.
func held() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64()) //nolint:gosec // of memory
}
