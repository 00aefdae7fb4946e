package access

import (
	"context"
	"fmt"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
)

// Options configure a policy.
type Options struct {
	Hosts    []string // addresses of the server, each HOST or HOST:PORT, and further names that clients use for it
	Insecure bool     // every client is the local principal
}

// Policy authenticates and authorizes the requests and calls of a server.
type Policy struct {
	insecure bool
	hosts    hosts
	origins  *http.CrossOriginProtection
	local    Principal
}

// NewPolicy returns the policy of a server.
func NewPolicy(o Options) *Policy {
	return &Policy{insecure: o.Insecure, hosts: newHosts(o.Hosts...), origins: http.NewCrossOriginProtection(), local: local()}
}

// principal authenticates a peer. It is the only place that decides identity.
func (p *Policy) principal(peer Peer) (Principal, error) {
	if p.insecure || peer.Local {
		return p.local, nil
	}
	users := "root"
	if p.local.Name != users {
		users = fmt.Sprintf("user %q or root", p.local.Name)
	}
	return Principal{}, api.NewProblem(http.StatusUnauthorized, "not authenticated: without a token this server serves only processes of %s on its own machine: "+
		"run the command as that user, or use a token, which that user creates with 'bridgefour token create'", users)
}

// Accept returns the request with the principal in its context, or a problem if it is refused. Requests of web pages of other sites
// are recognized by Host and Origin.
func (p *Policy) Accept(r *http.Request, route string) (*http.Request, error) {
	if err := p.hosts.check(r); err != nil {
		return r, err
	}
	if err := p.origins.Check(r); err != nil {
		return r, api.NewProblem(http.StatusForbidden, "cross-site request of a browser refused: %v", err)
	}
	ctx, err := p.admit(r.Context(), route)
	if err != nil {
		return r, err
	}
	return r.WithContext(ctx), nil
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
	return handle(srv, &stream{ServerStream: s, ctx: ctx})
}

func (p *Policy) acceptCall(ctx context.Context, method string) (context.Context, error) {
	admitted, err := p.admit(ctx, method)
	switch {
	case api.IsStatus(err, http.StatusUnauthorized):
		return ctx, status.Error(codes.Unauthenticated, err.Error())
	case err != nil:
		return ctx, status.Error(codes.PermissionDenied, err.Error())
	}
	return admitted, nil
}

// admit returns ctx with the principal of its peer, or a problem if the principal may not use the route.
func (p *Policy) admit(ctx context.Context, route string) (context.Context, error) {
	who, err := p.principal(peerFrom(ctx))
	if err != nil && Rules[route] != Anyone {
		return ctx, err
	}
	ctx = WithPrincipal(ctx, who)
	return ctx, authorize(ctx, route)
}

// stream adds the principal to the context.
type stream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // as grpc's own streams do
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }
