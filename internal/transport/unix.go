package transport

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// unixPrefix begins the address of a unix socket: unix:PATH.
const unixPrefix = "unix:"

// UnixAddress is the address of the unix socket at path.
func UnixAddress(path string) string { return unixPrefix + path }

// UnixPath returns the path in the address of a unix socket.
func UnixPath(address string) (path string, ok bool) { return strings.CutPrefix(address, unixPrefix) }

// unixDomain ends the host in the URL of a unix socket, which is its path in hexadecimal digits: a URL has no other place for it.
const unixDomain = ".unix"

func unixHost(path string) string { return hex.EncodeToString([]byte(path)) + unixDomain }

// IsUnix reports whether host, of a URL of [URL], is a unix socket.
func IsUnix(host string) bool {
	_, ok := unixOfHost(host)
	return ok
}

// unixOfHost returns the path of the socket that host, with or without a port, stands for.
func unixOfHost(host string) (path string, ok bool) {
	digits, port, _ := strings.Cut(host, unixDomain)
	raw, err := hex.DecodeString(digits)
	if err != nil || !filepath.IsAbs(string(raw)) || port != "" && port[0] != ':' {
		return "", false
	}
	return string(raw), true
}

// Display returns a URL of [URL] for messages.
func Display(url string) string {
	if path, ok := unixOfHost(strings.TrimPrefix(url, URL(""))); ok {
		return UnixAddress(path)
	}
	return url
}

// unixPathMax is the length up to which the address of a socket can hold a path, on every system.
const unixPathMax = 100

// withShortName calls f with a name of path that fits into the address of a socket. A path that does not is reached through its open folder,
// which only Linux can do.
func withShortName(path string, f func(name string) error) error {
	if len(path) <= unixPathMax {
		return f(path)
	}
	if runtime.GOOS != "linux" {
		return fmt.Errorf("socket %s: its path has %d bytes, more than %d: choose a shorter one", path, len(path), unixPathMax)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // only read
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// ListenUnix listens on a unix socket that only this user and root can open. A socket that is there already is replaced: the caller makes
// sure that no process listens on it.
func ListenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l := &unixListener{path: path}
	err := withShortName(path, func(name string) (err error) {
		var c net.ListenConfig
		l.Listener, err = c.Listen(ctx, "unix", name)
		return err
	})
	if err != nil {
		return nil, err
	}
	if own, ok := l.Listener.(*net.UnixListener); ok {
		own.SetUnlinkOnClose(false) // the name may have been a short one
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// unixListener removes its socket when it is closed.
type unixListener struct {
	net.Listener
	path string
}

// Close implements net.Listener.
func (l *unixListener) Close() error {
	err := l.Listener.Close()
	if err == nil {
		err = os.Remove(l.path)
	}
	return err
}

func dialUnix(ctx context.Context, path string) (c net.Conn, err error) {
	err = withShortName(path, func(name string) (err error) {
		d := net.Dialer{Timeout: dialTimeout}
		c, err = d.DialContext(ctx, "unix", name)
		return err
	})
	return c, err
}

// Memory is a listener for connections within this process, which are pairs of sockets.
type Memory struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

// ListenMemory returns a listener for this process.
func ListenMemory() *Memory {
	m := &Memory{conns: make(chan net.Conn), closed: make(chan struct{})}
	m.close = sync.OnceFunc(func() { close(m.closed) })
	return m
}

// Dial connects to the listener, whatever the address. It waits until the connection is accepted.
func (m *Memory) Dial(ctx context.Context, _ string) (net.Conn, error) {
	client, server, err := socketPair()
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	select {
	case <-m.closed:
		err = syscall.ECONNREFUSED
	case <-ctx.Done():
		err = context.Cause(ctx)
	case m.conns <- server:
		return client, nil
	}
	return nil, &net.OpError{Op: "dial", Net: "memory", Err: errors.Join(err, client.Close(), server.Close())}
}

// Accept implements net.Listener.
func (m *Memory) Accept() (net.Conn, error) {
	select {
	case <-m.closed:
		return nil, net.ErrClosed
	case c := <-m.conns:
		return c, nil
	}
}

// Close implements net.Listener.
func (m *Memory) Close() error {
	m.close()
	return nil
}

// Addr implements net.Listener.
func (*Memory) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// socketPair returns the ends of a connection.
func socketPair() (a, b net.Conn, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	a, errA := fileConn(fds[0])
	b, errB := fileConn(fds[1])
	if err := errors.Join(errA, errB); err != nil {
		for _, c := range []net.Conn{a, b} {
			if c != nil {
				_ = c.Close() // the error that matters is err
			}
		}
		return nil, nil, err
	}
	return a, b, nil
}

// fileConn takes over a socket.
func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "socket") //nolint:gosec // a file descriptor
	defer f.Close()                        //nolint:errcheck // the connection has a copy
	return net.FileConn(f)
}

// dialTimeout bounds the time until a server has accepted a connection.
const dialTimeout = 2 * time.Second
