package access

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strconv"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/bridgefour/bridgefour/internal/transport"
)

// Peer is the other end of a connection. The server's port establishes it once, when it accepts the connection.
type Peer struct {
	Address     string              // host:port; empty: a unix socket
	User        string              // the number of its user on this machine, as the kernel knows it; empty: unknown
	Local       bool                // a process of the server's user, or of root, on this machine
	Encrypted   bool                // the connection is TLS
	Certificate *x509.Certificate   // whose key the other end has; nil: none was presented
	Invalid     error               // why Certificate is not accepted; nil: it is
	Outside     []*x509.Certificate // of a client that is no program of ours: its certificate, of an outside authority, and those between
	Proxy       string              // of a request: the header by which a proxy announces itself; empty: there is none
}

// isRemote reports whether the other end is on another machine.
func (p Peer) isRemote() bool { return p.Address != "" && !transport.IsLoopback(p.Address) }

// Conn is a connection whose peer is known.
type Conn interface {
	net.Conn
	Peer() Peer
}

// PeerOf returns the peer of an accepted connection, and asks the kernel for its user. The certificate is up to the caller.
func PeerOf(c net.Conn) Peer {
	p := Peer{Address: c.RemoteAddr().String()}
	if uid, err := peerUser(c); err == nil {
		p.User, p.Local = strconv.Itoa(uid), uid == os.Geteuid() || uid == 0
	}
	if _, isUnix := c.RemoteAddr().(*net.UnixAddr); isUnix {
		p.Address = ""
	}
	return p
}

var (
	// errNoSocket is the error for a socket that no process has open, or none yet.
	errNoSocket = errors.New("no process has this socket open")
	// errClosed is the error for a connection whose other end was closed.
	errClosed = errors.New("connection closed by the other end")
)

// peerOf returns the peer of c.
func peerOf(c net.Conn) Peer {
	if known, ok := c.(Conn); ok {
		return known.Peer()
	}
	return PeerOf(c)
}

type peerKey struct{}

// ConnContext returns a context with the peer of c, as http.Server wants it.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if known, ok := c.(Conn); ok {
		return context.WithValue(ctx, peerKey{}, known) // its peer is asked for by a request: it may not be encrypted yet
	}
	return context.WithValue(ctx, peerKey{}, PeerOf(c))
}

// PeerFrom returns the peer of an HTTP request or a gRPC call; the zero Peer, which is not local, if there is none.
func PeerFrom(ctx context.Context) Peer {
	switch p := ctx.Value(peerKey{}).(type) {
	case Peer:
		return p
	case Conn:
		return p.Peer()
	}
	if call, ok := peer.FromContext(ctx); ok {
		if info, ok := call.AuthInfo.(callPeer); ok {
			return Peer(info)
		}
	}
	return Peer{}
}

// callPeer is the peer of gRPC calls.
type callPeer Peer

// AuthType implements credentials.AuthInfo.
func (callPeer) AuthType() string { return "bridgefour" }

// connCredentials pass the peer of a connection to its gRPC calls. The connection is encrypted, or not, below gRPC.
type connCredentials struct{}

// ServerHandshake implements credentials.TransportCredentials.
func (connCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, callPeer(peerOf(c)), nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (connCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	panic("credentials of a server")
}

// Info implements credentials.TransportCredentials.
func (connCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "bridgefour"}
}

// Clone implements credentials.TransportCredentials.
func (c connCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (connCredentials) OverrideServerName(string) error { return nil }
