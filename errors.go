package bridgefour

import "errors"

// ErrPartsAreResult is returned by a Collect that has nothing to add: the parts, one after the other, are the result.
// It is no failure.
var ErrPartsAreResult = errors.New("the parts are the result")

// ErrResultTooLarge is what [Output] returns in a Collect beyond the size limit of the result. A Collect that returns it,
// or overlooks it, has not failed: the parts are the result.
var ErrResultTooLarge = errors.New("the result is over its size limit")

// BadInput marks err as the input's fault: the task fails at once, since running it again would end the same way.
// BadInput(nil) is nil.
func BadInput(err error) error {
	if err == nil {
		return nil
	}
	return &badInputError{err}
}

// IsBadInput tells whether err, or an error that it wraps, was marked by [BadInput].
func IsBadInput(err error) bool {
	_, bad := errors.AsType[*badInputError](err)
	return bad
}

type badInputError struct{ err error }

func (e *badInputError) Error() string { return e.err.Error() }
func (e *badInputError) Unwrap() error { return e.err }
