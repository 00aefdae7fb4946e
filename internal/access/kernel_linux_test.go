package access

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

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
	// An address that nothing else uses: on a busy machine the port of a common one would be taken before it is used again.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 91, byte(os.Getpid()>>8), byte(os.Getpid()))}}
	client, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close() //nolint:errcheck // nothing was written
	tcp, ok := client.(*net.TCPConn)
	if !ok {
		t.Fatalf("the client is a %T", client)
	}
	d.LocalAddr = tcp.LocalAddr()
	if err := errors.Join(tcp.SetLinger(0), tcp.Close()); err != nil {
		t.Fatal(err)
	}
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
   4: 0100007F:C237 0100007F:A5D7 02 00000000:00000000 00:00000000 00000000     0        0 618 1 0000000000000000 20 4 30 10 -1
   3: XX:YY 0100007F:A5D7 01 00000000:00000000 00:00000000 00000000  1000        0 618 1 0
`
	server := netip.MustParseAddrPort("127.0.0.1:42455")
	for client, want := range map[string]int{"127.0.0.1:49717": 1000, "127.0.0.1:49716": -1, "127.0.0.1:1": -1, "127.0.0.1:49719": -1} {
		uid, err := searchProc(bufio.NewScanner(strings.NewReader(table)), netip.MustParseAddrPort(client), server)
		if want >= 0 && (uid != want || err != nil) || want < 0 && !errors.Is(err, errNoSocket) {
			t.Errorf("searchProc(%s) = %d, %v; want %d", client, uid, err, want)
		}
	}
}

// socket returns a TCP socket that uid has made. Calls on it block.
func socket(t *testing.T, uid, family int) (fd int) {
	t.Helper()
	as(t, uid, func() {
		var err error
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Error(err)
		}
	})
	return fd
}

func loopback(port int) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

// hangUp makes uid send something and close its end at once, and returns the other end and the port of the client. Its socket is forgotten by the
// kernel after a second, if the server does not close its end: with the default of a minute, a test would take as long.
func hangUp(t *testing.T, l net.Listener, uid int) (server net.Conn, port int) {
	t.Helper()
	fd := socket(t, uid, unix.AF_INET)
	at := netip.MustParseAddrPort(l.Addr().String())
	err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_LINGER2, 1), unix.Connect(fd, loopback(int(at.Port()))))
	if err == nil {
		_, err = unix.Write(fd, []byte("GET / HTTP/1.1\r\n"))
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server, int(netip.MustParseAddrPort(server.RemoteAddr().String()).Port())
}

func TestParseDiag(t *testing.T) {
	local, remote := netip.MustParseAddrPort("127.0.0.1:50000"), netip.MustParseAddrPort("127.0.0.1:6550")
	for name, test := range map[string]struct {
		state      byte
		inode, uid uint32
		port       uint16
		want       int // -1: no socket
	}{
		"connected":                 {unix.BPF_TCP_ESTABLISHED, 7, 1000, 6550, 1000},
		"half closed":               {unix.BPF_TCP_FIN_WAIT2, 7, 1000, 6550, 1000},
		"closed":                    {unix.BPF_TCP_FIN_WAIT2, 0, 0, 6550, -1},
		"connecting":                {unix.BPF_TCP_SYN_SENT, 7, 0, 6550, -1},
		"listening at the port":     {unix.BPF_TCP_LISTEN, 7, 0, 0, -1},
		"connected to another port": {unix.BPF_TCP_ESTABLISHED, 7, 0, 6551, -1},
	} {
		m := make([]byte, unix.NLMSG_HDRLEN+diagAnswerSize)
		binary.NativeEndian.PutUint32(m, uint32(len(m)))
		binary.NativeEndian.PutUint16(m[4:], unix.SOCK_DIAG_BY_FAMILY)
		body := m[unix.NLMSG_HDRLEN:]
		body[0], body[diagState] = unix.AF_INET, test.state
		binary.BigEndian.PutUint16(body[diagID:], local.Port())
		binary.BigEndian.PutUint16(body[diagID+2:], test.port)
		copy(body[diagID+4:], local.Addr().AsSlice())
		copy(body[diagID+20:], remote.Addr().AsSlice())
		binary.NativeEndian.PutUint32(body[diagUID:], test.uid)
		binary.NativeEndian.PutUint32(body[diagInode:], test.inode)
		if uid, err := parseDiag(m, local, remote); test.want >= 0 && (uid != test.want || err != nil) || test.want < 0 && !errors.Is(err, errNoSocket) {
			t.Errorf("%s: parseDiag = %d, %v; want %d", name, uid, err, test.want)
		}
	}
}

// A server that listens on all addresses of both families sees IPv4 addresses in IPv6 form, and so does a client that uses an IPv6 socket.
func TestPeersOfBothFamilies(t *testing.T) {
	l := listen(t, "tcp", "[::]:0")
	port := int(netip.MustParseAddrPort(l.Addr().String()).Port())
	mapped := netip.MustParseAddr("::ffff:127.0.0.1").As16()
	for name, test := range map[string]struct {
		family int
		to     unix.Sockaddr
	}{
		"IPv4":   {unix.AF_INET, loopback(port)},
		"mapped": {unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: mapped}},
		"IPv6":   {unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: netip.IPv6Loopback().As16()}},
	} {
		for uid, want := range map[int]bool{os.Geteuid(): true, nobody: false} {
			t.Run(name, func(t *testing.T) {
				fd := socket(t, uid, test.family)
				defer unix.Close(fd) //nolint:errcheck // nothing was written
				if err := unix.Connect(fd, test.to); err != nil {
					t.Fatal(err)
				}
				server, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer server.Close() //nolint:errcheck // nothing was written
				if got := PeerOf(server); got.Local != want || got.isRemote() {
					t.Errorf("PeerOf a connection of user %d = %+v, want local: %v", uid, got, want)
				}
			})
		}
	}
}

// The user of a socket is who has made it, also after another user's process has got it; and the port of a client says nothing, since others can
// use it with another address.
func TestPeerIsWhoMadeTheSocket(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	at := loopback(int(netip.MustParseAddrPort(l.Addr().String()).Port()))
	for maker, user := range map[int]int{nobody: os.Geteuid(), os.Geteuid(): nobody} {
		fd := socket(t, maker, unix.AF_INET)
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		bind := func() (err error) {
			other := listen(t, "tcp", "127.0.0.2:0") // of this user; another process may have its port at 127.0.0.1
			port := int(netip.MustParseAddrPort(other.Addr().String()).Port())
			as(t, user, func() { err = unix.Bind(fd, loopback(port)) })
			return err
		}
		if err := unlessBusy(t, bind); err != nil {
			t.Error(err)
		}
		as(t, user, func() {
			if err := unix.Connect(fd, at); err != nil {
				t.Error(err)
			}
		})
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close() //nolint:errcheck // nothing was written
		if got, want := PeerOf(server).Local, maker != nobody; got != want {
			t.Errorf("a socket that user %d has made and user %d connects is local: %v, want %v", maker, user, got, want)
		}
	}
}

// unlessBusy repeats call until the kernel has forgotten the socket that used the port before.
func unlessBusy(t *testing.T, call func() error) error {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err := call()
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
		select {
		case <-t.Context().Done():
			return err
		case <-again.C:
		}
	}
}

// Whoever sends a request and closes its socket at once is nobody, in each state that the socket has until the kernel forgets it, and also when
// another user's process connects from the same port.
func TestHungUpPeersAreNobody(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	at := netip.MustParseAddrPort(l.Addr().String())
	server, port := hangUp(t, l, nobody)
	client := netip.AddrPortFrom(at.Addr(), uint16(port))
	nobodyNow := func(when string) {
		t.Helper()
		if p := PeerOf(server); p.Local || p.User != "" {
			t.Errorf("%s: PeerOf = %+v, want no user", when, p)
		}
		if uid, err := procUser(client, at); !errors.Is(err, errNoSocket) {
			t.Errorf("%s: the user in /proc is %d, %v; want none", when, uid, err)
		}
	}
	nobodyNow("FIN_WAIT2")
	if err := server.(*net.TCPConn).CloseWrite(); err != nil { //nolint:forcetypeassert // it panics
		t.Fatal(err)
	}
	nobodyNow("TIME_WAIT")

	// The server's end stays open; the client's end is forgotten, and its port is free.
	server, port = hangUp(t, l, nobody)
	client = netip.AddrPortFrom(at.Addr(), uint16(port))
	fd := socket(t, os.Geteuid(), unix.AF_INET)
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.SetNonblock(fd, true))
	if err == nil {
		err = unlessBusy(t, func() error { return unix.Bind(fd, loopback(port)) })
	}
	if err == nil {
		err = unlessBusy(t, func() error { return unix.Connect(fd, loopback(int(at.Port()))) })
	}
	if !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	if p := PeerOf(server); p.Local {
		t.Errorf("PeerOf = %+v: taken for the process that connects from the same port", p)
	}
}
