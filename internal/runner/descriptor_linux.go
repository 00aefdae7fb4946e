package runner

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// exclusive reports whether fd is the only open file description of its file. If the file system cannot tell, it is not.
func exclusive(fd int) bool {
	// The kernel grants a write lease only if there is no other open file description.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err == nil
}

// readOnly reports whether no open file description of fd's file can write; fd itself must be read-only. If the file system
// cannot tell, none can.
func readOnly(fd int) bool {
	// A child that another slot forks briefly has copies of this process's descriptors, until it executes its program.
	const tries = 100
	for range tries {
		// The kernel refuses a read lease while there is a writer. NFS and SMB refuse it for other reasons too.
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
			return err == nil
		}
		if !errors.Is(err, unix.EAGAIN) || !grantsLeases(fd) {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

func grantsLeases(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC:
		return true
	}
	return false
}

// reopen creates another open file description for the file of fd.
func reopen(fd, flags int) (int, error) {
	return unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|unix.O_CLOEXEC, 0)
}

// punchHole frees the disk space of a part of a file.
func punchHole(fd int, offset, length int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
}
