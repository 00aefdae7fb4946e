package cli

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/bridgefour/bridgefour/api"
)

// readJobFile reads a job file: YAML or JSON in the form of the body of POST /v1/jobs or, with several jobs, of POST /v1/flows, and the short
// forms of docs/job-file.md.
func (a *app) readJobFile(cmd *cobra.Command, name string) (jobs []api.JobRequest, flow bool, err error) {
	var text []byte
	if name == "-" {
		a.stdinRead = true
		text, err = io.ReadAll(a.stdin)
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, false, usagef(cmd, "job file: %v", err)
	}
	a.file = &jobFile{name: name}
	if a.file.doc, jobs, flow, err = decodeJobFile(text); err != nil {
		return nil, false, usagef(cmd, "job file %s: %v", name, err)
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, false, fmt.Errorf("working directory: %w", err)
	}
	for i := range jobs {
		r := &jobs[i]
		r.Dir = absolute(here, r.Dir)
		for i, in := range r.Inputs {
			r.Inputs[i] = absoluteInput(here, in)
		}
		if r.Output != "" {
			r.Output = absolute(here, r.Output)
		}
	}
	return jobs, flow, nil
}

// ofOneJob are the flags that a file with several jobs does not go with, beside those of the program and the input.
var ofOneJob = []string{"name", "output", "after", "shuf", "limit", "batch"} //nolint:gochecknoglobals // a constant

// checkFlowFlags refuses flags and arguments that are of one job.
func (a *app) checkFlowFlags(cmd *cobra.Command, args []string) error {
	keys := jsonFields(reflect.TypeFor[api.JobRequest]())
	ofEach := func(flag string) bool {
		return !slices.Contains(ofOneJob, flag) && slices.ContainsFunc(keys, func(key string) bool { return !wholeKey(key) && fieldFlag(key) == flag })
	}
	given := ""
	for _, flag := range jobFlagNames() {
		if a.typed[flag] && !ofEach(flag) && flag != "dry-run" && flag != "env-all" {
			given = "--" + flag
		}
	}
	switch {
	case len(args) > 0:
		given = fmt.Sprintf("argument %q", args[0])
	case a.typed["joblog"]:
		given = "--joblog"
	}
	if given == "" {
		return nil
	}
	return usagef(cmd, "%s is of one job, and the file describes several: set it there, in the job that is meant", given)
}

// override replaces what a job file says by what the command line says.
func (a *app) override(cmd *cobra.Command, f *jobFlags, args []string, jobs []api.JobRequest) error {
	flags, err := a.request(cmd, f, args)
	for i := range jobs {
		if err == nil {
			err = a.overrideJob(cmd, f, args, flags, &jobs[i])
		}
	}
	return err
}

func (a *app) overrideJob(cmd *cobra.Command, f *jobFlags, args []string, flags, r *api.JobRequest) error {
	if program := flags.Program; program.Builtin != "" || program.Command != nil || program.Shell != "" {
		r.Program, r.Partitions = program, flags.Partitions // those of the file belong to its program
		a.file.drop("program")
	} else if a.typed["placeholder"] || a.typed["no-placeholders"] {
		r.Program.Placeholder, r.Program.NoPlaceholders = program.Placeholder, program.NoPlaceholders
	}
	if a.typed["reduce"] {
		r.Program.Reduce = flags.Program.Reduce
	}
	if a.typed["combine"] {
		r.Program.Combine = flags.Program.Combine
	}
	_, lists := cutSources(args)
	typed := func(flag string) bool { return a.typed[flag] }
	if len(lists) > 0 || slices.ContainsFunc([]string{"input", "lines", "csv", "range", "each"}, typed) { // another input
		r.Inputs, r.Lines, r.Range, r.Each = flags.Inputs, flags.Lines, flags.Range, flags.Each
		a.file.drop("inputs", "lines", "range", "each")
	}
	to, from := reflect.ValueOf(r).Elem(), reflect.ValueOf(flags).Elem()
	for i, name := range jsonFields(to.Type()) {
		switch field := to.Field(i); {
		case wholeKey(name) || !a.typed[fieldFlag(name)]:
		case field.Kind() == reflect.Map && !field.IsNil():
			for _, key := range from.Field(i).MapKeys() {
				field.SetMapIndex(key, from.Field(i).MapIndex(key))
			}
		default:
			field.Set(from.Field(i))
		}
	}
	if f.envAll {
		return f.passAll(cmd, r)
	}
	return nil
}

// wholeKey reports whether flags replace what a key of job files has as a whole: the program or the input, which several keys and flags
// give. The user is no value of a job.
func wholeKey(key string) bool {
	return slices.Contains([]string{"program", "inputs", "lines", "range", "each", "user"}, key)
}

