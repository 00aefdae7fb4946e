package program

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup puts a command into a new process group, and has the kernel kill it if the worker dies, because its lease is lost
// then. The kernel stores a pidfd in handle.
func ownGroup(handle *int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, PidFD: handle}
}

// waitExit waits until the process has ended, and leaves it a zombie. It waits in the runtime's poller: while a thread is blocked
// in waitid, the runtime polls for other work every 20 µs, which costs a tenth of a short command's time.
func waitExit(pid, handle int) (status syscall.WaitStatus, reaped bool, err error) {
	if handle < 0 { // the kernel is older than 5.3
		return 0, false, waitID(unix.P_PID, pid, 0)
	}
	if err := unix.SetNonblock(handle, true); err != nil { // makes os.NewFile use the poller
		return 0, false, errors.Join(waitID(unix.P_PID, pid, 0), unix.Close(handle))
	}
	f := os.NewFile(uintptr(handle), "pidfd")
	defer f.Close() //nolint:errcheck // nothing is written to it
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, false, waitID(unix.P_PID, pid, 0)
	}
	var waitErr error
	if err := conn.Read(func(fd uintptr) bool {
		waitErr = waitID(unix.P_PIDFD, int(fd), unix.WNOHANG)
		return !errors.Is(waitErr, unix.EAGAIN)
	}); err != nil { // it cannot be polled
		return 0, false, waitID(unix.P_PID, pid, 0)
	}
	return 0, false, waitErr
}

// waitID waits for the end of a process. With WNOHANG, EAGAIN means that it still runs.
func waitID(kind, id, options int) error {
	for {
		var info unix.Siginfo
		err := unix.Waitid(kind, id, &info, unix.WEXITED|unix.WNOWAIT|options, nil)
		if err == nil && info.Signo == 0 {
			return unix.EAGAIN
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// groupMemory returns the resident memory of a process group.
func groupMemory(group int) memoryUse {
	var use memoryUse
	root, err := os.Open("/proc")
	if err != nil {
		return use
	}
	defer root.Close() //nolint:errcheck // only read from
	names, err := root.Readdirnames(-1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return use
	}
	want := []byte(strconv.Itoa(group))
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid pgrp …; the name may contain anything, including parentheses.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		const state, pgrp, rss = 0, 2, 21
		if len(fields) <= rss || !bytes.Equal(fields[pgrp], want) || bytes.ContainsAny(fields[state], "ZX") {
			continue
		}
		use.running++
		if pages, err := strconv.ParseUint(string(fields[rss]), 10, 64); err == nil {
			use.rss += pages * uint64(os.Getpagesize())
		}
	}
	return use
}
