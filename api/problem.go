package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Error is the detail with the invalid fields. The client returns problems as the leader sent them.
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

// With adds an invalid field; location is a path such as body.inputs[0].
func (p *Problem) With(location, message string, value any) *Problem {
	p.Errors = append(p.Errors, ProblemField{Location: location, Message: message, Value: value})
	return p
}

// NewProblem returns a problem with an HTTP status.
func NewProblem(status int, format string, args ...any) *Problem {
	return &Problem{Status: status, Title: http.StatusText(status), Detail: fmt.Sprintf(format, args...)}
}

// IsStatus reports whether err is a problem with this HTTP status.
func IsStatus(err error, status int) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && p.Status == status
}

// Malformed is 400: the request cannot be parsed.
func Malformed(format string, args ...any) *Problem {
	return NewProblem(http.StatusBadRequest, format, args...)
}

// NotFound is 404: there is no such job, task or worker.
func NotFound(format string, args ...any) *Problem {
	return NewProblem(http.StatusNotFound, format, args...)
}

// NoJob is the 404 of a job.
func NoJob(id uint64) *Problem {
	return NotFound("there is no job %d: 'bridgefour jobs', or GET /v1/jobs, lists them", id)
}

// Conflict is 409: not possible in the current state.
func Conflict(format string, args ...any) *Problem {
	return NewProblem(http.StatusConflict, format, args...)
}

// Gone is 410: no longer kept.
func Gone(format string, args ...any) *Problem {
	return NewProblem(http.StatusGone, format, args...)
}

// TooLarge is 413: over a limit.
func TooLarge(format string, args ...any) *Problem {
	return NewProblem(http.StatusRequestEntityTooLarge, format, args...)
}

// Invalid is 422: parsed, but not valid.
func Invalid(format string, args ...any) *Problem {
	return NewProblem(http.StatusUnprocessableEntity, format, args...)
}

// OverQuota is 429: more than the quota of the user allows.
func OverQuota(format string, args ...any) *Problem {
	return NewProblem(http.StatusTooManyRequests, format, args...)
}

// TooFast is 429: the request had no effect, and may be sent again after a second.
func TooFast(format string, args ...any) *Problem {
	p := NewProblem(http.StatusTooManyRequests, format, args...)
	p.RetryAfter = 1
	return p
}

// Unavailable is 503: temporarily impossible (no leader, disk full); the request may be sent again.
func Unavailable(format string, args ...any) *Problem {
	return NewProblem(http.StatusServiceUnavailable, format, args...)
}

// TypeNotLeader is the type of the problem that NotLeader makes.
const TypeNotLeader = "urn:bridgefour:not-leader"

// NotLeader is 503: this node does not lead, and the request had no effect; another node may accept it.
func NotLeader(format string, args ...any) *Problem {
	p := Unavailable(format, args...)
	p.Type = TypeNotLeader
	return p
}

// TypeOutcomeUnknown is the type of the problem that OutcomeUnknown makes.
const TypeOutcomeUnknown = "urn:bridgefour:outcome-unknown"

// OutcomeUnknown is 503: the request may have been carried out, or may still be. Sent again it may be carried out twice, unless it has an Idempotency-Key.
func OutcomeUnknown(format string, args ...any) *Problem {
	p := Unavailable(format+": the request may have been carried out, or may still be; see whether it was before you send it again "+
		"(one with an Idempotency-Key can be sent again at once)", args...)
	p.Type = TypeOutcomeUnknown
	return p
}
