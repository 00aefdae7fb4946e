package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
	"github.com/bridgefour/bridgefour/internal/transport"
	"github.com/bridgefour/bridgefour/internal/worker"
)

// startWorker starts a worker that listens on all addresses, with credentials or nil, and returns it and the address that is not loopback's.
func (c secureCluster) startWorker(credentials *access.Credentials, leaders ...string) (s *Worker, address string, stop func()) {
	t := c.t
	t.Helper()
	cfg := worker.Config{DataDir: t.TempDir(), Leaders: leaders, Slots: 1, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Identity: credentials.Identity(), Dial: credentials.Dial}
	encryption := &access.Encryption{Config: transport.ServerTLS(credentials.Certificate, nil, nil), Authorities: credentials.Pins}
	s, err := OpenWorker(t.Context(), cfg, Listener{Listen: "0.0.0.0:0", TLS: encryption})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); run.Wait() })
	t.Cleanup(stop)
	_, port, err := net.SplitHostPort(s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return s, net.JoinHostPort(outsideAddress(t), port), stop
}

// door is a client of a worker's listener.
type door struct {
	t    *testing.T
	base string
	tls  *tls.Config // nil: plain
}

func (d door) ask(route, token string) (code int, body string) {
	d.t.Helper()
	method, path, _ := strings.Cut(route, " ")
	r, err := http.NewRequestWithContext(d.t.Context(), method, d.base+path, strings.NewReader("{}"))
	if err != nil {
		d.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	to := transport.NewHTTP()
	if d.tls != nil {
		to = transport.NewHTTPS(d.tls)
	}
	defer to.CloseIdleConnections()
	answer, err := (&http.Client{Transport: to}).Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // of a test
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// TestWorkerDoor: who may use the routes of a worker, over its listener, with tokens that its leader knows.
func TestWorkerDoor(t *testing.T) {
	c := newSecureCluster(t)
	own := c.enroll(access.RoleWorker, "")
	s, address, _ := c.startWorker(own, c.first.address())
	eventually(t, "the worker has joined", func() bool { return s.State().Connected })

	by := func(credentials *access.Credentials) door {
		return door{t, "https://" + address, transport.ClientTLS(access.RoleWorker, own.Pins, credentials.Certificate)}
	}
	stranger, err := access.OpenCredentials(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	type client struct {
		name  string
		by    door
		token string
	}
	clients := []client{{"none", by(stranger), ""}, {"plain", door{t, "http://" + address, nil}, ""}, {"local", door{t, "http://127.0.0.1:" + port, nil}, ""}}
	for _, role := range access.Roles {
		clients = append(clients, client{role, by(stranger), c.token(role).Token})
	}
	clients = append(clients, client{"plain admin", door{t, "http://" + address, nil}, clients[len(clients)-3].token},
		client{"worker's key", by(c.enroll(access.RoleWorker, "")), ""}, client{"leader's key", by(c.enroll(access.RoleLeader, "m")), ""})
	var b strings.Builder
	fmt.Fprintf(&b, "%-22s", "")
	for _, who := range clients {
		fmt.Fprintf(&b, " %-12s", who.name)
	}
	for _, route := range []string{"GET /healthz", "GET /metrics", "GET /nothing", "GET /readyz", "GET /task/status/0", "GET /worker/state", "POST /worker/invite"} {
		fmt.Fprintf(&b, "\n%-22s", route)
		for _, who := range clients {
			verdict := "yes"
			if code, _ := who.by.ask(route, who.token); code == http.StatusUnauthorized || code == http.StatusForbidden {
				verdict = fmt.Sprint(code)
			}
			fmt.Fprintf(&b, " %-12s", verdict)
		}
	}
	httpapitest.Golden(t, "access_worker.txt", regexp.MustCompile(`(?m) +$`).ReplaceAllString(b.String(), "")+"\n")

	t.Run("names", func(t *testing.T) {
		roots := x509.NewCertPool()
		roots.AddCert(own.Authorities()[0])
		for name, want := range map[string]bool{access.WorkerHost: true, outsideAddress(t): false} {
			conn, err := transport.DialTLS(t.Context(), address, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: name, RootCAs: roots})
			if (err == nil) != want {
				t.Errorf("the certificate as that of %s: %v, want it valid: %v", name, err, want)
			}
			if conn != nil {
				_ = conn.Close()
			}
		}
		if _, err := own.Dial(t.Context(), address); err == nil || !strings.Contains(err.Error(), "not that of a leader") {
			t.Errorf("a worker as a leader: %v, want a refusal", err)
		}
	})
	t.Run("invitation", func(t *testing.T) {
		w, err := c.first.InviteWorker(t.Context(), address, nil)
		if err != nil || w.Identity != own.Identity() {
			t.Errorf("InviteWorker() of a worker of the cluster = %+v, %v", w, err)
		}
		lost := c.enroll(access.RoleWorker, "")
		_, lostAddress, _ := c.startWorker(lost) // it knows no leader
		if code, body := (door{t, "https://" + lostAddress, transport.ClientTLS(access.RoleWorker, lost.Pins, nil)}).ask("GET /metrics", c.token(access.RoleRead).Token); code != http.StatusServiceUnavailable ||
			!strings.Contains(body, "has none") {
			t.Errorf("a token at a worker without a leader = %d %s, want 503 with the reason", code, body)
		}
		if w, err := c.first.InviteWorker(t.Context(), lostAddress, nil); err != nil || w.Identity != lost.Identity() {
			t.Errorf("InviteWorker() = %+v, %v", w, err)
		}
		if _, err := c.first.InviteWorker(t.Context(), startOpen(t), nil); err == nil || !strings.Contains(err.Error(), "--join STRING") {
			t.Errorf("InviteWorker() of a server without a certificate = %v, want the way in", err)
		}
	})
	t.Run("revocation", func(t *testing.T) {
		token := c.token(access.RoleRead).Token
		if code, body := by(stranger).ask("GET /metrics", token); code != http.StatusOK {
			t.Fatalf("GET /metrics = %d %s", code, body)
		}
		id, _, _ := strings.Cut(token, "_")
		if err := c.admin.RevokeToken(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the worker refuses a revoked token", func() bool {
			code, body := by(stranger).ask("GET /metrics", token)
			return code == http.StatusUnauthorized && strings.Contains(body, "revoked")
		})
	})
	t.Run("no leader", func(t *testing.T) {
		token := c.token(access.RoleRead).Token
		c.first.stop()
		eventually(t, "the worker cannot check a token", func() bool {
			code, body := by(stranger).ask("GET /metrics", token)
			return code == http.StatusServiceUnavailable && strings.Contains(body, "only a leader knows it")
		})
	})
}

// TestWorkerEncryption: a worker without credentials shows the certificate of an outside authority.
func TestWorkerEncryption(t *testing.T) {
	dir := t.TempDir()
	outside, err := access.OpenCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := access.NewAuthority(access.Key{1}, "outside", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := authority.Issue(access.Holder{Role: access.RoleLeader, Hosts: []string{"w1.example.com"}}, outside.Public(), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := outside.Set(leaf, []*x509.Certificate{authority.Certificate()}, nil); err != nil {
		t.Fatal(err)
	}
	e, err := Encryption(transport.Files{Certificate: filepath.Join(dir, access.CertificateFile), Key: filepath.Join(dir, access.KeyFile)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(headers time.Duration) (address string) {
		plain, err := transport.Listen(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{ReadHeaderTimeout: headers, ConnContext: access.ConnContext, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, access.PeerFrom(r.Context()).Encrypted)
		})}
		var run sync.WaitGroup
		run.Go(func() { _ = server.Serve(e.Listen(plain, slog.New(slog.DiscardHandler))) })
		t.Cleanup(func() {
			_ = server.Close()
			run.Wait()
		})
		return plain.Addr().String()
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate())
	lasting := serve(time.Minute)
	for base, want := range map[string]string{"https://": "true", "http://": "false"} {
		d := door{t, base + lasting, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "w1.example.com", RootCAs: roots}}
		if code, body := d.ask("GET /", ""); code != http.StatusOK || body != want {
			t.Errorf("%s = %d %s, want encrypted: %s", base, code, body, want)
		}
	}
	// What is neither TLS nor HTTP ends.
	short := serve(100 * time.Millisecond)
	for _, text := range []string{"\x16\x03\x01\x00", "\x16" + strings.Repeat("x", 100), "\x00"} {
		c, err := transport.Dial(t.Context(), short)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		_ = c.Close()
	}
}

// TestTokensNotKnownYet: a leader that has started, and is alone, does not refuse a token that it cannot know.
func TestTokensNotKnownYet(t *testing.T) {
	c := newSecureCluster(t)
	others := []*secureLeader{startSecure(t, t.TempDir(), outsideAddress(t)+":0", new(c.token(access.RoleLeader))), startSecure(t, t.TempDir(), outsideAddress(t)+":0", new(c.token(access.RoleLeader)))}
	eventually(t, "all leaders vote", func() bool {
		list, err := c.admin.Leaders(t.Context())
		return err == nil && len(list.Leaders) == 3 && !slices.ContainsFunc(list.Leaders, func(l api.LeaderNode) bool { return !l.Votes })
	})
	before := c.token(access.RoleRead)
	away := others[1]
	away.stop()
	after := c.token(access.RoleRead)
	others[0].stop()
	c.first.stop()

	away = startSecure(t, away.dir, away.address(), nil)
	d := door{t, "https://" + away.address(), transport.ClientTLS(access.RoleLeader, func() []transport.Pin { return []transport.Pin{*before.Authority} }, nil)}
	for what, test := range map[string]struct {
		token string
		want  int
	}{
		"created while it was away": {after.Token, http.StatusServiceUnavailable}, "created before": {before.Token, http.StatusOK},
		"incomplete": {after.Token[:20], http.StatusUnauthorized}, "none": {"", http.StatusUnauthorized},
	} {
		if code, body := d.ask("GET /v1/jobs", test.token); code != test.want || code == http.StatusServiceUnavailable && !strings.Contains(body, "cannot be checked yet") {
			t.Errorf("a token that is %s, alone: %d %s, want %d", what, code, body, test.want)
		}
	}
	startSecure(t, c.first.dir, c.first.address(), nil)
	eventually(t, "the token is known", func() bool {
		code, _ := d.ask("GET /v1/jobs", after.Token)
		return code == http.StatusOK
	})
	eventually(t, "a wrong token is refused", func() bool {
		code, _ := d.ask("GET /v1/jobs", after.Token[:len(after.Token)-1]+"_")
		return code == http.StatusUnauthorized
	})
}
