package runner

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// outputPipe reads what an attempt's command writes to its standard output or error. Each attempt gets a new pipe, so nothing that a
// process of an earlier attempt still writes, such as a daemon that was given the descriptor, can get into another task's part.
type outputPipe struct {
	buf    []byte
	reader *os.File // nil: nothing was written
	copied chan error
}

// heldTimeout is the wait for the end of a pipe, after its command has ended.
const heldTimeout = time.Second

// errHeld is the error for an output that is not complete: a process that is not of the attempt can write to it.
var errHeld = errors.New("a process that is not of the command has its output open for writing")

// copy starts to copy from reader to w. broken is called from another goroutine if w fails.
func (p *outputPipe) copy(w io.Writer, reader *os.File, broken func()) {
	if p.buf == nil {
		const size = 64 << 10 // of a pipe
		p.buf = make([]byte, size)
	}
	p.reader, p.copied = reader, make(chan error, 1)
	go func() {
		n, err := copyAll(w, onlyReader{reader}, p.buf)
		// The deadline, which close sets, may have passed while w was slow: held is a pipe with nothing to read.
		for last := false; errors.Is(err, os.ErrDeadlineExceeded) && (n > 0 || !last); last = true {
			_ = reader.SetReadDeadline(time.Now().Add(heldTimeout)) // pipes have deadlines
			n, err = copyAll(w, onlyReader{reader}, p.buf)
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			broken()
		}
		p.copied <- err
	}()
}

// onlyReader hides WriteTo.
type onlyReader struct{ io.Reader }

// close ends the copy once the command has ended. The error is that of w, or errHeld.
func (p *outputPipe) close() error {
	if p.reader == nil {
		return nil
	}
	_ = p.reader.SetReadDeadline(time.Now().Add(heldTimeout)) // pipes have deadlines
	err := <-p.copied
	_ = p.reader.Close() // only read from
	p.reader = nil
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errHeld
	}
	return err
}

// stdout counts the lines of an attempt's output.
type stdout struct {
	file  *attemptFile
	keyed *keyedOutput
	lines uint64
	last  byte
}

func (s *stdout) Write(p []byte) (int, error) {
	if s.keyed.on() {
		return s.keyed.Write(p)
	}
	s.lines += countLines(p)
	s.last = p[len(p)-1]
	return s.file.Write(p)
}

// records is the number of lines, also of a last one without an end.
func (s *stdout) records() uint64 {
	if s.file.size > 0 && s.last != '\n' {
		return s.lines + 1
	}
	return s.lines
}

// lastLinesMax limits the last lines of standard error that are part of a failure's message.
const lastLinesMax = wire.FailureMessageMax * 3 / 4

// stderr writes to an attempt's log, and keeps its end.
type stderr struct {
	log  *attemptLog
	size int64
	end  []byte
}

func (s *stderr) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	s.end = append(s.end, p[max(0, len(p)-lastLinesMax):]...)
	if over := len(s.end) - lastLinesMax; over > lastLinesMax {
		s.end = s.end[:copy(s.end, s.end[over:])]
	}
	return s.log.Write(p)
}

func (s *stderr) lastLines() []byte {
	last := s.end[max(0, len(s.end)-lastLinesMax):]
	if int64(len(last)) < s.size {
		if i := bytes.IndexByte(last, '\n'); i >= 0 {
			last = last[i+1:]
		}
	}
	return bytes.TrimRight(last, "\n")
}
