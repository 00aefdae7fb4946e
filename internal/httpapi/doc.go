// Package httpapi is the public HTTP API of a leader, the routes of the original system, and the few routes of a worker.
//
// It holds no state: it turns requests into calls of Leader, an interface declared here that speaks the types of package
// api only, and turns answers and api.Problem errors into JSON. The typed routes are declared with huma, which derives the
// OpenAPI document from the same Go types that are served; bodies and streams are read and written here, because a
// submission may be 256 MiB and a log may never end.
package httpapi
