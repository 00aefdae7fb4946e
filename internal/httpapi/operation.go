package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// answer is a body with its log position. The type of the body is not one of its parameters: each would be another copy of what huma makes for a route.
type answer struct {
	Index uint64 `header:"X-Bridgefour-Index" doc:"Log position that the answer reflects"`
	// Set by handlers that have waited; otherwise ServeHTTP has set them.
	Age    string `header:"X-Bridgefour-Age" doc:"Milliseconds since this node heard from the leader; 0 on the leader"`
	Leader string `header:"X-Bridgefour-Leader" doc:"Number of the leader"`
	Body   any
}

// describe documents a route that answers with a T.
func describe[T any](a *API, op huma.Operation) huma.Operation {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, op.OperationID+"Response")
	status := strconv.Itoa(cmp.Or(op.DefaultStatus, http.StatusOK))
	op.Responses = map[string]*huma.Response{status: {Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}}
	return op
}

// removed is the answer to a removal: 204 without a body.
type removed struct {
	Index uint64 `header:"X-Bridgefour-Index"`
}

// operation describes a typed route.
func operation(method, path, id, tag, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Tags: []string{tag}, Summary: summary}
}

// creation is an operation that answers with 201.
func creation(path, id, tag, summary string) huma.Operation {
	op := operation(http.MethodPost, path, id, tag, summary)
	op.DefaultStatus = http.StatusCreated
	return op
}

// addRead registers a route that answers with what get returns.
func addRead[In, Out any](a *API, op huma.Operation, get func(ctx context.Context, in *In) (Out, error)) {
	addChange(a, op, func(context.Context, *In) error { return nil }, get)
}

// addChange registers a route that does a write, and answers with what get returns then. The position is read before: it must not be newer than the answer.
func addChange[In, Out any](a *API, op huma.Operation, do func(ctx context.Context, in *In) error, get func(ctx context.Context, in *In) (Out, error)) {
	huma.Register(a.huma, describe[Out](a, op), func(ctx context.Context, in *In) (*answer, error) {
		if err := do(ctx, in); err != nil {
			return nil, a.asProblem(ctx, err)
		}
		out := &answer{Index: a.index()}
		var err error
		if out.Body, err = get(ctx, in); err != nil {
			return nil, a.asProblem(ctx, err)
		}
		return out, nil
	})
}

// addWrite registers a route that does a write, and answers with what that returns.
func addWrite[In, Out any](a *API, op huma.Operation, do func(ctx context.Context, in *In) (Out, error)) {
	huma.Register(a.huma, describe[Out](a, op), func(ctx context.Context, in *In) (*answer, error) {
		body, err := do(ctx, in)
		if err != nil {
			return nil, a.asProblem(ctx, err)
		}
		return &answer{Index: a.index(), Body: body}, nil
	})
}

// addRemoval registers a route that removes something.
func addRemoval[In any](a *API, op huma.Operation, do func(ctx context.Context, in *In) error) {
	huma.Register(a.huma, op, func(ctx context.Context, in *In) (*removed, error) {
		if err := do(ctx, in); err != nil {
			return nil, a.asProblem(ctx, err)
		}
		return &removed{Index: a.index()}, nil
	})
}

// list is a list that is sent as [] if it is empty.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}
