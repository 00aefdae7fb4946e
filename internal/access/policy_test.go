package access

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
)

func TestAccept(t *testing.T) {
	p := NewPolicy(Options{Insecure: true})
	r, err := p.Accept(request(t, "localhost"), "POST /v1/jobs")
	if err != nil {
		t.Fatal(err)
	}
	want := strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		want = u.Username
	}
	if got := From(r.Context()); got.Name != want || got.Permissions != all {
		t.Errorf("the principal is %+v, want %q with all permissions", got, want)
	}
	if got := From(t.Context()); got != (Principal{}) {
		t.Errorf("the principal of no request is %+v, want none", got)
	}
	foreign := request(t, "localhost")
	foreign.Method = http.MethodPost
	foreign.Header.Set("Origin", "https://evil.example")
	secret := request(t, "evil.example")
	secret.URL.Path = "/v1/access/browser/hunter2"
	if r, err := p.Accept(secret, "GET /v1/access/browser/{secret}"); err == nil || From(r.Context()).Action != "GET /v1/access/browser/{secret}" {
		t.Errorf("the action of a refused request is %q, %v, want it without its secret", From(r.Context()).Action, err)
	}
	for name, c := range map[string]struct {
		request *http.Request
		route   string
		status  int
	}{
		"host":   {request(t, "evil.example"), "POST /v1/jobs", http.StatusMisdirectedRequest},
		"origin": {foreign, "POST /v1/jobs", http.StatusForbidden},
		"route":  {request(t, "localhost"), "POST /v1/secrets", http.StatusForbidden},
	} {
		r, err := p.Accept(c.request, c.route)
		if who := From(r.Context()); !api.IsStatus(err, c.status) || who.Permissions != 0 || who.Action != c.request.Method+" /" {
			t.Errorf("%s: Accept = %v as %+v, want %d, and the request of a principal without permissions", name, err, who, c.status)
		}
	}
}

func TestAuthorize(t *testing.T) {
	reader := Principal{Name: "ada", Permissions: Read}
	for _, c := range []struct {
		who   Principal
		route string
		ok    bool
	}{
		{reader, "GET /v1/jobs", true},
		{reader, "POST /v1/jobs", false},
		{reader, "/bridgefour.wire.v1.Leader/Session", false},
		{Principal{}, "GET /v1/jobs", false},
		{Principal{}, "GET /healthz", true},
		{local(), "/bridgefour.peer.v1.Peer/Raft", true},
		{local(), "/bridgefour.peer.v1.Peer/Other", false},
		{local(), "", false},
	} {
		if err := authorize(c.who, c.route); (err == nil) != c.ok || err != nil && !api.IsStatus(err, http.StatusForbidden) {
			t.Errorf("authorize(%+v, %q) = %v, want it allowed: %v", c.who, c.route, err, c.ok)
		}
	}
}

// fakeStream is a call without messages.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // as grpc's own streams do
}

func (s fakeStream) Context() context.Context { return s.ctx }

func TestCalls(t *testing.T) {
	p := NewPolicy(Options{Insecure: true})
	for method, ok := range map[string]bool{"/bridgefour.peer.v1.Peer/Join": true, "/bridgefour.peer.v1.Peer/Other": false} {
		var unary, streaming Principal
		_, unaryErr := p.acceptUnary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
			unary = From(ctx)
			return struct{}{}, nil
		})
		streamErr := p.acceptStream(nil, fakeStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: method}, func(_ any, s grpc.ServerStream) error {
			streaming = From(s.Context())
			return nil
		})
		code, want := codes.OK, p.local
		want.Action = method
		if !ok {
			code, want = codes.PermissionDenied, Principal{}
		}
		if status.Code(unaryErr) != code || unary != want {
			t.Errorf("call of %s = %v as %+v, want %v as %+v", method, unaryErr, unary, code, want)
		}
		if status.Code(streamErr) != code || streaming != want {
			t.Errorf("stream of %s = %v as %+v, want %v as %+v", method, streamErr, streaming, code, want)
		}
	}
}

// fromPeer returns a request of a peer with headers.
func fromPeer(t *testing.T, peer Peer, headers map[string]string) *http.Request {
	t.Helper()
	r := request(t, "localhost")
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	return r.WithContext(context.WithValue(r.Context(), peerKey{}, peer))
}

// A proxy of the server's user must not let in all of its clients.
func TestProxy(t *testing.T) {
	p := NewPolicy(Options{})
	token, text := NewToken(RoleSubmit, "ann")
	p.SetAccess(tablesOf(t, token))
	local := Peer{Address: "127.0.0.1:9", Local: true}
	for _, header := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "x-forwarded-for"} {
		_, err := p.Accept(fromPeer(t, local, map[string]string{header: ""}), "GET /v1/jobs")
		if !api.IsStatus(err, http.StatusUnauthorized) || !strings.Contains(err.Error(), "proxy") {
			t.Errorf("%s: Accept = %v, want 401 that names the proxy", header, err)
		}
		if _, err := p.Accept(fromPeer(t, local, map[string]string{header: "10.0.0.1", "Authorization": "Bearer " + text}), "GET /v1/jobs"); err != nil {
			t.Errorf("%s: Accept with a token = %v", header, err)
		}
	}
	if _, err := p.Accept(fromPeer(t, local, map[string]string{"Accept": "*/*"}), "GET /v1/jobs"); err != nil {
		t.Errorf("without a proxy: %v", err)
	}
}

