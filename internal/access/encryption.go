package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/internal/transport"
)

// Encryption is the TLS of a server's port, which also serves plain connections of its own machine.
type Encryption struct {
	Config      *tls.Config
	Authorities func() []transport.Pin // that certify workers and leaders
}

// IsTLS reports whether a connection that begins with this byte is a TLS connection. No HTTP request is.
func IsTLS(first byte) bool { return first == 0x16 }

// Handshake returns the TLS connection over c, and its peer. The certificate of the peer is verified with the authorities.
func (e *Encryption) Handshake(ctx context.Context, c net.Conn, p Peer) (net.Conn, Peer, error) {
	secure := tls.Server(c, e.Config)
	if err := secure.HandshakeContext(ctx); err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
			err = fmt.Errorf("%w: the other end does not accept this server's certificate: its string, access or --tls-ca is of another cluster or authority, or its clock is wrong", err)
		}
		return nil, p, fmt.Errorf("TLS handshake of %s: %w", p.Address, err)
	}
	p.Encrypted = true
	state := secure.ConnectionState()
	switch sent := state.PeerCertificates; {
	case len(sent) == 0:
	case !transport.OfProgram(state):
		p.Outside = sent // verified with each request
	default:
		p.Certificate = sent[0]
		p.Invalid = transport.Verify(sent, e.Authorities(), x509.ExtKeyUsageClientAuth, time.Now())
	}
	return secure, p, nil
}

// Listen returns a listener for an HTTP server, whose connections are encrypted if they begin with a TLS handshake.
func (e *Encryption) Listen(l net.Listener, logger *slog.Logger) net.Listener {
	return &encryptedListener{Listener: l, encryption: e, logger: logger}
}

type encryptedListener struct {
	net.Listener
	encryption *Encryption
	refusals   transport.Refusals
	logger     *slog.Logger
}

// Accept implements net.Listener.
func (l *encryptedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &encryptedConn{Conn: c, listener: l, peer: PeerOf(c)}, nil
}

// encryptedConn is a connection that is encrypted if its first byte says so. The goroutine of the server that reads first sets peer and secure,
// before there is a request; others may close the connection meanwhile.
type encryptedConn struct {
	net.Conn // as accepted
	listener *encryptedListener
	begun    bool
	peer     Peer
	secure   atomic.Pointer[net.Conn] // nil: not encrypted, or not yet
}

// Peer implements Conn.
func (c *encryptedConn) Peer() Peer { return c.peer }

func (c *encryptedConn) now() net.Conn {
	if secure := c.secure.Load(); secure != nil {
		return *secure
	}
	return c.Conn
}

// Read implements net.Conn. The deadline of the first one, which the server sets, bounds the handshake.
func (c *encryptedConn) Read(b []byte) (int, error) {
	if c.begun || len(b) == 0 {
		return c.now().Read(b)
	}
	c.begun = true
	n, err := c.Conn.Read(b[:1])
	if err != nil || n == 0 || !IsTLS(b[0]) {
		return n, err
	}
	secure, peer, err := c.listener.encryption.Handshake(context.Background(), &begunConn{Conn: c.Conn, first: []byte{b[0]}}, c.peer)
	if err != nil {
		c.listener.refusals.Add(c.listener.logger, err.Error(), 0)
		return 0, io.EOF // for the server: there is no client to answer
	}
	c.peer = peer
	c.secure.Store(&secure)
	return secure.Read(b)
}

// Write implements net.Conn.
func (c *encryptedConn) Write(b []byte) (int, error) { return transport.WriteWithin(c.now(), b) }

// Close implements net.Conn.
func (c *encryptedConn) Close() error { return c.now().Close() }

// begunConn is a connection of which the first bytes were read.
type begunConn struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (c *begunConn) Read(b []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.first)
	c.first = c.first[n:]
	return n, nil
}