// fieldFlag returns the flag for a field of a request.
func fieldFlag(key string) string {
	switch key {
	case "shuffle":
		return "shuf"
	case "inputs", "labels", "secrets", "resources", "locks":
		return strings.TrimSuffix(key, "s")
	}
	return strings.ReplaceAll(key, "_", "-")
}

// jobFile is a job file that was read.
type jobFile struct {
	name string
	doc  *yaml.Node
}

// drop forgets the lines of keys that the command line replaces.
func (f *jobFile) drop(keys ...string) {
	for i := 0; i+1 < len(f.doc.Content); i += 2 {
		if slices.Contains(keys, f.doc.Content[i].Value) {
			f.doc.Content[i].Value = ""
		}
	}
}

// at names a field, such as program.command[0], with its file and line, or that of the part of the file that could have it.
func (f *jobFile) at(path string) string {
	n, line := f.doc, 0
	for rest := path; n != nil && rest != ""; {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var key string
		if i := strings.IndexAny(rest[1:], ".["); i >= 0 {
			key, rest = rest[:i+1], strings.TrimPrefix(rest[i+1:], ".")
		} else {
			key, rest = rest, ""
		}
		if n = child(n, key); n != nil {
			line = n.Line
		}
	}
	if line == 0 {
		return fmt.Sprintf("job file %s: %s", f.name, path)
	}
	return fmt.Sprintf("job file %s: line %d: %s", f.name, line, path)
}

// child returns the value of a key of an object, or the item [N] of a list; nil: it has none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.SequenceNode {
		i, err := strconv.ParseUint(strings.Trim(key, "[]"), 10, 32)
		if err != nil || i >= uint64(len(n.Content)) {
			return nil
		}
		return n.Content[i]
	}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// decodeJobFile reads one YAML document, of which JSON is a part: a job, or a flow. Errors name the line and the key.
func decodeJobFile(text []byte) (root *yaml.Node, jobs []api.JobRequest, flow bool, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil, false, errors.New("it is empty")
	case err != nil:
		return nil, nil, false, fmt.Errorf("it is neither YAML nor JSON: %w", err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, nil, false, errors.New("it holds more than one document: several jobs are a list, jobs: [{name: a, …}, …]")
	}
	d, root := jobFileDecoder{left: nodesMax}, doc.Content[0]
	for i := 0; i < len(root.Content) && root.Kind == yaml.MappingNode; i += 2 {
		flow = flow || root.Content[i].Value == "jobs"
	}
	if flow {
		var r api.FlowRequest
		err := d.value(root, reflect.ValueOf(&r).Elem(), "")
		return root, r.Jobs, true, err
	}
	jobs = make([]api.JobRequest, 1)
	return root, jobs, false, d.value(root, reflect.ValueOf(&jobs[0]).Elem(), "")
}

// nodesMax bounds the values of a job file: aliases can repeat others many times.
const nodesMax = 10_000_000

// jobFileDecoder sets the values of the API's types from YAML.
type jobFileDecoder struct{ left int }

// value sets v, which is at a path.
func (d *jobFileDecoder) value(n *yaml.Node, v reflect.Value, path string) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.left--; d.left < 0 {
		return fmt.Errorf("it has more than %d values", nodesMax)
	}
	if n.Tag == "!!null" {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(n, v.Elem(), path)
	}
	if done, err := shortForm(n, v); done || err != nil {
		return atLine(n, path, err)
	}
	switch {
	case v.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		return d.object(n, v, path)
	case v.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		return d.table(n, v, path)
	case v.Type() == reflect.TypeFor[[]byte]() && n.Kind == yaml.ScalarNode:
		raw, err := base64.StdEncoding.DecodeString(n.Value)
		v.SetBytes(raw)
		return atLine(n, path, err)
	case v.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			if err := d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	case n.Kind == yaml.ScalarNode && setScalar(v, n):
		return nil
	}
	return atLine(n, path, fmt.Errorf("want %s, found %s", wantedKind(v.Type()), kindOf(n)))
}

