package runner

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup puts a command into a group of its own, and has the kernel kill it should the worker die: its lease is lost
// with the worker.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// waitExit waits until the process has ended, and leaves it a zombie.
func waitExit(pid int) (status syscall.WaitStatus, reaped bool, err error) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return 0, false, err
		}
	}
}

// punchHole gives a part of a file back to the disk.
func punchHole(fd int, offset, length int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
}

// groupMemory adds up the resident memory of a process group.
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
		// pid (name) state ppid pgrp …; the name may hold anything, also brackets.
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
