package access

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bridgefour/bridgefour/internal/datadir"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// Files of a machine's credentials in its data directory.
const (
	KeyFile         = "key.pem"
	CertificateFile = "certificate.pem"
	AuthorityFile   = "authority.pem"
)

// Types of PEM blocks.
const (
	pemKey         = "PRIVATE KEY"
	pemCertificate = "CERTIFICATE"
)

// Credentials are a machine's: a key that never leaves its data directory, the certificate that a cluster has issued for it, and the
// authorities of the cluster.
type Credentials struct {
	dir      string
	key      *ecdsa.PrivateKey
	identity string
	outdated chan struct{}          // room for one: a leader has a certificate by a newer authority
	issued   atomic.Pointer[issued] // nil: the machine is not enrolled
}

// issued is what a cluster has issued. It does not change.
type issued struct {
	certificate *tls.Certificate    // with chain and authorities, of which others know only a pin
	chain       []*x509.Certificate // of newer authorities by older ones, and the older ones
	authorities []*x509.Certificate // whose certificates are accepted, the newest last
	pins        []transport.Pin     // of the authorities
}

// OpenCredentials reads the credentials in a data directory, and makes a key if there is none.
func OpenCredentials(dir string) (*Credentials, error) {
	c := &Credentials{dir: dir, outdated: make(chan struct{}, 1)}
	if err := c.openKey(); err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(c.key.Public())
	if err != nil {
		return nil, err
	}
	c.identity = fingerprint(public)
	certificate, err := c.read(CertificateFile)
	if err != nil {
		return nil, err
	}
	authorities, err := c.read(AuthorityFile)
	if err != nil {
		return nil, err
	}
	if len(certificate) > 0 && len(authorities) > 0 {
		if err := c.use(certificate[0], authorities, certificate[1:]); err != nil {
			return nil, fmt.Errorf("%s: %w; remove the file, and join the cluster again", filepath.Join(dir, CertificateFile), err)
		}
	}
	return c, nil
}

// openKey reads the key, or makes one.
func (c *Credentials) openKey() error {
	path := filepath.Join(c.dir, KeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return err
		}
		raw, err := x509.MarshalPKCS8PrivateKey(c.key)
		if err != nil {
			return err
		}
		// A certificate of a key that was removed, because it was revoked or copied, is invalid.
		if err := os.Remove(filepath.Join(c.dir, CertificateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return datadir.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: raw}))
	}
	if err != nil {
		return fmt.Errorf("key of this machine: %w", err)
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == pemKey {
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if ours, ok := key.(*ecdsa.PrivateKey); ok && err == nil {
			c.key = ours
			return nil
		}
	}
	return fmt.Errorf("%s is damaged: remove it, and join the cluster again as a new machine", path)
}

// read reads a file of certificates; none if it does not exist.
func (c *Credentials) read(name string) ([]*x509.Certificate, error) {
	path := filepath.Join(c.dir, name)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := ParseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): remove it, and join the cluster again", path, err)
	}
	return list, nil
}

// ParseCertificates parses a file of certificates. It has at least one.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return list, nil
}

// EncodeCertificates is the opposite of ParseCertificates.
func EncodeCertificates(list ...*x509.Certificate) []byte {
	var text []byte
	for _, c := range list {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})...)
	}
	return text
}

// Set saves and uses a certificate, with the authorities of the cluster, the newest last, and the chain to older ones.
func (c *Credentials) Set(certificate *x509.Certificate, authorities, chain []*x509.Certificate) error {
	if err := c.use(certificate, authorities, chain); err != nil {
		return err
	}
	return errors.Join(
		datadir.WriteFile(filepath.Join(c.dir, AuthorityFile), EncodeCertificates(authorities...)),
		datadir.WriteFile(filepath.Join(c.dir, CertificateFile), EncodeCertificates(append([]*x509.Certificate{certificate}, chain...)...)),
	)
}

func (c *Credentials) use(certificate *x509.Certificate, authorities, chain []*x509.Certificate) error {
	if !c.key.PublicKey.Equal(certificate.PublicKey) {
		return errors.New("the certificate is of another key")
	}
	next := &issued{authorities: authorities, chain: chain, certificate: &tls.Certificate{PrivateKey: c.key, Leaf: certificate, Certificate: [][]byte{certificate.Raw}}}
	for _, a := range chain {
		next.certificate.Certificate = append(next.certificate.Certificate, a.Raw)
	}
	for _, a := range authorities {
		next.certificate.Certificate = append(next.certificate.Certificate, a.Raw)
		next.pins = append(next.pins, transport.PinOf(a))
	}
	c.issued.Store(next)
	return nil
}

// Identity returns the fingerprint of the key.
func (c *Credentials) Identity() string { return c.identity }

// Public returns the public key.
func (c *Credentials) Public() *ecdsa.PublicKey { return &c.key.PublicKey }

// Enrolled reports whether a cluster has issued a certificate, which may have expired.
func (c *Credentials) Enrolled() bool { return c.issued.Load() != nil }

// Authorities returns the authorities of the cluster.
func (c *Credentials) Authorities() []*x509.Certificate {
	if is := c.issued.Load(); is != nil {
		return is.authorities
	}
	return nil
}

// Chain returns the certificates of newer authorities by older ones, and older ones that are not accepted any more.
func (c *Credentials) Chain() []*x509.Certificate {
	if is := c.issued.Load(); is != nil {
		return is.chain
	}
	return nil
}

// Pins returns the pins of the authorities.
func (c *Credentials) Pins() []transport.Pin {
	if is := c.issued.Load(); is != nil {
		return is.pins
	}
	return nil
}

// Certificate returns the certificate; nil: the machine is not enrolled.
func (c *Credentials) Certificate() *tls.Certificate {
	if is := c.issued.Load(); is != nil {
		return is.certificate
	}
	return nil
}

// RenewAt is when the certificate has lived half of its life.
func (c *Credentials) RenewAt() time.Time {
	leaf := c.Certificate().Leaf
	from := leaf.NotBefore.Add(clockSkew)
	return from.Add(leaf.NotAfter.Sub(from) / 2)
}

// Dial connects to the leader at address. If the leader has a certificate by an authority that is not known yet, KeepRenewed gets one too.
func (c *Credentials) Dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := transport.DialTLS(ctx, address, transport.ClientTLS(RoleLeader, c.Pins, c.Certificate))
	if err == nil && !IsBy(LeafOf(conn), c.Authorities()) {
		select {
		case c.outdated <- struct{}{}:
		default:
		}
	}
	return conn, err
}

// LeafOf returns the certificate of the other end of a connection that DialTLS made.
func LeafOf(conn net.Conn) *x509.Certificate {
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0] //nolint:forcetypeassert // of a client whose handshake is complete, which verified it
}

// IsBy reports whether a certificate names one of the authorities as its issuer.
func IsBy(c *x509.Certificate, authorities []*x509.Certificate) bool {
	return slices.ContainsFunc(authorities, func(a *x509.Certificate) bool { return bytes.Equal(a.SubjectKeyId, c.AuthorityKeyId) })
}
