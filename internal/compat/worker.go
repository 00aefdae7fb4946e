package compat

import (
	"net/http"
	"strconv"

	"github.com/bridgefour/bridgefour/api"
)

// WorkerRoutes are the routes of a worker.
func WorkerRoutes(w Worker) []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/worker/status", Tag: tag, Summary: "200 while the worker runs",
			Handle: func(*http.Request, func(any) error) (any, error) { return nil, nil }, //nolint:nilnil // no body
		},
		{
			Method: http.MethodGet, Path: "/worker/state", Tag: tag, Summary: "WorkerState",
			Handle: func(*http.Request, func(any) error) (any, error) {
				return workerState{ID: w.ID(), Status: typed{"Alive"}, Slots: slotStates(w.SlotStatus())}, nil
			},
		},
		{
			Method: http.MethodGet, Path: "/task/status/{slot}", Tag: tag, Summary: "Status of a slot",
			Handle: func(r *http.Request, _ func(any) error) (any, error) {
				slot, err := strconv.Atoi(r.PathValue("slot"))
				if err != nil {
					return nil, api.NotFound("%q is not a slot", r.PathValue("slot"))
				}
				slots := w.SlotStatus()
				if slot < 0 || slot >= len(slots) {
					return typed{missing}, nil
				}
				return slotStatus(slots[slot]), nil
			},
		},
	}
}
