package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/transport"
)

func TestParseAccess(t *testing.T) {
	pin := transport.Pin{1, 2, 3}
	hash := pin.String()
	join := transport.Join{Addresses: []string{"10.0.0.7:6550", "b4:6550"}, Authority: &pin, Token: "id_secret"}.String()
	want := Access{Cluster: []string{"10.0.0.7:6550", "b4:6550"}, Authority: hash, Token: "id_secret"}
	file := "current: prod\ncontexts:\n  prod: {cluster: ['10.0.0.7:6550', 'b4:6550'], authority: " + hash + ", token: id_secret}\n  other: {cluster: ['a:1']}\n"
	path := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, given := range map[string]string{"join string": join, "text": file, "path": path, "JSON": `{"current":"x","contexts":{"x":{"cluster":["10.0.0.7:6550","b4:6550"],"authority":"` + hash + `","token":"id_secret"}}}`} {
		t.Setenv(AccessEnv, given)
		got, err := DefaultAccess()
		if err != nil || got == nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
	t.Setenv(AccessEnv, "")
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if got, err := DefaultAccess(); got != nil || err != nil {
		t.Errorf("DefaultAccess() without a file = %+v, %v, want none", got, err)
	}
	outside, err := ParseAccess("current: a\ncontexts: {a: {cluster: [x], tls-ca: ca.pem, tls-cert: c.pem, tls-key: k.pem}}\n")
	if want := (Access{Cluster: []string{"x"}, TLSAuthority: "ca.pem", TLSCertificate: "c.pem", TLSKey: "k.pem"}); err != nil || !reflect.DeepEqual(outside.Contexts["a"], want) {
		t.Errorf("an outside authority: %+v, %v, want %+v", outside, err, want)
	}
	for text, says := range map[string]string{
		"id_secret: x\n":                                        "want YAML",
		"current: prod\ncontexts: {}\n":                         `"prod"`,
		"contexts: {a: {token: id_secret}}\n":                   "no leader",
		"contexts: {a: {cluster: [x], authority: y}}\n":         "authority is damaged",
		"contexts: {a: {cluster: [x], token: \"id secret\"}}\n": "token is damaged",
		"contexts: {a: {cluster: [x], tls-cert: c.pem}}\n":      "belong together",
		join[:len(join)-30] + "/x/id_secret":                    "invalid join string",

		"contexts: {a: {cluster: [x], tls-ca: ca.pem, authority: " + hash + "}}\n": "remove one of them",
	} {
		if _, err := ParseAccess(text); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "id_secret") {
			t.Errorf("ParseAccess(%q) = %v, want an error that says %q, and no secret", text, err, says)
		}
	}
}

// TestToken: a token goes to a pinned or encrypted server, or one of this machine, and to no other.
func TestToken(t *testing.T) {
	const none, pin = "", "4Yq2Vb0AH0hRKmHPLt9CAo5n7GhB-wmZq3IkBBkQh1A"
	for _, c := range []struct {
		given, authority, url string
		sent                  bool
	}{
		{"https://b4.example:6550", none, "https://b4.example:6550/v1/jobs", true},
		{"https://b4.example:6550", none, "https://evil.example:6550/", false}, // a server has named it
		{"https://b4.example:6550", none, "https://b4.example:6551/", false},
		{"https://b4.example:6550", none, "http://127.0.0.1:6550/", false},
		{"https://b4.example:6550", pin, "https://other.example:6550/", true}, // its certificate is checked
		{"https://b4.example:6550", pin, "http://127.0.0.1:6550/", false},
		{"http://b4.example:6550", none, "http://b4.example:6550/", false},
		{"http://10.0.0.7:6550", none, "http://10.0.0.7:6550/", false},
		{"http://localhost.example:6550", none, "http://localhost.example:6550/", false},
		{"http://localhost:1", none, "http://localhost:1/", true},
		{"http://127.0.0.1:1", none, "http://[::1]:2/", true},
		{transport.URL(unixHostOf(t)), none, transport.URL(unixHostOf(t)) + "/", true},
		{transport.URL(unixHostOf(t)), none, "http://127.0.0.1:1/", true},
	} {
		client, err := New([]string{c.given}, Options{Access: &Access{Authority: c.authority, Token: "id_secret"}})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.url, http.NoBody)
		client.authorize(r)
		if got := r.Header.Get("Authorization"); (got == "Bearer id_secret") != c.sent {
			t.Errorf("with %s %s, %s gets %q, want the token: %v", c.given, c.authority, c.url, got, c.sent)
		}
	}
}