func TestForwarded(t *testing.T) {
	a, err := NewAuthority(NewKey(), "c", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certificateOf := func(role, name string) *x509.Certificate {
		return issue(t, a, Holder{Role: role, Name: name}, newCredentials(t), time.Now())
	}
	member, former, worker := certificateOf(RoleLeader, "member"), certificateOf(RoleLeader, "former"), certificateOf(RoleWorker, "w")
	p := NewPolicy(Options{Member: func(directory string) bool { return directory == "member" }})
	for name, c := range map[string]struct {
		peer          Peer
		authorization string
		want          string // role; empty: 401
	}{
		"a member":                {Peer{Encrypted: true, Certificate: member}, "Forwarded admin ada+b", RoleAdmin},
		"a member for itself":     {Peer{Encrypted: true, Certificate: member}, "", RoleLeader},
		"a member for a machine":  {Peer{Encrypted: true, Certificate: member}, "Forwarded worker w", ""},
		"a member, invalid":       {Peer{Encrypted: true, Certificate: member}, "Forwarded admin %zz", ""},
		"a former member":         {Peer{Encrypted: true, Certificate: former}, "Forwarded admin ada", ""},
		"a worker":                {Peer{Encrypted: true, Certificate: worker}, "Forwarded admin ada", RoleWorker},
		"a certificate not valid": {Peer{Encrypted: true, Certificate: member, Invalid: errors.New("of another cluster")}, "Forwarded admin ada", ""},
		"a local user":            {Peer{Local: true}, "Forwarded read eve", RoleAdmin},
		"a stranger":              {Peer{Address: remote, Encrypted: true}, "Forwarded admin ada", ""},
	} {
		who, err := p.principal(t.Context(), c.peer, c.authorization, "")
		if who.Role != c.want || (err != nil) != (c.want == "") || err != nil && !api.IsStatus(err, http.StatusUnauthorized) {
			t.Errorf("%s: principal = %+v, %v, want the role %q", name, who, err, c.want)
		}
		if c.want == RoleAdmin && c.peer.Certificate != nil && who.Name != "ada b" {
			t.Errorf("%s: name %q, want that of the user", name, who.Name)
		}
	}
}

func TestForwardedAddress(t *testing.T) {
	a, err := NewAuthority(NewKey(), "c", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certificateOf := func(role, name string) *x509.Certificate {
		return issue(t, a, Holder{Role: role, Name: name}, newCredentials(t), time.Now())
	}
	p := NewPolicy(Options{Member: func(directory string) bool { return directory == "member" }})
	token, text := NewToken(RoleRead, "rita")
	p.SetAccess(tablesOf(t, token))
	const follower, client = "10.0.0.2:7", "10.0.0.9:8"
	member := Peer{Address: follower, Encrypted: true, Certificate: certificateOf(RoleLeader, "member")}
	former, worker, invalid := member, member, member
	former.Certificate, worker.Certificate = certificateOf(RoleLeader, "former"), certificateOf(RoleWorker, "w")
	invalid.Invalid = errors.New("of another cluster")
	for name, c := range map[string]struct {
		peer Peer
		from string // address of the client that the follower served
		want string
	}{
		"a member":                {member, client, client},
		"a member for a local":    {member, "127.0.0.1:9", follower},
		"a member for a socket":   {member, "", follower},
		"a former member":         {former, client, follower},
		"a worker":                {worker, client, follower},
		"a certificate not valid": {invalid, client, follower},
		"a client":                {Peer{Address: follower, Encrypted: true}, client, follower},
	} {
		for _, authorization := range []string{"Bearer " + text, ""} {
			served := fromPeer(t, Peer{Address: c.from}, map[string]string{"Authorization": authorization, headerClient: "10.6.6.6:6"})
			served = served.WithContext(WithPrincipal(served.Context(), Principal{Role: RoleRead, Name: "rita", Address: c.from}))
			sent := fromPeer(t, c.peer, nil)
			sent.Header = served.Header.Clone()
			p.Forward(served, sent.Header)
			got, err := p.Accept(sent, "GET /v1/jobs")
			if who := From(got.Context()); err != nil && c.want == client || who.Address != c.want {
				t.Errorf("%s, Authorization %q: the address is %q, want %q (%v)", name, authorization, who.Address, c.want, err)
			}
		}
	}
}
