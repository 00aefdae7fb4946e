package access

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// as runs f on a thread of another user. It skips the test unless root runs it.
func as(t *testing.T, uid int, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		const same = ^uintptr(0)
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same) // of this thread alone
		if errno != 0 {
			ended <- errno
			return
		}
		f()
		ended <- nil
	}()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// listen accepts connections on an address, one at a time.
func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	var c net.ListenConfig
	l, err := c.Listen(t.Context(), network, address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// accept returns both ends of a connection to l that uid opens.
func accept(t *testing.T, l net.Listener, uid int) (client, server net.Conn) {
	t.Helper()
	dial := func() {
		var d net.Dialer
		c, err := d.DialContext(t.Context(), l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		client = c
	}
	if uid == os.Geteuid() {
		dial()
	} else {
		as(t, uid, dial)
	}
	if client == nil {
		t.FailNow()
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// socketFile is the path of a socket that every user can open.
func socketFile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "") //nolint:usetesting // the parent of t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // for another user
		t.Fatal(err)
	}
	return filepath.Join(dir, "s")
}

func TestPeersOfUsers(t *testing.T) {
	path := socketFile(t)
	unixListener := listen(t, "unix", path)
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // for another user
		t.Fatal(err)
	}
	for name, l := range map[string]net.Listener{
		"IPv4": listen(t, "tcp", "127.0.0.1:0"), "IPv6": listen(t, "tcp", "[::1]:0"), "unix": unixListener,
	} {
		for uid, want := range map[int]bool{os.Geteuid(): true, nobody: false} {
			t.Run(name, func(t *testing.T) {
				_, server := accept(t, l, uid)
				if got := PeerOf(server); got.Local != want || (got.Address == "") != (name == "unix") {
					t.Errorf("PeerOf a connection of user %d = %+v, want local: %v", uid, got, want)
				}
			})
		}
	}
}

// A socket without a process has no user, although the kernel reports user 0 for it.
func TestClosedPeersAreNobody(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	client, server := accept(t, l, os.Geteuid())
	if !PeerOf(server).Local {
		t.Error("the connection's peer is not local")
	}
	if err := client.Close(); err != nil { // the kernel keeps the socket until the server has closed too
		t.Fatal(err)
	}
	if PeerOf(server).Local {
		t.Error("the peer is local although no process has it open")
	}
}

// What a client has sent before it resets the connection can be read, and its port is free for another user's process at once.
func TestResetPeersAreNobody(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	client, server := accept(t, l, os.Geteuid())
	tcp, ok := client.(*net.TCPConn)
	if !ok {
		t.Fatalf("the client is a %T", client)
	}
	port := tcp.LocalAddr()
	if err := errors.Join(tcp.SetLinger(0), tcp.Close()); err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{LocalAddr: port}
	again, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close() //nolint:errcheck // nothing was written
	if PeerOf(server).Local {
		t.Error("the peer of a connection that was reset is taken for the process that uses its port now")
	}
	next, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close() //nolint:errcheck // nothing was written
	if !PeerOf(next).Local {
		t.Error("the next connection is not local")
	}
}

// A client may use an IPv6 socket for an IPv4 address, as Java does.
func TestPeerWithMappedAddress(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Skipf("no IPv6: %v", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	at := netip.MustParseAddrPort(l.Addr().String())
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}); err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close() //nolint:errcheck // nothing was written
	if !PeerOf(server).Local {
		t.Error("the peer is not local")
	}
	remote, local := addresses(t, server)
	if uid, err := procUser(remote, local); uid != os.Geteuid() || err != nil {
		t.Errorf("procUser = %d, %v; want this user", uid, err)
	}
}

func addresses(t *testing.T, c net.Conn) (remote, local netip.AddrPort) {
	t.Helper()
	return netip.MustParseAddrPort(c.RemoteAddr().String()), netip.MustParseAddrPort(c.LocalAddr().String())
}

// Both sources of the kernel agree.
func TestProcAgrees(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l := listen(t, "tcp", address)
		for _, uid := range []int{os.Geteuid(), nobody} {
			t.Run(address, func(t *testing.T) {
				_, server := accept(t, l, uid)
				remote, local := addresses(t, server)
				fromProc, procErr := procUser(remote, local)
				fromDiag, diagErr := diagUser(remote, local)
				if err := errors.Join(procErr, diagErr); err != nil || fromProc != uid || fromDiag != uid {
					t.Errorf("the user in /proc is %d and by netlink %d, %v; want %d", fromProc, fromDiag, err, uid)
				}
			})
		}
		// The listener's own port must not be taken for a connection.
		bound := netip.MustParseAddrPort(l.Addr().String())
		other := netip.AddrPortFrom(bound.Addr(), 1)
		for name, find := range map[string]func(local, remote netip.AddrPort) (int, error){"proc": procUser, "diag": diagUser} {
			if uid, err := find(bound, other); !errors.Is(err, errNoSocket) {
				t.Errorf("%s: the user of no connection = %d, %v; want errNoSocket", name, uid, err)
			}
		}
	}
}

func TestSearchProc(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:C234 0100007F:A5D7 06 00000000:00000000 03:00000167 00000000     0        0 0 3 00000000bd9f5236
   1: 0100007F:C235 0100007F:A5D7 01 00000000:00000000 00:00000000 00000000  1000        0 618 1 0000000000000000 20 4 30 10 -1
   2: short
   3: XX:YY 0100007F:A5D7 01 00000000:00000000 00:00000000 00000000  1000        0 618 1 0
`
	server := netip.MustParseAddrPort("127.0.0.1:42455")
	for client, want := range map[string]int{"127.0.0.1:49717": 1000, "127.0.0.1:49716": -1, "127.0.0.1:1": -1} {
		uid, err := searchProc(bufio.NewScanner(strings.NewReader(table)), netip.MustParseAddrPort(client), server)
		if want >= 0 && (uid != want || err != nil) || want < 0 && !errors.Is(err, errNoSocket) {
			t.Errorf("searchProc(%s) = %d, %v; want %d", client, uid, err, want)
		}
	}
}
