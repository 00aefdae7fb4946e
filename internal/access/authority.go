package access

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// CertificateLife is how long the certificate of a machine is valid. It is renewed after half of it.
	CertificateLife = 24 * time.Hour
	// clockSkew is how far the clocks of two machines may differ.
	clockSkew = time.Hour
)

// Authority is a certificate authority of a cluster. Its private key follows from the cluster key and the serial number of its certificate, so
// it is stored nowhere.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// FirstAuthority makes the first authority of the cluster with that key and ID. Its key follows from them, so leaders that found a cluster
// together make the same one, each with a certificate of its own: the pin, by which it is known, is the same.
func FirstAuthority(clusterKey Key, cluster string, now time.Time) (Authority, error) {
	template := certificate(now, authorityLife)
	template.SerialNumber = serialNumber(derive(clusterKey, []byte(cluster), "bridgefour first authority", serialBytes))
	return makeAuthority(clusterKey, cluster, template)
}

// NewAuthority makes another authority of the cluster.
func NewAuthority(clusterKey Key, cluster string, now time.Time) (Authority, error) {
	return makeAuthority(clusterKey, cluster, certificate(now, authorityLife))
}

func makeAuthority(clusterKey Key, cluster string, template *x509.Certificate) (Authority, error) {
	template.Subject = pkix.Name{Organization: []string{"Bridge Four"}, CommonName: authorityName(cluster) + fmt.Sprintf("%x", template.SerialNumber.Bytes()[:4])}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	a := Authority{template, authorityKey(clusterKey, template.SerialNumber)}
	raw, err := a.sign(template, a.key.Public())
	if err != nil {
		return Authority{}, err
	}
	a.certificate, err = x509.ParseCertificate(raw)
	return a, err
}

// authorityName begins the names of the authorities of a cluster.
func authorityName(cluster string) string { return "cluster " + cluster + " " }

// IsAuthorityOf reports whether the name of an authority is one of the cluster with that ID. It proves nothing.
func IsAuthorityOf(name, cluster string) bool { return strings.HasPrefix(name, authorityName(cluster)) }

// OpenAuthority returns the authority with that certificate.
func OpenAuthority(clusterKey Key, certificate *x509.Certificate) (Authority, error) {
	a := Authority{certificate, authorityKey(clusterKey, certificate.SerialNumber)}
	if !a.key.PublicKey.Equal(certificate.PublicKey) {
		return Authority{}, errors.New("the cluster key is not that of the certificate authority: one of the two files is of another cluster")
	}
	return a, nil
}

// authorityKey derives the private key of the authority with a serial number.
func authorityKey(clusterKey Key, serial *big.Int) *ecdsa.PrivateKey {
	for try := 0; ; try++ {
		raw := derive(clusterKey, serial.Bytes(), "bridgefour certificate authority "+strconv.Itoa(try), 32)
		// All but one in 2^32 numbers are keys.
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw); err == nil {
			return key
		}
	}
}

// derive derives bytes from a cluster key.
func derive(clusterKey Key, salt []byte, purpose string, bytes int) []byte {
	raw, err := hkdf.Key(sha256.New, clusterKey[:], salt, purpose, bytes)
	if err != nil {
		panic(err) // the lengths are valid
	}
	return raw
}

// Certificate returns the certificate of the authority.
func (a Authority) Certificate() *x509.Certificate { return a.certificate }

// Cross certifies the authority after this one, so that peers that accept this one accept that one too.
func (a Authority) Cross(next Authority, now time.Time) ([]byte, error) {
	template := certificate(now, authorityLife)
	template.Subject, template.SubjectKeyId = next.certificate.Subject, next.certificate.SubjectKeyId
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	template.NotAfter = slices.MinFunc([]time.Time{template.NotAfter, a.certificate.NotAfter}, time.Time.Compare)
	return a.sign(template, next.key.Public())
}

// WorkerHost is the host name in the certificate of each worker, for clients that compare one: what a worker says of its own name and addresses
// could be those of a leader.
const WorkerHost = "worker.bridgefour"

// Holder is what a certificate says of the holder of its key.
type Holder struct {
	Role  string   // RoleWorker or RoleLeader
	Name  string   // a worker's fingerprint; a leader's data directory
	Hosts []string // of a leader: host names and addresses, for clients that compare them
}

// Issue certifies the holder of a key. The certificate is valid for life.
func (a Authority) Issue(h Holder, key crypto.PublicKey, now time.Time, life time.Duration) ([]byte, error) {
	template := certificate(now, life)
	template.Subject = pkix.Name{Organization: []string{h.Role}, CommonName: h.Name}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	if h.Role == RoleWorker {
		template.DNSNames = []string{WorkerHost}
	}
	for _, host := range h.Hosts {
		if ip, err := netip.ParseAddr(host); err == nil {
			template.IPAddresses = append(template.IPAddresses, net.IP(ip.WithZone("").AsSlice()))
		} else if CheckHost(host) == nil {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return a.sign(template, key)
}

func (a Authority) sign(template *x509.Certificate, key crypto.PublicKey) ([]byte, error) {
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", template.Subject, err)
	}
	return raw, nil
}

// certificate returns a template that is valid for life, also on a machine whose clock is late.
func certificate(now time.Time, life time.Duration) *x509.Certificate {
	serial := make([]byte, serialBytes)
	_, _ = rand.Read(serial) // it returns no error
	return &x509.Certificate{SerialNumber: serialNumber(serial), NotBefore: now.Add(-clockSkew), NotAfter: now.Add(life)}
}

const serialBytes = 16

// serialNumber makes a positive number of serialBytes bytes.
func serialNumber(raw []byte) *big.Int {
	raw[0] = raw[0]&0x7f | 0x40
	return new(big.Int).SetBytes(raw)
}

// Fingerprint returns the identity of a machine's key.
func Fingerprint(c *x509.Certificate) string { return fingerprint(c.RawSubjectPublicKeyInfo) }

// fingerprint is Fingerprint of an encoded public key.
func fingerprint(public []byte) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:])
}

// IsFingerprint reports whether text may be a fingerprint.
func IsFingerprint(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == sha256.Size && text == strings.ToLower(text)
}

// holderOf returns what a certificate says, without verifying it.
func holderOf(c *x509.Certificate) Holder {
	h := Holder{Name: c.Subject.CommonName}
	if organizations := c.Subject.Organization; len(organizations) == 1 && IsMachine(organizations[0]) {
		h.Role = organizations[0]
	}
	return h
}
