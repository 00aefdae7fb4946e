//go:build !linux

package runner

import (
	"errors"
	"os"
)

// readOnly is not implemented.
func readOnly(int) bool { return true }

// reopen opens the file of f for reading.
func reopen(f *os.File) (*os.File, error) { return os.Open(f.Name()) }

// createUnnamed is not implemented.
func createUnnamed(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func punchHole(int, int64, int64) error { return errors.ErrUnsupported }
