// Package compat serves the routes of the original system, in its paths and its JSON: jobs, results, the cluster and the election
// of a leader, and the slots of a worker. Status words are mapped in status.go.
package compat

import (
	"context"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/bridgefour/bridgefour/api"
)

// Node is a leader as its routes use it. See httpapi.Leader for the contracts.
type Node interface {
	Submit(ctx context.Context, req *api.JobRequest, key string) (id uint64, warnings []string, err error)
	Stop(ctx context.Context, id uint64) error
	Job(ctx context.Context, id uint64) (api.Job, bool)
	Jobs(ctx context.Context, q api.JobQuery) (api.JobList, error)
	Tasks(ctx context.Context, id uint64, q api.TaskQuery) (api.TaskList, error)
	Result(ctx context.Context, id uint64, w io.Writer) error
	Cluster() api.Cluster
	Workers() []api.Worker
	InviteWorker(ctx context.Context, address string, id *uint64) (api.Worker, error)
	RemoveWorker(ctx context.Context, id uint64) error
	Consensus() api.Consensus
}

// Worker is a worker as its routes use it.
type Worker interface {
	// ID is the id of the worker; 0 until it has one.
	ID() uint64
	// SlotStatus is as that of an api.Worker.
	SlotStatus() []string
}

// Route is the same type as httpapi.Route, which serves it.
type Route = struct {
	Method, Path, Tag, Summary string

	OnLeader bool // a read that only the leader can answer
	Handle   func(r *http.Request, body func(v any) error) (any, error)
}

const tag = "original"

// Routes are the routes of a leader.
func Routes(n Node) []Route {
	s := system{n}
	routes := []Route{
		{Method: http.MethodGet, Path: "/job/list", Summary: "Unfinished jobs", OnLeader: true, Handle: s.list},
		{Method: http.MethodGet, Path: "/job/{n}", Summary: "JobDetails as Right, or Missing as Left", OnLeader: true, Handle: s.job},
		{Method: http.MethodGet, Path: "/refresh/{n}", Summary: "Execution status of a job", Handle: s.refresh},
		{Method: http.MethodGet, Path: "/cluster", Summary: "Cluster state", Handle: s.cluster},
		{Method: http.MethodPost, Path: "/cluster/addWorker", Summary: "Invite an idle worker: WorkerState", Handle: s.addWorker},
		{
			Method: http.MethodDelete, Path: "/cluster/removeWorker/{w}", Summary: "Remove a worker: true, or false if there is none",
			Handle: s.removeWorker,
		},
		{Method: http.MethodGet, Path: "/raft/state", Summary: "Election state", Handle: s.raft},
	}
	for _, prefix := range []string{"/job", ""} {
		routes = append(routes,
			Route{Method: http.MethodPost, Path: prefix + "/start", Summary: "Submit a job", Handle: s.start},
			Route{Method: http.MethodPut, Path: prefix + "/stop/{n}", Summary: "Stop a job", Handle: s.stop},
			Route{Method: http.MethodGet, Path: prefix + "/status/{n}", Summary: "Execution status of a job", Handle: s.status},
			Route{
				Method: http.MethodGet, Path: prefix + "/data/{n}", Summary: "Collected result, or the status while it is not done",
				Handle: s.data,
			})
	}
	for i := range routes {
		r := &routes[i]
		r.Tag = tag
	}
	return routes
}

// system answers the routes of a leader.
type system struct{ node Node }

// pathNumber parses a number in the path. For anything else the original's answer is 404.
func pathNumber(r *http.Request, name string) (uint64, error) {
	n, err := strconv.ParseUint(r.PathValue(name), 10, 64)
	if err == nil {
		return n, nil
	}
	if _, negative := strings.CutPrefix(r.PathValue(name), "-"); negative {
		return math.MaxUint64, nil // valid, but nothing has it
	}
	return 0, api.NotFound("%q is not a number", r.PathValue(name))
}
