package keeper

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// depthMax bounds the folders that are open at a time. Those below are moved up first: a command may have made more than a process can open.
	depthMax = 64
	// raised begins the names of those.
	raised = ".b4-raised-"
)

// removal removes what is below a folder, which belongs to a user of commands. It follows no links.
type removal struct {
	top   int // the folder
	moves int
	done  int // names that were removed or moved in this pass
}

// removeBelow removes what is below a folder, as far as this user may.
func removeBelow(top int) {
	r := removal{top: top}
	for {
		r.done = 0
		r.below(top, 0)
		if r.done == 0 {
			return
		}
	}
}

// below removes what is in a folder.
func (r *removal) below(dir, depth int) {
	copied, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(copied), ".")
	defer f.Close() //nolint:errcheck // only read from
	const some = 1024
	for {
		names, err := f.Readdirnames(some)
		for _, name := range names {
			r.remove(dir, name, depth)
		}
		if err != nil { // also at the end
			return
		}
	}
}

// remove removes a name in a folder, with what is below it.
func (r *removal) remove(dir int, name string, depth int) {
	if unix.Unlinkat(dir, name, 0) == nil {
		r.done++
		return
	}
	child, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(child) //nolint:errcheck // only for its name
	// Its owner may have closed it. A descriptor of a path has no chmod of its own.
	_ = unix.Chmod("/proc/self/fd/"+strconv.Itoa(child), modeTemp)
	if depth < depthMax {
		r.below(child, depth+1)
	} else {
		for err = unix.EEXIST; errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY); r.moves++ {
			err = unix.Renameat(dir, name, r.top, raised+strconv.Itoa(r.moves))
		}
	}
	if err == nil && depth == depthMax || unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) == nil {
		r.done++
	}
}
