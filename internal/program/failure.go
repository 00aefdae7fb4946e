package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Failure ends an attempt.
type Failure struct {
	Kind    wire.FailureKind
	Message string
	Wait    time.Duration // least time before the next attempt
	Cancel  bool          // the job ends
}

// Failed formats a failure.
func Failed(kind wire.FailureKind, format string, args ...any) *Failure {
	return &Failure{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// JobFailure is the failure of a built-in job that returned err or ignored it.
func JobFailure(err error) *Failure {
	f := Failed(wire.FailureKind_PROGRAM_ERROR, "%v", err)
	if bridgefour.IsBadInput(err) {
		f.Kind = wire.FailureKind_BAD_INPUT
	}
	f.Wait, _ = bridgefour.IsRetryAfter(err)
	f.Cancel = bridgefour.IsCancel(err)
	return f
}

// OutputFailure is a failure to write the output. The store's error names the file and the way out. One that is marked by [bridgefour.BadInput] is of what was
// written.
func OutputFailure(err error) *Failure {
	if bridgefour.IsBadInput(err) {
		return Failed(wire.FailureKind_BAD_INPUT, "output: %v", err)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return Failed(wire.FailureKind_OUTPUT_ERROR, "output: %v, then run the failed tasks again", err)
	}
	return Failed(wire.FailureKind_OUTPUT_ERROR, "output: %v", err)
}

// InputError is a failure to open or read path. It is bad input unless the worker is out of resources.
func InputError(path, host string, err error) error {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM),
		errors.Is(err, syscall.ESTALE), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("input %q: %w (on %s)", path, Bare(err), host)
	case errors.Is(err, fs.ErrNotExist):
		return bridgefour.BadInput(fmt.Errorf("input %q: %w on %s; was it removed after the job was submitted, or is its folder not mounted there?",
			path, Bare(err), host))
	default:
		return bridgefour.BadInput(fmt.Errorf("input %q: %w (on %s)", path, Bare(err), host))
	}
}

// Bare returns the innermost error, without the operation and the path.
func Bare(err error) error {
	for {
		cause := errors.Unwrap(err)
		if cause == nil {
			return err
		}
		err = cause
	}
}

func sizeText(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n), -1
	for value >= unit && prefix < 4 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[prefix])
}
