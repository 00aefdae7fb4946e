package cli

import (
	"encoding/csv"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
)

func TestParseRanges(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []api.Range
	}{
		{"1-1000", []api.Range{{From: 1, To: 1000}}},
		{"-5--3", []api.Range{{From: -5, To: -3}}},
		{"-5-3", []api.Range{{From: -5, To: 3}}},
		{"7-7", []api.Range{{From: 7, To: 7}}},
		{"001-100", []api.Range{{From: 1, To: 100, Width: 3}}},
		{"0-9", []api.Range{{From: 0, To: 9}}},
		{"-05-5", []api.Range{{From: -5, To: 5, Width: 3}}},
		{"0-100:10", []api.Range{{From: 0, To: 100, Step: 10}}},
		{"1-3:1,08,10-12", []api.Range{{From: 1, To: 3}, {From: 8, To: 8, Width: 2}, {From: 10, To: 12}}},
		{"", nil},
		{"-", nil},
		{"5", nil},
		{"-5", nil},
		{"5-", nil},
		{"5-1", nil},
		{"1-2-3", nil},
		{"1-2,", nil},
		{"1-5:0", nil},
		{"a-b", nil},
		{"1-9223372036854775808", nil},
	} {
		if got, err := parseRanges(c.in); !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("parseRanges(%q) = %v, %v, want %v", c.in, got, err, c.want)
		}
	}
}

func TestParseEach(t *testing.T) {
	for _, c := range []struct {
		in   string
		want api.List
	}{
		{"x=a,b c,", api.List{Name: "x", Values: []string{"a", "b c", ""}}},
		{"x=1,2", api.List{Name: "x", Values: []string{"1", "2"}}},
		{"x=01-3,7", api.List{Name: "x", Ranges: []api.Range{{From: 1, To: 3, Width: 2}, {From: 7, To: 7}}}},
		{"day=2024-01-31", api.List{Name: "day", Values: []string{"2024-01-31"}}},
		{"month=2024-01,2024-02", api.List{Name: "month", Values: []string{"2024-01", "2024-02"}}},
		{"x=a=b", api.List{Name: "x", Values: []string{"a=b"}}},
		{"x", api.List{}},
		{"=a", api.List{}},
		{"x=", api.List{}},
		{"{x}=a", api.List{}},
		{"7=a", api.List{}},
		{"x=\xff", api.List{}},
	} {
		if got, err := parseEach(c.in); !reflect.DeepEqual(got, c.want) || (err == nil) != (c.want.Name != "") {
			t.Errorf("parseEach(%q) = %+v, %v, want %+v", c.in, got, err, c.want)
		}
	}
}

func TestCutSources(t *testing.T) {
	rest, lists := cutSources([]string{"echo", "::", ":::", "a", "::::", "f"})
	if !slices.Equal(rest, []string{"echo", "::"}) || !slices.Equal(lists, []string{":::", "a", "::::", "f"}) {
		t.Errorf("cutSources() = %q, %q", rest, lists)
	}
}

func TestTableReader(t *testing.T) {
	for text, want := range map[string]string{
		"a,b\n1,\"x,\"\"y\"\"\nz\"\n\n2,\n": "a\x00b\x001\x00x,\"y\"\nz\x002\x00\x00",
		"a\nb\n":                            "a\x00b\x00",
		"a,b\n1\n":                          "line 2 has 1 value, and the first row has 2",
		"a\n\"b\x00\"":                      "line 2 has a zero byte",
		"a\n\"b":                            "extraneous or missing",
	} {
		got, err := io.ReadAll(&tableReader{csv: csv.NewReader(strings.NewReader(text))})
		if err != nil {
			got = []byte(err.Error())
		}
		if !strings.Contains(string(got), want) {
			t.Errorf("the values of %q are %q, want %q", text, got, want)
		}
	}
}
