package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writeCertificate writes a self-signed certificate with that number, and its key.
func writeCertificate(t *testing.T, number int64, certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(number), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: raw}, key: {Type: "PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(number, 0)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateFiles(t *testing.T) {
	certificate, key := filepath.Join(t.TempDir(), "tls.crt"), filepath.Join(t.TempDir(), "tls.key")
	if _, err := CertificateFiles(certificate, key); err == nil {
		t.Error("CertificateFiles() of missing files = nil, want an error")
	}
	writeCertificate(t, 1, certificate, key)
	get, err := CertificateFiles(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	number := func() int64 { return get().Leaf.SerialNumber.Int64() }
	if got := number(); got != 1 {
		t.Errorf("the certificate is number %d, want 1", got)
	}
	writeCertificate(t, 2, certificate, filepath.Join(t.TempDir(), "other"))
	if got := number(); got != 1 {
		t.Errorf("with a half of the next one, the certificate is number %d, want 1", got)
	}
	writeCertificate(t, 3, certificate, key)
	if got := number(); got != 3 {
		t.Errorf("the certificate is number %d, want 3", got)
	}
}
