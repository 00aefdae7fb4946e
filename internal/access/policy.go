package access

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/state"
	"github.com/bridgefour/bridgefour/internal/wire"
)

// Options configure a policy.
type Options struct {
	Hosts    []string // addresses of the server, each HOST or HOST:PORT, and further names that clients use for it
	Insecure bool     // every client is the local principal
	// Member reports whether the leader with a data directory is a member of the cluster. Nil on workers.
	Member func(directory string) bool
	// Current reports whether the tables had every token when the server started: until then, it refuses none as unknown. Nil: they had.
	Current func() bool
	// CatchUp returns nil once the tables have every token that was created before the call. Nil: they always have.
	CatchUp func(context.Context) error
	// Lookup finds tokens. Nil on leaders, which have tables of them.
	Lookup Lookup
	// Outside returns the outside authorities of which clients may have certificates. Nil: there is none.
	Outside func() *x509.CertPool
	// Accepts reports whether a certificate that was valid when its connection began is from an authority that is still accepted. Nil: it is.
	Accepts func(*x509.Certificate) bool
}

// Policy authenticates and authorizes the requests and calls of a server.
type Policy struct {
	insecure bool
	hosts    hosts
	origins  *http.CrossOriginProtection
	local    Principal
	member   func(directory string) bool
	outside  func() *x509.CertPool
	accepts  func(*x509.Certificate) bool
	tables   atomic.Pointer[state.Access] // empty on workers
	current  func() bool                  // of tables
	catchUp  func(context.Context) error  // of tables
	lookup   Lookup                       // nil on leaders
	found    foundTokens                  // by lookup
	wrong    *Rates[netip.Prefix]         // tokens, by network
	sessions sessions
	browsers browsers
}

// NewPolicy returns the policy of a server.
func NewPolicy(o Options) *Policy {
	p := &Policy{
		insecure: o.Insecure, hosts: newHosts(o.Hosts...), origins: http.NewCrossOriginProtection(), local: local(), member: o.Member, current: o.Current, catchUp: o.CatchUp, lookup: o.Lookup,
		outside: o.Outside, accepts: o.Accepts, wrong: NewRates[netip.Prefix](wrongRate, wrongBurst),
	}
	p.tables.Store(&state.Access{})
	return p
}

// InsecureWarning is what a server started with --insecure says.
const InsecureWarning = "insecure: any client that reaches this port can run programs as the user of the workers, see all jobs and change the cluster; " +
	"nothing is encrypted: let only trusted machines reach it"

// Insecure returns InsecureWarning if every client is the local principal; else "".
func (p *Policy) Insecure() string {
	if p.insecure {
		return InsecureWarning
	}
	return ""
}

// principal authenticates a request by its token or, without one, by its connection. It is the only place that decides identity.
func (p *Policy) principal(ctx context.Context, peer Peer, authorization, action string) (Principal, error) {
	token, given := bearer(authorization)
	switch {
	case !p.insecure && !peer.Encrypted && peer.isRemote():
		return Principal{}, api.NewProblem(http.StatusUnauthorized, "not authenticated: this server accepts only encrypted connections from other machines: "+
			"'bridgefour token create', on the server's machine, prints a string for 'bridgefour login STRING', 'bridgefour worker --join STRING' and "+
			"'bridgefour leader --join STRING', with which they are encrypted; a URL must begin with https://")
	case p.insecure:
		return p.local, nil
	case given:
		return p.tokenHolder(ctx, peer, token, action)
	case peer.Certificate != nil:
		who, err := p.machine(peer)
		if err == nil && who.Role == RoleLeader {
			return p.forwardedBy(who, authorization)
		}
		return who, err
	case peer.Outside != nil && p.outside != nil:
		return p.outsider(peer.Outside, time.Now())
	case peer.Local && peer.Proxy == "":
		return p.local, nil
	case peer.Local:
		return Principal{}, api.NewProblem(http.StatusUnauthorized, "not authenticated: the request came through a proxy (it has the header %s), and who sent it is "+
			"known by a token only: create one with 'bridgefour token create', and use it with 'bridgefour login'", peer.Proxy)
	}
	users := "root"
	if p.local.Name != users {
		users = fmt.Sprintf("user %q or root", p.local.Name)
	}
	return Principal{}, api.NewProblem(http.StatusUnauthorized, "not authenticated: without a token this server serves only processes of %s on its own machine: "+
		"run the command as that user, or use a token, which that user creates with 'bridgefour token create'", users)
}

