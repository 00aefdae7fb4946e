package access

import (
	"context"
	"os"
	"os/user"
	"strconv"
)

// Principal is the authenticated user or machine behind a request. The zero value has no permissions.
type Principal struct {
	Name        string // the user of its jobs, by which slots are shared
	Permissions Permission
}

// Permission is a set of permissions: those of a principal, or those that a route needs.
type Permission uint8

// Anyone is the need of public routes, which show nothing of jobs and change nothing.
const Anyone Permission = 0

// Permissions.
const (
	Read      Permission = 1 << iota // jobs, their results, and the state of the cluster
	Submit                           // and stop and retry jobs
	Manage                           // add and remove workers and leaders
	Work                             // be a worker
	Replicate                        // be a leader

	all = Read | Submit | Manage | Work | Replicate
)

// local returns the principal of unauthenticated clients: the user of this process.
func local() Principal {
	p := Principal{Name: strconv.Itoa(os.Getuid()), Permissions: all}
	if u, err := user.Current(); err == nil { // a container's user may have no name
		p.Name = u.Username
	}
	return p
}

type contextKey struct{}

// WithPrincipal returns a context with p.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From returns the principal of ctx; the zero Principal if there is none.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(contextKey{}).(Principal)
	return p
}
