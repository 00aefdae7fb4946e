package access

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/transport"
)

// serveOne listens as a user, and accepts one connection.
func serveOne(t *testing.T, uid int, network, address string) string {
	t.Helper()
	listening, over := make(chan net.Listener, 1), make(chan struct{})
	server := func() {
		l := listen(t, network, address)
		listening <- l
		if c, err := l.Accept(); err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
	}
	go func() {
		defer close(over)
		if uid == os.Geteuid() {
			server()
		} else {
			as(t, uid, server)
		}
	}()
	l := <-listening
	t.Cleanup(func() { _ = l.Close(); <-over })
	return l.Addr().String()
}

// A worker must not run the programs of another user's process that has taken the port of its leader.
func TestPlainDial(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	dial := PlainDial(false)
	for name, c := range map[string]struct {
		uid              int
		network, address string
		want             string // in the error; empty: none
	}{
		"own":           {0, "tcp", "127.0.0.1:0", ""},
		"own IPv6":      {0, "tcp", "[::1]:0", ""},
		"own socket":    {0, "unix", socketFile(t), ""},
		"other":         {nobody, "tcp", "127.0.0.1:0", "another user"},
		"other's IPv6":  {nobody, "tcp", "[::1]:0", "another user"},
		"other machine": {0, "tcp", outside(t) + ":0", "another machine"},
	} {
		t.Run(name, func(t *testing.T) {
			address := serveOne(t, c.uid, c.network, c.address)
			if c.network == "unix" {
				address = transport.UnixAddress(address)
			}
			conn, err := dial(t.Context(), address)
			if err == nil {
				err = conn.Close()
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("dial = %v, want %q", err, c.want)
			}
		})
	}
	address := serveOne(t, nobody, "tcp", "127.0.0.1:0")
	if conn, err := PlainDial(true)(t.Context(), address); err != nil || conn.Close() != nil {
		t.Errorf("insecure: %v", err)
	}
}

// A server that does not accept is of an unknown user.
func TestPlainDialNotAccepted(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	for timeout := 20 * time.Millisecond; ; timeout *= 2 { // until it is long enough to connect
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		_, err := PlainDial(false)(ctx, l.Addr().String())
		cancel()
		if err == nil || timeout > time.Minute {
			t.Fatalf("dial = %v, want that the user is not known", err)
		}
		if strings.Contains(err.Error(), "not known") {
			break
		}
	}
}

// A server that ends before or after it accepts a connection is not waited for: another one may listen there already.
func TestPlainDialClosed(t *testing.T) {
	for name, accepts := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, "tcp", "127.0.0.1:0")
			c, err := net.Dial("tcp", l.Addr().String()) //nolint:noctx // opens at once
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close() //nolint:errcheck // the test is over
			if accepts {
				server, err := l.Accept()
				if err == nil {
					err = server.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := CheckServer(t.Context(), c, l.Addr().String()); !errors.Is(err, errClosed) {
				t.Errorf("CheckServer = %v, want that it was closed", err)
			}
		})
	}
}

// outside is an address of this machine that is not loopback.
func outside(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	t.Skip("no network")
	return ""
}
