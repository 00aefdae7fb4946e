package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/transport"
)

// testLeader issues certificates.
type testLeader struct {
	authority Authority
	token     string
	redirect  string // host:port
	seen      []string
}

func (l *testLeader) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := Fingerprint(chain(r)[0])
	renewal := transport.Verify(chain(r), []transport.Pin{transport.PinOf(l.authority.Certificate())}, x509.ExtKeyUsageClientAuth, time.Now()) == nil
	var in api.CertificateRequest
	switch err := json.NewDecoder(r.Body).Decode(&in); {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case l.redirect != "":
		http.Redirect(w, r, "https://"+l.redirect+r.URL.Path, http.StatusTemporaryRedirect)
	case r.Header.Get("Authorization") != "Bearer "+l.token && !renewal:
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(api.NewProblem(http.StatusUnauthorized, "wrong token"))
	default:
		l.seen = append(l.seen, in.Name)
		raw, err := l.authority.Issue(Holder{Role: RoleWorker, Name: key}, chain(r)[0].PublicKey, time.Now(), CertificateLife)
		if err != nil {
			panic(err)
		}
		_ = json.NewEncoder(w).Encode(api.Certificate{Certificate: raw, Authorities: [][]byte{l.authority.Certificate().Raw}, ClusterKey: []byte{1}})
	}
}

// serve serves h as a leader does, until the test ends.
func serve(t *testing.T, a Authority, configure func(own *tls.Certificate) *tls.Config, h http.Handler) (address string) {
	t.Helper()
	c := newCredentials(t)
	leaf := issue(t, a, Holder{Role: RoleLeader, Name: "d"}, c, time.Now())
	if err := c.Set(leaf, []*x509.Certificate{a.Certificate()}, nil); err != nil {
		t.Fatal(err)
	}
	l, err := transport.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if cfg := configure(c.Certificate()); cfg != nil {
		l = tlsListener{tls.NewListener(l, cfg)}
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, chainKey{}, c)
	}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	return l.Addr().String()
}

// tlsListener hides TLS from net/http, as a leader's port does.
type tlsListener struct{ net.Listener }

func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return tlsConn{c}, err
}

type tlsConn struct{ net.Conn }

type chainKey struct{}

// chain returns the certificates of the client.
func chain(r *http.Request) []*x509.Certificate {
	if c, ok := r.Context().Value(chainKey{}).(tlsConn); ok {
		if secure, ok := c.Conn.(*tls.Conn); ok {
			return secure.ConnectionState().PeerCertificates
		}
	}
	return nil
}

func plainText(*tls.Certificate) *tls.Config { return nil }

func encrypted(own *tls.Certificate) *tls.Config {
	return transport.ServerTLS(func() *tls.Certificate { return own }, nil, nil)
}

// writer is called at each write.
type writer func()

func (w writer) Write(b []byte) (int, error) {
	w()
	return len(b), nil
}

func TestEnroll(t *testing.T) {
	a, other := newAuthority(t, 1, time.Now()), newAuthority(t, 2, time.Now())
	leader := &testLeader{authority: a, token: "right"}
	address := serve(t, a, encrypted, leader)
	follower := serve(t, a, encrypted, &testLeader{authority: a, redirect: address})
	plain := serve(t, a, plainText, http.NotFoundHandler())
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	pin := transport.PinOf(a.Certificate())
	c := newCredentials(t)

	if _, err := c.Enroll(t.Context(), transport.Join{Addresses: []string{address}, Authority: &pin, Token: "wrong"}, "", log); err == nil || c.Enrolled() ||
		!strings.Contains(err.Error(), "wrong token") {
		t.Errorf("Enroll() with a wrong token = %v, want the leader's refusal", err)
	}
	key, err := c.Enroll(t.Context(), transport.Join{Addresses: []string{follower}, Authority: &pin, Token: "right"}, "d1", log)
	if err != nil || !c.Enrolled() || len(key) != 1 || leader.seen[0] != "d1" {
		t.Fatalf("Enroll() = %v, %v, the leader saw %q", key, err, leader.seen)
	}
	before := c.Certificate()
	if err := c.Renew(t.Context(), []string{plain, follower}); err != nil || c.Certificate() == before {
		t.Errorf("Renew() = %v, want another certificate", err)
	}
	if again, err := OpenCredentials(c.dir); err != nil || !again.Certificate().Leaf.Equal(c.Certificate().Leaf) {
		t.Errorf("OpenCredentials() after Renew() = %v, want the certificate of the renewal", err)
	}

	// Nothing is sent to a server of another cluster, or by plain text, and nothing is gained by asking again.
	wrong, away := transport.PinOf(other.Certificate()), "127.0.0.1:1"
	for text, j := range map[string]transport.Join{
		"another cluster":    {Addresses: []string{address, follower}, Authority: &wrong, Token: "right"},
		"does not speak TLS": {Addresses: []string{plain}, Authority: &pin, Token: "right"},
		"wrong token":        {Addresses: []string{plain, away, address}, Authority: &pin, Token: "wrong"},
	} {
		_, err := newCredentials(t).Enroll(t.Context(), j, "", log)
		if _, refused := errors.AsType[*api.Problem](err); !refused || !strings.Contains(err.Error(), text) {
			t.Errorf("Enroll() = %v, want the refusal %q", err, text)
		}
	}
	// One address was given to a server of another cluster, and the leader is not up yet: it is asked again.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	j := transport.Join{Addresses: []string{plain, away}, Authority: &pin, Token: "right"}
	_, err = newCredentials(t).Enroll(ctx, j, "", slog.New(slog.NewTextHandler(writer(cancel), nil))) // until it has said why
	if _, refused := errors.AsType[*api.Problem](err); err == nil || refused {
		t.Errorf("Enroll() = %v, want the error of the leader that is away", err)
	}
	// One that does not know the token yet does not keep a machine from the others.
	late := serve(t, a, encrypted, &testLeader{authority: a, token: "none yet"})
	j = transport.Join{Addresses: []string{late, address}, Authority: &pin, Token: "right"}
	if _, err := newCredentials(t).Enroll(t.Context(), j, "", log); err != nil {
		t.Errorf("Enroll() = %v, want the certificate of the leader that knows the token", err)
	}
}

