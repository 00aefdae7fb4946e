package keeper

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// group is the control group of a keeper's commands: it makes their memory limit exact. It is empty between commands, and does not have the
// keeper. There is none if the keeper may not create one, or has no memory controller; then memory is sampled.
type group struct {
	path    string // empty: none
	unified bool   // version 2
	tried   bool
}

// groupPrefix begins the names of groups; the PID of the keeper follows. PIDs of other namespaces mean other processes.
func groupPrefix() string {
	namespace, err := os.Readlink("/proc/self/ns/pid") // pid:[4026531836]
	if err != nil {
		return ""
	}
	return "bridgefour-" + strings.Trim(strings.TrimPrefix(namespace, "pid:"), "[]") + "-"
}

// ownGroup finds the group of this process that a memory controller limits: a path below the mount point of its tree.
func ownGroup() (mount, below string, unified, ok bool) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", false, false
	}
	var path string
	for line := range strings.Lines(string(own)) {
		// ID:CONTROLLER,…:PATH
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) != 3:
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			path, unified, ok = fields[2], false, true
		case fields[0] == "0" && !ok:
			path, unified = fields[2], true
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || path == "" {
		return "", "", false, false
	}
	for line := range strings.Lines(string(mounts)) {
		// ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS … - TYPE SOURCE OPTIONS
		before, after, _ := strings.Cut(line, " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(super) < 3 {
			continue
		}
		fits := super[0] == "cgroup2"
		if !unified {
			fits = super[0] == "cgroup" && slices.Contains(strings.Split(super[2], ","), "memory")
		}
		if below, err = filepath.Rel(fields[3], path); fits && err == nil && !strings.HasPrefix(below, "..") {
			return fields[4], below, unified, true
		}
	}
	return "", "", false, false
}

// groupFolder finds where this process may create groups with a memory controller: in its own (version 1), or beside it (version 2, where a
// group with processes cannot distribute memory).
func groupFolder() (dir string, unified, ok bool) {
	mount, below, unified, ok := ownGroup()
	if dir = filepath.Join(mount, below); unified && below != "." {
		dir = filepath.Dir(dir)
	}
	return dir, unified, ok
}

// MachineMemory is the memory that this process and what it starts may take, in bytes: that of the machine, or the least limit of the control groups that it is
// in. 0: unknown.
func MachineMemory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	least := info.Totalram * uint64(info.Unit)
	mount, below, unified, ok := ownGroup()
	for ok {
		g := group{path: filepath.Join(mount, below), unified: unified}
		if text, err := os.ReadFile(filepath.Join(g.path, g.limitFile())); err == nil {
			if limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // else it is max
				least = min(least, limit)
			}
		}
		ok = below != "."
		below = filepath.Dir(below)
	}
	return least
}

// create creates the group of the keeper, once.
func (g *group) create() {
	if g.tried {
		return
	}
	g.tried = true
	dir, unified, ok := groupFolder()
	prefix := groupPrefix()
	if !ok || prefix == "" {
		return
	}
	clearGroups(dir, prefix)
	path := filepath.Join(dir, prefix+strconv.Itoa(os.Getpid()))
	if os.Mkdir(path, 0o755) != nil { //nolint:gosec // as the others there
		return
	}
	*g = group{path: path, unified: unified, tried: true}
	if !g.write(g.limitFile(), "-1") && !g.write(g.limitFile(), "max") {
		g.remove() // without a memory controller
	}
}

func (g *group) limitFile() string {
	if g.unified {
		return "memory.max"
	}
	return "memory.limit_in_bytes"
}

func (g *group) write(file, text string) bool {
	fd, err := unix.Open(filepath.Join(g.path, file), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_, err = unix.Write(fd, []byte(text))
	_ = unix.Close(fd)
	return err == nil
}

// limit sets the limit for the next command, and reports whether it could.
func (g *group) limit(memory uint64) bool {
	g.create()
	if g.path == "" {
		return false
	}
	size := strconv.FormatUint(memory, 10)
	if g.unified {
		g.write("memory.swap.max", "0") // there may be no swap
		return g.write(g.limitFile(), size)
	}
	g.write("memory.force_empty", "0") // files read by earlier commands
	g.write("memory.memsw.limit_in_bytes", "-1")
	if !g.write(g.limitFile(), size) {
		return false
	}
	g.write("memory.memsw.limit_in_bytes", size) // there may be no swap
	return true
}

// add moves processes into the group. What they start is in it.
func (g *group) add(list []proc) (all bool) {
	for i := range list {
		if !list[i].ended() && !g.write("cgroup.procs", strconv.Itoa(list[i].pid)) && unix.Kill(list[i].pid, 0) == nil {
			return false
		}
	}
	return true
}

// kills returns how many processes of the group the kernel has killed because of its limit.
func (g *group) kills() uint64 {
	file := "memory.oom_control"
	if g.unified {
		file = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(g.path, file))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if count, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ := strconv.ParseUint(string(bytes.TrimSpace(count)), 10, 64) // the kernel writes a number
			return n
		}
	}
	return 0
}

// remove removes the group, which is empty.
func (g *group) remove() {
	if g.path != "" {
		_ = unix.Rmdir(g.path) // the next keeper tries again: see clearGroups
		g.path = ""
	}
}

// clearGroups removes the groups of keepers that were killed, and kills what is in them.
func clearGroups(dir, prefix string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		pid, ours := strings.CutPrefix(entry.Name(), prefix)
		if !ours {
			continue
		}
		if name, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil && string(name) == processName+"\n" {
			continue // it is alive
		}
		path := filepath.Join(dir, entry.Name())
		members, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			continue
		}
		for member := range strings.FieldsSeq(string(members)) {
			if n, err := strconv.Atoi(member); err == nil && n > 1 {
				_ = unix.Kill(n, unix.SIGKILL) // it may have ended
			}
		}
		_ = unix.Rmdir(path) // if they have ended
	}
}
