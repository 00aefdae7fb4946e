package runner

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

const (
	logInterval     = 200 * time.Millisecond
	logIntervalFast = 20 * time.Millisecond // for a log that grows by logBurst or more within an interval
	logBurst        = 8 << 20
	logChunk        = 64 << 10
)

// lastLogsMax is the share of a failure's message that the log's last lines may take.
const lastLogsMax = wire.FailureMessageMax * 3 / 4

// scratchLog is the file that takes the standard error of a slot's commands. While a command runs, what it writes is
// passed on; what is neither the first nor the last half of what a log may be is given back to the disk.
//
// The file has no name, so that nothing is left of it whatever becomes of the worker. Commands append to it: emptied
// between two attempts, it is written from its beginning again. As with standard output (see stdoutFile), another attempt
// gets it only when no process has it open any more.
type scratchLog struct {
	dir string
	log *attemptLog

	mu      sync.Mutex // with the timer's goroutine
	file    *os.File
	fd      int
	running bool
	timer   *time.Timer
	size    int64 // when it was last looked at
	passed  int64 // the first byte that the log has not got yet
	freed   int64 // no disk space is held by passed to here
	chunk   []byte
}

// begin gives an opening of the file for an attempt's standard error, which the caller closes.
func (s *scratchLog) begin() (given int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		if err := s.create(); err != nil {
			return 0, err
		}
	}
	if given, err = openAgain(s.fd, syscall.O_WRONLY|syscall.O_APPEND); err != nil {
		return 0, err
	}
	s.running = true
	s.size, s.passed, s.freed = 0, 0, 0
	if s.timer == nil {
		s.timer = time.AfterFunc(logInterval, s.tick)
	} else {
		s.timer.Reset(logInterval)
	}
	return given, nil
}

func (s *scratchLog) create() error {
	named, err := os.CreateTemp(s.dir, "stderr-*")
	if err != nil {
		return err
	}
	name := named.Name()
	file, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
	err = errors.Join(err, named.Close(), os.Remove(name))
	if err != nil {
		return err
	}
	s.file, s.fd = file, int(file.Fd())
	return nil
}

// tick runs while a command does.
func (s *scratchLog) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		return
	}
	grown := s.size
	s.pass()
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

// pass gives the log what its first half takes.
func (s *scratchLog) pass() {
	var st syscall.Stat_t
	if err := syscall.Fstat(s.fd, &st); err != nil {
		return // an open file can be asked; if not, the log stays short
	}
	s.size = st.Size
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for s.passed < s.size && s.log.sink != nil && s.log.head > 0 {
		n := s.read(s.passed, min(s.size-s.passed, s.log.head))
		if n == 0 {
			return
		}
		s.passed += int64(s.log.takeHead(s.chunk[:n]))
	}
}

// read reads at most n bytes, and a chunk, into chunk.
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

// free gives the disk back what lies between the log's halves. Where the file system cannot, the file is emptied: then
// the log loses more than it has to.
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

// end passes on the rest when the command has ended, and gives the last lines if they are wanted.
func (s *scratchLog) end(wantLast bool) (last []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	s.timer.Stop()
	s.pass()
	reusable := exclusive(s.fd)
	if s.size > 0 || s.log.cut > 0 {
		if wantLast {
			last = s.lastLines()
		}
		s.passTail()
		reusable = reusable && s.file.Truncate(0) == nil
	}
	if !reusable {
		_ = s.file.Close() // what it held was read, or is lost
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

func (s *scratchLog) passTail() {
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
	s.log.passTail(s.log.cut+from-s.passed, nil, text)
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
