package access

import (
	"net/http"
	"slices"

	"github.com/bridgefour/bridgefour/api"
)

// Rules are the permissions that routes need, by method and pattern (HTTP) or full method name (gRPC).
//
//nolint:gochecknoglobals // a read-only table
var Rules = map[string]Permission{
	// Requests without a route: 404 or 405.
	"/": Anyone,

	// Leaders and workers.
	"GET /healthz": Anyone,
	"GET /readyz":  Anyone,
	"GET /metrics": Read,

	// Leaders.
	"GET /{$}":          Anyone,
	"GET /docs":         Anyone,
	"GET /openapi.json": Anyone,

	"GET /v1/jobs":                       Read,
	"GET /v1/jobs/{n}":                   Read,
	"GET /v1/jobs/{n}/tasks":             Read,
	"GET /v1/jobs/{n}/tasks/{stage}/{i}": Read,
	"GET /v1/jobs/{n}/explain":           Read,
	"GET /v1/jobs/{n}/joblog":            Read,
	"GET /v1/jobs/{n}/logs":              Read,
	"GET /v1/jobs/{n}/parts":             Read,
	"GET /v1/jobs/{n}/result":            Read,
	"GET /v1/jobs/{n}/times":             Read,
	"GET /v1/events":                     Read,
	"GET /v1/cluster":                    Read,
	"GET /v1/workers":                    Read,
	"GET /v1/workers/{w}":                Read,
	"GET /v1/leaders":                    Read,
	"POST /v1/jobs":                      Submit,
	"POST /v1/flows":                     Submit,
	"DELETE /v1/jobs/{n}":                Submit,
	"POST /v1/jobs/{n}/stop":             Submit,
	"POST /v1/jobs/{n}/retry":            Submit,
	"PUT /v1/jobs/{n}/keep":              Submit,
	"DELETE /v1/jobs/{n}/keep":           Submit,
	"GET /v1/retention":                  Read,
	"PUT /v1/retention/{user}":           Manage,
	"GET /v1/quotas":                     Read,
	"PUT /v1/quotas/{user}":              Manage,
	"DELETE /v1/quotas/{user}":           Manage,
	"GET /v1/locks":                      Read,
	"GET /v1/locks/{name}":               Read,
	"PUT /v1/locks/{name}":               Submit,
	"DELETE /v1/locks/{name}":            Submit,
	"POST /v1/locks":                     Submit,
	"GET /v1/access":                     Read,
	"GET /v1/access/tokens":              Manage,
	"POST /v1/access/tokens":             Manage,
	"DELETE /v1/access/tokens/{id}":      Manage,
	"POST /v1/access/certificates":       Enroll,
	"POST /v1/access/browser":            Read,
	"GET /v1/access/browser/{secret}":    Anyone,
	"POST /v1/access/authorities":        Manage,
	"POST /v1/workers/{w}/drain":         Operate,
	"DELETE /v1/workers/{w}":             Manage,
	"POST /v1/leaders":                   Manage,
	"DELETE /v1/leaders/{id}":            Manage,

	// Leaders, as the original system.
	"GET /job/list":                    Read,
	"GET /job/{n}":                     Read,
	"GET /job/status/{n}":              Read,
	"GET /status/{n}":                  Read,
	"GET /refresh/{n}":                 Read,
	"GET /job/data/{n}":                Read,
	"GET /data/{n}":                    Read,
	"GET /cluster":                     Read,
	"GET /raft/state":                  Read,
	"POST /job/start":                  Submit,
	"POST /start":                      Submit,
	"PUT /job/stop/{n}":                Submit,
	"PUT /stop/{n}":                    Submit,
	"POST /cluster/addWorker":          Manage,
	"DELETE /cluster/removeWorker/{w}": Manage,

	// Workers.
	"GET /worker/state":       Read,
	"GET /worker/status":      Read,
	"GET /task/status/{slot}": Read,
	"POST /worker/invite":     Invite,

	// gRPC.
	"/bridgefour.wire.v1.Leader/Session":       Work,
	"/bridgefour.wire.v1.Leader/SendLog":       Work,
	"/bridgefour.wire.v1.Leader/Parts":         Work,
	"/bridgefour.wire.v1.Leader/FindToken":     Work,
	"/bridgefour.wire.v1.Leader/Shadow":        Replicate,
	"/bridgefour.wire.v1.Leader/RecordRefused": Replicate,
	"/bridgefour.peer.v1.Peer/Raft":            Replicate,
	"/bridgefour.peer.v1.Peer/Snapshot":        Replicate,
	"/bridgefour.peer.v1.Peer/Join":            Replicate,
	"/bridgefour.peer.v1.Peer/Invite":          Manage,
	"/bridgefour.peer.v1.Peer/Key":             Replicate,
}

// authorize returns a 403 problem unless p may use the route.
func authorize(p Principal, route string) error {
	need, known := Rules[route]
	switch {
	case !known:
		return api.NewProblem(http.StatusForbidden, "%s has no rule, so it is forbidden", route)
	case need == Enroll && p.Permissions&need == 0:
		return api.NewProblem(http.StatusForbidden, "not allowed: a worker or leader joins with a token or certificate of its role, and %s; an admin makes one with "+
			"'bridgefour token create --role worker', or leader", p)
	case p.Permissions&need != need:
		return api.NewProblem(http.StatusForbidden, "not allowed: %s needs the role %s, and %s; an admin makes a token with 'bridgefour token create --role %[2]s'",
			route, roleFor(need), p)
	}
	return nil
}

// roleFor returns the first role with the permissions of a route. There is one for each.
func roleFor(need Permission) string {
	return Roles[slices.IndexFunc(Roles, func(role string) bool { return permissionsOf(role)&need == need })]
}
