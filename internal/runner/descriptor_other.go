//go:build !linux

package runner

import (
	"errors"
	"os"
	"strconv"
)

// readOnly is not implemented.
func readOnly(int) bool { return true }

// exclusive is not implemented.
func exclusive(int) bool { return false }

// reopen creates another open file description for the file of f.
func reopen(f *os.File, flags int) (*os.File, error) {
	return os.OpenFile("/dev/fd/"+strconv.Itoa(int(f.Fd())), flags, 0)
}

func punchHole(int, int64, int64) error { return errors.ErrUnsupported }
