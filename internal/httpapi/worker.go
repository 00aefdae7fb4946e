package httpapi

import (
	"net/http"
	"strconv"

	"github.com/bridgefour/bridgefour/api"
)

// WorkerSource is what the HTTP listener of a worker asks it. Both methods answer from memory.
type WorkerSource interface {
	// Number is the number that the cluster gave the worker; 0 before it has one.
	Number() uint64
	// Busy says of each slot whether it runs an attempt.
	Busy() []bool
}

// NewWorker serves the routes of a worker: the original system's two, /healthz, and /metrics where metrics is not nil.
func NewWorker(source WorkerSource, metrics http.Handler) http.Handler {
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
			p := api.NotFound("%q is not a slot", r.PathValue("slot"))
			writeJSON(w, p.Status, "application/problem+json", p)
			return
		}
		busy := source.Busy()
		writeJSON(w, http.StatusOK, "application/json", slotStatus(slot >= 0 && slot < len(busy) && busy[slot]))
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, "application/json", health{Status: "ok"})
	})
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p := api.NotFound("no route %s %s on a worker; jobs are asked of the leader", r.Method, r.URL.Path)
		writeJSON(w, p.Status, "application/problem+json", p)
	})
	return mux
}
