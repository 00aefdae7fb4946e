package keeper

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// proc is a line of the process table.
type proc struct {
	pid, parent, session int
	state                byte
	started              uint64 // in clock ticks after the boot: it tells a process from a later one with its number
	rss                  uint64 // bytes
	// parentStarted is that of the parent, if the process was found below it; 0: it was not.
	parentStarted uint64
}

func (p *proc) ended() bool { return p.state == 'Z' || p.state == 'X' }

// processes returns the process table. It is empty if /proc is not mounted.
func processes() []proc {
	root, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(root) //nolint:errcheck // only read from
	var table []proc
	var names []string
	entries := make([]byte, 16<<10)
	stat := make([]byte, 1<<10)
	for {
		n, err := unix.ReadDirent(root, entries)
		if err != nil || n <= 0 {
			return table
		}
		_, _, names = unix.ParseDirent(entries[:n], -1, names[:0])
		for _, name := range names {
			if name[0] < '0' || name[0] > '9' {
				continue
			}
			if p, ok := readStat(root, name, stat); ok {
				table = append(table, p)
			}
		}
	}
}

func readStat(root int, name string, buf []byte) (p proc, ok bool) {
	fd, err := unix.Openat(root, name+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, false // it has ended
	}
	n, err := unix.Read(fd, buf)
	_ = unix.Close(fd)
	if err != nil {
		return p, false
	}
	// pid (name) state ppid pgrp session …; the name may contain anything, including parentheses.
	fields := bytes.Fields(buf[bytes.LastIndexByte(buf[:n], ')')+1 : n])
	const state, parent, session, started, rss = 0, 1, 3, 19, 21
	if len(fields) <= rss {
		return p, false
	}
	number := func(text []byte) int {
		v, _ := strconv.Atoi(string(text)) // the kernel writes numbers
		return v
	}
	p.started = uint64(number(fields[started])) //nolint:gosec // not negative
	p.pid, _ = strconv.Atoi(name)
	p.state, p.parent, p.session = fields[state][0], number(fields[parent]), number(fields[session])
	p.rss = uint64(number(fields[rss])) * uint64(unix.Getpagesize()) //nolint:gosec // not negative
	return p, true
}

// below returns the processes of the table that descend from a process accepted by top, with those. A process that has ended is
// included only if its parent has not waited for it.
func below(table []proc, top func(p *proc) bool) []proc {
	children := make(map[int][]int, len(table))
	var found []proc
	for i := range table {
		p := &table[i]
		if top(p) {
			found = append(found, *p)
		} else {
			children[p.parent] = append(children[p.parent], i)
		}
	}
	for at := 0; at < len(found); at++ {
		for _, i := range children[found[at].pid] {
			child := table[i]
			child.parentStarted = found[at].started
			found = append(found, child)
		}
	}
	return found
}

// signal sends a signal to the process of the table, if it is still there. The table takes a while to be read, and signals are sent later still: while
// commands fork fast, and on a machine that is overloaded, a number may belong to another process by then, which must not be stopped or killed. So may that of
// the parent: a process that has lost its parent meanwhile is left to the next look at the table, unless it is a child of this process now.
func (p *proc) signal(sig unix.Signal) {
	handle, err := unix.PidfdOpen(p.pid, 0) // from here on the number is not given to another
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err == nil {
		defer unix.Close(handle) //nolint:errcheck // it has nothing to be written
	}
	if !p.isThere() {
		return
	}
	if err == nil {
		err = unix.PidfdSendSignal(handle, sig, nil, 0)
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) { // an old kernel, a sandbox, or no file left
		_ = unix.Kill(p.pid, sig) // it may have ended
	}
}

// isThere reports whether the process has not ended since the table was read, nor the one that it was found below.
func (p *proc) isThere() bool {
	root, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true // it cannot be told
	}
	defer unix.Close(root) //nolint:errcheck // only read from
	buf := make([]byte, 1<<10)
	now, ok := readStat(root, strconv.Itoa(p.pid), buf)
	if !ok || now.started != p.started {
		return false
	}
	if p.parentStarted == 0 || now.parent == os.Getpid() {
		return true
	}
	parent, ok := readStat(root, strconv.Itoa(now.parent), buf)
	return ok && now.parent == p.parent && parent.started == p.parentStarted
}

// killChildren kills the children of this process, without a look at others, so that a child has little time to replace itself. It
// needs a kernel with /proc/PID/task/TID/children.
func (k *killer) killChildren() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, task := range tasks { // each has its own children
		list, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue
		}
		for field := range bytes.FieldsSeq(list) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				k.killed[pid] = true
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
		}
	}
}

// killer kills process trees, pass by pass.
type killer struct {
	passes int
	killed map[int]bool
}

// passesKill is the number of passes that only kill. What is still there then forks faster than it is killed: all are
// stopped first, so that a killed one does not make room for another.
const passesKill = 3

// pass signals all processes that are left.
func (k *killer) pass(left []proc) {
	k.passes++
	if k.killed == nil {
		k.killed = map[int]bool{}
	}
	signal := func(s unix.Signal) {
		for i := range left {
			if !left[i].ended() {
				k.killed[left[i].pid] = true
				left[i].signal(s)
			}
		}
	}
	running := 0
	for i := range left {
		if s := left[i].state; !left[i].ended() && s != 'T' {
			running++
		}
	}
	if k.passes > passesKill && k.passes%8 != 0 && running > 0 {
		signal(unix.SIGSTOP)
		return
	}
	signal(unix.SIGKILL)
}
