package runner

import (
	"bytes"
	"fmt"
	"sync"
)

// Lines up to this length reach the sink in one piece.
const logLineMax = 64 << 10

// attemptLog limits an attempt's log: it forwards the first half of sizeMax at once and the last half at the end, with a mark in
// place of what was cut between them.
type attemptLog struct {
	sizeMax int64

	mu   sync.Mutex // a job may log from several goroutines
	sink LogSink    // nil: none, or the attempt has ended
	head int64      // room left in the first half
	line []byte     // incomplete
	tail []byte     // a ring once it is full
	next int        // the oldest byte of the ring
	cut  int64      // bytes dropped from the ring
}

func (l *attemptLog) begin(sink LogSink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sink, l.head = sink, l.sizeMax/2
	if sink == nil {
		l.head = 0
	}
	l.line, l.tail, l.next, l.cut = l.line[:0], l.tail[:0], 0, 0
}

// Write appends text logged by a job in this process, or by a command.
func (l *attemptLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sink == nil {
		return len(p), nil
	}
	l.writeTail(p[l.writeHead(p):])
	return len(p), nil
}

// finish forwards the rest. Later text, from a goroutine that outlives its job, is discarded.
func (l *attemptLog) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sink == nil {
		return
	}
	if len(l.tail) > 0 {
		older, newer := l.tail[l.next:], l.tail[:l.next]
		l.emitTail(l.cut, older, newer)
	}
	l.flush()
	l.sink = nil
}

// writeHead forwards what fits into the first half, and returns its length.
func (l *attemptLog) writeHead(p []byte) int {
	n := int(min(l.head, int64(len(p))))
	l.head -= int64(n)
	l.emit(p[:n])
	return n
}

// emitTail ends the log with its last half, given in two pieces, after cut bytes that were dropped. If bytes were dropped, the
// half starts at a line, if it contains a line end.
func (l *attemptLog) emitTail(cut int64, older, newer []byte) {
	if cut > 0 {
		if end := bytes.IndexByte(older, '\n'); end >= 0 {
			cut, older = cut+int64(end+1), older[end+1:]
		} else if end := bytes.IndexByte(newer, '\n'); end >= 0 {
			cut, older, newer = cut+int64(len(older)+end+1), nil, newer[end+1:]
		}
		if len(l.line) > 0 {
			l.line = append(l.line, '\n')
		}
		l.line = fmt.Appendf(l.line, "… %d bytes cut …\n", cut)
		l.flush()
	}
	l.emit(older)
	l.emit(newer)
}

// emit forwards whole lines to the sink and buffers the rest.
func (l *attemptLog) emit(p []byte) {
	whole := bytes.LastIndexByte(p, '\n') + 1
	if whole > 0 {
		if len(l.line) > 0 {
			l.line = append(l.line, p[:whole]...)
			l.flush()
		} else {
			l.sink.Append(p[:whole])
		}
	}
	l.line = append(l.line, p[whole:]...)
	if len(l.line) >= logLineMax {
		l.flush()
	}
}

func (l *attemptLog) flush() {
	if len(l.line) > 0 {
		l.sink.Append(l.line)
		l.line = l.line[:0]
	}
}

// writeTail writes to the ring buffer of the last half.
func (l *attemptLog) writeTail(p []byte) {
	size := int(l.sizeMax - l.sizeMax/2)
	if over := len(p) - size; over > 0 {
		l.cut += int64(over + len(l.tail))
		l.tail, l.next = append(l.tail[:0], p[over:]...), 0
		return
	}
	n := min(size-len(l.tail), len(p))
	l.tail = append(l.tail, p[:n]...)
	for p = p[n:]; len(p) > 0; p = p[n:] {
		n = copy(l.tail[l.next:], p)
		l.next = (l.next + n) % size
		l.cut += int64(n)
	}
}
