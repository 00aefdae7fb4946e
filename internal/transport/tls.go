package transport

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
)

// protocol is what programs of Bridge Four negotiate (ALPN). A server presents the certificate of its cluster to them, and asks for theirs.
const protocol = "bridgefour"

// Pin is the SHA-256 of the public key of a certificate authority.
type Pin [sha256.Size]byte

// String encodes the pin in base64, as URLs have it.
func (p Pin) String() string { return base64.RawURLEncoding.EncodeToString(p[:]) }

// ParsePin parses what String returns.
func ParsePin(text string) (p Pin, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(p) {
		return p, errors.New("the hash of the authority is damaged")
	}
	return Pin(raw), nil
}

// PinOf returns the pin of an authority.
func PinOf(authority *x509.Certificate) Pin { return sha256.Sum256(authority.RawSubjectPublicKeyInfo) }

// Why a server cannot be the one that is meant, however often it is asked.
var (
	ErrOtherAuthority = errors.New("the certificate is not from this cluster's authority: it belongs to another cluster, or a proxy intercepts the connection")
	ErrNotTLS         = errors.New("does not speak TLS")
)

// OtherAuthorityError is an ErrOtherAuthority.
type OtherAuthorityError struct {
	Name string // of the authority, as the other end has it
}

func (*OtherAuthorityError) Error() string { return ErrOtherAuthority.Error() }

// Unwrap returns ErrOtherAuthority.
func (*OtherAuthorityError) Unwrap() error { return ErrOtherAuthority }

// Verify verifies the certificate that chain begins with. One of the authorities must be in the chain, as servers and clients send it.
func Verify(chain []*x509.Certificate, authorities []Pin, usage x509.ExtKeyUsage, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range chain[1:] {
		if slices.Contains(authorities, PinOf(c)) {
			o.Roots.AddCert(c)
		} else {
			o.Intermediates.AddCert(c)
		}
	}
	_, err := chain[0].Verify(o)
	return explain(err, now, &OtherAuthorityError{Name: chain[len(chain)-1].Subject.CommonName})
}

// explain describes why a certificate cannot be verified. unknown is the error for one of an unknown authority.
func explain(err error, now time.Time, unknown error) error {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		const at = "2006-01-02 15:04:05 MST"
		switch from := invalid.Cert.NotBefore; {
		case invalid.Reason == x509.IncompatibleUsage:
			return errors.New("the certificate is not for this use: its extended key usage is that of a server or of something else")
		case invalid.Reason == x509.Expired && now.Before(from):
			return fmt.Errorf("the certificate is valid from %s on, and the clock of this machine says %s: check the clocks", from.UTC().Format(at), now.UTC().Format(at))
		case invalid.Reason == x509.Expired:
			return fmt.Errorf("the certificate expired at %s, and the clock of this machine says %s", invalid.Cert.NotAfter.UTC().Format(at), now.UTC().Format(at))
		}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return unknown
	}
	return err
}

// ClientTLS is the configuration of connections to servers of a role. The server's certificate must be for that role and from one of the
// authorities; its host name does not matter. own returns the certificate of this end, or nil; own itself may be nil.
func ClientTLS(role string, authorities func() []Pin, own func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies: an authority by its pin, and a role instead of a host name
		VerifyConnection: func(s tls.ConnectionState) error {
			if err := Verify(s.PeerCertificates, authorities(), x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
				return err
			}
			if !slices.Equal(s.PeerCertificates[0].Subject.Organization, []string{role}) {
				return fmt.Errorf("the certificate is not that of a %s", role)
			}
			return nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if own != nil {
				if c := own(); c != nil {
					return c, nil
				}
			}
			return &tls.Certificate{}, nil
		},
	}
}

// ServerTLS is the configuration of a server. Programs of Bridge Four see the certificate own, and may present one of theirs. Other clients,
// such as browsers, see outside, and may present one of the authorities of clients, if these are not nil. What clients present is not verified here.
func ServerTLS(own, outside func() *tls.Certificate, clients func() *x509.CertPool) *tls.Config {
	ours := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, ClientAuth: tls.RequestClientCert,
		SessionTicketsDisabled: true, // each connection proves its key
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own(), nil },
	}
	others := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if outside != nil {
				return outside(), nil
			}
			return own(), nil
		},
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, protocol) {
				return ours, nil
			}
			if clients == nil {
				return others, nil
			}
			asking := others.Clone()
			asking.ClientAuth, asking.ClientCAs = tls.RequestClientCert, clients() // a browser offers those of these authorities only
			return asking, nil
		},
	}
}

// OfProgram reports whether the other end of a connection is a program of Bridge Four, and not another client.
func OfProgram(c tls.ConnectionState) bool { return c.NegotiatedProtocol == protocol }

// handshakeTime bounds a TLS handshake.
const handshakeTime = 5 * time.Second

// DialTLS connects to the server at address by TLS. Its errors name the address.
func DialTLS(ctx context.Context, address string, cfg *tls.Config) (net.Conn, error) {
	c, err := Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if host, _, err := net.SplitHostPort(address); err == nil && !cfg.InsecureSkipVerify && cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	secure := tls.Client(c, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(handshakeError(address, err), c.Close())
	}
	return secure, nil
}

// NewHTTPS is NewHTTP for requests by TLS.
func NewHTTPS(cfg *tls.Config) *http.Transport {
	t := NewHTTP()
	t.TLSClientConfig = cfg // through a proxy
	t.DialTLSContext = func(ctx context.Context, _, address string) (net.Conn, error) { return DialTLS(ctx, address, cfg) }
	return t
}

// handshakeError describes why a TLS handshake with the server at address failed.
func handshakeError(address string, err error) error {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("the server at %s %w: it was started with --insecure, or is no leader of a secured cluster; "+
			"use http://%[1]s if that is intended", address, ErrNotTLS)
	}
	return fmt.Errorf("secure connection to %s: %w", address, err)
}
