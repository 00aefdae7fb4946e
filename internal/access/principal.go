package access

import (
	"context"
	"os"
	"os/user"
	"strconv"
	"time"
)

// Principal is the authenticated user or machine behind a request. The zero value has no permissions.
type Principal struct {
	Name        string // the user of its jobs, by which slots are shared
	Role        string
	Permissions Permission
	Token       string    // the id of the token that authenticated it; empty: none did
	Machine     string    // the fingerprint of the machine's key that authenticated it; empty: none did
	Outside     string    // the fingerprint of the key of the outside certificate that authenticated it; empty: none did
	Expires     time.Time // when the token or the outside certificate expires; zero: never
	Address     string    // of the other end, host:port; empty: a unix socket
	Action      string    // method and path of the request
}

// Permission is a set of permissions: those of a principal, or those that a route needs.
type Permission uint8

// Anyone is the need of public routes, which show nothing of jobs and change nothing.
const Anyone Permission = 0

// Permissions.
const (
	Read      Permission = 1 << iota // jobs, their results, and the state of the cluster
	Submit                           // and stop and retry jobs
	Operate                          // the jobs of all users; drain workers
	Manage                           // workers, leaders and tokens
	Work                             // be a worker
	Replicate                        // be a leader
	Enroll                           // get a certificate
	Invite                           // name its leaders to a worker

	all = Read | Submit | Operate | Manage | Work | Replicate | Enroll | Invite
)

// Owns reports whether p may see all of a user's jobs, and change them.
func (p Principal) Owns(user string) bool {
	return p.Permissions&Operate != 0 || p.Name != "" && p.Name == user
}

// String describes p for messages.
func (p Principal) String() string {
	if p.Role == "" {
		return "the request has none"
	}
	if p.Machine != "" {
		return "the " + p.Role + " " + p.Name + " authenticates by its certificate"
	}
	text := "it has the role " + p.Role // a token of a machine
	if p.Name != "" {
		text = "user " + strconv.Quote(p.Name) + " has the role " + p.Role
	}
	switch {
	case p.Token != "":
		text += " by token " + p.Token
	case p.Outside != "":
		text += " by a certificate"
	}
	return text
}

// local returns the principal of unauthenticated clients: the user of this process.
func local() Principal {
	p := Principal{Name: strconv.Itoa(os.Getuid()), Role: RoleAdmin, Permissions: all}
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
