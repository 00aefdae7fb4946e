//go:build !linux

package runner

import (
	"errors"
	"syscall"
)

// ownGroup puts a command into a group of its own.
func ownGroup(*int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// waitExit waits until the process has ended. Its number is free from then on: only Linux can wait and leave a zombie.
func waitExit(pid, _ int) (status syscall.WaitStatus, reaped bool, err error) {
	status, err = reap(pid)
	return status, true, err
}

// exclusive cannot tell here.
func exclusive(int) bool { return false }

// readOnly cannot tell here.
func readOnly(int) bool { return true }

// openAgain gives the same opening: as exclusive never says yes, no other attempt gets it.
func openAgain(fd, _ int) (int, error) { return syscall.Dup(fd) }

func punchHole(int, int64, int64) error { return errors.ErrUnsupported }

// groupMemory knows nothing: a job's memory limit is kept on Linux only.
func groupMemory(int) memoryUse { return memoryUse{} }
