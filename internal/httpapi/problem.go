package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

// problem lets huma send an api.Problem.
type problem struct{ *api.Problem }

// GetStatus is the HTTP status.
func (p problem) GetStatus() int { return p.Status }

// ContentType is RFC 9457's.
func (p problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders adds Retry-After if a retry may help, and how to authenticate.
func (p problem) GetHeaders() http.Header {
	switch {
	case p.RetryAfter > 0:
		return http.Header{"Retry-After": {strconv.Itoa(p.RetryAfter)}}
	case p.Status == http.StatusServiceUnavailable:
		return http.Header{"Retry-After": {"1"}}
	case p.Status == http.StatusUnauthorized:
		return http.Header{"Www-Authenticate": {"Bearer"}}
	}
	return nil
}

// send sends p from a handler without huma.
func (p problem) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), p.GetHeaders())
	writeJSON(w, p.Status, p.ContentType(""), p.Problem)
}

// asProblem returns the problem that is sent for an error.
func (a *API) asProblem(ctx context.Context, err error) problem {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		if p.Title == "" {
			titled := *p // it may be shared
			titled.Title = http.StatusText(p.Status)
			p = &titled
		}
		return problem{p}
	}
	if ctx.Err() != nil {
		// Either the client has disconnected, or the server is shutting down and the client should retry.
		return problem{api.Unavailable("the leader is shutting down: send the request again")}
	}
	a.log.ErrorContext(ctx, "unexpected error of a request", "error", err)
	return problem{api.NewProblem(http.StatusInternalServerError, "%v", err)}
}

// writeError sends err from a handler without huma.
func (a *API) writeError(w http.ResponseWriter, r *http.Request, err error) {
	a.asProblem(r.Context(), err).send(w)
}

// writeJSON sends v. Write errors mean that the client has disconnected.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}

// errorsMax is how many errors an answer lists.
const errorsMax = 20

// shortenValues shortens huma's validation errors, which could be megabytes.
func shortenValues(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	if more := len(m.Errors) - errorsMax; more > 0 {
		m.Errors = append(m.Errors[:errorsMax], &huma.ErrorDetail{Message: fmt.Sprintf("and %d more errors", more)})
	}
	for _, detail := range m.Errors {
		if detail != nil {
			detail.Value = shorten(detail.Value)
		}
	}
	return v, nil
}

// shorten truncates a value for an error.
func shorten(v any) any {
	const valueMax = 200
	switch v := v.(type) {
	case string:
		if len(v) > valueMax {
			return strings.ToValidUTF8(v[:valueMax], "") + "…"
		}
	case []any, map[string]any:
		return nil // the location is enough
	}
	return v
}
