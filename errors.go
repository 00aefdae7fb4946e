package bridgefour

import (
	"errors"
	"time"
)

// ErrPartsAreResult is returned by a Collect to leave the parts, concatenated, as the result. It is not a failure.
var ErrPartsAreResult = errors.New("the parts are the result")

// ErrResultTooLarge is returned by a [Writer] of a Collect beyond the size limit of the result. A Collect that returns or ignores
// it has not failed: the parts are the result.
var ErrResultTooLarge = errors.New("the result is over its size limit")

// BadInput marks err as caused by the input: the task fails without a retry, which would have the same result. BadInput(nil) is
// nil.
func BadInput(err error) error {
	if err == nil {
		return nil
	}
	return &badInputError{err}
}

// IsBadInput reports whether err, or an error that it wraps, was marked by [BadInput].
func IsBadInput(err error) bool {
	_, bad := errors.AsType[*badInputError](err)
	return bad
}

// RetryAfter marks err as one that passes, such as of a service that is down: the task is retried d later, or after the job's own delay if that is
// longer, at most a week. The attempt counts against the job's number of retries. RetryAfter(d, nil) is nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{d, err}
}

// IsRetryAfter returns the delay of the outermost [RetryAfter] of err; ok is false if there is none.
func IsRetryAfter(err error) (d time.Duration, ok bool) {
	if e, ok := errors.AsType[*retryAfterError](err); ok {
		return e.after, true
	}
	return 0, false
}

type retryAfterError struct {
	after time.Duration
	err   error
}

func (e *retryAfterError) Error() string { return e.err.Error() }
func (e *retryAfterError) Unwrap() error { return e.err }

// Cancel marks err as one that makes the rest of the job useless: the job fails at once, with err, and its other tasks are stopped. Cancel(nil)
// is nil.
func Cancel(err error) error {
	if err == nil {
		return nil
	}
	return &cancelError{err}
}

// IsCancel reports whether err, or an error that it wraps, was marked by [Cancel].
func IsCancel(err error) bool {
	_, cancel := errors.AsType[*cancelError](err)
	return cancel
}

type cancelError struct{ err error }

func (e *cancelError) Error() string { return e.err.Error() }
func (e *cancelError) Unwrap() error { return e.err }

type badInputError struct{ err error }

func (e *badInputError) Error() string { return e.err.Error() }
func (e *badInputError) Unwrap() error { return e.err }
