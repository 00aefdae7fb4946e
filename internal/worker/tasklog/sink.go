package tasklog

import (
	"bytes"
	"sync"
)

// Sink writes the log of one attempt after another. It is safe for concurrent use between Begin and End.
type Sink struct {
	log     *Log
	mu      sync.Mutex
	attempt Attempt
	carry   []byte // an incomplete line
	tail    []byte // the last tailMax bytes of the attempt, or up to twice as many
	total   uint64 // bytes of the attempt
}

// tailMax is the most of an attempt's text that Tail returns.
const tailMax = 64 << 10

// NewSink returns a sink for any number of attempts, one at a time.
func (l *Log) NewSink() *Sink { return &Sink{log: l} }

// Begin starts the log of an attempt.
func (s *Sink) Begin(a Attempt) { s.attempt, s.tail, s.total = a, s.tail[:0], 0 }

// Tail returns the last bytes of the attempt's text, at most 64 KiB, which are valid until the next Begin, and the length of all of it.
func (s *Sink) Tail() (last []byte, total uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tail[max(0, len(s.tail)-tailMax):], s.total
}

// keepTail adds text to the tail.
func (s *Sink) keepTail(text []byte) {
	s.total += uint64(len(text))
	text = text[max(0, len(text)-tailMax):]
	if len(s.tail)+len(text) > 2*tailMax {
		s.tail = append(s.tail[:0], s.tail[len(s.tail)-tailMax:]...)
	}
	s.tail = append(s.tail, text...)
}

// Append appends text. It keeps no reference to it.
func (s *Sink) Append(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepTail(text)
	if len(s.carry) > 0 {
		s.carry = append(s.carry, text...)
		text = s.carry
	}
	rest := text
	for len(rest) > 0 {
		n := lineCut(rest)
		if n == 0 {
			break
		}
		s.log.append(s.attempt, rest[:n])
		rest = rest[n:]
	}
	// rest may be part of carry: append moves it to the front.
	s.carry = append(s.carry[:0], rest...)
}

// lineCut is the length of the next record in text; 0: wait for the end of the line.
func lineCut(text []byte) int {
	window := text[:min(len(text), textMax)]
	if i := bytes.LastIndexByte(window, '\n'); i >= 0 {
		return i + 1
	}
	if len(window) == textMax {
		return textMax
	}
	return 0
}

// End writes the attempt's incomplete line.
func (s *Sink) End() {
	if len(s.carry) > 0 {
		s.log.append(s.attempt, s.carry)
		s.carry = s.carry[:0]
	}
}
