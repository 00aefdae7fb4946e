package httpapi

import (
	"context"
	"net/http"

	"github.com/bridgefour/bridgefour/api"
)

// WorkerPath names a worker.
type WorkerPath struct {
	ID uint64 `path:"w" doc:"Number of the worker"`
}

func (a *API) addCluster() {
	addRead(a, operation(http.MethodGet, "/v1/cluster", "get-cluster", "cluster", "The cluster's health"),
		func(context.Context, *struct{}) (api.Cluster, error) {
			c := a.leader.Cluster()
			c.Insecure, c.Encrypted = a.policy.Insecure(), a.encrypted
			return c, nil
		})
	addRead(a, operation(http.MethodGet, "/v1/workers", "list-workers", "cluster", "All workers, by number"),
		func(context.Context, *struct{}) (api.WorkerList, error) {
			return api.WorkerList{Workers: list(a.leader.Workers())}, nil
		})
	addRead(a, operation(http.MethodGet, "/v1/workers/{w}", "get-worker", "cluster", "One worker"),
		func(_ context.Context, in *WorkerPath) (api.Worker, error) {
			worker, ok := a.leader.Worker(in.ID)
			if !ok {
				return worker, api.NotFound("no worker %d: GET /v1/workers lists them", in.ID)
			}
			return worker, nil
		})
	addWrite(a, operation(http.MethodPost, "/v1/workers/{w}/drain", "drain-worker", "cluster", "Drain a worker: it finishes its attempts and gets no new ones"),
		func(ctx context.Context, in *WorkerPath) (api.Worker, error) { return a.leader.DrainWorker(ctx, in.ID) })
	addRemoval(a, operation(http.MethodDelete, "/v1/workers/{w}", "remove-worker", "cluster", "Remove a worker; its attempts are run by others"),
		func(ctx context.Context, in *WorkerPath) error { return a.leader.RemoveWorker(ctx, in.ID) })
}
