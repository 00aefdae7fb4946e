package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// withFiles returns a command of the binary that may open so many files.
func (l *lab) withFiles(files int, program string, args ...string) *exec.Cmd {
	script := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files)
	return l.commandOf(context.Background(), "sh", append([]string{"-c", script, program}, args...)...)
}

// flood opens n connections to an address that send no more than the first bytes, and returns what closes them.
func (l *lab) flood(address, first string, n int) (end func()) {
	l.t.Helper()
	var conns []net.Conn
	for range n {
		c, err := net.Dial("tcp", address) //nolint:noctx // opens at once
		if err != nil {
			l.t.Fatal(err)
		}
		_, _ = c.Write([]byte(first)) // it may have been refused
		conns = append(conns, c)
	}
	return func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
}

// TestFloodOfConnections: connections that do nothing take neither a leader's files nor its place in the cluster.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			g := emptyGroup(t)
			g.command = func(n *node, args ...string) *exec.Cmd { return g.withFiles(256, n.program, args...) }
			g.found(size)
			g.workers(1)
			kept := &http.Client{Transport: &http.Transport{}}
			defer kept.CloseIdleConnections()
			var before, after *node
			for range 3 { // a machine that stalls makes a leader lose its place, too, but not each time
				before = g.leading()
				g.floodAll(before, kept)
				if after = g.leading(); after == before {
					break
				}
			}
			if after != before {
				t.Errorf("leader %d leads after the flood, leader %d before, again and again", after.id, before.id)
			}
			for _, n := range g.nodes {
				log := n.readStderr()
				if !strings.Contains(log, "connections refused") || strings.Contains(log, "too many open files") {
					t.Errorf("leader %d logs:\n%s", n.id, tail(log))
				}
			}
		})
	}
}

// floodAll floods the leaders with connections of each kind, beside which a client is served on the connection that it keeps to one.
func (g *group) floodAll(leader *node, kept *http.Client) {
	t := g.t
	t.Helper()
	read := func(what string) {
		t.Helper()
		if a := requestAt(t.Context(), kept, http.MethodGet, "http://"+leader.listen+"/v1/cluster", ""); a.code != http.StatusOK {
			t.Errorf("a status read %s: %v", what, a)
		}
	}
	read("before")
	const half = "POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
	for _, first := range []string{"", "GET / HTTP/1.1\r\n", half, "PRI "} {
		var ends []func()
		for _, n := range g.nodes {
			ends = append(ends, g.flood(n.listen, first, 1000/len(g.nodes)))
		}
		read(fmt.Sprintf("on an open connection, beside a flood of %q", first))
		g.done(g.submit(trivial()))
		if first == "" {
			late := g.worker("late")
			g.untilAlive(2)
			late.signal(syscall.SIGTERM)
			late.wantExit(0)
			g.untilAlive(1)
		}
		if code, _, stderr := g.cli("jobs"); code != 0 || strings.Contains(stderr, "retrying") {
			t.Errorf("beside a flood of %q, a new client gets exit code %d: %s", first, code, stderr)
		}
		for _, end := range ends {
			end()
		}
	}
	until(t, "new clients are served", func() bool { return leader.get("/readyz").code == http.StatusOK })
	g.done(g.submit(trivial()))
}

// TestFloodOfAWorker: connections that do nothing do not fail the tasks of a worker.
func TestFloodOfAWorker(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	file := c.path("worker.addr")
	w := c.launch("worker", c.withFiles(64, binary, "worker", "--data-dir", c.path("worker"), "--leader", c.known, "--slots", "2",
		"--listen", "127.0.0.1:0", "--address-file", file))
	c.untilAlive(1)
	defer c.flood(w.addressIn(file), "", 200)()
	out := c.path("out")
	id := c.submit(&api.JobRequest{Range: numbers(100), Output: out, Program: item(printItem), Retries: new(0)})
	c.done(id)
	if log := w.readStderr(); !strings.Contains(log, "connections refused") || strings.Contains(log, "too many open files") {
		t.Errorf("the worker logs:\n%s", tail(log))
	}
}

// TestWorkerWithoutFiles: a worker with more slots than its open files allow returns attempts uncharged, says so, and goes on with the slots that
// have enough.
func TestWorkerWithoutFiles(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	w := c.launch("worker", c.withFiles(64, binary, "worker", "--data-dir", c.path("worker"), "--leader", c.known, "--slots", "40"))
	c.untilAlive(1)
	out, gate := c.path("out"), c.path("gate")
	id := c.submit(&api.JobRequest{Range: numbers(60), Output: out, Program: item(waitFor(gate), printItem), Retries: new(0), NoSpeculation: true})
	until(t, "an attempt is returned", func() bool {
		log := w.readStderr()
		return strings.Contains(log, "attempt returned") && strings.Contains(log, "ulimit -n")
	})
	write(t, gate, "")
	c.done(id)
	wantNumbers(t, out, 60, `echo "$1"`)
}
