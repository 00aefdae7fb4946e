package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/access"
)

// WorkerSource is what the HTTP listener of a worker asks it. Every method but Invite answers from memory.
type WorkerSource interface {
	// Number is the number that the cluster gave the worker; 0 before it has one.
	Number() uint64
	// Busy says of each slot whether it runs an attempt.
	Busy() []bool
	// NotReady says why the worker gets no work: it found no leader, was refused, waits to be invited; empty: it is a member.
	NotReady() string
	// Invite has the worker join the cluster of these leaders, and returns when that is decided. An error is a refusal, for the
	// one who invites: the worker belongs to another cluster, or was told to join another.
	Invite(ctx context.Context, leaders []string, clusterID, clusterName string) error
}

const (
	invitePath       = "/worker/invite"
	inviteLeadersMax = 64
)

// NewWorker serves the routes of a worker: the original system's two, the invitation, the probes, and /metrics where metrics is
// not nil, to requests that are sent to hosts.
func NewWorker(source WorkerSource, metrics http.Handler, hosts access.Hosts) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /worker/state", func(w http.ResponseWriter, _ *http.Request) {
		busy := source.Busy()
		state := workerState{
			ID: source.Number(), Status: typed{"Alive"},
			Slots: slotStates(len(busy), func(slot int) bool { return busy[slot] }),
		}
		writeJSON(w, http.StatusOK, "application/json", state)
	})
	mux.HandleFunc("GET /task/status/{slot}", func(w http.ResponseWriter, r *http.Request) {
		slot, err := strconv.Atoi(r.PathValue("slot"))
		if err != nil {
			workerProblem(w, api.NotFound("%q is not a slot", r.PathValue("slot")))
			return
		}
		busy := source.Busy()
		writeJSON(w, http.StatusOK, "application/json", slotStatus(slot >= 0 && slot < len(busy) && busy[slot]))
	})
	mux.HandleFunc("POST "+invitePath, func(w http.ResponseWriter, r *http.Request) {
		if err := invite(w, r, source); err != nil {
			workerProblem(w, err)
			return
		}
		writeJSON(w, http.StatusOK, "application/json", health{Status: "invited"})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, "application/json", health{Status: "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := source.NotReady(); why != "" {
			workerProblem(w, api.Unavailable("%s", why))
			return
		}
		writeJSON(w, http.StatusOK, "application/json", health{Status: "ready"})
	})
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		workerProblem(w, api.NotFound("no route %s %s on a worker; jobs are asked of the leader", r.Method, r.URL.Path))
	})
	// A web page that the user visits must not be able to make his worker another's.
	foreign := http.NewCrossOriginProtection()
	foreign.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		workerProblem(w, api.NewProblem(http.StatusForbidden, "browsers may not send this from another site's page"))
	}))
	protected := foreign.Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := hosts.Check(r); err != nil {
			workerProblem(w, err)
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// workerProblem sends an error; one that is no problem is a refusal.
func workerProblem(w http.ResponseWriter, err error) {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok {
		p = api.Conflict("%v", err)
	}
	writeJSON(w, p.Status, "application/problem+json", p)
}

// invite passes an invitation on to the worker.
func invite(w http.ResponseWriter, r *http.Request, source WorkerSource) error {
	var in api.Invitation
	if err := decodeBody(w, r, bodyBytesMax, false, &in); err != nil { // a newer leader may say more
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
	return source.Invite(r.Context(), in.Leaders, in.ClusterID, in.ClusterName)
}