// machine returns the principal of a certificate. One that has expired allows a machine to renew it.
func (p *Policy) machine(peer Peer) (Principal, error) {
	who := Principal{Machine: Fingerprint(peer.Certificate)}
	known := p.tables.Load().Enrolment(who.Machine)
	if err := p.revoked(who); err != nil {
		return Principal{}, err
	}
	switch {
	case peer.Invalid == nil && (known != nil || p.accepts == nil || p.accepts(peer.Certificate)): // a follower may not know the machine yet
		h := holderOf(peer.Certificate)
		if known == nil && h.Role == RoleLeader && p.tables.Load().Leader(h.Name) != nil {
			return Principal{}, api.NewProblem(http.StatusUnauthorized, "certificate not accepted: the data directory %s is of a leader with another key", h.Name)
		}
		who.Role, who.Name, who.Permissions = h.Role, h.Name, permissionsOf(h.Role)
	case known != nil:
		who.Role, who.Name, who.Permissions = known.Role, known.Name, Enroll
	case peer.Invalid == nil:
		return Principal{}, api.NewProblem(http.StatusUnauthorized, "certificate not accepted: the cluster key was replaced, and the key of the machine is not enrolled")
	default:
		return Principal{}, api.NewProblem(http.StatusUnauthorized, "certificate not accepted: %v", peer.Invalid)
	}
	return who, nil
}

// forwardScheme begins the Authorization header of a request that a follower has authenticated: its role and name follow.
const forwardScheme = "Forwarded "

// headerClient has the address of the client, if it is on another machine, of a request that a follower forwards.
const headerClient = "X-Bridgefour-Client"

// Forward sets the headers by which the leader takes a request as that of the same principal, from the same address.
func (*Policy) Forward(r *http.Request, h http.Header) {
	who := From(r.Context())
	if _, ok := bearer(r.Header.Get("Authorization")); !ok {
		h.Set("Authorization", forwardScheme+who.Role+" "+url.QueryEscape(who.Name))
	}
	h.Del(headerClient)
	if (Peer{Address: who.Address}).isRemote() {
		h.Set(headerClient, who.Address)
	}
}

// isMember reports whether the peer is a leader of this cluster, and so may say for whom it forwards a request.
func (p *Policy) isMember(peer Peer) bool {
	if peer.Certificate == nil || peer.Invalid != nil || p.member == nil {
		return false
	}
	h := holderOf(peer.Certificate)
	return h.Role == RoleLeader && p.member(h.Name)
}

// forwardedBy returns the principal for which a leader forwards a request. One that is no member yet, or no longer, forwards none.
func (p *Policy) forwardedBy(leader Principal, authorization string) (Principal, error) {
	text, ok := strings.CutPrefix(authorization, forwardScheme)
	if !ok {
		return leader, nil
	}
	role, escaped, _ := strings.Cut(text, " ")
	name, err := url.QueryUnescape(escaped)
	if err != nil || IsMachine(role) || p.member == nil || !p.member(leader.Name) {
		return Principal{}, api.NewProblem(http.StatusUnauthorized, "not authenticated: a request that is forwarded by %q, which is no leader of this cluster", leader.Name)
	}
	return Principal{Name: name, Role: role, Permissions: permissionsOf(role), Machine: leader.Machine}, nil
}

// tokenHolder returns the principal of a token.
func (p *Policy) tokenHolder(ctx context.Context, peer Peer, text, action string) (Principal, error) {
	t, err := p.token(ctx, peer, text, action)
	if err != nil {
		return Principal{}, err
	}
	who := Principal{Name: t.User, Role: t.Role, Permissions: permissionsOf(t.Role), Token: t.ID}
	if t.Expires != 0 {
		who.Expires = time.UnixMilli(t.Expires)
	}
	if IsMachine(t.Role) {
		who.Permissions = Enroll // the rest needs a certificate
	}
	return who, nil
}

