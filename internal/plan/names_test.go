package plan_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/partname"
	"github.com/bridgefour/bridgefour/internal/plan"
)

// TestNameParts: names of parts, or why a request is refused.
func TestNameParts(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "in/a.csv", "in/b.csv", "in/sub/a.csv", "in/sub/c", "one/x.csv")
	if err := os.WriteFile(dir+"/long.txt", []byte(strings.Repeat("line\n", 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := func(items ...string) api.JobRequest { return api.JobRequest{Lines: &api.Lines{Items: items}} }
	input := func(name, split string) api.JobRequest {
		return api.JobRequest{Inputs: []string{dir + "/" + name}, Split: split}
	}
	table := api.JobRequest{Lines: &api.Lines{Items: []string{"s1", "x", "s2", "x"}, Columns: []string{"sample", "kind"}}}
	product := api.JobRequest{Each: []api.List{{Name: "a", Ranges: []api.Range{{From: 1, To: 2}}}, {Name: "b", Values: []string{"x", "y"}}}}
	batch := api.JobRequest{Range: &api.Range{From: 1, To: 5}, Batch: 3}
	for _, test := range []struct {
		req           api.JobRequest
		pattern, want string // names, or the error
	}{
		{table, "{sample}.vcf", "s1.vcf s2.vcf"},
		{table, "{2}/{1}.vcf", "x/s1.vcf x/s2.vcf"},
		{table, "{kind}.vcf", `task 0 ("s1\tx") and task 1 ("s2\tx") would have the same name, "x.vcf"`},
		{table, "{name}.vcf", "{name} is not a placeholder of this job; there are {} {.} {/} {//} {/.} {#} {1} {sample} {2} {kind}"},
		{table, "{#}-{%}", "{%} is the slot"},
		{product, "{a}/{b}", "1/x 1/y 2/x 2/y"},
		{product, "{b}", "would have the same name"},
		{batch, "{}", "1 2 3 4 5"},
		{input("one", ""), "{/.}.txt", "x.txt"},
		{input("in", ""), "{/.}.txt", `the parts of task 0 ("` + dir + `/in/a.csv") and task 2 ("` + dir + `/in/sub/a.csv") would have the same name, "a.txt"`},
		{input("in", ""), "{}", "it is an absolute path, which leads out of the output"},
		{input("long.txt", "20"), "{/}", `"` + dir + `/long.txt", bytes 0 to 20`},
		{input("long.txt", "20"), "{/}-{#}", "long.txt-1 long.txt-2 long.txt-3"},
		{lines("a", "A"), "{}", `differ only in case, which some file systems ignore: "a" and "A"`},
		{lines("a", "b", "c/x", "c"), "{}", `the name "c" of a part of task 2 ("c/x") and task 3 ("c") would be a file and a folder`},
		{lines("c", "b", "c/x/y"), "{}", `task 0 ("c") and task 2 ("c/x/y") would be a file and a folder`},
		{lines("./a/1", "./b/1"), "{}.txt", "a/1.txt b/1.txt"},
		{lines("a", "./a"), "{}", "would have the same name"},
		{lines("x", "../y"), "{}", `task 1 ("../y") would have the name "../y": it has .., which leads out`},
		{lines("x", ""), "{}", `task 1 would have the name "": it is empty`},
		{lines("_SUCCESS"), "{}", `begins with "_"`},
		{lines("x"), ".{}", `begins with "."`},
		{lines("x"), "out", "out"},
		{lines("x", "y"), "out", "would have the same name"},
	} {
		req := test.req
		req.Program.Command, req.Output, req.NameParts = []string{"cat"}, dir+"/out", test.pattern
		res, err := plan.Plan(t.Context(), &req, options())
		var got string
		if err == nil {
			names := partname.New(res.NameParts, &res.Input, res.Stages[0].Tasks)
			var list []string
			for task := range res.Stages[0].Tasks {
				name, err := names.Name(task)
				if err != nil {
					t.Error(err)
				}
				list = append(list, name)
			}
			got = strings.Join(list, " ")
			if got != test.want {
				t.Errorf("%q: names = %q, want %q", test.pattern, got, test.want)
			}
		} else if _, ok := errors.AsType[plan.Errors](err); !ok || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: Plan = %v, want %q", test.pattern, err, test.want)
		}
	}
	req := lines("x")
	req.Program.Command, req.NameParts = []string{"cat"}, "{}"
	if _, err := plan.Plan(t.Context(), &req, options()); err == nil || !strings.Contains(err.Error(), "give an output") {
		t.Errorf("Plan without an output = %v", err)
	}
	req.Lines, req.Output, req.Range = nil, dir+"/out", &api.Range{From: 1, To: 10_000_001}
	if _, err := plan.Plan(t.Context(), &req, options()); err == nil || !strings.Contains(err.Error(), "at most 10000000") {
		t.Errorf("Plan of too many names = %v", err)
	}
}

// BenchmarkNames checks the names of ten million parts.
func BenchmarkNames(b *testing.B) {
	req := command("true")
	req.Range, req.Output, req.NameParts = &api.Range{From: 1, To: 10_000_000}, b.TempDir()+"/out", "sample-{}.vcf"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := plan.Plan(b.Context(), req, options()); err != nil {
			b.Fatal(err)
		}
	}
}
