package keeper

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// As the first process of a container, this one inherits all orphans, and must wait for them. It cannot tell them from the children of
// other parts of the program, so it becomes an init process: the program runs as its child.
func init() { //nolint:gochecknoinits // before any other part of the program starts processes
	if os.Getpid() == 1 {
		os.Exit(initProcess())
	}
}

// initProcess passes on signals to the program, waits for all processes, and returns the program's exit status.
func initProcess() int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if _, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err == nil {
		attr.Sys.Foreground = true // Ctrl-C goes to the program, and not to both
	}
	child, err := syscall.ForkExec("/proc/self/exe", os.Args, attr)
	if err != nil {
		println("start as a child of process 1:", err.Error())
		return 1
	}
	for s := range signals {
		switch s {
		case unix.SIGCHLD:
			if code, ended := reapAll(child); ended {
				return code
			}
		case unix.SIGURG: // of the Go runtime
		default:
			_ = unix.Kill(child, s.(syscall.Signal)) //nolint:forcetypeassert // they all are
		}
	}
	return 0
}

// reapAll waits for all processes that have ended. ended is true if child is one of them.
func reapAll(child int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || pid == 0:
			return code, ended
		case pid == child:
			ended = true
			if code = status.ExitStatus(); status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}
