package blob

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// wholeMin is the number of files from which syncing their file system, which costs about as much as two files, is cheaper.
	wholeMin = 8
	// dirtyMax limits the unwritten bytes of the machine for that, because syncfs writes them all, of every process. A disk that
	// writes 200 MB/s takes 1/3 s for them.
	dirtyMax = 64 << 20
)

// syncFiles makes the data of files durable; the caller syncs their folders.
//
// Many small files are synced by one syncfs instead of one fsync each: 256 files of 10 bytes take 3 ms instead of 20, and 4096
// take 43 ms instead of 230 (ext4, virtual disk). It is as safe on the file systems for which it is used:
//   - ext4, XFS and btrfs write all data and commit their journal, with a flush of the disk's cache;
//   - write errors are recorded and queried per file, by the same kernel function that fsync uses;
//   - an aborted journal makes the fsync of the folder fail, which the caller does next.
func syncFiles(ctx context.Context, names, folders []Location) error {
	if len(names) < wholeMin*len(folders) || !fewDirty() {
		return fsyncEach(ctx, names)
	}
	done := make(map[uint64]bool, 1) // synced file systems by device
	for _, dir := range folders {
		ok, err := syncWhole(dir, done)
		if err != nil {
			return explain("sync", dir, err)
		}
		if !ok {
			return fsyncEach(ctx, names)
		}
	}
	return each(ctx, names, checkWritten)
}

// syncWhole syncs the file system of dir if that is known to be safe.
func syncWhole(dir Location, done map[uint64]bool) (ok bool, err error) {
	f, err := os.Open(string(dir))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var (
		stat unix.Stat_t
		fs   unix.Statfs_t
		fd   = int(f.Fd())
	)
	if err := errors.Join(unix.Fstat(fd, &stat), unix.Fstatfs(fd, &fs)); err != nil {
		return false, err
	}
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
	default:
		return false, nil // FUSE, for example, does not forward syncfs
	}
	if done[stat.Dev] {
		return true, nil
	}
	if err := unix.Syncfs(fd); err != nil {
		// The error may belong to another process's file, or a sandbox may forbid the call: fsync each file instead.
		return false, nil
	}
	done[stat.Dev] = true
	return true, nil
}

// checkWritten returns a file's write error, if any, as fsync would. After a sync it writes nothing and does not wait.
func checkWritten(name Location) error {
	fd, err := unix.Open(string(name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return explain("open", name, err)
	}
	if err := errors.Join(unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE), unix.Close(fd)); err != nil {
		return explain("sync", name, err)
	}
	return nil
}

// fewDirty reports whether the machine has few unwritten bytes.
func fewDirty() bool {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return false
	}
	var dirty uint64
	found := 0
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() && found < 2 {
		for _, key := range []string{"Dirty:", "Writeback:"} {
			if rest, ok := bytes.CutPrefix(lines.Bytes(), []byte(key)); ok {
				kib, err := strconv.ParseUint(string(bytes.TrimSpace(bytes.TrimSuffix(rest, []byte("kB")))), 10, 64)
				if err != nil {
					return false
				}
				dirty += kib << 10
				found++
			}
		}
	}
	return found == 2 && dirty <= dirtyMax
}

// freeSpace returns the free space of the file system of dir.
func freeSpace(dir Location) (space, error) {
	var fs unix.Statfs_t
	for {
		err := unix.Statfs(string(dir), &fs)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return space{}, err
		}
	}
	size := uint64(fs.Bsize)
	return space{bytes: fs.Bavail * size, bytesTotal: fs.Blocks * size, files: fs.Ffree, filesTotal: fs.Files}, nil
}

// systemMemory is the memory of the machine, in bytes.
var systemMemory = sync.OnceValue(func() uint64 { //nolint:gochecknoglobals // does not change
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return math.MaxUint64
	}
	return info.Totalram * uint64(info.Unit)
})

func uncache(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) } //nolint:gosec // a file descriptor is small

// access checks that this process may create files in dir.
func access(dir Location) error {
	return unix.Faccessat(unix.AT_FDCWD, string(dir), unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// origins maps devices to the origins of their files' identities; 0 if inodes are not stable there.
var origins sync.Map //nolint:gochecknoglobals // a cache, of uint64 to uint16

// statName returns the version of a file, and what it is: of a network file system as its server has it now if fresh is true, which costs
// a round trip.
func statName(name Location, fresh bool) (v Version, folder, regular bool, err error) {
	flags := 0
	if fresh {
		flags = unix.AT_STATX_FORCE_SYNC
	}
	return stat(unix.AT_FDCWD, string(name), flags)
}

// statFile is a fresh statName for an open file.
func statFile(f *os.File) (v Version, err error) {
	v, _, _, err = stat(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC) //nolint:gosec // a file descriptor is small
	return v, err
}

func stat(dir int, name string, flags int) (v Version, folder, regular bool, err error) {
	var st unix.Statx_t
	for {
		err = unix.Statx(dir, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return Version{}, false, false, err
	}
	v = Version{Size: int64(st.Size), Modified: st.Mtime.Sec*int64(time.Second) + int64(st.Mtime.Nsec)}
	device := unix.Mkdev(st.Dev_major, st.Dev_minor)
	origin, known := origins.Load(device)
	if !known {
		origin = originOf(dir, name)
		origins.Store(device, origin)
	}
	if origin, _ := origin.(uint16); origin != 0 {
		birth := uint64(st.Btime.Sec)*uint64(time.Second) + uint64(st.Btime.Nsec)
		v.Identity = newIdentity(origin, uint16(birth*0x9e3779b97f4a7c15>>48), st.Ino) // hashed; 0 if unknown
	}
	kind := st.Mode & unix.S_IFMT
	return v, kind == unix.S_IFDIR, kind == unix.S_IFREG, nil
}

// originOf returns the origin of the files of a file system: two machines with copies of a file have different ones. It is 0 if an inode
// does not stay while the file exists, or is not the same for all machines that share it.
func originOf(fd int, name string) uint16 {
	var st unix.Statfs_t
	var err error
	if name != "" {
		err = unix.Statfs(name, &st)
	} else {
		err = unix.Fstatfs(fd, &st)
	}
	if err != nil {
		return 0
	}
	switch uint32(st.Type) { //nolint:gosec // magic numbers have 32 bits
	case unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC,
		unix.EXFAT_SUPER_MAGIC, unix.AFS_SUPER_MAGIC:
		return 0
	}
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, st.Type, st.Fsid.Val)
	sum := h.Sum32()
	return max(1, uint16(sum^sum>>16)) //nolint:gosec // folded
}
