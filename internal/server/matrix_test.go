package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
	"github.com/bridgefour/bridgefour/internal/compat"
	"github.com/bridgefour/bridgefour/internal/httpapi"
	"github.com/bridgefour/bridgefour/internal/httpapi/httpapitest"
	"github.com/bridgefour/bridgefour/internal/peer/peerpb"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/transport/outsidetest"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// matrixClient makes requests by a connection, with a token or without.
type matrixClient struct {
	name  string
	peer  access.Peer
	token string
}

// knownConn is a connection whose peer is known.
type knownConn struct {
	net.Conn
	peer access.Peer
}

// Peer implements access.Conn.
func (c knownConn) Peer() access.Peer { return c.peer }

// matrixClients are the clients of each sort, the tables that know their tokens, and the outside authority of their certificates.
func matrixClients(t *testing.T) (clients []matrixClient, tables *state.Access, outside *x509.CertPool) {
	t.Helper()
	const remote = "10.0.0.9:1"
	m, e := state.New(), state.NewEntry(1, state.FeatureLevel)
	clients = []matrixClient{{name: "none", peer: access.Peer{Address: remote, Encrypted: true}}, {name: "local", peer: access.Peer{Local: true}}}
	for _, role := range access.Roles {
		token, text := access.NewToken(role, "ann")
		e.PutToken("", token)
		clients = append(clients, matrixClient{role, access.Peer{Address: remote, Encrypted: true}, text})
	}
	authority, err := access.NewAuthority([32]byte{1}, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{access.RoleWorker, access.RoleLeader} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := authority.Issue(access.Holder{Role: role, Name: "m"}, key.Public(), time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, matrixClient{name: role + "'s key", peer: access.Peer{Address: remote, Encrypted: true, Certificate: certificate}})
	}
	company, err := outsidetest.New()
	if err != nil {
		t.Fatal(err)
	}
	outside = x509.NewCertPool()
	outside.AddCert(company.Certificate)
	for _, role := range access.Roles {
		c, err := company.Issue(pkix.Name{CommonName: "ann", Organization: []string{"bridgefour:" + role}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, matrixClient{name: "CA " + role, peer: access.Peer{Address: remote, Encrypted: true, Outside: outsidetest.Chain(c)}})
	}
	var out state.Result
	for i, data := range [][]byte{state.RaiseLevel(1, state.FeatureLevel, "v1").Data(), e.Data()} {
		if err := m.Apply(uint64(i+1), data, &out); err != nil {
			t.Fatal(err)
		}
	}
	return clients, m.Access(), outside
}

// TestAccessMatrix: who may use which route. It asks the servers, not the table of rules. The routes are those of the documents.
func TestAccessMatrix(t *testing.T) {
	clients, tables, outside := matrixClients(t)
	policy := access.NewPolicy(access.Options{Hosts: []string{"example.com"}, Outside: func() *x509.CertPool { return outside }})
	policy.SetAccess(tables)
	fake, log := httpapitest.NewFake(), slog.New(slog.DiscardHandler)
	leader := httpapi.New(httpapi.Options{Leader: fake, Routes: compat.Routes(fake), Policy: policy, Metrics: http.NotFoundHandler(), Log: log})
	worker := httpapi.NewWorker(httpapi.WorkerOptions{Worker: matrixWorker{}, Routes: compat.WorkerRoutes(matrixWorker{}), Policy: policy})
	dial := serveCalls(t, policy)

	routes := documentedRoutes(t)
	for route := range access.Rules { // what the documents do not list
		routes[route] = true
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-38s", "")
	for _, c := range clients {
		fmt.Fprintf(&b, " %-12s", c.name)
	}
	for _, route := range slices.Sorted(maps.Keys(routes)) {
		fmt.Fprintf(&b, "\n%-38s", route)
		for _, c := range clients {
			var verdict string
			switch _, path, isHTTP := strings.Cut(route, " "); {
			case route == "/":
				verdict = c.ask(t, leader, "GET /nothing")
			case !isHTTP:
				verdict = c.call(t, dial, route)
			case strings.HasPrefix(path, "/worker/") || strings.HasPrefix(path, "/task/"):
				verdict = c.ask(t, worker, route)
			default:
				verdict = c.ask(t, leader, route)
			}
			fmt.Fprintf(&b, " %-12s", verdict)
		}
	}
	text := regexp.MustCompile(`(?m) +$`).ReplaceAllString(b.String(), "")
	httpapitest.Golden(t, "access.txt", text+"\n")
}

// matrixWorker is a worker without slots.
type matrixWorker struct{}

func (matrixWorker) ID() uint64           { return 1 }
func (matrixWorker) SlotStatus() []string { return nil }

func (matrixWorker) NotReady() string { return "" }

func (matrixWorker) Invite(context.Context, api.Invitation) error { return nil }

var pathParameter = regexp.MustCompile(`\{[a-z]+\}`)

// ask makes a request, and returns whether it was let through.
func (c *matrixClient) ask(t *testing.T, server http.Handler, route string) (verdict string) {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	path = pathParameter.ReplaceAllString(path, "1")
	ctx, cancel := context.WithCancel(access.ConnContext(t.Context(), knownConn{peer: c.peer}))
	cancel() // streams end at once
	r := httptest.NewRequestWithContext(ctx, method, strings.TrimSuffix(path, "{$}"), strings.NewReader("{}"))
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	defer func() {
		if recover() != nil {
			verdict = "yes" // a stream that began
		}
	}()
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r)
	switch w.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Sprint(w.Code)
	}
	return "yes"
}

// serveCalls serves all calls with a policy, without an implementation. A connection is made for the peer that it is dialed for.
func serveCalls(t *testing.T, policy *access.Policy) (dial func(access.Peer) *grpc.ClientConn) {
	t.Helper()
	peers := make(chan access.Peer, 1)
	l := peerListener{bufconn.Listen(1 << 16), peers}
	s := grpc.NewServer(policy.ServerOptions()...)
	wire.RegisterLeaderServer(s, wire.UnimplementedLeaderServer{})
	peerpb.RegisterPeerServer(s, peerpb.UnimplementedPeerServer{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return func(peer access.Peer) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///b4", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				peers <- peer
				return l.DialContext(ctx)
			}))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
}

// peerListener gives each connection the next peer.
type peerListener struct {
	*bufconn.Listener
	peers chan access.Peer
}

func (l peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return knownConn{c, <-l.peers}, nil
}

// call makes a call, which only the connection authenticates, and returns whether it was let through.
func (c *matrixClient) call(t *testing.T, dial func(access.Peer) *grpc.ClientConn, method string) string {
	t.Helper()
	if c.token != "" {
		return "-"
	}
	conn := dial(c.peer)
	defer conn.Close() //nolint:errcheck // of a test
	s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SendMsg(&wire.ToWorker{}) // the answer says more
	_ = s.CloseSend()
	code := status.Code(s.RecvMsg(&wire.ToWorker{}))
	return strings.NewReplacer("Unimplemented", "yes", "Unauthenticated", "401", "PermissionDenied", "403").Replace(code.String())
}
