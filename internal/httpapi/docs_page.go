package httpapi

import (
	"cmp"
	"fmt"
	"html"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const docsHead = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Bridge Four API</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2530; background: #fff }
code { font: 13px ui-monospace, monospace } h2 { margin-top: 2.5rem } h3 { margin: 1.5rem 0 .2rem } p { margin: .2rem 0 }
pre { font: 13px ui-monospace, monospace; margin: .4rem 0; white-space: pre-wrap; overflow-wrap: anywhere }
table { border-collapse: collapse; margin: .4rem 0 } td { padding: .1rem .9rem .1rem 0; vertical-align: top } a { color: #0b5cad }
@media (prefers-color-scheme: dark) { body { color: #dde3ea; background: #14181d } a { color: #7db7f0 } }
</style></head><body>
`

// docsPage lists the operations and the types of a document.
func docsPage(doc *huma.OpenAPI) []byte {
	var b strings.Builder
	b.WriteString(docsHead)
	fmt.Fprintf(&b, "<h1>%s API %s</h1>\n<p>%s The document itself: <a href=\"/openapi.json\">/openapi.json</a>.</p>\n"+
		"<p>The examples are for a leader on this machine. With a token, add <code>-H 'Authorization: Bearer TOKEN'</code>.</p>\n",
		html.EscapeString(doc.Info.Title), html.EscapeString(doc.Info.Version), html.EscapeString(doc.Info.Description))
	p := docsWriter{Builder: &b, types: doc.Components.Schemas}
	operations := map[string][]*huma.Operation{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op != nil {
				operations[op.Tags[0]] = append(operations[op.Tags[0]], op)
			}
		}
	}
	tags := []string{"jobs", "cluster", "access", "service", "original"}
	for _, tag := range slices.Sorted(maps.Keys(operations)) {
		if !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	for _, tag := range tags {
		fmt.Fprintf(&b, "<h2>%s</h2>\n", tag)
		for _, op := range operations[tag] {
			p.operation(op)
		}
	}
	b.WriteString("<h2>types</h2>\n")
	types := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(types)) {
		fmt.Fprintf(&b, "<h3 id=\"%s\">%s</h3>\n", html.EscapeString(name), html.EscapeString(name))
		p.properties(types[name])
	}
	b.WriteString("</body></html>\n")
	return []byte(b.String())
}

// docsWriter writes the parts of the page.
type docsWriter struct {
	*strings.Builder

	types huma.Registry
}

func (p *docsWriter) operation(op *huma.Operation) {
	fmt.Fprintf(p.Builder, "<h3><code>%s %s</code></h3>\n<p>%s</p>\n", op.Method, html.EscapeString(op.Path), html.EscapeString(op.Summary))
	if len(op.Parameters) > 0 {
		p.WriteString("<table>\n")
		for _, param := range op.Parameters {
			p.row(param.Name, param.In+", "+typeLink(param.Schema), cmp.Or(param.Description, param.Schema.Description))
		}
		p.WriteString("</table>\n")
	}
	if op.RequestBody != nil {
		for _, contentType := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
			fmt.Fprintf(p.Builder, "<p>body: %s, %s</p>\n", typeLink(op.RequestBody.Content[contentType].Schema), contentType)
		}
	}
	var answer any
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		for _, contentType := range slices.Sorted(maps.Keys(op.Responses[status].Content)) {
			schema := op.Responses[status].Content[contentType].Schema
			fmt.Fprintf(p.Builder, "<p>%s: %s, %s</p>\n", status, typeLink(schema), contentType)
			if status[0] == '2' && strings.Contains(contentType, "json") && answer == nil {
				answer = exampleOf(p.types, schema)
			}
		}
	}
	fmt.Fprintf(p.Builder, "<pre>%s", html.EscapeString(exampleRequest(p.types, op)))
	if answer != nil {
		fmt.Fprintf(p.Builder, "\n%s", html.EscapeString(compactJSON(answer)))
	}
	p.WriteString("</pre>\n")
}

func (p *docsWriter) properties(s *huma.Schema) {
	p.WriteString("<table>\n")
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[name]
		p.row(name, typeLink(property), property.Description)
	}
	p.WriteString("</table>\n")
}

// row writes one row of a table; kind is HTML.
func (p *docsWriter) row(name, kind, text string) {
	fmt.Fprintf(p.Builder, "<tr><td><code>%s</code></td><td>%s</td><td>%s</td></tr>\n", html.EscapeString(name), kind, html.EscapeString(text))
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
		values := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			values[i] = fmt.Sprint(v)
		}
		return html.EscapeString(strings.Join(values, ", "))
	}
	return html.EscapeString(cmp.Or(s.Type, "any"))
}
