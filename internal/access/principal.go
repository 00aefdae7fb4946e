package access

import (
	"context"
	"os"
	"os/user"
	"strconv"
)

// Principal is the authenticated user or machine behind a request. The zero value is nobody.
type Principal struct {
	Name        string // jobs are shown with it, and share slots by it
	Permissions Permission
}

// Permission is a set of what a principal may do, or of what a route needs.
type Permission uint8

// Anyone is the need of routes that are open to all: they tell nothing of jobs and change nothing.
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

// local is the principal of whoever can connect: all that the user of this process may do.
func local() Principal {
	p := Principal{Name: strconv.Itoa(os.Getuid()), Permissions: all}
	if u, err := user.Current(); err == nil { // in a container the user may have no name
		p.Name = u.Username
	}
	return p
}

type contextKey struct{}

// WithPrincipal returns a context that carries p.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From is the principal that ctx carries; the zero Principal if it has none.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(contextKey{}).(Principal)
	return p
}
