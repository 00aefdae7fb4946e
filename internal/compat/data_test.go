package compat

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestResultJSON(t *testing.T) {
	for text, want := range map[string]string{
		"":                        `{}`,
		"the,3\nand,2\n":          `{"and":2,"the":3}`,
		"a,b,3\n,9\n":             `{"":9,"a,b":3}`,
		"the\t3\na,5\t2\n":        `{"a,5":2,"the":3}`,
		"tab\tword,3":             `{"tab\tword":3}`,
		"caf\xe9,1\ncaf\xe8,2\n":  `{"caf\ufffd":3}`,
		"just text\n":             `"just text\n"`,
		"key\tvalue\n":            `"key\tvalue\n"`,
		"the,3\nand,two\n":        `"the,3\nand,two\n"`,
		"big,9223372036854775808": `"big,9223372036854775808"`,
	} {
		got, err := json.Marshal(resultJSON(text))
		if err != nil {
			t.Fatal(err)
		}
		var g, w any
		if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal([]byte(want), &w)); err != nil || !reflect.DeepEqual(g, w) {
			t.Errorf("resultJSON(%q) = %s, want %s", text, got, want)
		}
	}
}

func FuzzResultJSON(f *testing.F) {
	f.Add("the,3\nand,2\n")
	f.Add("a\tb,3\n\xff\t-1\n")
	f.Fuzz(func(t *testing.T, text string) {
		v := resultJSON(text)
		if _, err := json.Marshal(v); err != nil {
			t.Fatal(err)
		}
		if counts, ok := v.(map[string]int64); ok && len(counts) > strings.Count(text, "\n")+1 {
			t.Fatalf("%d keys from %q", len(counts), text)
		}
	})
}
