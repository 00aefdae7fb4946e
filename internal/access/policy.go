package access

import (
	"context"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bridgefour/bridgefour/api"
)

// Policy authenticates and authorizes the requests and calls of a server.
type Policy struct {
	hosts   hosts
	origins *http.CrossOriginProtection
	local   Principal
}

// NewPolicy returns the policy of a server with these addresses, each HOST or HOST:PORT.
func NewPolicy(addresses ...string) *Policy {
	return &Policy{hosts: newHosts(addresses...), origins: http.NewCrossOriginProtection(), local: local()}
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
	ctx := WithPrincipal(r.Context(), p.local)
	if err := authorize(ctx, route); err != nil {
		return r, err
	}
	return r.WithContext(ctx), nil
}

// ServerOptions apply the policy to the calls of a gRPC server.
func (p *Policy) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.UnaryInterceptor(p.acceptUnary), grpc.StreamInterceptor(p.acceptStream)}
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
	ctx = WithPrincipal(ctx, p.local)
	if err := authorize(ctx, method); err != nil {
		return ctx, status.Error(codes.PermissionDenied, err.Error())
	}
	return ctx, nil
}

// stream adds the principal to the context.
type stream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // as grpc's own streams do
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }
