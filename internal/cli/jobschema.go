package cli

import (
	"encoding/json"
	"io"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bridgefour/bridgefour/api"
)

// printJobSchema prints the JSON schema of job files: those of the requests, with what decodeJobFile accepts beside it.
func printJobSchema(w io.Writer) error {
	const definitions = "#/$defs/"
	registry := huma.NewMapRegistry(definitions, huma.DefaultSchemaNamer)
	flow := registry.Schema(reflect.TypeFor[api.FlowRequest](), true, "")
	one := registry.Schema(reflect.TypeFor[api.JobRequest](), true, "")
	types := registry.Map()
	job := types["JobRequest"]
	or := func(field string, short *huma.Schema) {
		long := job.Properties[field]
		job.Properties[field] = &huma.Schema{AnyOf: []*huma.Schema{short, long}, Description: long.Description}
	}
	scalar := func() *huma.Schema {
		return &huma.Schema{AnyOf: []*huma.Schema{{Type: huma.TypeString}, {Type: huma.TypeNumber}, {Type: huma.TypeBoolean}}}
	}
	or("range", &huma.Schema{Type: huma.TypeString, Examples: []any{"1-4", "001-100:10"}})
	or("lines", &huma.Schema{Type: huma.TypeArray, Items: scalar()})
	for _, t := range types { // a text may be written as a number
		for _, p := range t.Properties {
			switch values, isMap := p.AdditionalProperties.(*huma.Schema); {
			case p.Type == huma.TypeArray && p.Items.Type == huma.TypeString:
				p.Items = scalar()
			case isMap && values.Type == huma.TypeString:
				p.AdditionalProperties = scalar()
			}
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Bridge Four job", "anyOf": []*huma.Schema{one, flow}, "$defs": types,
	})
}
