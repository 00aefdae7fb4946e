// Package httpapi is the public HTTP API of a leader, and the few routes of a worker. Routes of other packages are served beside its own.
//
// It holds no state: it turns requests into calls of Leader, an interface declared here that speaks the types of package
// api only, and turns answers and api.Problem errors into JSON.
//
// Every leader of a cluster serves it. A request passes, in this order: the access policy; on a node that does not lead, forwarding
// to the leader, once (writes, and reads of what only it knows); the wait for the consistency that a read asks for; the route. So a route need not know who leads or how fresh its node is.
//
// The typed routes are declared with huma, which derives the OpenAPI document from the same Go types that are served; bodies and streams are
// read and written here, because a submission may be 1 GiB and a log may never end.
package httpapi
