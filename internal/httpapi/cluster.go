package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

// WorkerPath names a worker.
type WorkerPath struct {
	ID uint64 `path:"w" doc:"Number of the worker"`
}

func (a *API) addCluster() {
	huma.Register(a.huma, operation(http.MethodGet, "/v1/cluster", "get-cluster", "cluster", "The cluster's health"),
		func(context.Context, *struct{}) (*answer[api.Cluster], error) {
			out := &answer[api.Cluster]{Index: a.index(), Body: a.leader.Cluster()}
			out.Body.Insecure, out.Body.Encrypted = a.policy.Insecure(), a.encrypted
			return out, nil
		})
	huma.Register(a.huma, operation(http.MethodGet, "/v1/workers", "list-workers", "cluster", "All workers, by number"),
		func(context.Context, *struct{}) (*answer[api.WorkerList], error) {
			out := &answer[api.WorkerList]{Index: a.index(), Body: api.WorkerList{Workers: a.leader.Workers()}}
			if out.Body.Workers == nil {
				out.Body.Workers = []api.Worker{}
			}
			return out, nil
		})
	huma.Register(a.huma, operation(http.MethodGet, "/v1/workers/{w}", "get-worker", "cluster", "One worker"),
		func(ctx context.Context, in *WorkerPath) (*answer[api.Worker], error) { return a.workerNow(ctx, in.ID) })
	huma.Register(a.huma, operation(http.MethodPost, "/v1/workers/{w}/drain", "drain-worker", "cluster",
		"Drain a worker: it finishes its attempts and gets no new ones"),
		func(ctx context.Context, in *WorkerPath) (*answer[api.Worker], error) {
			drained, err := a.leader.DrainWorker(ctx, in.ID)
			if err != nil {
				return nil, a.asProblem(ctx, err)
			}
			out := &answer[api.Worker]{Index: a.index(), Body: drained}
			if now, ok := a.leader.Worker(in.ID); ok { // an idle one may have left already
				out.Body = now
			}
			return out, nil
		})
	huma.Register(a.huma, operation(http.MethodDelete, "/v1/workers/{w}", "remove-worker", "cluster",
		"Remove a worker; its attempts are run by others"), a.removeWorker)
}

// workerNow answers with a worker from memory.
func (a *API) workerNow(ctx context.Context, id uint64) (*answer[api.Worker], error) {
	index := a.index()
	worker, ok := a.leader.Worker(id)
	if !ok {
		return nil, a.asProblem(ctx, api.NotFound("no worker %d: GET /v1/workers lists them", id))
	}
	return &answer[api.Worker]{Index: index, Body: worker}, nil
}

// removed is the answer to a removal: 204 without a body.
type removed struct {
	Index uint64 `header:"X-Bridgefour-Index"`
}

func (a *API) removeWorker(ctx context.Context, in *WorkerPath) (*removed, error) {
	if err := a.leader.RemoveWorker(ctx, in.ID); err != nil {
		return nil, a.asProblem(ctx, err)
	}
	return &removed{Index: a.index()}, nil
}
