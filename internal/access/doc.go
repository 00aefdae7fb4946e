// Package access authenticates and authorizes requests.
//
// A Policy is the middleware of a server's HTTP requests and gRPC calls: it authenticates the caller, puts the Principal into the
// context, and checks the permission that the route needs in one table, Rules. A route without a rule is refused.
//
// There are no identities yet: every client is the local principal, which may do everything. Its name is that of the user that runs
// the server; the user that a request claims is ignored.
package access
