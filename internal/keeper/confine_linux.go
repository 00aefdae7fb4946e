package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// The parts of a confinement, in the answer to it.
const (
	partTemp = iota
	partPrivileges
	partSandbox
	partNetwork
)

// confine confines this process, and so its commands, and reports the part that failed.
func (s *server) confine(c Confinement, temp string) (part uint32, err error) {
	if temp != "" {
		s.temp = temp
		if err := s.makeTemp(); err != nil {
			return partTemp, err
		}
	}
	if c.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return partPrivileges, err
		}
	}
	if c.NoNetwork {
		if err := denySockets(); err != nil {
			return partNetwork, err
		}
	}
	if c.Sandbox {
		if err := sandbox(temp); err != nil {
			return partSandbox, err
		}
	}
	return 0, nil
}

// sandbox lets this process write to files below temp, and to devices that keep nothing. It cannot signal processes that are not in the
// sandbox, if the kernel can refuse that. Landlock version 3 is the first that refuses to truncate files.
func sandbox(temp string) error {
	err := landlock.V3.RestrictPaths(
		landlock.RODirs("/"), landlock.RWDirs(temp).WithRefer(),
		landlock.RWFiles("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty").IgnoreIfMissing(),
	)
	if err == nil {
		err = landlock.V6.BestEffort().RestrictScoped()
	}
	return err
}

// auditArch are the values of seccomp_data.arch.
var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64} //nolint:gochecknoglobals // a constant

// denySockets refuses sockets of all families, except pairs. System calls of other architectures, which have other numbers, are
// refused, and so is io_uring, which makes sockets too.
func denySockets() error {
	arch, known := auditArch[runtime.GOARCH]
	if !known {
		return unix.ENOTSUP
	}
	const (
		numberOffset, archOffset = 0, 4    // in struct seccomp_data
		x32                      = 1 << 30 // of system calls of amd64 with 32-bit pointers
		load                     = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		ifEqual                  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ifAtLeast                = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		result                   = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: load, K: archOffset},
		{Code: ifEqual, K: arch, Jf: 5},
		{Code: load, K: numberOffset},
		{Code: ifAtLeast, K: x32, Jt: 3},
		{Code: ifEqual, K: unix.SYS_IO_URING_SETUP, Jt: 2},
		{Code: ifEqual, K: unix.SYS_SOCKET, Jt: 2},
		{Code: result, K: unix.SECCOMP_RET_ALLOW},
		{Code: result, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: result, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]} //nolint:gosec // nine
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

const modeTemp = 0o700 // of the folder for temporary files

// makeTemp creates the folder for temporary files, if there is none. Other users can enter root's parent of it, but not list that.
func (s *server) makeTemp() error {
	modeParent := os.FileMode(0o700)
	if os.Geteuid() == 0 { // its commands may be those of other users
		modeParent = 0o711
	}
	if err := os.Mkdir(filepath.Dir(s.temp), modeParent); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(filepath.Dir(s.temp))
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return unix.ENOTDIR
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return unix.EPERM // another user has made it
	}
	info, err = os.Lstat(s.temp)
	if err == nil && !info.IsDir() { // a command has replaced it
		err = errors.Join(os.Remove(s.temp), os.ErrNotExist)
	}
	if errors.Is(err, os.ErrNotExist) {
		err = os.Mkdir(s.temp, modeTemp)
	} else if err == nil {
		err = os.Chmod(s.temp, modeTemp)
	}
	return err
}

// giveTemp gives the folder to the user of the commands.
func (s *server) giveTemp() {
	if s.temp == "" || os.Geteuid() != 0 {
		return
	}
	user := &syscall.Credential{}
	if s.user != nil {
		user = s.user
	}
	_ = os.Lchown(s.temp, int(user.Uid), int(user.Gid)) // otherwise its commands cannot use it
}

// clearTemp empties the folder for temporary files.
func (s *server) clearTemp() {
	if s.temp == "" || s.tempEmpty() {
		return
	}
	_ = s.makeTemp() // if it cannot be used, commands fail
	s.giveTemp()
	fd, err := unix.Open(s.temp, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	removeBelow(fd)
	_ = unix.Close(fd)
}

// tempEmpty reports whether the folder for temporary files is as it was before the command. It is called after each.
func (s *server) tempEmpty() bool {
	fd, err := unix.Open(s.temp, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // only read from
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode != unix.S_IFDIR|modeTemp {
		return false
	}
	n, err := unix.Getdents(fd, s.entries[:])
	const linkSize = 24 // of the entries . and ..
	return err == nil && n == 2*linkSize
}

// removeTemp removes the folder for temporary files, and its parent.
func (s *server) removeTemp() {
	if s.temp == "" {
		return
	}
	s.clearTemp()
	_ = os.Remove(s.temp)
	worker := []unix.PollFd{{Fd: int32(s.socket)}} //nolint:gosec // a descriptor
	if poll(worker, 0); worker[0].Revents&unix.POLLHUP != 0 {
		_ = os.Remove(filepath.Dir(s.temp)) // the last one does
	}
}

// errnoOf is the number of an error; that of the libraries have one, or mean that the kernel lacks something.
func errnoOf(err error) uint32 {
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return uint32(errno)
	}
	return uint32(unix.ENOSYS)
}
