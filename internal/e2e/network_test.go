package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// others stands for workers and clients in a route.
const others = 0

// route is a direction of traffic: from one leader to another, or from or to all others.
type route struct{ from, to uint64 }

// network connects the leaders of a group with each other and with all others: each leader is reached through a link of its own. A
// route that is cut passes neither bytes nor the beginning or end of a connection; they arrive when it is healed, as with TCP.
type network struct {
	t *testing.T

	mu      sync.Mutex
	cut     map[route]bool
	changed chan struct{}  // closed, and replaced, at each change
	pids    map[uint64]int // of the leaders
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	if _, err := os.Stat("/proc/net/tcp"); err != nil {
		t.Skipf("left out: the owner of a connection cannot be told here: %v", err)
	}
	return &network{t: t, cut: map[route]bool{}, changed: make(chan struct{}), pids: map[uint64]int{}}
}

// set cuts or heals routes.
func (n *network) set(cut bool, routes ...route) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range routes {
		if cut {
			n.cut[r] = true
		} else {
			delete(n.cut, r)
		}
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// heal heals all routes.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	close(n.changed)
	n.changed = make(chan struct{})
}

// pass waits until the route is not cut.
func (n *network) pass(ctx context.Context, r route) error {
	for {
		n.mu.Lock()
		cut, changed := n.cut[r], n.changed
		n.mu.Unlock()
		if !cut {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin starts the process of a leader. No connection is told apart before its number is known.
func (n *network) begin(id uint64, start func() (pid int)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pids[id] = start()
}

// link forwards connections to the leader that listens at target, until the end of the test.
func (n *network) link(id uint64, listener net.Listener, target string) {
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			conns.Go(func() { n.carry(ctx, conn.(*net.TCPConn), id, target) }) //nolint:forcetypeassert // a TCP listener
		}
	})
	n.t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		conns.Wait()
	})
}

// carry forwards one connection.
func (n *network) carry(ctx context.Context, client *net.TCPConn, id uint64, target string) {
	defer client.Close() //nolint:errcheck // both sides have said what they had to say
	forth := route{n.sender(client), id}
	back := route{forth.to, forth.from}
	if n.pass(ctx, forth) != nil || n.pass(ctx, back) != nil {
		return
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		_ = client.SetLinger(0) // nothing listens there: refused, as far as we can
		return
	}
	server := conn.(*net.TCPConn) //nolint:forcetypeassert // dialed as such
	defer server.Close()          //nolint:errcheck // see above
	stop := context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { n.copy(ctx, server, client, forth) })
	both.Go(func() { n.copy(ctx, client, server, back) })
	both.Wait()
}

// copy forwards bytes in one direction, and then their end.
func (n *network) copy(ctx context.Context, to, from *net.TCPConn, r route) {
	buf := make([]byte, 32<<10)
	for {
		got, err := from.Read(buf)
		if n.pass(ctx, r) != nil {
			return
		}
		if got > 0 {
			if _, err := to.Write(buf[:got]); err != nil {
				_ = from.CloseRead()
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite()
			return
		default: // reset
			_ = to.SetLinger(0)
			_ = to.Close()
			return
		}
	}
}

// sender is the leader whose process has the other end of a connection, or others.
func (n *network) sender(conn *net.TCPConn) uint64 {
	inode := inodeOf(conn.RemoteAddr(), conn.LocalAddr())
	if inode == "" {
		return others
	}
	n.mu.Lock()
	pids := maps.Clone(n.pids)
	n.mu.Unlock()
	for id, pid := range pids {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			n.t.Error(err)
		}
		for _, fd := range fds {
			if target, err := os.Readlink(fd); err == nil && target == "socket:["+inode+"]" {
				return id
			}
		}
	}
	return others
}

// inodeOf returns the socket of this machine that connects local to remote; empty: none.
func inodeOf(local, remote net.Addr) string {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	want := procAddr(local) + " " + procAddr(remote) + " "
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, want) {
			return strings.Fields(line)[9]
		}
	}
	return ""
}

// procAddr formats an address as in /proc/net/tcp on a little-endian machine.
func procAddr(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil {
		return "?"
	}
	ip := tcp.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], tcp.Port)
}

// TestNetwork cuts a link and heals it: nothing passes meanwhile, and nothing is lost.
func TestNetwork(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	server, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // opens at once
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()                           //nolint:errcheck // the test is over
	front, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // opens at once
	if err != nil {
		t.Fatal(err)
	}
	n.begin(2, os.Getpid) // so the connection comes from leader 2
	n.link(1, front, server.Addr().String())
	client, err := net.Dial("tcp", front.Addr().String()) //nolint:noctx // nothing to wait for
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // the test is over
	conn, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over

	say := func(from net.Conn, text string) {
		if _, err := from.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(at net.Conn, patience time.Duration) string {
		if err := at.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := at.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err.Error()
		}
		return string(buf[:n])
	}
	const moment = 50 * time.Millisecond
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: heard %q, want %q", what, got, want)
		}
	}
	n.set(true, route{others, 1}, route{3, 1})
	say(client, "one")
	want("another route is cut", hear(conn, patience), "one")
	n.set(true, route{2, 1})
	say(client, "two")
	say(conn, "back")
	want("the route is cut", hear(conn, moment), "")
	want("the way back is not", hear(client, patience), "back")
	n.set(false, route{2, 1})
	want("healed", hear(conn, patience), "two")
	n.set(true, route{2, 1})
	_ = client.Close()
	want("ended behind the cut", hear(conn, moment), "")
	n.heal()
	want("healed", hear(conn, patience), "EOF")
}
