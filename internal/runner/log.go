package runner

import (
	"bytes"
	"fmt"
	"sync"
)

// A line up to this long reaches the sink in one piece.
const logLineMax = 64 << 10

// attemptLog passes an attempt's log to its sink: the first half of what is allowed at once, the last half at the end,
// and a mark between them where something had to go.
type attemptLog struct {
	sizeMax int64

	mu   sync.Mutex // a job may log from several goroutines
	sink LogSink    // nil: nobody wants it, or the attempt is over
	head int64      // what the first half still takes
	line []byte     // begun, not ended
	tail []byte     // a ring once it is full
	next int        // the oldest byte of the ring
	cut  int64      // bytes that the ring has lost
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

// Write takes text that a job in this process logs.
func (l *attemptLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sink == nil {
		return len(p), nil
	}
	l.keep(p[l.takeHead(p):])
	return len(p), nil
}

// finish passes on what is left. Text that comes later, from a goroutine that outlives its job, is lost.
func (l *attemptLog) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sink == nil {
		return
	}
	if len(l.tail) > 0 {
		older, newer := l.tail[l.next:], l.tail[:l.next]
		l.passTail(l.cut, older, newer)
	}
	l.flush()
	l.sink = nil
}

// takeHead passes on what the first half has room for, and gives its length.
func (l *attemptLog) takeHead(p []byte) int {
	n := int(min(l.head, int64(len(p))))
	l.head -= int64(n)
	l.pass(p[:n])
	return n
}

// passTail ends the log with its last half, which lies in two pieces, and before which cut bytes had to go. With a cut
// the half begins at a whole line, if it has one.
func (l *attemptLog) passTail(cut int64, older, newer []byte) {
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
	l.pass(older)
	l.pass(newer)
}

// pass gives whole lines to the sink and keeps the rest.
func (l *attemptLog) pass(p []byte) {
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

// keep puts text into the ring of the last half.
func (l *attemptLog) keep(p []byte) {
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

// addCut counts bytes that were lost before they could be kept.
func (l *attemptLog) addCut(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut += n
}
