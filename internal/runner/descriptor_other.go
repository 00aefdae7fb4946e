//go:build !linux

package runner

import (
	"errors"
	"syscall"
)

// exclusive is not implemented.
func exclusive(int) bool { return false }

// readOnly is not implemented.
func readOnly(int) bool { return true }

// reopen returns the same open file description, which is never given to another attempt: see exclusive.
func reopen(fd, _ int) (int, error) { return syscall.Dup(fd) }

func punchHole(int, int64, int64) error { return errors.ErrUnsupported }
