//go:build !linux

package program

import (
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

// groupMemory knows nothing: a job's memory limit is kept on Linux only.
func groupMemory(int) memoryUse { return memoryUse{} }
