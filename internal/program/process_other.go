//go:build !linux

package program

import (
	"syscall"
)

// ownGroup puts a command into a new process group.
func ownGroup(*int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// waitExit waits until the process has ended. Then its number is free: only Linux can wait and leave a zombie.
func waitExit(pid, _ int) (status syscall.WaitStatus, reaped bool, err error) {
	status, err = reap(pid)
	return status, true, err
}

// groupMemory is not implemented: memory limits require Linux.
func groupMemory(int) memoryUse { return memoryUse{} }
