package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// Route is a route without typed input. Handle returns the answer, which is sent as JSON; body decodes the request's JSON body and
// ignores unknown fields. It is an alias, so that packages can define routes without importing this one.
type Route = struct {
	Method, Path, Tag, Summary string

	OnLeader bool // a read that only the leader can answer
	Handle   func(r *http.Request, body func(v any) error) (any, error)
}

// add registers a route.
func (a *API) add(r Route) {
	a.describe(r)
	pattern := r.Method + " " + r.Path
	if r.OnLeader {
		a.places[pattern] = atLeader
	}
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
		v, err := r.Handle(req, func(v any) error { return decodeBody(w, req, bodyBytesMax, false, v) })
		if err != nil {
			a.writeError(w, req, err)
			return
		}
		if r.Method != http.MethodGet {
			a.stamp(w.Header()) // the answer reflects the write
		}
		writeJSON(w, http.StatusOK, "application/json", v)
	})
}

// describe adds a route to the OpenAPI document.
func (a *API) describe(r Route) {
	op := operation(r.Method, r.Path, operationID(r), r.Tag, r.Summary)
	op.Responses = map[string]*huma.Response{"200": {Description: http.StatusText(http.StatusOK)}}
	for segment := range strings.SplitSeq(r.Path, "/") {
		if strings.HasPrefix(segment, "{") {
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: strings.Trim(segment, "{}"), In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeInteger},
			})
		}
	}
	a.huma.OpenAPI().AddOperation(&op)
}

func operationID(r Route) string {
	return r.Tag + "-" + strings.ToLower(r.Method) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(r.Path)
}

// addDocs serves the OpenAPI document and a page rendered from it. The page loads nothing else: clusters often have no internet access.
func (a *API) addDocs() {
	a.describe(Route{Method: http.MethodGet, Path: "/openapi.json", Tag: "service", Summary: "This document"})
	a.describe(Route{Method: http.MethodGet, Path: "/docs", Tag: "service", Summary: "This document as HTML"})
	document := sync.OnceValues(func() ([]byte, error) { return json.Marshal(a.huma.OpenAPI()) })
	a.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, r *http.Request) {
		body, err := document()
		if err != nil {
			a.writeError(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(body)
	})
	page := sync.OnceValue(func() []byte { return docsPage(a.huma.OpenAPI()) })
	a.mux.Handle("GET /{$}", http.RedirectHandler("/docs", http.StatusFound))
	a.mux.HandleFunc("GET /docs", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", contentSecurity+"; style-src 'unsafe-inline'")
		_, _ = w.Write(page())
	})
}
