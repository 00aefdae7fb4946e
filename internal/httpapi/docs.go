package httpapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// Route is a route without typed input. Handle returns the answer, which is sent as JSON; body decodes the request's JSON body and
// ignores unknown fields. It is an alias, so that packages can define routes without importing this one.
type Route = struct {
	Method, Path, Tag, Summary string

	OnLeader bool // answered by the leader only: a follower forwards it
	Handle   func(r *http.Request, body func(v any) error) (any, error)
}

// add registers a route.
func (a *API) add(r Route) {
	a.describe(r)
	pattern := r.Method + " " + r.Path
	if r.OnLeader {
		a.forwarded[pattern] = true
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

const docsHead = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Bridge Four API</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2530; background: #fff }
code { font: 13px ui-monospace, monospace } h2 { margin-top: 2.5rem } h3 { margin: 1.5rem 0 .2rem } p { margin: .2rem 0 }
table { border-collapse: collapse; margin: .4rem 0 } td { padding: .1rem .9rem .1rem 0; vertical-align: top } a { color: #0b5cad }
@media (prefers-color-scheme: dark) { body { color: #dde3ea; background: #14181d } a { color: #7db7f0 } }
</style></head><body>
`

// docsPage lists the operations and the types of a document.
func docsPage(doc *huma.OpenAPI) []byte {
	var b strings.Builder
	b.WriteString(docsHead)
	fmt.Fprintf(&b, "<h1>%s API %s</h1>\n<p>%s The document itself: <a href=\"/openapi.json\">/openapi.json</a>.</p>\n",
		html.EscapeString(doc.Info.Title), html.EscapeString(doc.Info.Version), html.EscapeString(doc.Info.Description))
	operations := map[string][]*huma.Operation{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op != nil {
				operations[op.Tags[0]] = append(operations[op.Tags[0]], op)
			}
		}
	}
	for _, tag := range []string{"jobs", "cluster", "service", "original"} {
		fmt.Fprintf(&b, "<h2>%s</h2>\n", tag)
		for _, op := range operations[tag] {
			writeOperation(&b, op)
		}
	}
	b.WriteString("<h2>types</h2>\n")
	types := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(types)) {
		fmt.Fprintf(&b, "<h3 id=\"%s\">%s</h3>\n", html.EscapeString(name), html.EscapeString(name))
		writeProperties(&b, types[name])
	}
	b.WriteString("</body></html>\n")
	return []byte(b.String())
}

func writeOperation(b *strings.Builder, op *huma.Operation) {
	fmt.Fprintf(b, "<h3><code>%s %s</code></h3>\n<p>%s</p>\n", op.Method, html.EscapeString(op.Path), html.EscapeString(op.Summary))
	if len(op.Parameters) > 0 {
		b.WriteString("<table>\n")
		for _, p := range op.Parameters {
			writeRow(b, p.Name, p.In+", "+typeLink(p.Schema), cmp.Or(p.Description, p.Schema.Description))
		}
		b.WriteString("</table>\n")
	}
	if op.RequestBody != nil {
		for contentType, media := range op.RequestBody.Content {
			fmt.Fprintf(b, "<p>body: %s, %s</p>\n", typeLink(media.Schema), contentType)
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		for contentType, media := range op.Responses[status].Content {
			fmt.Fprintf(b, "<p>%s: %s, %s</p>\n", status, typeLink(media.Schema), contentType)
		}
	}
}

func writeProperties(b *strings.Builder, s *huma.Schema) {
	b.WriteString("<table>\n")
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[name]
		writeRow(b, name, typeLink(property), property.Description)
	}
	b.WriteString("</table>\n")
}

// writeRow writes one row of a table; kind is HTML.
func writeRow(b *strings.Builder, name, kind, text string) {
	fmt.Fprintf(b, "<tr><td><code>%s</code></td><td>%s</td><td>%s</td></tr>\n", html.EscapeString(name), kind, html.EscapeString(text))
}

// typeLink renders a type as HTML.
func typeLink(s *huma.Schema) string {
	switch {
	case s == nil:
		return "any"
	case s.Ref != "":
		name := html.EscapeString(s.Ref[strings.LastIndexByte(s.Ref, '/')+1:])
		return fmt.Sprintf(`<a href="#%s">%s</a>`, name, name)
	case s.Type == huma.TypeArray:
		return "list of " + typeLink(s.Items)
	case len(s.Enum) > 0:
		return html.EscapeString(strings.Trim(fmt.Sprint(s.Enum...), "[]"))
	}
	return html.EscapeString(cmp.Or(s.Type, "any"))
}
