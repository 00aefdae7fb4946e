package transport

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/internal/transport/outsidetest"
)

func newOutside(t *testing.T) *outsidetest.Authority {
	t.Helper()
	a, err := outsidetest.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *outsidetest.Authority, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	c, err := a.Issue(pkix.Name{CommonName: "ann"}, []string{"leader.acme"}, change)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestVerifyClient(t *testing.T) {
	root, other := newOutside(t), newOutside(t)
	between := root
	for range 3 {
		next, err := between.Intermediate()
		if err != nil {
			t.Fatal(err)
		}
		between = next
	}
	pool := x509.NewCertPool()
	pool.AddCert(root.Certificate)
	alone := issue(t, between, nil)
	alone.Certificate = alone.Certificate[:1]
	long := issue(t, between, nil)
	long.Certificate = append(long.Certificate, long.Certificate...)
	now := time.Now()
	for name, c := range map[string]struct {
		certificate *tls.Certificate
		at          time.Time
		want        string
	}{
		"valid":                  {issue(t, root, nil), now, ""},
		"by intermediate ones":   {issue(t, between, nil), now, ""},
		"without the chain":      {alone, now, "not from the authority of --tls-ca"},
		"another authority":      {issue(t, other, nil), now, "not from the authority of --tls-ca"},
		"expired":                {issue(t, root, nil), now.Add(25 * time.Hour), "the certificate expired at "},
		"not valid yet":          {issue(t, root, nil), now.Add(-2 * time.Hour), "check the clocks"},
		"of a server":            {issue(t, root, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), now, "extended key usage"},
		"for any use":            {issue(t, root, func(c *x509.Certificate) { c.ExtKeyUsage = nil }), now, ""},
		"with many certificates": {long, now, "at most 5 are accepted"},
	} {
		err := VerifyClient(outsidetest.Chain(c.certificate), pool, c.at)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: VerifyClient() = %v, want %q", name, err, c.want)
		}
	}
}

func TestAuthorityFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ca.crt")
	if _, err := AuthorityFile(path); err == nil {
		t.Error("AuthorityFile() of a missing file = nil, want an error")
	}
	write := func(text string, at int64) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(at, 0)); err != nil {
			t.Fatal(err)
		}
	}
	write("no certificate", 1)
	if _, err := AuthorityFile(path); err == nil || !strings.Contains(err.Error(), "no certificate in it") {
		t.Errorf("AuthorityFile() = %v, want an error that says what is wrong", err)
	}
	first, second := newOutside(t), newOutside(t)
	var texts []string
	for i, a := range []*outsidetest.Authority{first, second} {
		name, err := a.Write(dir, string(rune('a'+i)))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	write(texts[0], 2)
	get, err := AuthorityFile(path)
	if err != nil {
		t.Fatal(err)
	}
	accepts := func(a *outsidetest.Authority) bool {
		return VerifyClient(outsidetest.Chain(issue(t, a, nil)), get(), time.Now()) == nil
	}
	if !accepts(first) || accepts(second) {
		t.Error("the authorities are not those of the file")
	}
	write("damaged", 3)
	if !accepts(first) {
		t.Error("the authorities are forgotten while the file has none")
	}
	write(texts[1], 4)
	if accepts(first) || !accepts(second) {
		t.Error("the authorities are not those of the file after it has changed")
	}
}

// TestOutsideTLS: what a client with the files of an outside authority accepts, and what a server sees of it.
func TestOutsideTLS(t *testing.T) {
	a, other := newOutside(t), newOutside(t)
	dir := t.TempDir()
	authority, err := a.Write(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := outsidetest.Write(dir, "ann", issue(t, a, nil))
	if err != nil {
		t.Fatal(err)
	}
	at := func(host string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.ParseIP(host)} }
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	for name, c := range map[string]struct {
		server *tls.Certificate
		files  Files
		want   string
	}{
		"valid":               {issue(t, a, at("127.0.0.1")), Files{authority, certificate, key}, ""},
		"no client's":         {issue(t, a, at("127.0.0.1")), Files{authority, "", ""}, ""},
		"the system's":        {issue(t, a, at("127.0.0.1")), Files{"", certificate, key}, "unknown authority"},
		"another authority":   {issue(t, other, at("127.0.0.1")), Files{authority, certificate, key}, "unknown authority"},
		"another host":        {issue(t, a, at("127.0.0.2")), Files{authority, certificate, key}, "127.0.0.2, not 127.0.0.1"},
		"expired":             {issue(t, a, func(c *x509.Certificate) { at("127.0.0.1")(c); c.NotAfter = time.Now().Add(-time.Minute) }), Files{authority, "", ""}, "expired"},
		"of a client":         {issue(t, a, func(c *x509.Certificate) { at("127.0.0.1")(c); c.ExtKeyUsage = c.ExtKeyUsage[:1] }), Files{authority, "", ""}, "key usage"},
		"a missing key":       {nil, Files{authority, certificate, ""}, "belong together"},
		"a missing file":      {nil, Files{filepath.Join(dir, "none"), "", ""}, "no such file"},
		"files of no keypair": {nil, Files{authority, authority, key}, "certificate " + authority},
	} {
		cfg, err := c.files.ClientTLS()
		if err == nil && c.server != nil {
			err = handshake(t, cfg, ServerTLS(nil, func() *tls.Certificate { return c.server }, func() *x509.CertPool { return pool }), c.files.Certificate != "")
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// handshake connects to a server, and returns the error of the client. The server must get a certificate, or none.
func handshake(t *testing.T, client, server *tls.Config, presents bool) error {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	defer func() {
		_ = l.Close()
		<-served
	}()
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close() //nolint:errcheck // of a test
		secure := tls.Server(c, server)
		if secure.HandshakeContext(t.Context()) != nil {
			return
		}
		if s := secure.ConnectionState(); (len(s.PeerCertificates) > 0) != presents || OfProgram(s) {
			t.Errorf("the server sees %d certificates, of a program: %v; want some: %v", len(s.PeerCertificates), OfProgram(s), presents)
		}
	}()
	c, err := DialTLS(t.Context(), l.Addr().String(), client)
	if err == nil {
		err = c.Close()
	}
	return err
}
