package cli

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

// TestDecodeJobFile compares what files say with the JSON of the request that they stand for.
func TestDecodeJobFile(t *testing.T) {
	for text, want := range map[string]string{
		"program: {command: [echo, 1, true]}\nrange: 1-4": `{"program":{"command":["echo","1","true"]},"range":{"from":1,"to":4}}`,
		"range: 001-100:10":                                       `{"program":{},"range":{"from":1,"to":100,"step":10,"width":3}}`,
		"range: {from: 1, to: 4}":                                 `{"program":{},"range":{"from":1,"to":4}}`,
		"lines: [a, 7, 'b c']":                                    `{"program":{},"lines":{"items":["a","7","b c"]}}`,
		"lines: {columns: [x, y], items: [a, b]}":                 `{"program":{},"lines":{"items":["a","b"],"columns":["x","y"]}}`,
		"lines: {raw: YQpiCg==}":                                  `{"program":{},"lines":{"raw":"YQpiCg=="}}`,
		"each: [{name: n, values: [1, x]}]":                       `{"program":{},"each":[{"name":"n","values":["1","x"]}]}`,
		"set: {min: 3, on: true}\nretries: 0\nheader:\n":          `{"program":{},"set":{"min":"3","on":"true"},"retries":0}`,
		"after: [12, '13:any']\noverwrite: true":                  `{"program":{},"overwrite":true,"after":["12","13:any"]}`,
		"x: &x {a: 1}\n":                                          "line 1: unknown key \"x\"; it may be name, ",
		"set: &s {a: 1}\nenv: *s\n":                               `{"program":{},"set":{"a":"1"},"env":{"a":"1"}}`,
		"program: {<<: {shell: a}, no_placeholders: true}":        `{"program":{"shell":"a","no_placeholders":true}}`,
		"jobs: [{name: a, range: 1-2}, {name: b, after: [a, 7]}]": `{"jobs":[{"name":"a","program":{},"range":{"from":1,"to":2}},{"name":"b","program":{},"after":["a","7"]}]}`,
		"jobs:\n- name: a\n  retires: 3":                          `line 3: jobs[0]: unknown key "retires"; did you mean retries?; it may be name, `,
		"name: a\njobs: []":                                       `line 1: unknown key "name"; it may be jobs`,
		"jobs: {a: {}}":                                           "line 1: jobs: want a list, each the keys name, user, ",
		"":                                                        "it is empty",
		"[a]":                                                     "line 1: want the keys name, user, program, ",
		"name: a\n---\nname: b":                                   "it holds more than one document",
		"name: [":                                                 "it is neither YAML nor JSON",
		"name: a\ninptus: [b]":                                    `line 2: unknown key "inptus"; did you mean inputs?; it may be name, `,
		"program:\n  comand: [b]":                                 `line 2: program: unknown key "comand"; did you mean command?; it may be builtin, command, shell, `,
		"name: a\n\nretries: many":                                `line 3: retries: want a whole number, found "many"`,
		"limit: -1":                                               `line 1: limit: want a whole number that is not negative, found "-1"`,
		"inputs: data":                                            `line 1: inputs: want a list, each a text, found "data"`,
		"inputs:\n- a\n- [b]":                                     "line 3: inputs[1]: want a text, found a list",
		"overwrite: perhaps":                                      `line 1: overwrite: want true or false, found "perhaps"`,
		"set: 3":                                                  `line 1: set: want keys and values, found "3"`,
		"range: 4-1":                                              `line 1: range: "4-1" is empty: its first number exceeds its last`,
		"range: some":                                             `line 1: range: "some" is not a range: want FROM-TO`,
		"range: '1-4,7'":                                          `line 1: range: "1-4,7" is several ranges: write them as each: `,
		"range: [1, 4]":                                           "line 1: range: want a range, as 1-4, or from and to, found a list",
		"lines: a":                                                `line 1: lines: want a list, or items, columns, null and raw, found "a"`,
		"lines:\n- {a: b}":                                        "line 2: lines: item 0: want a text, found keys and values",
		"name: a\nname: b":                                        `line 2: key "name" is there twice, first in line 1`,
		"lines: {raw: '?'}":                                       "line 1: lines.raw: illegal base64",
		"class: x":                                                `line 1: unknown key "class"`,
		"a: &a [x]\nb: [*a, *a, *a, *a]":                          `line 1: unknown key "a"`,
	} {
		_, jobs, flow, err := decodeJobFile([]byte(text))
		if err != nil {
			if strings.HasPrefix(want, "{") || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %s", text, err, want)
			}
			continue
		}
		var r any = jobs[0]
		if flow {
			r = api.FlowRequest{Jobs: jobs}
		}
		if got, err := json.Marshal(r); err != nil || string(got) != want {
			t.Errorf("%q = %s, %v, want %s", text, got, err, want)
		}
	}
}

// TestJobFileFields sets every field of a request by its JSON, so that no type is unknown to the decoder.
func TestJobFileFields(t *testing.T) {
	var want api.JobRequest
	fillRequest(reflect.ValueOf(&want).Elem())
	text, err := json.Marshal(&want)
	if err != nil {
		t.Fatal(err)
	}
	_, got, _, err := decodeJobFile(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("%s is read as %+v, want %+v", text, got[0], want)
	}
}

// TestFieldFlags: each key of a job file has the flag that overrides it.
func TestFieldFlags(t *testing.T) {
	flags := jobFlagNames()
	for _, key := range jsonFields(reflect.TypeFor[api.JobRequest]()) {
		if flag := fieldFlag(key); key != "" && !wholeKey(key) && !slices.Contains(flags, flag) {
			t.Errorf("key %s is not overridden: there is no flag --%s", key, flag)
		}
	}
}

// TestJobFileAt finds the lines of fields that a cluster refuses.
func TestJobFileAt(t *testing.T) {
	doc, _, _, err := decodeJobFile([]byte(`name: a
program:
  command:
  - echo
  - x
retries: 999
each:
- name: n
  values: [1,
    2]
env: &e
  a: 1
set: *e
`))
	if err != nil {
		t.Fatal(err)
	}
	f := &jobFile{name: "f", doc: doc}
	for path, line := range map[string]int{
		"name": 1, "retries": 6, "program.command[1]": 5, "program.command[7]": 4, "program.builtin": 3, "each[0].values": 9, "each[0].values[1]": 10, "set.a": 12,
		"lines": 0, "lines.items[1]": 0,
	} {
		want := fmt.Sprintf("job file f: line %d: %s", line, path)
		if line == 0 {
			want = "job file f: " + path
		}
		if got := f.at(path); got != want {
			t.Errorf("at(%s) = %s, want %s", path, got, want)
		}
	}
	f.drop("program")
	if got, want := f.at("program.command"), "job file f: program.command"; got != want {
		t.Errorf("at a key that the command line replaces = %s, want %s", got, want)
	}
}

// fillRequest sets every field that is in JSON.
func fillRequest(v reflect.Value) {
	switch v.Kind() { //nolint:exhaustive // a job has no other fields
	case reflect.Struct:
		for i, name := range jsonFields(v.Type()) {
			if name != "" {
				fillRequest(v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillRequest(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fillRequest(v.Index(0))
		fillRequest(v.Index(1))
	case reflect.Map:
		item := reflect.New(v.Type().Elem()).Elem()
		fillRequest(item)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("a: 1"), item)
	case reflect.String:
		v.SetString("some 'text'\n# and more")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(200)
	default:
		v.SetInt(-7)
	}
}
