// Package outsidetest makes certificates as an outside authority, such as a company's, issues them. For tests only.
package outsidetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority is a certificate authority.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	above       *Authority // that certifies it; nil: it is a root
}

// New makes a root.
func New() (*Authority, error) { return authority(nil) }

// Intermediate makes an authority that a certifies.
func (a *Authority) Intermediate() (*Authority, error) { return authority(a) }

func authority(above *Authority) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "ACME " + rand.Text()[:4], Organization: []string{"ACME"}}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a, signer := &Authority{key: key, above: above}, &Authority{Certificate: template, key: key}
	if above != nil {
		signer = above
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, signer.Certificate, key.Public(), signer.key)
	if err != nil {
		return nil, err
	}
	a.Certificate, err = x509.ParseCertificate(raw)
	return a, err
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, big.NewInt(1<<62)) // it returns no error
	return n
}

// Issue certifies a new key, for clients and servers at hosts, until a day from now. change, if it is not nil, changes the certificate before.
func (a *Authority) Issue(subject pkix.Name, hosts []string, change func(*x509.Certificate)) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if change != nil {
		change(template)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
	for ; a.above != nil; a = a.above {
		c.Certificate = append(c.Certificate, a.Certificate.Raw)
	}
	c.Leaf, err = x509.ParseCertificate(raw)
	return c, err
}

// Chain returns the certificates of c, parsed.
func Chain(c *tls.Certificate) (chain []*x509.Certificate) {
	for _, raw := range c.Certificate {
		if parsed, err := x509.ParseCertificate(raw); err == nil {
			chain = append(chain, parsed)
		}
	}
	return chain
}

// Write writes NAME.crt, and NAME.key if c has a key, into dir, and returns their paths.
func Write(dir, name string, c *tls.Certificate) (certificate, key string, err error) {
	var text []byte
	for _, raw := range c.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...)
	}
	certificate, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	err = os.WriteFile(certificate, text, 0o600)
	if c.PrivateKey == nil {
		return certificate, "", err
	}
	raw, keyErr := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	return certificate, key, errors.Join(err, keyErr, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600))
}

// Write writes the certificate of the authority as NAME.crt into dir, and returns its path.
func (a *Authority) Write(dir, name string) (path string, err error) {
	path, _, err = Write(dir, name, &tls.Certificate{Certificate: [][]byte{a.Certificate.Raw}})
	return path, err
}
