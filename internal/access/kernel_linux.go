package access

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerUser returns the user of the process at the other end of c, as the kernel knows it. Of TCP it knows that of connections over
// loopback.
func peerUser(c net.Conn) (uid int, err error) {
	switch remote := c.RemoteAddr().(type) {
	case *net.UnixAddr:
		return unixUser(c)
	case *net.TCPAddr:
		local, ok := c.LocalAddr().(*net.TCPAddr)
		if !ok || !remote.IP.IsLoopback() {
			return 0, fmt.Errorf("%s is not on this machine", remote)
		}
		uid, err := tcpUser(plain(remote.AddrPort()), plain(local.AddrPort()))
		if err == nil || errors.Is(err, errNoSocket) {
			if closed := checkOpen(c, err == nil); closed != nil {
				return 0, closed
			}
		}
		return uid, err
	}
	return 0, fmt.Errorf("unknown kind of connection: %T", c)
}

// unixUser returns the user that has connected to a unix socket.
func unixUser(c net.Conn) (int, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("unknown kind of connection: %T", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) //nolint:gosec // a file descriptor is small
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("credentials of a unix socket: %w", err)
	}
	return int(cred.Uid), nil
}

// checkOpen returns errClosed if the other end has reset c: the addresses may then be those of another process's connection, while what the
// first has sent can still be read. If no socket was found with the addresses, it also does if the other end has closed c: there will be none.
func checkOpen(c net.Conn, found bool) error {
	if inner, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = inner.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return fmt.Errorf("unknown kind of connection: %T", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	var infoErr error
	err = raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) //nolint:gosec // a file descriptor is small
	})
	if err := errors.Join(err, infoErr); err != nil {
		return fmt.Errorf("state of a connection: %w", err)
	}
	if info.State == unix.BPF_TCP_CLOSE || !found && info.State == unix.BPF_TCP_CLOSE_WAIT {
		return errClosed
	}
	return nil
}

// plain returns an IPv4 address as such, without a zone.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// diagWorks is set once the kernel has described a socket. Before that, its ENOENT may also mean that it was built without inet_diag.
var diagWorks atomic.Bool //nolint:gochecknoglobals // a property of the kernel

// tcpUser returns the user of the TCP socket of this machine that is bound to local and connected to remote.
func tcpUser(local, remote netip.AddrPort) (int, error) {
	uid, err := diagUser(local, remote)
	switch {
	case err == nil:
		diagWorks.Store(true)
		return uid, nil
	case errors.Is(err, errNoSocket) && diagWorks.Load():
		return 0, err
	}
	uid, procErr := procUser(local, remote)
	if procErr != nil {
		return 0, errors.Join(err, procErr)
	}
	return uid, nil
}

// Sizes and offsets of inet_diag's messages, from linux/inet_diag.h.
const (
	diagRequestSize = 56 // struct inet_diag_req_v2
	diagAnswerSize  = 72 // struct inet_diag_msg
	diagState       = 1
	diagID          = 4 // of struct inet_diag_sockid in an answer
	diagUID         = 64
	diagInode       = 68
)

// diagUser asks the kernel for one socket, by netlink. A socket without a process (closed, but not yet forgotten) has inode 0, and user 0
// that must not be taken for root.
func diagUser(local, remote netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written that could be lost
	if err := unix.Sendto(fd, diagRequest(local, remote), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 4<<10)
	n, from, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT) // the kernel answers before sendto returns
	if err != nil {
		return 0, os.NewSyscallError("recvfrom", err)
	}
	if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
		return 0, errors.New("inet_diag: the answer is not from the kernel")
	}
	return parseDiag(answer[:n], local, remote)
}

func diagRequest(local, remote netip.AddrPort) []byte {
	m := make([]byte, unix.NLMSG_HDRLEN+diagRequestSize)
	binary.NativeEndian.PutUint32(m[0:], uint32(len(m))) //nolint:gosec // a constant
	binary.NativeEndian.PutUint16(m[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST)
	body := m[unix.NLMSG_HDRLEN:]
	body[0], body[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if local.Addr().Is4() {
		body[0] = unix.AF_INET
	}
	const allStates, noCookie = 0xffffffff, 0xffffffff
	binary.NativeEndian.PutUint32(body[4:], allStates)
	id := body[8:]
	binary.BigEndian.PutUint16(id[0:], local.Port())
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	copy(id[4:20], local.Addr().AsSlice())
	copy(id[20:36], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(body[48:], noCookie)
	binary.NativeEndian.PutUint32(body[52:], noCookie)
	return m
}

// parseDiag returns the user of the socket that the answer describes. The kernel answers with a listening one if there is no such connection. One
// that is still connecting (SYN_SENT) is not the other end of a connection: that was closed, and its port is used again.
func parseDiag(answer []byte, local, remote netip.AddrPort) (int, error) {
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil || len(messages) == 0 {
		return 0, fmt.Errorf("inet_diag: invalid answer: %w", err)
	}
	m := messages[0]
	switch {
	case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
		code := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))) //nolint:gosec // a negated error number
		if code == unix.ENOENT {
			return 0, errNoSocket
		}
		return 0, fmt.Errorf("inet_diag: %w", code)
	case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < diagAnswerSize:
		return 0, errors.New("inet_diag: invalid answer")
	}
	size := 16
	if m.Data[0] == unix.AF_INET {
		size = 4
	}
	id := m.Data[diagID:]
	address := func(port, ip []byte) netip.AddrPort {
		a, _ := netip.AddrFromSlice(ip[:size])
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port)) // an IPv6 socket may have an IPv4 address
	}
	if m.Data[diagState] == unix.BPF_TCP_SYN_SENT || address(id[0:], id[4:]) != local || address(id[2:], id[20:]) != remote || binary.NativeEndian.Uint32(m.Data[diagInode:]) == 0 {
		return 0, errNoSocket
	}
	return int(binary.NativeEndian.Uint32(m.Data[diagUID:])), nil
}

// procUser searches the tables in /proc, which hold all sockets of the network namespace.
func procUser(local, remote netip.AddrPort) (int, error) {
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(table)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(table, "6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return 0, err
		}
		uid, err := searchProc(bufio.NewScanner(f), local, remote)
		_ = f.Close() // only read
		if !errors.Is(err, errNoSocket) {
			return uid, err
		}
	}
	return 0, errNoSocket
}

// searchProc finds the socket in one table: "sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …".
func searchProc(lines *bufio.Scanner, local, remote netip.AddrPort) (int, error) {
	const fieldLocal, fieldRemote, fieldState, fieldUID, fieldInode, synSent = 1, 2, 3, 7, 9, "02"
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) <= fieldInode || parseProcAddress(f[fieldLocal]) != local || parseProcAddress(f[fieldRemote]) != remote || f[fieldInode] == "0" || f[fieldState] == synSent {
			continue
		}
		return strconv.Atoi(f[fieldUID])
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, errNoSocket
}

// parseProcAddress parses ADDRESS:PORT in hexadecimal, the address in words of the machine's byte order; the zero AddrPort if it is invalid.
func parseProcAddress(text string) netip.AddrPort {
	address, port, _ := strings.Cut(text, ":")
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil || len(address) != 8 && len(address) != 32 {
		return netip.AddrPort{}
	}
	raw := make([]byte, 0, 16)
	for i := 0; i < len(address); i += 8 {
		word, err := strconv.ParseUint(address[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}
		}
		raw = binary.NativeEndian.AppendUint32(raw, uint32(word))
	}
	ip, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(p))
}
