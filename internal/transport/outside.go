package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Files name those of an outside authority, such as a company's. Empty: there is none.
type Files struct {
	Authority        string // whose certificates are accepted; of a client without it: those that the system accepts
	Certificate, Key string // of this end, with its chain
}

// Check returns an error unless there are a certificate and a key, or neither.
func (f Files) Check() error {
	if (f.Certificate == "") != (f.Key == "") {
		return errors.New("a certificate and its key belong together: --tls-cert and --tls-key")
	}
	return nil
}

// ClientTLS is the configuration of connections to servers whose certificate is for their host name and of the outside authority. The
// files of this end are read again when they change.
func (f Files) ClientTLS() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	if err := f.Check(); err != nil {
		return nil, err
	}
	if f.Authority != "" {
		roots, err := AuthorityFile(f.Authority)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = roots()
	}
	if f.Certificate != "" {
		own, err := CertificateFiles(f.Certificate, f.Key)
		if err != nil {
			return nil, err
		}
		// Presented whatever authorities the server names, so that its answer says what is wrong.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own(), nil }
	}
	return cfg, nil
}

// CertificateFiles returns a certificate in files, which are read again when they have changed. While they do not match, the earlier
// certificate is returned.
func CertificateFiles(certificate, key string) (func() *tls.Certificate, error) {
	return reloaded(func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s with key %s: %w", certificate, key, err)
		}
		return &c, nil
	}, certificate, key)
}

// AuthorityFile returns the certificates in a file, which is read again when it has changed. While it has none, the earlier ones are returned.
func AuthorityFile(path string) (func() *x509.CertPool, error) {
	return reloaded(func() (*x509.CertPool, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("authority: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("authority %s: no certificate in it: want PEM", path)
		}
		return pool, nil
	}, path)
}

// reloaded returns what load returns, which is called again when one of the files has changed. While that fails, the earlier value is returned.
func reloaded[T any](load func() (T, error), files ...string) (func() T, error) {
	version := func() (v string) {
		for _, name := range files {
			if info, err := os.Stat(name); err == nil {
				v += fmt.Sprintln(info.ModTime().UnixNano(), info.Size())
			}
		}
		return v
	}
	var mu sync.Mutex
	read := version()
	current, err := load()
	if err != nil {
		return nil, err
	}
	return func() T {
		mu.Lock()
		defer mu.Unlock()
		if now := version(); now != read {
			if next, err := load(); err == nil {
				current, read = next, now
			}
		}
		return current
	}, nil
}

var errOtherOutside = errors.New("the certificate is not from the authority of --tls-ca of this leader, or the certificates between the two are missing in its file")

// outsideChainMax bounds the certificates of a chain: verifying them costs time, and the other end chooses them.
const outsideChainMax = 6

// VerifyClient verifies the certificate of a client, with which chain begins. It must be from one of the outside authorities.
func VerifyClient(chain []*x509.Certificate, authorities *x509.CertPool, now time.Time) error {
	if len(chain) > outsideChainMax {
		return fmt.Errorf("the certificate came with %d others, and at most %d are accepted", len(chain)-1, outsideChainMax-1)
	}
	o := x509.VerifyOptions{Roots: authorities, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	return explain(err, now, errOtherOutside)
}
