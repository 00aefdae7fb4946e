package httpapi

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

// LockPath names a lock. It is exported because huma skips unexported embedded types. A slash in the name is sent as %2F.
type LockPath struct {
	Name string `path:"name" doc:"Name of the lock; a slash is sent as %2F" minLength:"1" maxLength:"1024"`
}

type listLocks struct {
	Limit  int    `query:"limit" doc:"Size of the page" default:"1000" minimum:"1" maximum:"1000"`
	Cursor string `query:"cursor" doc:"next of the page before" maxLength:"4096"`
}

type putLock struct {
	LockPath
	Body api.LockBody
}

type deleteLock struct {
	LockPath
	Holder string `query:"holder" doc:"Of the request that holds or waits for the name" required:"true" minLength:"1" maxLength:"256"`
}

// addLocks adds the lock service. All of it is at the leader: how long a lock is still held is known only there.
func (a *API) addLocks() {
	addRead(a, a.onLeader(operation(http.MethodGet, "/v1/locks", "list-locks", "locks", "Names that are held or waited for: data of jobs, then the names of users")),
		func(ctx context.Context, in *listLocks) (api.LockList, error) {
			page, err := a.leader.Locks(ctx, api.LockQuery{Limit: in.Limit, Cursor: in.Cursor})
			page.Locks = list(page.Locks)
			return page, err
		})
	addRead(a, a.onLeader(operation(http.MethodGet, "/v1/locks/{name}", "get-lock", "locks", "The holders of a name, and those that wait for it, with those of the names above and below it, which conflict; none: it is free")),
		func(ctx context.Context, in *LockPath) (api.Lock, error) {
			page, err := a.leader.Locks(ctx, api.LockQuery{Name: in.Name})
			if err != nil || len(page.Locks) == 0 {
				return api.Lock{Name: in.Name}, err
			}
			return page.Locks[0], nil
		})
	put := operation(http.MethodPut, "/v1/locks/{name}", "put-lock", "locks", "Acquire a name, or renew it: the same holder never takes it twice")
	put.Errors = []int{http.StatusConflict, http.StatusTooManyRequests}
	put.Middlewares = huma.Middlewares{anyContentType}
	addWrite(a, put, func(ctx context.Context, in *putLock) (api.LockGrant, error) {
		return a.lock(ctx, &api.LockRequest{LockTerms: in.Body.LockTerms, Names: []api.LockName{{Name: in.Name, Mode: in.Body.Mode}}})
	})
	addRemoval(a, operation(http.MethodDelete, "/v1/locks/{name}", "delete-lock", "locks",
		"Release a name, or withdraw a request that waits for it, with the other names of the request; operators may do it to others"),
		func(ctx context.Context, in *deleteLock) error {
			return a.leader.Unlock(ctx, in.Holder, []string{in.Name})
		})
	a.addLockBatch()
}

// anyContentType reads a body as JSON whatever its type is: 'curl -d' sends that of a form. The other requests for locks have it from decodeBody.
func anyContentType(ctx huma.Context, next func(huma.Context)) { next(jsonBody{ctx}) }

// jsonBody is a request whose body is JSON.
type jsonBody struct{ humaContext }

type humaContext = huma.Context // which has a method Context

// Header returns a header field.
func (c jsonBody) Header(name string) string {
	if name == "Content-Type" {
		return "application/json"
	}
	return c.humaContext.Header(name)
}

// lockWaitsMax bounds the requests that may wait for a lock. The newest above it are refused, and may be sent again.
const lockWaitsMax = 1000

// lock acquires or renews the names of a request. One that may wait counts as a long poll.
func (a *API) lock(ctx context.Context, r *api.LockRequest) (api.LockGrant, error) {
	if r.WaitMillis > 0 {
		release, err := a.wait()
		if err != nil {
			return api.LockGrant{}, err
		}
		defer release()
		select {
		case a.lockWaits <- struct{}{}:
			defer func() { <-a.lockWaits }()
		default:
			return api.LockGrant{}, api.TooFast("%d requests wait for locks at this leader, which is its limit: send it again, or acquire it by a batch, which does not wait", lockWaitsMax)
		}
	}
	return a.leader.Lock(ctx, r)
}

// addLockBatch adds POST /v1/locks. Its body is decoded here: huma's validation of a thousand operations takes longer than they do.
func (a *API) addLockBatch() {
	schemas := a.huma.OpenAPI().Components.Schemas
	body := func(of reflect.Type) map[string]*huma.MediaType {
		return map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(of, true, "")}}
	}
	op := operation(http.MethodPost, "/v1/locks", "post-locks", "locks", "Acquire several names, all or none, or carry out up to 1,000 operations")
	op.RequestBody = &huma.RequestBody{Required: true, Content: body(reflect.TypeFor[api.LockBatch]())}
	op.Responses = map[string]*huma.Response{"200": {
		Description: "The results of the operations; without operations, the grant of the names, as of PUT", Content: body(reflect.TypeFor[api.LockResults]()),
	}}
	batch := schemas.Map()["LockBatch"]
	batch.Required = nil // it has operations, or what a request requires
	batch.Examples = []any{map[string]any{"holder": "nightly-export@db1", "names": []any{map[string]any{"name": "licence/matlab"}, map[string]any{"name": "db1", "mode": "shared"}}}}
	a.huma.OpenAPI().AddOperation(&op)
	a.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		var in api.LockBatch
		err := decodeBody(w, r, bodyBytesMax, true, &in)
		var answer any
		switch request := len(in.Names) > 0 || in.Holder != ""; {
		case err != nil:
		case len(in.Operations) > api.LockOperationsMax:
			err = api.Invalid("validation failed").With("body.operations", "there are more than 1000: send several batches", len(in.Operations))
		case request && len(in.Operations) > 0:
			err = api.Invalid("validation failed").With("body.operations", "there are operations beside a request of its own: want one of them", nil)
		case request:
			answer, err = a.lock(r.Context(), &in.LockRequest)
		case len(in.Operations) == 0:
			err = api.Invalid("validation failed").With("body", "want holder and names, or operations", nil)
		default:
			var results []api.LockResult
			results, err = a.leader.LockBatch(r.Context(), in.Operations)
			answer = api.LockResults{Results: results}
		}
		if err != nil {
			a.writeError(w, r, err)
			return
		}
		a.stamp(w.Header()) // the answer reflects the write
		writeJSON(w, http.StatusOK, "application/json", answer)
	})
}
