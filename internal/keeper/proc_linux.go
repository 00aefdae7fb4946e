package keeper

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// proc is a line of the process table.
type proc struct {
	pid, parent, session int
	state                byte
	rss                  uint64 // bytes
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
	const state, parent, session, rss = 0, 1, 3, 21
	if len(fields) <= rss {
		return p, false
	}
	number := func(text []byte) int {
		v, _ := strconv.Atoi(string(text)) // the kernel writes numbers
		return v
	}
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
			found = append(found, table[i])
		}
	}
	return found
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
				_ = unix.Kill(left[i].pid, s) // it may have ended
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
