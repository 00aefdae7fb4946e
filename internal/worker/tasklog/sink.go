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
}

// NewSink returns a sink for any number of attempts, one at a time.
func (l *Log) NewSink() *Sink { return &Sink{log: l} }

// Begin starts the log of an attempt.
func (s *Sink) Begin(a Attempt) { s.attempt = a }

// Append appends text. It keeps no reference to it.
func (s *Sink) Append(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
