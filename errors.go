package bridgefour

import "errors"

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

type badInputError struct{ err error }

func (e *badInputError) Error() string { return e.err.Error() }
func (e *badInputError) Unwrap() error { return e.err }
