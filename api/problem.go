package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Error says what went wrong, with the fields that are at fault. A Problem is the error type of the whole API: the leader
// returns it where it means a definite answer, and the client returns the one it was sent.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Detail)
	if p.Detail == "" {
		b.WriteString(p.Title)
	}
	for i, f := range p.Errors {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep)
		if f.Location != "" {
			b.WriteString(f.Location)
			b.WriteString(": ")
		}
		b.WriteString(f.Message)
	}
	return b.String()
}

// With adds a field that is at fault; location is a path such as body.inputs[0].
func (p *Problem) With(location, message string, value any) *Problem {
	p.Errors = append(p.Errors, ProblemField{Location: location, Message: message, Value: value})
	return p
}

// NewProblem is a problem with an HTTP status.
func NewProblem(status int, format string, args ...any) *Problem {
	return &Problem{Status: status, Title: http.StatusText(status), Detail: fmt.Sprintf(format, args...)}
}

// IsStatus reports whether err is a problem with this HTTP status.
func IsStatus(err error, status int) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && p.Status == status
}

// Malformed is 400: the request cannot be read.
func Malformed(format string, args ...any) *Problem {
	return NewProblem(http.StatusBadRequest, format, args...)
}

// NotFound is 404: there is no such job, task or worker.
func NotFound(format string, args ...any) *Problem {
	return NewProblem(http.StatusNotFound, format, args...)
}

// Conflict is 409: not in the state that the subject is in now.
func Conflict(format string, args ...any) *Problem {
	return NewProblem(http.StatusConflict, format, args...)
}

// Gone is 410: it was there once, and is not kept any more.
func Gone(format string, args ...any) *Problem {
	return NewProblem(http.StatusGone, format, args...)
}

// TooLarge is 413: more than can be carried.
func TooLarge(format string, args ...any) *Problem {
	return NewProblem(http.StatusRequestEntityTooLarge, format, args...)
}

// Invalid is 422: readable, but asks for what cannot be.
func Invalid(format string, args ...any) *Problem {
	return NewProblem(http.StatusUnprocessableEntity, format, args...)
}

// Unavailable is 503: not now (no leader, disk full); the same request may be sent again.
func Unavailable(format string, args ...any) *Problem {
	return NewProblem(http.StatusServiceUnavailable, format, args...)
}

// TypeNotLeader is the type of the problem that NotLeader makes.
const TypeNotLeader = "urn:bridgefour:not-leader"

// NotLeader is 503: this node does not lead, and has done nothing of what was asked; another node, or this one later, may.
func NotLeader(format string, args ...any) *Problem {
	p := Unavailable(format, args...)
	p.Type = TypeNotLeader
	return p
}
