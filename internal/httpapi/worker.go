package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
)

// Worker is a worker as its routes use it.
type Worker interface {
	// NotReady is the reason why the worker gets no work (no leader found, refused, not invited yet); empty: it is a member.
	NotReady() string
	// Invite makes the worker join the cluster of these leaders, and returns once that is decided. An error is a refusal: the worker
	// belongs to another cluster, or is configured to join another.
	Invite(ctx context.Context, in api.Invitation) error
}

const (
	invitePath       = "/worker/invite"
	inviteLeadersMax = 64
)

// WorkerOptions configure the routes of a worker.
type WorkerOptions struct {
	Worker  Worker
	Routes  []Route      // in addition to those of this package
	Metrics http.Handler // serves GET /metrics; nil: no such route
	Policy  *access.Policy
}

// NewWorker serves the routes of a worker: the invitation, the probes, and those of the options.
func NewWorker(o WorkerOptions) http.Handler {
	mux := http.NewServeMux()
	for _, r := range o.Routes {
		mux.HandleFunc(r.Method+" "+r.Path, func(w http.ResponseWriter, req *http.Request) {
			v, err := r.Handle(req, func(v any) error { return decodeBody(w, req, bodyBytesMax, false, v) })
			if err != nil {
				workerProblem(w, err)
				return
			}
			if v != nil {
				writeJSON(w, http.StatusOK, "application/json", v)
			}
		})
	}
	mux.HandleFunc("POST "+invitePath, func(w http.ResponseWriter, r *http.Request) {
		if err := invite(w, r, o.Worker); err != nil {
			workerProblem(w, err)
			return
		}
		writeJSON(w, http.StatusOK, "application/json", health{Status: "invited"})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, "application/json", health{Status: "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := o.Worker.NotReady(); why != "" {
			workerProblem(w, api.Unavailable("%s", why))
			return
		}
		writeJSON(w, http.StatusOK, "application/json", health{Status: "ready", Insecure: o.Policy.Insecure()})
	})
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		workerProblem(w, api.NotFound("no route %s %s on a worker: send requests for jobs to the leader", r.Method, r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		_, route := mux.Handler(r)
		r, err := o.Policy.Accept(r, route)
		if err != nil {
			workerProblem(w, err)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// workerProblem sends an error; one that is no problem is sent as a conflict.
func workerProblem(w http.ResponseWriter, err error) {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok {
		p = api.Conflict("%v", err)
	}
	problem{p}.send(w)
}

// invite passes an invitation to the worker.
func invite(w http.ResponseWriter, r *http.Request, worker Worker) error {
	var in api.Invitation
	if err := decodeBody(w, r, bodyBytesMax, false, &in); err != nil { // a newer leader may send more
		return err
	}
	if n := len(in.Leaders); n == 0 || n > inviteLeadersMax {
		return api.Invalid("validation failed").With("body.leaders", fmt.Sprintf("expected 1 to %d addresses", inviteLeadersMax), n)
	}
	for i, address := range in.Leaders {
		if err := checkAddress(fmt.Sprintf("body.leaders[%d]", i), address); err != nil {
			return err
		}
	}
	if in.Claim != nil && *in.Claim > api.WorkerIDMax {
		return api.Invalid("validation failed").With("body.claim", fmt.Sprintf("expected at most %d", api.WorkerIDMax), *in.Claim)
	}
	return worker.Invite(r.Context(), in)
}