// TestNewKey: a machine whose key was revoked joins again once its key is removed.
func TestNewKey(t *testing.T) {
	a := newAuthority(t, 1, time.Now())
	pin, c := transport.PinOf(a.Certificate()), newCredentials(t)
	j := transport.Join{Addresses: []string{serve(t, a, encrypted, &testLeader{authority: a, token: "right"})}, Authority: &pin, Token: "right"}
	for range 2 {
		if _, err := c.Enroll(t.Context(), j, "", slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		before := c.Identity()
		err := os.Remove(filepath.Join(c.dir, KeyFile))
		if err == nil {
			c, err = OpenCredentials(c.dir)
		}
		if err == nil {
			c, err = OpenCredentials(c.dir) // after a join that has failed
		}
		if err != nil || c.Enrolled() || c.Identity() == before {
			t.Fatalf("OpenCredentials() without a key = %v, want a new key and no certificate", err)
		}
	}
}

func TestDial(t *testing.T) {
	a := newAuthority(t, 1, time.Now())
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(chain(r)) > 0 {
			_, _ = io.WriteString(w, Fingerprint(chain(r)[0]))
		}
	})
	address := serve(t, a, encrypted, echo)
	c := newCredentials(t)
	if err := c.Set(issue(t, a, Holder{Role: RoleWorker, Name: c.Identity()}, c, time.Now()), []*x509.Certificate{a.Certificate()}, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(answer), c.Identity()) {
		t.Errorf("the server answers %q, %v, want the fingerprint of the client", answer, err)
	}
	_ = conn.Close()

	// A worker is no leader, whatever its certificate.
	workerServes := serve(t, a, func(*tls.Certificate) *tls.Config {
		return transport.ServerTLS(c.Certificate, nil, nil)
	}, echo)
	if _, err := c.Dial(t.Context(), workerServes); err == nil {
		t.Error("Dial() of a worker = nil, want an error")
	}

	// Clients that are no programs of ours see the outside certificate.
	outside := newCredentials(t)
	raw := issue(t, newAuthority(t, 3, time.Now()), Holder{Role: RoleLeader, Hosts: []string{"127.0.0.1"}}, outside, time.Now())
	both := serve(t, a, func(own *tls.Certificate) *tls.Config {
		return transport.ServerTLS(func() *tls.Certificate { return own }, func() *tls.Certificate {
			return &tls.Certificate{Certificate: [][]byte{raw.Raw}, PrivateKey: outside.key}
		}, nil)
	}, echo)
	var d tls.Dialer
	d.Config = &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error { //nolint:gosec // compared below
		if !s.PeerCertificates[0].Equal(raw) {
			t.Error("a browser does not see the outside certificate")
		}
		return nil
	}}
	browser, err := d.DialContext(t.Context(), "tcp", both)
	if err != nil {
		t.Fatal(err)
	}
	_ = browser.Close()
	if conn, err := c.Dial(t.Context(), both); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
}
