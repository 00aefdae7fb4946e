package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// lastLogsMax is the share of a failure's message that the log's last lines may take.
const lastLogsMax = wire.FailureMessageMax * 3 / 4

// A failure ends an attempt.
type failure struct {
	kind    wire.FailureKind
	message string
}

func failed(kind wire.FailureKind, format string, args ...any) *failure {
	return &failure{kind: kind, message: fmt.Sprintf(format, args...)}
}

func (f *failure) wire() *wire.Failure {
	return &wire.Failure{Kind: f.kind, Message: wire.FailureMessage(f.message)}
}

// jobFailure is the failure of a job in this process that returned err, or overlooked it.
func jobFailure(err error) *failure {
	if bridgefour.IsBadInput(err) {
		return failed(wire.FailureKind_BAD_INPUT, "%v", err)
	}
	return failed(wire.FailureKind_PROGRAM_ERROR, "%v", err)
}

// outputFailure is the failure to write the output; the store's error names the file and the way out.
func outputFailure(err error) *failure {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return failed(wire.FailureKind_OUTPUT_ERROR, "output: %v, then bridgefour retry", err)
	}
	return failed(wire.FailureKind_OUTPUT_ERROR, "output: %v", err)
}

// inputError is what opening or reading path came to. What is wrong with the file is bad input; that this worker is short
// of something is not.
func inputError(path, host string, err error) error {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM),
		errors.Is(err, syscall.ESTALE), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("input %q: %w (on %s)", path, bare(err), host)
	case errors.Is(err, fs.ErrNotExist):
		return bridgefour.BadInput(fmt.Errorf("input %q: %w on %s; was it removed since the job was submitted, or is its folder not mounted there?",
			path, bare(err), host))
	default:
		return bridgefour.BadInput(fmt.Errorf("input %q: %w (on %s)", path, bare(err), host))
	}
}

// bare is the innermost error: without the operation and the path, which the message names in its own way.
func bare(err error) error {
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