func TestClockText(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		off  time.Duration
		want string
	}{{0, ""}, {-4 * time.Minute, ""}, {time.Hour, "1h0m0s ahead"}, {-time.Hour, "1h0m0s behind"}} {
		if got := clockText(now.Add(c.off).Format(http.TimeFormat), now); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("clockText of a clock that is %v off = %q, want %q", c.off, got, c.want)
		}
	}
	if got := clockText("", now); got != "" {
		t.Errorf("clockText without a date = %q", got)
	}
}

func unixHostOf(t *testing.T) string {
	t.Helper()
	address, err := transport.ParseDial("unix:/run/leader.sock")
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// secureListener accepts TLS as a leader's port does, below HTTP.
type secureListener struct {
	net.Listener
	config *tls.Config
}

func (l secureListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{tls.Server(c, l.config)}, nil
}

func TestPinnedCluster(t *testing.T) {
	authority, err := access.NewAuthority([32]byte{1}, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := authority.Issue(access.Holder{Role: access.RoleLeader, Name: "d"}, key.Public(), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var own atomic.Pointer[tls.Certificate]
	own.Store(&tls.Certificate{Certificate: [][]byte{raw, authority.Certificate().Raw}, PrivateKey: key})
	shown := make(chan struct{}) // received from by those who wait for a handshake
	certificate := func() *tls.Certificate {
		select {
		case shown <- struct{}{}:
		default:
		}
		return own.Load()
	}
	var token atomic.Value // that was received last
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token.Store(r.Header.Get("Authorization"))
		w.Header().Set("Connection", "close") // each probe shows the certificate
		if r.Method == http.MethodPost {      // the certificate is replaced meanwhile
			before := own.Load()
			own.Store(&tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key})
			defer own.Store(before)
			for range 3 {
				select {
				case <-shown:
				case <-r.Context().Done():
					return
				}
			}
		}
		sendJSON(w, http.StatusOK, map[string]any{})
	}))
	server.Listener = secureListener{server.Listener, transport.ServerTLS(certificate, nil, nil)}
	server.Start()
	t.Cleanup(server.Close)

	join := transport.Join{Addresses: []string{server.Listener.Addr().String()}, Authority: new(transport.Pin), Token: "id_secret"}
	*join.Authority = transport.PinOf(authority.Certificate())
	right, err := JoinAccess(join.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, Options{Access: &right, Patience: -1}).Cluster(t.Context()); err != nil || token.Load() != "Bearer id_secret" {
		t.Errorf("a request to the pinned cluster = %v, with %v, want the token", err, token.Load())
	}
	c := newClient(t, Options{Access: &right, Patience: -1})
	c.silenceMax, c.probeTimeout = time.Millisecond, time.Minute
	if _, err := c.RotateKey(t.Context(), true); err != nil {
		t.Errorf("a request that replaces the certificate = %v", err)
	}
	other := httptest.NewUnstartedServer(http.NotFoundHandler()) // that of another cluster has got the address of a leader that was removed
	other.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	other.StartTLS()
	t.Cleanup(other.Close)
	both := join
	both.Addresses = []string{other.Listener.Addr().String(), join.Addresses[0]}
	moved, _ := JoinAccess(both.String())
	if _, err := newClient(t, Options{Access: &moved, Patience: -1}).Cluster(t.Context()); err != nil {
		t.Errorf("a request to a server of another cluster and to a leader = %v, want the answer of the leader", err)
	}
	token.Store("")
	join.Authority[0]++
	wrong, _ := JoinAccess(join.String())
	var refused *api.Problem
	_, err = newClient(t, Options{Access: &wrong}).Cluster(t.Context())
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "another cluster") || !strings.Contains(err.Error(), "bridgefour login") || token.Load() != "" {
		t.Errorf("a request to another cluster = %v, with %v, want a refusal with the way in, and nothing sent", err, token.Load())
	}

	_, err = newClient(t, Options{Patience: -1}, "https://"+join.Addresses[0]).Cluster(t.Context())
	if refused = nil; !errors.As(err, &refused) || !strings.Contains(err.Error(), "bridgefour login") {
		t.Errorf("a request without a pin = %v, want a refusal with the way in", err)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	_, err = newClient(t, Options{Patience: -1}, "https"+strings.TrimPrefix(plain.URL, "http")).Cluster(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("TLS to a plain server = %v, want an error that says so", err)
	}
}
