package runner

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/wire"
)

const (
	logInterval     = 200 * time.Millisecond
	logIntervalFast = 20 * time.Millisecond // for a log that grows by logBurst or more within an interval
	logBurst        = 8 << 20
	logChunk        = 64 << 10
)

// lastLogsMax limits the last lines of the log that are part of a failure's message.
const lastLogsMax = wire.FailureMessageMax * 3 / 4

// scratchLog is the file for the standard error of an attempt of a command. It is forwarded while the command runs, and the disk
// space of what belongs to neither the first nor the last half of the log is freed.
//
// The file has no name, so that nothing remains if the worker is killed. Commands append to it: after it is truncated, writing
// starts at its beginning. An empty one is used by the next attempt, if the kernel confirms that no other process has it open: creating
// a file costs a short command a tenth of its time.
type scratchLog struct {
	dir string
	log *attemptLog

	mu      sync.Mutex // shared with the timer's goroutine
	file    *os.File
	fd      int
	running bool
	timer   *time.Timer
	size    int64 // at the last look
	passed  int64 // bytes forwarded to the log
	freed   int64 // end of the freed range, which starts at passed
	chunk   []byte
}

// begin returns a descriptor for an attempt's standard error; the caller closes it.
func (s *scratchLog) begin(ctx context.Context) (attempt *os.File, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		file, err := blob.NewPrivateFiles().CreateUnnamed(ctx, blob.Location(s.dir))
		if errors.Is(err, errors.ErrUnsupported) {
			file, err = createRemoved(s.dir)
		}
		if err != nil {
			return nil, err
		}
		s.file, s.fd = file, int(file.Fd())
	}
	if attempt, err = reopen(s.file, os.O_WRONLY|os.O_APPEND); err != nil {
		return nil, err
	}
	s.running = true
	s.size, s.passed, s.freed = 0, 0, 0
	if s.timer == nil {
		s.timer = time.AfterFunc(logInterval, s.tick)
	} else {
		s.timer.Reset(logInterval)
	}
	return attempt, nil
}

// createRemoved creates a file, and removes its name.
func createRemoved(dir string) (*os.File, error) {
	named, err := os.CreateTemp(dir, "stderr-*")
	if err != nil {
		return nil, err
	}
	name := named.Name()
	file, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
	return file, errors.Join(err, named.Close(), os.Remove(name))
}

// tick runs periodically while a command runs.
func (s *scratchLog) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		return
	}
	grown := s.size
	s.emit()
	grown = s.size - grown
	tail := s.log.sizeMax - s.log.sizeMax/2
	if s.size-s.passed > 2*tail && s.log.head == 0 {
		s.free(s.size - tail)
	}
	if grown >= logBurst {
		s.timer.Reset(logIntervalFast)
	} else {
		s.timer.Reset(logInterval)
	}
}

// emit forwards what fits into the first half of the log.
func (s *scratchLog) emit() {
	var st syscall.Stat_t
	if err := syscall.Fstat(s.fd, &st); err != nil {
		return // does not happen to an open file; if it does, the log stays short
	}
	s.size = st.Size
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for s.passed < s.size && s.log.sink != nil && s.log.head > 0 {
		n := s.read(s.passed, min(s.size-s.passed, s.log.head))
		if n == 0 {
			return
		}
		s.passed += int64(s.log.writeHead(s.chunk[:n]))
	}
}

// read reads at most n bytes into chunk.
func (s *scratchLog) read(at, n int64) int {
	if s.chunk == nil {
		s.chunk = make([]byte, logChunk)
	}
	got, err := s.file.ReadAt(s.chunk[:min(n, logChunk)], at)
	if err != nil {
		return max(got, 0)
	}
	return got
}

// free frees the disk space between the halves of the log. If the file system does not support that, the file is truncated, and
// the log loses more than necessary.
func (s *scratchLog) free(end int64) {
	const page = 4 << 10
	from, to := max(s.freed, (s.passed+page-1)/page*page), end/page*page
	if to <= from {
		return
	}
	if err := punchHole(s.fd, from, to-from); err == nil {
		s.freed = to
	} else if err := s.file.Truncate(0); err == nil {
		s.log.addCut(s.size - s.passed)
		s.size, s.passed, s.freed = 0, 0, 0
	}
}

// end forwards the rest after the command has ended, and returns the last lines if wanted.
func (s *scratchLog) end(wantLast bool) (last []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	s.timer.Stop()
	s.emit()
	if s.size > 0 || s.log.cut > 0 {
		if wantLast {
			last = s.lastLines()
		}
		s.emitTail()
	}
	if s.size > 0 || s.log.cut > 0 || !exclusive(s.fd) {
		_ = s.file.Close() // its content was read, or is lost
		s.file = nil
	}
	return last
}

func (s *scratchLog) lastLines() []byte {
	from := max(0, s.size-lastLogsMax)
	last := make([]byte, s.size-from)
	n, err := s.file.ReadAt(last, from)
	if err != nil {
		return nil
	}
	last = last[:n]
	if from > 0 {
		if i := bytes.IndexByte(last, '\n'); i >= 0 {
			last = last[i+1:]
		}
	}
	return bytes.TrimRight(last, "\n")
}

func (s *scratchLog) emitTail() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	left := s.size - s.passed
	if s.log.sink == nil || left <= 0 && s.log.cut == 0 {
		return
	}
	tail := s.log.sizeMax - s.log.sizeMax/2
	from := s.size - min(left, tail)
	text := make([]byte, s.size-from)
	n, err := s.file.ReadAt(text, from)
	if err != nil {
		text = text[:max(n, 0)]
	}
	s.log.emitTail(s.log.cut+from-s.passed, nil, text)
}

func (s *scratchLog) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
