package runner

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// exclusive reports whether a file has no other opening than fd. A file system that cannot tell counts as no.
func exclusive(fd int) bool {
	// A write lease is granted only to the sole opening of a file.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err == nil
}

// readOnly reports whether nothing has a file open for writing, of which fd is an opening for reading. A file system that
// cannot tell counts as yes.
func readOnly(fd int) bool {
	// A process that another slot is starting has copies of this process's files for a moment, until it runs its program.
	const tries = 100
	for range tries {
		// A read lease is refused while there is a writer. NFS and SMB refuse it for other reasons too.
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

// openAgain opens the file of fd once more.
func openAgain(fd, flags int) (int, error) {
	return unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|unix.O_CLOEXEC, 0)
}

// punchHole gives a part of a file back to the disk.
func punchHole(fd int, offset, length int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
}
