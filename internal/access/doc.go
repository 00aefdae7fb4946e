// Package access authenticates and authorizes requests.
//
// A Policy is the middleware of a server's HTTP requests and gRPC calls: it authenticates the caller, puts the Principal into the
// context, and checks the permission that the route needs in one table, Rules. A route without a rule is refused.
//
// An Authority is a cluster's certificate authority; Credentials are the key and the certificate of a machine, which it renews.
//
// A Peer is what is known of the other end of a connection, established once by the port; a Principal is what a request is from. A local
// peer is the local principal, which may do everything; its name is that of the user that runs the server. A token names a user and a role;
// the state has its hash. Requests in progress of those who lose their access end. The user that a request claims is ignored.
package access