// token returns the token with this text, if it is valid.
func (p *Policy) token(ctx context.Context, peer Peer, text, action string) (*state.Token, error) {
	now := time.Now()
	if p.lookup != nil {
		return p.lookUp(ctx, peer, text, action, now)
	}
	t, err := FindToken(p.tables.Load(), text, now)
	_, _, incomplete := splitToken(text)
	unknown := t == nil && incomplete == nil
	if unknown && p.current != nil && !p.current() {
		return nil, api.Unavailable("the token cannot be checked yet: this leader has started, and not heard from a majority of the leaders since which tokens " +
			"there are: try again in a moment, or at another leader; on its machine, its user needs no token")
	}
	if err != nil && !p.wrong.Allow(networkOf(peer.Address), now) {
		return nil, errWrongTokens()
	}
	if unknown && p.catchUp != nil { // it may have been created at another leader a moment ago
		if err := p.catchUp(ctx); err != nil {
			return nil, err
		}
		return FindToken(p.tables.Load(), text, now)
	}
	return t, err
}

// Accept returns the request with the principal in its context, or a problem if it is refused: then the principal, as far as it is known, has
// no permissions. Requests of web pages of other sites are recognized by Host and Origin.
func (p *Policy) Accept(r *http.Request, route string) (*http.Request, error) {
	action := r.Method + " " + r.URL.Path
	if strings.Contains(route, "{secret}") {
		action = route
	}
	peer, authorization := PeerFrom(r.Context()), r.Header.Get("Authorization")
	var b browser
	var cookie bool
	if authorization == "" {
		b, cookie = p.browserOf(r, peer)
	}
	err := p.hosts.check(r)
	if err == nil {
		err = p.checkOrigin(r, cookie)
	}
	if err != nil {
		return r.WithContext(WithPrincipal(r.Context(), Principal{Address: peer.Address, Action: action})), err
	}
	if cookie {
		authorization, peer.Local, peer.Certificate = b.authorization, b.local, nil
		peer.Outside = b.outside
	} else {
		peer.Proxy = proxyHeader(r.Header)
	}
	if client := r.Header.Get(headerClient); client != "" && p.isMember(peer) {
		peer.Address = client
	}
	ctx, err := p.admit(r.Context(), peer, route, authorization, action)
	accepted := r.WithContext(ctx)
	if cookie {
		accepted.Header = r.Header.Clone()
		accepted.Header.Del("Cookie")
		if authorization != "" { // for the leader, if the request is forwarded
			accepted.Header.Set("Authorization", authorization)
		}
	}
	return accepted, err
}

// proxyHeader returns the header by which a proxy has announced itself; empty: there is none. The kernel then describes the
// proxy, and not the client.
func proxyHeader(h http.Header) string {
	for _, name := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
		if h[name] != nil {
			return name
		}
	}
	return ""
}

// ServerOptions apply the policy to the calls of a gRPC server.
func (p *Policy) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(connCredentials{}), grpc.UnaryInterceptor(p.acceptUnary), grpc.StreamInterceptor(p.acceptStream),
	}
}

func (p *Policy) acceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, err := p.acceptCall(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func (p *Policy) acceptStream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx, err := p.acceptCall(s.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	err = handle(srv, &stream{ServerStream: s, ctx: ctx})
	if lost, ok := errors.AsType[*revokedError](context.Cause(ctx)); ok && err != nil {
		return callError(lost)
	}
	return err
}

func (p *Policy) acceptCall(ctx context.Context, method string) (context.Context, error) {
	peer := PeerFrom(ctx)
	peer.Outside = nil // the roles of machines need a certificate of the cluster
	admitted, err := p.admit(ctx, peer, method, "", method)
	if err != nil {
		return ctx, callError(err)
	}
	return admitted, nil
}

// callError returns the status of a call that is refused.
func callError(err error) error {
	if revoked, ok := errors.AsType[*revokedError](err); ok {
		return wire.RevokedError(revoked.Error())
	}
	code := codes.PermissionDenied
	if api.IsStatus(err, http.StatusUnauthorized) {
		code = codes.Unauthenticated
	}
	return status.Error(code, err.Error())
}

// admit returns ctx with the principal of a request, or also a problem if the principal may not use the route.
func (p *Policy) admit(ctx context.Context, peer Peer, route, authorization, action string) (context.Context, error) {
	who, err := p.principal(ctx, peer, authorization, action)
	who.Address, who.Action = peer.Address, action
	if err == nil || Rules[route] == Anyone {
		err = authorize(who, route)
	}
	if err != nil {
		who.Permissions = 0
		return WithPrincipal(ctx, who), err
	}
	return p.session(WithPrincipal(ctx, who), who), nil
}

// stream adds the principal to the context.
type stream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // as grpc's own streams do
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }
