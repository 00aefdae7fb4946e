package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ports returns the local addresses of the process's internet sockets, as the kernel lists them.
func (p *process) ports() (local []string) {
	p.t.Helper()
	own := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	files, err := filepath.Glob(own + "/fd/*")
	if err != nil {
		p.t.Fatal(err)
	}
	var sockets []string
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil { // it may have been closed
			sockets = append(sockets, to)
		}
	}
	if !slices.ContainsFunc(sockets, func(s string) bool { return strings.HasPrefix(s, "socket:") }) {
		p.t.Errorf("%s has no sockets at all: %q", p.name, sockets)
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for _, line := range strings.Split(readFile(p.t, own+"/net/"+table), "\n")[1:] {
			const fieldLocal, fieldInode = 1, 9
			if f := strings.Fields(line); len(f) > fieldInode && slices.Contains(sockets, "socket:["+f[fieldInode]+"]") {
				local = append(local, table+" "+f[fieldLocal])
			}
		}
	}
	return local
}

// TestPorts: a run opens no port, so that no other user and no web page can reach it. A dev opens one, on loopback.
func TestPorts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	gate, begun := l.path("gate"), l.path("begun")
	run := l.start("run", "run", "--workers", "2", "--slots", "1", "--range", "1-2", "--", "sh", "-c", sequence([]step{mark(begun), waitFor(gate)}))
	until(t, "the tasks run", func() bool { return marks(t, begun) == 2 })
	if ports := run.ports(); len(ports) > 0 {
		t.Errorf("the run has the ports %q, want none", ports)
	}
	write(t, gate, "")
	run.wantExit(0)

	file := l.path("dev.addr")
	dev := l.start("dev", "dev", "--listen", "127.0.0.1:0", "--address-file", file)
	dev.addressIn(file)
	ports := dev.ports()
	if len(ports) == 0 || slices.ContainsFunc(ports, func(s string) bool { return !strings.HasPrefix(s, "tcp 0100007F:") }) {
		t.Errorf("the dev has the ports %q, want one on 127.0.0.1", ports)
	}
}
