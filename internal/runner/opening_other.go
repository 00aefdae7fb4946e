//go:build !linux

package runner

import (
	"errors"
	"syscall"
)

// exclusive cannot tell here.
func exclusive(int) bool { return false }

// readOnly cannot tell here.
func readOnly(int) bool { return true }

// openAgain gives the same opening: as exclusive never says yes, no other attempt gets it.
func openAgain(fd, _ int) (int, error) { return syscall.Dup(fd) }

func punchHole(int, int64, int64) error { return errors.ErrUnsupported }
