package plan_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
)

// TestPlaceholders: which placeholders a command has in the log, and what the user is told of them.
func TestPlaceholders(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/a b", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	files := &api.JobRequest{Inputs: []string{dir}}
	numbers := &api.JobRequest{Range: &api.Range{From: 1, To: 2}}
	lines := &api.JobRequest{Lines: &api.Lines{Items: []string{"word", "two words", "three more words"}}}
	named := &api.JobRequest{Each: []api.List{{Name: "x", Values: []string{"a;b"}}}}
	none := &api.JobRequest{}
	command := func(argv ...string) api.Program { return api.Program{Command: argv} }
	const splice, stdin = "a value is put into the code of a shell", "standard input is empty"
	for _, test := range []struct {
		req     *api.JobRequest
		program api.Program
		want    string // mode and placeholder, shell
		warning string
	}{
		{numbers, command("x", "{}", "a{}b", "{a b}", "${1}"), "0 false", ""}, // as before there were others
		{numbers, command("x", "{1}"), "1 false", ""},
		{numbers, command("x", "{{}}"), "1 false", ""},
		{numbers, command("awk", "{print}"), "0 false", ""},
		{none, command("x", "{foo}"), "0 false", ""},
		{files, command("awk", "{print}"), "0 false", ""},
		{files, command("grep", "-E", "a{3}"), "0 false", ""},
		{files, command("x", "{/.}"), "1 false", ""},
		{files, command("cat", "{}"), "0 false", ""},
		{files, command("cat", "--file={}"), "0 false", ""},
		{files, command("awk", "END {}"), "0 false", stdin},
		{files, command("sh", "-c", "wc {}"), "0 false", splice},
		{files, api.Program{Shell: "wc {}"}, "1 true", ""},
		{lines, command("sh", "-c", "wc {}"), "0 false", splice},
		{lines, command("sh", "-c", "wc $1", "sh", "{}"), "0 false", ""},
		{named, command("timeout", "9", "bash", "-ec", "wc {x}"), "1 false", splice},
		{numbers, command("sh", "-c", "wc {}"), "0 false", ""},
		{lines, api.Program{Shell: "wc {}"}, "1 true", ""},
		{lines, api.Program{Command: []string{"x", "{foo}"}, NoPlaceholders: true}, "2 false", ""},
		{lines, api.Program{Command: []string{"x", "{foo}"}, Placeholder: "@"}, "0@ false", ""},
		{lines, api.Program{Command: []string{"x", "{foo}"}, Placeholder: "{}"}, "0 false", ""},
	} {
		req := *test.req
		req.Program = test.program
		res, err := plan.Plan(t.Context(), &req, options())
		if err != nil {
			t.Errorf("Plan(%+v) = %v", test.program, err)
			continue
		}
		c := res.Command
		if got := fmt.Sprintf("%d%s %v", c.Placeholders, c.Placeholder, c.Shell); got != test.want {
			t.Errorf("Plan(%+v).Command is %s, want %s", test.program, got, test.want)
		}
		if got := strings.Join(res.Warnings, "; "); (got == "") != (test.warning == "") || !strings.Contains(got, test.warning) || strings.Count(got, splice) > 1 {
			t.Errorf("Plan(%+v) warns %q, want %q", test.program, got, test.warning)
		}
	}
}

// TestLists: the items of lists, and how many tasks they are.
func TestLists(t *testing.T) {
	values := api.List{Name: "v", Values: []string{"a", "b"}}
	numbers := api.List{Ranges: []api.Range{{From: 8, To: 10, Width: 2}}}
	linked := numbers
	linked.Linked = true
	for _, test := range []struct {
		req  api.JobRequest
		want string
	}{
		{api.JobRequest{Each: []api.List{values, numbers}}, "a 08|a 09|a 10|b 08|b 09|b 10"},
		{api.JobRequest{Each: []api.List{values, linked}}, "a 08|b 09"},
		{api.JobRequest{Range: &api.Range{From: 1, To: 9, Step: 4}, Each: []api.List{values}, Limit: 3}, "1 a|1 b|5 a"},
		{api.JobRequest{Lines: &api.Lines{Columns: []string{"x", ""}, Items: []string{"1", "2", "3", "4"}}, Batch: 2}, "1 2,3 4"},
		{api.JobRequest{Lines: &api.Lines{Null: true, Columns: []string{"x", ""}, Raw: []byte("1\x00a\nb\x00")}}, "1 a\nb"},
	} {
		test.req.Program.Command = []string{"x"}
		res, err := plan.Plan(t.Context(), &test.req, options())
		if err != nil {
			t.Errorf("Plan(%+v) = %v", test.req, err)
			continue
		}
		var got []string
		for _, s := range splits(t, res.Input) {
			text := string(s.Item)
			for i, v := range s.Values {
				if i > 0 {
					text += [2]string{",", " "}[min(1, i%s.Columns)]
				}
				text += string(v)
			}
			got = append(got, text)
		}
		if got := strings.Join(got, "|"); got != test.want {
			t.Errorf("Plan(%+v) has the items %q, want %q", test.req, got, test.want)
		}
	}
}