// shortForm sets what may be written in a shorter way than in the API.
func shortForm(n *yaml.Node, v reflect.Value) (done bool, err error) {
	switch to := v.Addr().Interface().(type) {
	case *api.Lines: // lines: [a, b]
		if n.Kind == yaml.SequenceNode {
			items := make([]string, len(n.Content))
			for i, item := range n.Content {
				if item.Kind != yaml.ScalarNode {
					return false, fmt.Errorf("item %d: want a text, found %s", i, kindOf(item))
				}
				items[i] = item.Value
			}
			to.Items = items
			return true, nil
		}
	case *api.Range: // range: 1-4
		if n.Kind == yaml.ScalarNode {
			ranges, err := parseRanges(n.Value)
			if err == nil && len(ranges) > 1 {
				err = fmt.Errorf("%q is several ranges: write them as each: [{ranges: [{from: 1, to: 4}, …]}]", n.Value)
			}
			if err == nil {
				*to = ranges[0]
			}
			return true, err
		}
	}
	return false, nil
}

// object sets the fields of a struct.
func (d *jobFileDecoder) object(n *yaml.Node, v reflect.Value, path string) error {
	for _, source := range merged(n) {
		if err := d.value(source, v, path); err != nil {
			return err
		}
	}
	fields := jsonFields(v.Type())
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Tag == "!!merge" {
			continue
		}
		at := slices.Index(fields, key.Value)
		if at < 0 || key.Value == "" {
			known := slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return f == "" })
			return atLine(key, path, fmt.Errorf("unknown key %q%s; it may be %s", key.Value, didYouMean(key.Value, known), strings.Join(known, ", ")))
		}
		if err := unique(n, i, path); err != nil {
			return err
		}
		if err := d.value(n.Content[i+1], v.Field(at), strings.TrimPrefix(path+"."+key.Value, ".")); err != nil {
			return err
		}
	}
	return nil
}

// merged returns the values of the merge keys (<<) of an object, which its own keys replace.
func merged(n *yaml.Node) (sources []*yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" {
			sources = append(sources, n.Content[i+1])
		}
	}
	return sources
}

// table sets a map of texts.
func (d *jobFileDecoder) table(n *yaml.Node, v reflect.Value, path string) error {
	v.Set(reflect.MakeMap(v.Type()))
	for i := 0; i+1 < len(n.Content); i += 2 {
		if err := unique(n, i, path); err != nil {
			return err
		}
		item := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(n.Content[i+1], item, path+"."+n.Content[i].Value); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(n.Content[i].Value), item)
	}
	return nil
}

// unique returns an error if the key at index i is there before.
func unique(n *yaml.Node, i int, path string) error {
	for k := 0; k < i; k += 2 {
		if n.Content[k].Value == n.Content[i].Value {
			return atLine(n.Content[i], path, fmt.Errorf("key %q is there twice, first in line %d", n.Content[i].Value, n.Content[k].Line))
		}
	}
	return nil
}

// setScalar sets a text, a number, or true or false. A text may be written as a number.
func setScalar(v reflect.Value, n *yaml.Node) bool {
	var err error
	switch v.Kind() { //nolint:exhaustive // a job has no other fields
	case reflect.String:
		v.SetString(n.Value)
	case reflect.Bool:
		var yes bool
		yes, err = strconv.ParseBool(n.Value)
		v.SetBool(yes)
	case reflect.Int, reflect.Int64:
		var i int64
		i, err = strconv.ParseInt(n.Value, 10, v.Type().Bits())
		v.SetInt(i)
	case reflect.Uint32, reflect.Uint64:
		var u uint64
		u, err = strconv.ParseUint(n.Value, 10, v.Type().Bits())
		v.SetUint(u)
	default:
		return false
	}
	return err == nil
}

// atLine returns an error with its place; nil if there is none.
func atLine(n *yaml.Node, path string, err error) error {
	switch {
	case err == nil:
		return nil
	case path == "":
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return fmt.Errorf("line %d: %s: %w", n.Line, path, err)
}

// jsonFields returns the names of the fields of a struct in JSON; empty for those that are not in it.
func jsonFields(t reflect.Type) []string {
	var names []string
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, strings.TrimPrefix(name, "-"))
	}
	return names
}

// wantedKind names what a type may be in a job file.
func wantedKind(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[api.Range]():
		return "a range, as 1-4, or from and to"
	case t == reflect.TypeFor[api.Lines]():
		return "a list, or items, columns, null and raw"
	case t == reflect.TypeFor[[]byte]():
		return "a text in base64"
	}
	switch t.Kind() { //nolint:exhaustive // a job has no other fields
	case reflect.Struct:
		return "the keys " + strings.Join(slices.DeleteFunc(jsonFields(t), func(f string) bool { return f == "" }), ", ")
	case reflect.Map:
		return "keys and values"
	case reflect.Slice:
		return "a list, each " + wantedKind(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	default:
		return "a text"
	}
}

// kindOf names a value.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode, yaml.AliasNode, yaml.DocumentNode:
	}
	return fmt.Sprintf("%q", n.Value)
}
