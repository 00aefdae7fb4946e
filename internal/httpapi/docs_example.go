package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/internal/transport"
)

// exampleRequest is a command that makes a request.
func exampleRequest(types huma.Registry, op *huma.Operation) string {
	path, sep := op.Path, "?"
	for _, p := range op.Parameters {
		switch example := exampleValue(types, p); {
		case p.In == "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", fmt.Sprint(example))
		case p.In == "query" && (p.Required || len(p.Schema.Examples) > 0):
			path += fmt.Sprintf("%s%s=%v", sep, p.Name, example)
			sep = "&"
		}
	}
	words := []string{"curl"}
	method := http.MethodGet
	if op.RequestBody != nil {
		if media := op.RequestBody.Content["application/json"]; media != nil {
			words = append(words, "--json", "'"+compactJSON(exampleOf(types, media.Schema))+"'")
			method = http.MethodPost
		}
	}
	if op.Method != method {
		words = append(words, "-X", op.Method)
	}
	if path = "127.0.0.1:" + transport.DefaultPort + path; strings.Contains(path, "&") {
		path = "'" + path + "'"
	}
	return strings.Join(append(words, path), " ")
}

// exampleValue is a value of a parameter.
func exampleValue(types huma.Registry, p *huma.Param) any {
	if len(p.Schema.Examples) == 0 && p.Schema.Type == huma.TypeString && len(p.Schema.Enum) == 0 {
		return strings.ToUpper(p.Name)
	}
	return exampleOf(types, p.Schema)
}

// exampleOf is a value of a type: the example that it names, or one that is made of its parts. Of an object it has the properties that are
// required, and those that name an example.
func exampleOf(types huma.Registry, s *huma.Schema) any {
	if s.Ref != "" {
		s = types.SchemaFromRef(s.Ref)
	}
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case s.Default != nil:
		return s.Default
	case len(s.Enum) > 0:
		return s.Enum[0]
	}
	switch s.Type {
	case huma.TypeArray:
		return []any{exampleOf(types, s.Items)}
	case huma.TypeObject:
		object := map[string]any{}
		for name, property := range s.Properties {
			if slices.Contains(s.Required, name) || len(property.Examples) > 0 {
				object[name] = exampleOf(types, property)
			}
		}
		return object
	case huma.TypeInteger, huma.TypeNumber:
		if s.Minimum != nil && *s.Minimum > 1 {
			return *s.Minimum
		}
		return 1
	case huma.TypeBoolean:
		return true
	}
	if s.Format == "date-time" {
		return "2026-01-02T15:04:05Z"
	}
	return "…"
}

func compactJSON(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err.Error() // an example that is no JSON: a test sees it
	}
	return strings.TrimSpace(b.String())
}
