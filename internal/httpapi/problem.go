package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
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

// GetHeaders asks to come back where that is of use.
func (p problem) GetHeaders() http.Header {
	if p.Status == http.StatusServiceUnavailable {
		return http.Header{"Retry-After": {"1"}}
	}
	return nil
}

// asProblem finds what an error is to a client.
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
		// The client has gone and reads nothing, or the server is stopping and the client should try again.
		return problem{api.Unavailable("the leader is stopping; send the request again")}
	}
	a.log.ErrorContext(ctx, "request met an unexpected error", "error", err)
	return problem{api.NewProblem(http.StatusInternalServerError, "%v", err)}
}

// writeError sends err from a handler that is not huma's.
func (a *API) writeError(w http.ResponseWriter, r *http.Request, err error) {
	p := a.asProblem(r.Context(), err)
	maps.Copy(w.Header(), p.GetHeaders())
	writeJSON(w, p.Status, p.ContentType(""), p.Problem)
}

// writeJSON sends v. An error of the write is the client's: it has gone, and there is nobody to tell.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}

// shortenValues keeps huma's validation errors from echoing what may be megabytes back.
func shortenValues(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	for _, detail := range m.Errors {
		if detail != nil {
			detail.Value = shorten(detail.Value)
		}
	}
	return v, nil
}

// shorten cuts a value that an error shows.
func shorten(v any) any {
	const valueMax = 200
	switch v := v.(type) {
	case string:
		if len(v) > valueMax {
			return strings.ToValidUTF8(v[:valueMax], "") + "…"
		}
	case []any, map[string]any:
		return nil // the location says enough
	}
	return v
}
