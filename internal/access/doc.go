// Package access decides who may use a server, and for what.
//
// A Policy is the middleware of a server's HTTP requests and gRPC calls: it authenticates the caller, puts the Principal into the
// context, and checks the permission that the route needs in one table, Rules. A route without a rule is refused.
//
// There are no identities yet: whoever can connect is the local principal, which may do everything. Its name is that of the user
// that runs the server, so jobs are shown with a user and share slots by it, whatever user a request claims.
package access
