package plan_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bridgefour/bridgefour/api"
	"github.com/bridgefour/bridgefour/internal/plan"
	"github.com/bridgefour/bridgefour/internal/stage"
	"github.com/bridgefour/bridgefour/internal/state"
)

func options() plan.Options {
	return plan.Options{Builtins: []plan.Builtin{
		{Name: "wordcount", NeedsInput: true, Collects: true},
		{Name: "grep", NeedsInput: true},
		{Name: "AlwaysOk"},
		{Name: "strict", Check: func(set map[string]string) (errs []string) {
			for key := range set {
				errs = append(errs, "strict has no setting "+key)
			}
			return errs
		}},
	}}
}

// write creates files below dir; names that end in "/" are folders.
func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		full := dir + "/" + name
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(full, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(full), 0o755); err == nil {
			err = os.WriteFile(full, []byte(name), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// wordcount returns a request with inputs in dir.
func wordcount(dir string, inputs ...string) *api.JobRequest {
	req := &api.JobRequest{Program: api.Program{Builtin: "wordcount"}}
	for _, in := range inputs {
		req.Inputs = append(req.Inputs, dir+"/"+in)
	}
	return req
}

func command(argv ...string) *api.JobRequest {
	return &api.JobRequest{Program: api.Program{Command: argv}}
}

// splits returns all splits of an input.
func splits(t *testing.T, in state.Input) []state.Split {
	t.Helper()
	r := state.NewInputReader(&in)
	list := make([]state.Split, in.Tasks)
	for i := range list {
		s, err := r.Split(uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		list[i] = s
	}
	return list
}

// planned returns the tasks' input, without dir.
func planned(t *testing.T, dir string, req *api.JobRequest) []string {
	t.Helper()
	res, err := plan.Plan(t.Context(), req, options())
	if err != nil {
		t.Fatalf("Plan(%q) = %v", req.Inputs, err)
	}
	var names []string
	for _, s := range splits(t, res.Input) {
		names = append(names, strings.TrimPrefix(string(s.Path)+string(s.Item), dir+"/"))
	}
	return names
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b", "a/x", "a.b", "a/sub/y", "a/.hidden", "a/.git/z", "a/_SUCCESS", "a/_temporary/u/map-0-1", "A",
		"c d\n", "\xff\x80", "logs/2024-01/1.gz", "logs/2024-02/2.gz", "logs/2024-02/deep/3.gz", "logs/readme", "a[1]", "a1", "empty/", "*", "set{1,2}")
	if err := syscall.Mkfifo(dir+"/a/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "b", "a/link": "../b", "a/self": ".", "a/gone": "nowhere", "folder": "a"} {
		if err := os.Symlink(target, dir+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ inputs, want []string }{
		{[]string{"b"}, []string{"b"}},
		{[]string{"b", "A"}, []string{"b", "A"}},
		{[]string{"a"}, []string{"a/gone", "a/link", "a/sub/y", "a/x"}},
		{[]string{"a/"}, []string{"a/gone", "a/link", "a/sub/y", "a/x"}},
		{[]string{"a/sub/../x"}, []string{"a/x"}},
		{[]string{"folder"}, []string{"folder/gone", "folder/link", "folder/sub/y", "folder/x"}},
		{[]string{"link"}, []string{"link"}},
		{[]string{"a/.hidden", "a/_SUCCESS", "a/.git"}, []string{"a/.hidden", "a/_SUCCESS", "a/.git/z"}},
		{[]string{"a/x", "a", "a/sub"}, []string{"a/x", "a/gone", "a/link", "a/sub/y"}},
		{[]string{"c d\n", "\xff\x80"}, []string{"c d\n", "\xff\x80"}},
		{[]string{"logs/*/*.gz"}, []string{"logs/2024-01/1.gz", "logs/2024-02/2.gz"}},
		{[]string{"logs/**"}, []string{"logs/2024-01/1.gz", "logs/2024-02/2.gz", "logs/2024-02/deep/3.gz", "logs/readme"}},
		{[]string{"logs/**/*.gz"}, []string{"logs/2024-01/1.gz", "logs/2024-02/2.gz", "logs/2024-02/deep/3.gz"}},
		{[]string{"logs/**/**/[0-9].gz"}, []string{"logs/2024-01/1.gz", "logs/2024-02/2.gz", "logs/2024-02/deep/3.gz"}},
		{[]string{"logs/**/deep/*"}, []string{"logs/2024-02/deep/3.gz"}},
		{[]string{"l*/2024-0[2-9]/**"}, []string{"logs/2024-02/2.gz", "logs/2024-02/deep/3.gz"}},
		{[]string{"logs/{2024-01,readme}/*.gz"}, []string{"logs/2024-01/1.gz"}},
		{[]string{"logs/**/{1,3,x{4,5}}.{gz,bz2}"}, []string{"logs/2024-01/1.gz", "logs/2024-02/deep/3.gz"}},
		{[]string{"{b,A,.hid*}"}, []string{"A", "b"}},
		{[]string{"a/{_SUCCESS,x}"}, []string{"a/x"}},
		{[]string{"set{1,2}"}, []string{"set{1,2}"}},
		{[]string{`s*\{1,2\}`}, []string{"set{1,2}"}},
		{[]string{"[!a-z]"}, []string{"*", "A"}},
		{[]string{"a[1]"}, []string{"a[1]"}},
		{[]string{"*"}, []string{"*"}},
		{[]string{"a[12]"}, []string{"a1"}},
		{[]string{`a\[1]`}, []string{"a[1]"}},
		{[]string{"a/.*"}, []string{"a/.hidden"}},
		{[]string{"a/_*"}, []string{"a/_SUCCESS"}},
		{[]string{"?"}, []string{"*", "A", "b"}},
		{[]string{"\xff?"}, []string{"\xff\x80"}},
	} {
		if got := planned(t, dir, wordcount(dir, test.inputs...)); !slices.Equal(got, test.want) {
			t.Errorf("%q is planned as %q, want %q", test.inputs, got, test.want)
		}
	}
	req := &api.JobRequest{Program: api.Program{Builtin: "grep"}, Inputs: []string{"file://" + dir + "/b"}}
	if got := planned(t, dir, req); !slices.Equal(got, []string{"b"}) {
		t.Errorf("file:// is planned as %q", got)
	}
}

func TestSplits(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("123456789\n", 10)
	for name, data := range map[string]string{"a": text, "b.gz": text, "c": "\x1f\x8b\x08" + text[3:], "d": text[:99] + "\x00", "e": text[:50], "f": ""} {
		if err := os.WriteFile(dir+"/"+name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", dir+"/gone"); err != nil {
		t.Fatal(err)
	}
	opt := options()
	show := func(req *api.JobRequest) string {
		req.Inputs = []string{dir}
		res, err := plan.Plan(t.Context(), req, opt)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, s := range splits(t, res.Input) {
			fmt.Fprintf(&b, "%s:%d+%d", filepath.Base(string(s.Path)), s.Offset, s.Length)
			if s.Whole {
				b.WriteString("w")
			}
			b.WriteString(" ")
		}
		return b.String()
	}
	grep := api.Program{Builtin: "grep"}
	const whole = "a:0+100w b.gz:0+100w c:0+100w d:0+100w e:0+50w f:0+0w gone:0+0w "
	opt.DefaultSplit = 64
	for _, test := range []struct {
		req  *api.JobRequest
		want string
	}{
		{command("cat"), "a:0+64 a:64+36 b.gz:0+64 b.gz:64+36 c:0+100w d:0+100w e:0+50 f:0+0 gone:0+0w "},
		{&api.JobRequest{Split: "1k", Program: grep}, "a:0+100 b.gz:0+100 c:0+100 d:0+100 e:0+50 f:0+0 gone:0+0w "},
		{&api.JobRequest{Split: "none", Program: grep}, whole},
		{command("wc", "--file={}"), whole},
		{&api.JobRequest{Split: "10", Program: api.Program{Command: []string{"wc", "{}"}}}, whole},
		{
			&api.JobRequest{Split: "64", Records: "fixed:25", Program: grep},
			"a:0+50 a:50+50 b.gz:0+50 b.gz:50+50 c:0+50 c:50+50 d:0+50 d:50+50 e:0+50 f:0+0 gone:0+0w ",
		},
	} {
		if got := show(test.req); got != test.want {
			t.Errorf("split %q, %v: %s, want %s", test.req.Split, test.req.Program, got, test.want)
		}
	}
}

// TestCSVSplits cuts between rows, one of which has a line end in a field and is longer than a split.
func TestCSVSplits(t *testing.T) {
	dir := t.TempDir()
	text := "name,text\n1,\"one\n\nrow, longer than a split\"\n2,b\n3,c\n"
	if err := os.WriteFile(dir+"/x.csv", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	req := wordcount(dir, "x.csv")
	req.Records, req.Split = "csv", "11"
	res, err := plan.Plan(t.Context(), req, options())
	if err != nil || res.Header != 1 || res.Records != "csv" {
		t.Fatalf("Plan = %+v, %v", res, err)
	}
	var got []string
	for _, s := range splits(t, res.Input) {
		got = append(got, text[s.Offset:s.Offset+s.Length])
	}
	want := []string{"name,text\n1,\"one\n\nrow, longer than a split\"\n", "", "", "", "2,b\n3,c\n"}
	if !slices.Equal(got, want) {
		t.Errorf("splits = %q, want %q", got, want)
	}
}

// TestFilesThatAreNotText are one split each. A warning says so, and an explicit --split is refused.
func TestFilesThatAreNotText(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"zero.bin": "text\x00", "x.parquet": "PAR1", "misnamed.txt": "\x1f\x8b\x08", "wide.txt": "\xff\xfet\x00"} {
		if err := os.WriteFile(dir+"/"+name, []byte(data+strings.Repeat("data\n", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opt := options()
	opt.DefaultSplit = 100
	req := wordcount(dir, "zero.bin", "x.parquet", "misnamed.txt", "wide.txt")
	res, err := plan.Plan(t.Context(), req, opt)
	if err != nil || res.Input.Tasks != 4 {
		t.Fatalf("Plan = %d tasks, %v, want 4", res.Input.Tasks, err)
	}
	want := []string{
		`input "` + dir + `/misnamed.txt" is compressed (gzip): one task`,
		`input "` + dir + `/wide.txt" is not UTF-8 (UTF-16 text): one task; convert it to split it, as with iconv -f UTF-16 -t UTF-8`,
		`2 inputs larger than a split are not text, such as "` + dir + `/zero.bin" (binary): one task each (--records fixed:N to split them)`,
	}
	if !slices.Equal(res.Warnings, want) {
		t.Errorf("warnings = %q, want %q", res.Warnings, want)
	}
	req.Split = "100"
	_, err = plan.Plan(t.Context(), req, opt)
	list, _ := errors.AsType[plan.Errors](err)
	if len(list) != 4 || !strings.Contains(list[0].Message, `zero.bin" is binary and larger than 100, and only text is cut: leave out --split, for one task, or add --records fixed:N`) {
		t.Errorf("Plan with a split = %v, want an error for each", err)
	}
}

// TestPartitions: as many as requested, else one for each default split of the input.
func TestPartitions(t *testing.T) {
	if stage.PartitionsMax != state.PartitionsMax {
		t.Errorf("jobs may have %d partitions, and stages %d", stage.PartitionsMax, state.PartitionsMax)
	}
	dir := t.TempDir()
	write(t, dir, "small", "large")
	if err := os.Truncate(dir+"/large", 1000); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		input      string
		partitions int
		want       uint64
	}{{"small", 0, 1}, {"large", 0, 100}, {"large", 7, 7}, {"", 0, 1}} {
		req := command("cat")
		req.Program.Reduce, req.Partitions = "cat", test.partitions
		if test.input != "" {
			req.Inputs = []string{dir + "/" + test.input}
		}
		opt := options()
		opt.DefaultSplit = 10
		res, err := plan.Plan(t.Context(), req, opt)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Stages[1]; got.Role != state.RoleReduce || got.Tasks != test.want {
			t.Errorf("%+v: stage %+v, want %d tasks", test, got, test.want)
		}
	}
}

// lined is a job that wants a file named in.
type lined struct {
	stage.Program

	has bool
}

func (*lined) Stages() []stage.Stage {
	return []stage.Stage{{Name: "read"}, {Name: "count"}, {Name: "sort", Partition: stage.ByRange, Partitions: 2}}
}

func (p *lined) CheckInput(file string) { p.has = p.has || filepath.Base(file) == "in" }

func (p *lined) MissingInput() error {
	if !p.has {
		return errors.New("in is missing")
	}
	return nil
}

// whole is a program whose partitions are fixed.
type whole struct{ lined }

func (whole) Stages() []stage.Stage {
	return []stage.Stage{{Name: "read"}, {Name: "sum", Partitions: 1}}
}

// TestLine: the stages of a built-in job follow from its settings, and their tasks from the input or the request unless the job says how many.
func TestLine(t *testing.T) {
	opt := options()
	opt.DefaultSplit = 10
	opt.Builtins = append(opt.Builtins, plan.Builtin{Name: "line", NeedsInput: true, Collects: true, Plan: func(set map[string]string) (stage.Program, error) {
		if set["x"] == "bad" {
			return nil, errors.New("x is bad")
		}
		return &lined{}, nil
	}})
	dir := t.TempDir()
	write(t, dir, "in")
	if err := os.Truncate(dir+"/in", 30); err != nil {
		t.Fatal(err)
	}
	for partitions, tasks := range map[int]uint64{0: 3, 7: 7} {
		req := &api.JobRequest{Program: api.Program{Builtin: "line"}, Inputs: []string{dir + "/in"}, Partitions: partitions}
		res, err := plan.Plan(t.Context(), req, opt)
		want := state.LinePlan([]state.StageSpec{{Name: "read", Tasks: 1}, {Name: "count", Tasks: tasks, Fitted: partitions == 0}, {Name: "sort", Tasks: 2, Ranges: true}}, state.RoleCollect)
		if err != nil || !reflect.DeepEqual(res.Stages, want) {
			t.Errorf("%d partitions: stages %+v, %v; want %+v", partitions, res.Stages, err, want)
		}
	}
	_, err := plan.Plan(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "line"}, Set: map[string]string{"x": "bad"}, Inputs: []string{dir + "/in"}}, opt)
	if err == nil || !strings.Contains(err.Error(), "set: x is bad") {
		t.Errorf("Plan = %v, want the error of the settings", err)
	}
	opt.Builtins = append(opt.Builtins, plan.Builtin{Name: "whole", Plan: func(map[string]string) (stage.Program, error) { return whole{}, nil }})
	_, err = plan.Plan(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "whole"}, Partitions: 3}, opt)
	if err == nil || !strings.Contains(err.Error(), "partitions: partitions are those of a stage that reduces; the number of those of whole is fixed") {
		t.Errorf("Plan = %v, want that the partitions are those of the job", err)
	}
	write(t, dir, "out")
	_, err = plan.Plan(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "line"}, Inputs: []string{dir + "/out"}}, opt)
	if err == nil || !strings.Contains(err.Error(), "inputs: in is missing") {
		t.Errorf("Plan = %v, want the error of the input", err)
	}
}

func TestOtherInputs(t *testing.T) {
	for _, test := range []struct {
		req  *api.JobRequest
		want []string
	}{
		{command("true"), []string{""}},
		{&api.JobRequest{Program: api.Program{Builtin: "AlwaysOk"}}, []string{""}},
		{&api.JobRequest{Program: api.Program{Builtin: "AlwaysOk"}, Range: &api.Range{From: -1, To: 2}}, []string{"-1", "0", "1", "2"}},
		{
			&api.JobRequest{Program: api.Program{Command: []string{"x"}}, Range: &api.Range{From: math.MaxInt64, To: math.MaxInt64}},
			[]string{"9223372036854775807"},
		},
		{
			&api.JobRequest{Program: api.Program{Command: []string{"x"}}, Lines: &api.Lines{Items: []string{"a", "", "b\nc"}}},
			[]string{"a", "", "b\nc"},
		},
		{
			&api.JobRequest{Program: api.Program{Command: []string{"x"}}, Lines: &api.Lines{Raw: []byte("a\n\n\xff b\r\nlast")}},
			[]string{"a", "", "\xff b\r", "last"},
		},
		{
			&api.JobRequest{Program: api.Program{Command: []string{"x"}}, Lines: &api.Lines{Raw: []byte("\xef\xbb\xbfa\n")}},
			[]string{"a"},
		},
	} {
		if got := planned(t, "", test.req); !slices.Equal(got, test.want) {
			t.Errorf("planned %q, want %q", got, test.want)
		}
	}
}

func TestResult(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "in")
	two, ten := 2, 10
	req := wordcount(dir, "in")
	res, err := plan.Plan(t.Context(), req, options())
	res.Input = state.Input{}
	reads := state.LockName{Name: dir + "/in", Shared: true}
	want := plan.Result{Collects: true, Stages: state.DefaultPlan(1, true, false), Retries: 3, Priority: 50, SlotsPerTask: 1, Data: []state.LockName{reads}}
	if err != nil || fmt.Sprintf("%+v", res) != fmt.Sprintf("%+v", want) {
		t.Errorf("Plan = %+v, %v, want %+v", res, err, want)
	}
	req.Program.Builtin = "grep"
	req.Retries, req.Priority, req.SlotsPerTask, req.Timeout, req.Grace, req.Memory = &two, &ten, 4, "90s", "0s", "1.5GiB"
	req.Output = dir + "/x/../new/out/"
	res, err = plan.Plan(t.Context(), req, options())
	res.Input = state.Input{}
	want = plan.Result{
		Stages: state.DefaultPlan(1, false, true), Retries: 2, Priority: 10, SlotsPerTask: 4, Timeout: 90 * time.Second, Grace: time.Millisecond, Memory: 3 << 29,
		Output: dir + "/new/out", Data: []state.LockName{reads, {Name: dir + "/new/out"}},
	}
	if err != nil || fmt.Sprintf("%+v", res) != fmt.Sprintf("%+v", want) {
		t.Errorf("Plan = %+v, %v, want %+v", res, err, want)
	}
	if _, err := os.Stat(dir + "/new"); err == nil {
		t.Error("Plan made the output folder")
	}
}

// wrong is an invalid request and the expected error.
type wrong struct {
	name    string
	spoil   func(r *api.JobRequest)
	field   string
	message string
}

func inputs(names ...string) func(*api.JobRequest) {
	return func(r *api.JobRequest) { r.Inputs = names }
}

func output(name string) func(*api.JobRequest) {
	return func(r *api.JobRequest) { r.Output = name }
}

func withLines(l *api.Lines) func(*api.JobRequest) {
	return func(r *api.JobRequest) { r.Inputs, r.Lines = nil, l }
}

func withEach(lists ...api.List) func(*api.JobRequest) {
	return func(r *api.JobRequest) { r.Each = lists }
}

func withList(lists ...api.List) func(*api.JobRequest) {
	return func(r *api.JobRequest) { r.Inputs, r.Each = nil, lists }
}

func withRange(from, to int64) func(*api.JobRequest) {
	return func(r *api.JobRequest) { r.Inputs, r.Range = nil, &api.Range{From: from, To: to} }
}

func wrongs(dir string) []wrong {
	reducing := api.Program{Command: []string{"cat"}, Reduce: "cat"}
	number := func(n int) *int { return &n }
	return []wrong{
		{"long name", func(r *api.JobRequest) { r.Name = strings.Repeat("x", 201) }, "name", "a name of 201 bytes is too long"},
		{"long user", func(r *api.JobRequest) { r.User = strings.Repeat("x", 101) }, "user", "a user of 101 bytes is too long"},
		{"no program", func(r *api.JobRequest) { r.Program = api.Program{} }, "program", "no program given"},
		{"two programs", func(r *api.JobRequest) { r.Program.Command = []string{"x"} }, "program", "not both"},
		{"empty argv", func(r *api.JobRequest) { r.Program = api.Program{Command: []string{}} }, "program.command", "is empty"},
		{"empty argv[0]", func(r *api.JobRequest) { r.Program = api.Program{Command: []string{""}} }, "program.command", "is empty"},
		{"NUL", func(r *api.JobRequest) { r.Program = api.Program{Command: []string{"a", "b\x00"}} }, "program.command[1]", "NUL"},
		{"misspelt builtin", func(r *api.JobRequest) { r.Program.Builtin = "WordCuont" }, "program.builtin", `did you mean "wordcount"? known: `},
		{"unknown builtin", func(r *api.JobRequest) { r.Program.Builtin = "terasort" }, "program.builtin", "known: wordcount, grep, AlwaysOk"},
		{"long builtin", func(r *api.JobRequest) { r.Program.Builtin = strings.Repeat("x", 1<<20) }, "program.builtin", "known: wordcount"},
		{"relative dir", func(r *api.JobRequest) { r.Dir = "x" }, "dir", `"x" is not an absolute path`},
		{"key with =", func(r *api.JobRequest) { r.Set = map[string]string{"a=b": ""} }, "set", `"a=b"`},
		{"settings of a built-in job", func(r *api.JobRequest) { r.Program.Builtin, r.Set = "strict", map[string]string{"a": "b"} }, "set", "strict has no setting a"},
		{"empty key", func(r *api.JobRequest) { r.Set = map[string]string{"": "x"} }, "set", `""`},
		{"NUL in value", func(r *api.JobRequest) { r.Set = map[string]string{"a": "\x00"} }, "set", `"a" contains a NUL`},
		{"empty label", func(r *api.JobRequest) { r.Labels = map[string]string{"": "x"} }, "labels", "label without a name"},
		{"retries", func(r *api.JobRequest) { r.Retries = number(-1) }, "retries", "-1 is out of range: want 0 to 100"},
		{"priority", func(r *api.JobRequest) { r.Priority = number(101) }, "priority", "101 is out of range"},
		{"slots", func(r *api.JobRequest) { r.SlotsPerTask = 1 << 40 }, "slots_per_task", "want 1 to 1024"},
		{"combine alone", func(r *api.JobRequest) { r.Program = api.Program{Command: []string{"true"}, Combine: "uniq"} }, "program.combine", "give its command line (--reduce)"},
		{"empty combine", func(r *api.JobRequest) { r.Program = reducing; r.Program.Combine = " " }, "program.combine", "the command line is empty"},
		{"partitions alone", func(r *api.JobRequest) { r.Partitions = 3 }, "partitions", "partitions are those of a stage that reduces; wordcount has none"},
		{"too many partitions", func(r *api.JobRequest) { r.Program, r.Partitions = reducing, 65537 }, "partitions", "65537 partitions; want 1 to 65536"},
		{"empty reduce", func(r *api.JobRequest) { r.Program = api.Program{Command: []string{"cat"}, Reduce: " "} }, "program.reduce", "the command line is empty"},
		{"reduce of a built-in job", func(r *api.JobRequest) {
			r.Program = api.Program{Builtin: "wordcount", Reduce: "cat"}
		}, "program.reduce", "built-in jobs have stages of their own"},
		{"reduce of one success", func(r *api.JobRequest) { r.Program, r.FirstSuccess = reducing, true }, "first_success", "needs the outputs of all its tasks"},
		{"names of partitions", func(r *api.JobRequest) {
			r.Program, r.NameParts, r.Output = reducing, "{/}.txt", dir+"/out"
		}, "name_parts", "have no input to be named by"},
		{"timeout", func(r *api.JobRequest) { r.Timeout = "90" }, "timeout", `invalid duration "90": want 90s`},
		{"grace", func(r *api.JobRequest) { r.Grace = "-5s" }, "grace", "at least 0s"},
		{"short timeout", func(r *api.JobRequest) { r.Timeout = "-5s" }, "timeout", "at least 1ms"},
		{"memory", func(r *api.JobRequest) { r.Memory = "much" }, "memory", `invalid size "much": want 65536`},
		{"little memory", func(r *api.JobRequest) { r.Memory = "16383KiB" }, "memory", `"16383KiB" is too little for an attempt of a job in the worker's process, for its sort buffers and merges: want at least 16MiB, or none`},
		{"little memory of a command", func(r *api.JobRequest) {
			r.Program, r.Memory = api.Program{Command: []string{"cat"}}, "1KiB"
		}, "memory", `"1KiB" is too little for an attempt of a command: want at least 1MiB, or none`},
		{"retry delay", func(r *api.JobRequest) { r.RetryDelay = "169h" }, "retry_delay", "169h0m0s is too long: at most 168h0m0s"},
		{"delay", func(r *api.JobRequest) { r.Delay = "1us" }, "delay", "too short: at least 1ms"},
		{"max running", func(r *api.JobRequest) { r.MaxRunning = -1 }, "max_running", "-1 is out of range: want 1 to 1048576"},
		{"resource", func(r *api.JobRequest) { r.Resources = map[string]int{"GPU": 1} }, "resources", `invalid name of a resource "GPU"`},
		{"memory as a resource", func(r *api.JobRequest) { r.Resources = map[string]int{"memory": 1} }, "resources", "use --memory"},
		{"number of a resource", func(r *api.JobRequest) { r.Resources = map[string]int{"gpu": -1} }, "resources", "-1 of gpu is out of range"},
		{"max fails", func(r *api.JobRequest) { r.MaxFails = "-1" }, "max_fails", `"-1": want a number of tasks, such as 10`},
		{"percent", func(r *api.JobRequest) { r.MaxFails = "101%" }, "max_fails", "a percentage of them, such as 5%"},
		{"split", func(r *api.JobRequest) { r.Split = "0" }, "split", `size "0" is less than a byte: want 65536, 512KiB, 64MiB or 1.5GiB, or none`},

		{"records", func(r *api.JobRequest) { r.Records = "tsv" }, "records", "known: lines, fixed:N, start:REGEXP, fasta, fastq, csv or jsonl"},
		{"pattern", func(r *api.JobRequest) { r.Records = "start:(" }, "records", "missing closing )"},
		{"header", func(r *api.JobRequest) { r.Header = number(-1) }, "header", "-1 is out of range: want 0 to 10000"},
		{"header of FASTA", func(r *api.JobRequest) { r.Records, r.Header = "fasta", number(1) }, "header", "files of fasta records have no header"},
		{"records of a range", func(r *api.JobRequest) { r.Inputs, r.Range, r.Records = nil, &api.Range{}, "csv" }, "records", "those of files"},
		{"size of records", func(r *api.JobRequest) { r.Inputs, r.Records = []string{dir + "/wide"}, "fixed:10" }, "inputs[0]", `wide" has 11 bytes, which is not a multiple of the 10 of a record (--records fixed:10)`},
		{"quotes", func(r *api.JobRequest) { r.Inputs, r.Records, r.Split = []string{dir + "/wide"}, "csv", "3" }, "inputs[0]", `wide" cannot be cut: the quote at byte 2 neither begins nor ends a field`},
		{"UTF-16", withLines(&api.Lines{Raw: []byte("\xff\xfea\x00")}), "lines", "UTF-16 text"},

		{"no input", inputs(), "inputs", "wordcount needs an input"},
		{"two inputs", func(r *api.JobRequest) { r.Range = &api.Range{} }, "inputs", "give one of inputs, lines and range, not 2"},
		{"empty input", inputs(""), "inputs[0]", "empty input"},
		{"relative input", inputs(dir+"/in", "in"), "inputs[1]", `input "in" is not an absolute path`},
		{"scheme", inputs("s3://bucket/x"), "inputs[0]", "s3:// is not supported"},
		{"missing input", inputs(dir + "/none"), "inputs[0]", `input "` + dir + `/none" does not exist`},
		{"input below a file", inputs(dir + "/in/x"), "inputs[0]", "not a directory"},
		{"pipe", inputs(dir + "/pipe"), "inputs[0]", "is a named pipe"},
		{"device", inputs("/dev/null"), "inputs[0]", "is a device"},
		{"empty folder", inputs(dir + "/hollow"), "inputs[0]", "is a folder without files"},
		{"glob", inputs(dir + "/sub/*.gz"), "inputs[0]", "matches no file (looked in " + dir + "/sub); quote the pattern or pass a folder"},
		{"glob without folder", inputs(dir + "/none/*.gz"), "inputs[0]", "there is no folder " + dir + "/none"},
		{"glob below a file", inputs(dir + "/in/*"), "inputs[0]", "not a directory"},
		{"glob of folders", inputs(dir + "/[sh]*"), "inputs[0]", `matches 2 folders and no file; write "` + dir + `/[sh]*/**"`},
		{"bad glob", inputs(dir + "/[x"), "inputs[0]", "not a valid pattern"},
		{"bad glob at the end", inputs(dir + "/sub/[x"), "inputs[0]", "not a valid pattern"},
		{"open brace", inputs(dir + "/sub/{x"), "inputs[0]", `"{" and "}" without each other`},
		{"brace over folders", inputs(dir + "/{sub/x,y}"), "inputs[0]", `"/" between "{" and "}": name each alternative as an input of its own`},
		{"many alternatives", inputs(dir + "/" + strings.Repeat("{a,b}", 11)), "inputs[0]", "more than 1024 combinations"},
		{"long glob", inputs(dir + strings.Repeat("/*", 64)), "inputs[0]", "too many parts"},
		{"name too long", inputs(dir + "/" + strings.Repeat("x", 300)), "inputs[0]", "name too long"},
		{"NUL in a name", inputs(dir + "/\x00"), "inputs[0]", "invalid argument"},

		{"no lines", withLines(&api.Lines{}), "lines", "no lines given"},
		{"too many lines", withLines(&api.Lines{Raw: []byte(strings.Repeat("\n", 1001))}), "lines", "more than 1000 lines, the most tasks of a job"},
		{
			"long line", withLines(&api.Lines{Raw: append([]byte("a\n"), make([]byte, 1<<20+1)...)}), "lines",
			"line 2 has more than 1048576 bytes: put it into a file",
		},
		{"items and raw", withLines(&api.Lines{Items: []string{"a"}, Raw: []byte("b")}), "lines", "not both"},
		{"range", withRange(2, 1), "range", "range 2-1 is empty"},
		{"half a row", withLines(&api.Lines{Columns: []string{"a", "b"}, Items: []string{"1", "2", "3"}}), "lines", "3 values are no rows of 2 columns"},
		{"inputs and each", withEach(api.List{Values: []string{"a"}}), "inputs", "give inputs or lists"},
		{"an empty list", withList(api.List{}), "each[0]", "either values or ranges"},
		{"values and ranges", withList(api.List{Values: []string{"a"}, Ranges: []api.Range{{}}}), "each[0]", "either values or ranges"},
		{"the first is linked", withList(api.List{Values: []string{"a"}, Linked: true}), "each[0]", "cannot be linked"},
		{"two of a name", withList(api.List{Name: "a", Values: []string{"a"}}, api.List{Name: "a", Values: []string{"a"}}), "each", `two columns have the name "a"`},
		{"a wide number", withList(api.List{Ranges: []api.Range{{Width: 65}}}), "each[0]", "64 digits"},
		{"a large product", withList(api.List{Ranges: []api.Range{{To: 99}}}, api.List{Ranges: []api.Range{{To: 99}}}), "each", "10000 tasks are too many: at most 1000"},
		{"a larger one", withList(api.List{Ranges: []api.Range{{To: 1 << 40}}}, api.List{Ranges: []api.Range{{To: 1 << 40}}}), "each", "too many items"},
		{"a large batch", func(r *api.JobRequest) {
			r.Inputs, r.Range, r.Batch = nil, &api.Range{To: 99}, 60_000
		}, "batch", "the items of a task may take up to 5 MiB, of which 4 are possible"},
		{"long lines in a batch", func(r *api.JobRequest) {
			r.Inputs, r.Lines, r.Batch = nil, &api.Lines{Items: []string{strings.Repeat("x", 1<<20), "y"}}, 4
		}, "batch", "fewer items"},
		{"batch of files", func(r *api.JobRequest) { r.Batch = 2 }, "inputs", "those of a list"},
		{"a shell and a command", func(r *api.JobRequest) { r.Program = api.Program{Shell: "x", Command: []string{"x"}} }, "program", "not both"},
		{"a shell and a job", func(r *api.JobRequest) { r.Program.Shell = "x" }, "program", "not both"},
		{"two ways of placeholders", func(r *api.JobRequest) {
			r.Program = api.Program{Shell: "x", Placeholder: "%", NoPlaceholders: true}
		}, "program.placeholder", "not both"},
		{"a placeholder of a job", func(r *api.JobRequest) { r.Program.Placeholder = "%" }, "program", "those of a command"},
		{"in quotes", func(r *api.JobRequest) { r.Program = api.Program{Shell: "echo '{}'"} }, "program.shell", "remove the quotes"},
		{"unknown", func(r *api.JobRequest) { r.Program = api.Program{Command: []string{"x", "{file}"}} }, "program.command[1]", "{file} is not a placeholder"},
		{"long range", withRange(1, 1001), "range", "1001 tasks are too many"},
		{"endless range", withRange(math.MinInt64, math.MaxInt64), "range", "18446744073709551616 tasks are too many"},
		{"short splits", func(r *api.JobRequest) { r.Inputs, r.Split = []string{dir + "/large"}, "1" }, "split", "1099511627776 tasks are too many: at most 1000; use a larger split"},

		{"relative output", output("out"), "output", `output "out" is not an absolute path`},
		{"root", output("/x/.."), "output", "cannot be the root folder"},
		{"output is a file", output(dir + "/in"), "output", "not a directory"},
		{"output below a file", output(dir + "/in/x/y"), "output", "not a directory"},
		{"output not empty", output(dir + "/full"), "output", `is not empty: it holds "1", "2", "3" and 1 more; use --overwrite (in a request, "overwrite": true) or another folder`},
		{"output under way", output(dir + "/busy"), "output", `holds "x"`},
		{"output in input", func(r *api.JobRequest) { r.Inputs, r.Output = []string{dir + "/sub"}, dir+"/sub/new/out" }, "inputs[0]", "is inside input"},
		{"output is input", func(r *api.JobRequest) {
			r.Inputs, r.Output, r.Overwrite = []string{dir + "/hollow"}, dir+"/hollow", true
		}, "inputs[0]", "is inside input"},
		{"input in output", func(r *api.JobRequest) {
			r.Inputs, r.Output, r.Overwrite = []string{dir + "/full/sub"}, dir+"/full", true
		}, "inputs[0]", "is inside output"},
		{"file in output", func(r *api.JobRequest) {
			r.Inputs, r.Output, r.Overwrite = []string{dir + "/full/1"}, dir+"/full", true
		}, "inputs[0]", "is inside output"},
		{"output in input by a link", func(r *api.JobRequest) { r.Inputs, r.Output = []string{dir + "/sub"}, dir+"/link/out" }, "inputs[0]", "is inside input"},
		{"glob in output", func(r *api.JobRequest) {
			r.Inputs, r.Output, r.Overwrite = []string{dir + "/full/*"}, dir+"/full", true
		}, "inputs[0]", "would match the parts"},
		{"other glob in output", func(r *api.JobRequest) {
			r.Inputs, r.Output, r.Overwrite = []string{dir + "/full/1*"}, dir+"/full", true
		}, "inputs[0]", "would match the parts"},
		{"glob over output", func(r *api.JobRequest) { r.Inputs, r.Output = []string{dir + "/**"}, dir+"/new/out" }, "inputs[0]", "would match the parts"},
	}
}

func TestWrong(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "in", "sub/x", "sub/y.txt", "hollow/.hidden", "hollow/_SUCCESS", "full/1", "full/2", "full/3", "full/sub/4",
		"busy/_temporary/u/x", "busy/x", "large", "wide")
	if err := os.WriteFile(dir+"/wide", []byte("5 \" x\n7 \"y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Mkfifo(dir+"/pipe", 0o600), os.Symlink("sub", dir+"/link"), os.Truncate(dir+"/large", 1<<40)); err != nil {
		t.Fatal(err)
	}
	opt := options()
	opt.TasksMax = 1000
	for _, test := range wrongs(dir) {
		t.Run(test.name, func(t *testing.T) {
			req := wordcount(dir, "in")
			test.spoil(req)
			_, err := plan.Plan(t.Context(), req, opt)
			list, ok := errors.AsType[plan.Errors](err)
			if !ok || len(list) != 1 {
				t.Fatalf("Plan = %v, want one error", err)
			}
			if list[0].Field != test.field || !strings.Contains(list[0].Message, test.message) {
				t.Errorf("Plan = %v, want %s: … %s …", err, test.field, test.message)
			}
			if one, ok := errors.AsType[*plan.Error](err); !ok || one != list[0] {
				t.Errorf("errors.As gives %v", one)
			}
		})
	}
}

func TestAllThatIsWrongIsSaidAtOnce(t *testing.T) {
	req := &api.JobRequest{
		Program: api.Program{Builtin: "sort"}, Inputs: []string{"a", "/none/such", "/none/*"}, Split: "x", Timeout: "x", Memory: "x", Output: "x",
		Set: map[string]string{"": "", "=": ""},
	}
	_, err := plan.Plan(t.Context(), req, options())
	var fields []string
	for _, e := range err.(plan.Errors) { //nolint:errorlint // the type is what is tested
		fields = append(fields, e.Field)
	}
	want := []string{"program.builtin", "set", "set", "timeout", "memory", "output", "split", "inputs[0]", "inputs[1]", "inputs[2]"}
	if !slices.Equal(fields, want) {
		t.Errorf("errors of %q, want %q: %v", fields, want, err)
	}
}

// The answer to a request is small, however many errors it has and however long the names in them are.
func TestErrorsAreBounded(t *testing.T) {
	dir := t.TempDir()
	for name, inputs := range map[string][]string{
		"one long name": {dir + strings.Repeat("é", 1<<20)},
		"many names":    slices.Repeat([]string{dir + "/none"}, 10_000),
	} {
		req := &api.JobRequest{Program: api.Program{Command: []string{"true"}}, Inputs: inputs}
		_, err := plan.Plan(t.Context(), req, options())
		if _, ok := errors.AsType[plan.Errors](err); !ok || len(err.Error()) > 1<<20 || !utf8.ValidString(err.Error()) {
			t.Errorf("%s: %d bytes of errors, valid UTF-8 %v, want at most 1 MiB", name, len(err.Error()), utf8.ValidString(err.Error()))
		}
	}
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "in", "in2", "sub/x", "idle/_temporary/u/x", "old/part-00000", "old/_SUCCESS", "old/notes", "old/part-1")
	for name, test := range map[string]struct {
		spoil func(r *api.JobRequest)
		want  string
	}{
		"none":      {func(*api.JobRequest) {}, ""},
		"twice":     {inputs(dir+"/in", dir+"/in", dir+"/in*"), `files that are listed more than once: 2, such as "` + dir + `/in"`},
		"folders":   {inputs(dir + "/[is]*"), "also matches 2 folders"},
		"empty":     {withLines(&api.Lines{Items: []string{"", "a"}}), "empty lines: 1 of 2"},
		"CR":        {withLines(&api.Lines{Raw: []byte("a\r\nb\r\n")}), "lines that end in CR LF: 2 of 2"},
		"idle":      {output(dir + "/idle"), "holds _temporary: another job"},
		"overwrite": {func(r *api.JobRequest) { r.Output, r.Overwrite = dir+"/old", true }, `also holds "notes", "part-1", which is kept`},
		"split": {
			func(r *api.JobRequest) { r.Split, r.Program = "1k", api.Program{Command: []string{"wc", "{}"}} },
			"split 1k is not used",
		},
	} {
		req := wordcount(dir, "in")
		test.spoil(req)
		res, err := plan.Plan(t.Context(), req, options())
		got := strings.Join(res.Warnings, "; ")
		if err != nil || !strings.Contains(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%s: warnings %q, %v, want %q", name, got, err, test.want)
		}
	}
}

func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "in/a")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the cause")
	cancel(cause)
	_, err := plan.Plan(ctx, wordcount(dir, "in"), options())
	if _, ok := errors.AsType[plan.Errors](err); ok || !errors.Is(err, cause) {
		t.Errorf("Plan = %v, want the cause, and not as the request's fault", err)
	}
}

func TestReserved(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "data/spool/", "in/file", "database/")
	if err := os.Symlink("data", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	opt := options()
	opt.Reserved = []plan.Reserved{{What: "the data directory", Dir: dir + "/data"}}
	for output, want := range map[string]string{
		"/data":           "is the data directory",
		"/data/spool/new": "is inside the data directory",
		"/link/new":       "is inside the data directory",
		"":                "contains the data directory",
		"/database":       "",
		"/new":            "",
	} {
		req := &api.JobRequest{Program: api.Program{Builtin: "AlwaysOk"}, Output: dir + output, Overwrite: true}
		_, err := plan.Plan(t.Context(), req, opt)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("output %q: %v, want %q", output, err, want)
		}
	}
	res, err := plan.Plan(t.Context(), wordcount(dir, ""), opt)
	if err != nil || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "change while the job runs") {
		t.Errorf("an input around the data directory: warnings %q, %v, want one", res.Warnings, err)
	}
}

// TestOutputInADataDirectory: also those of workers, and of other clusters, are refused.
func TestOutputInADataDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "worker/logs/", "leader/log/", "other/log/FORMAT", "other/identity")
	for name, text := range map[string]string{"worker/identity": "0123456789abcdef0123456789abcdef\n", "leader/log/FORMAT": "bridgefour log 2\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("worker", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for output, refused := range map[string]bool{
		"worker": true, "worker/new/out": true, "link/out": true, "leader/log/out": true, "other": false, "other/out": false, "workers/out": false,
	} {
		req := &api.JobRequest{Program: api.Program{Builtin: "AlwaysOk"}, Output: filepath.Join(dir, output), Overwrite: true}
		_, err := plan.Plan(t.Context(), req, options())
		if (err != nil) != refused || err != nil && !strings.Contains(err.Error(), "the data directory of a worker or a leader; use a folder apart from it") {
			t.Errorf("output %q: %v, want refused: %v", output, err, refused)
		}
	}
}

func TestErrorsAreCounted(t *testing.T) {
	req := command("true")
	for i := range 123 {
		req.Inputs = append(req.Inputs, fmt.Sprintf("relative-%d", i))
	}
	_, err := plan.Plan(t.Context(), req, options())
	list, _ := errors.AsType[plan.Errors](err)
	if len(list) != 21 || list[20].Message != "and 103 more errors" {
		t.Errorf("Plan() = %d errors, the last %v, want 20 and that there are 103 more", len(list), list[max(0, len(list)-1)])
	}
}

// A job that ends at the first success does so whatever the request says, and has one stage.
func TestPlanFirstSuccess(t *testing.T) {
	opt := options()
	opt.Builtins = []plan.Builtin{{Name: "search", FirstSuccess: true}}
	req := &api.JobRequest{Range: &api.Range{From: 1, To: 3}, Program: api.Program{Builtin: "search"}}
	if got, err := plan.Plan(t.Context(), req, opt); err != nil || !got.FirstSuccess {
		t.Errorf("Plan() = %v, %v, want a job that ends at the first success", got.FirstSuccess, err)
	}
	opt.Builtins[0].Plan = func(map[string]string) (stage.Program, error) { return &lined{}, nil }
	if _, err := plan.Plan(t.Context(), req, opt); err == nil || !strings.Contains(err.Error(), "needs the outputs of all its tasks") {
		t.Errorf("Plan() with two stages: %v, want a refusal", err)
	}
}

// A job gets no records that it would tear apart.
func TestPlanRecordKinds(t *testing.T) {
	opt := options()
	opt.Builtins = []plan.Builtin{
		{Name: "lines", NeedsInput: true, Records: []string{"lines", "jsonl"}},
		{Name: "rows", NeedsInput: true, Records: []string{"csv"}},
		{Name: "any", NeedsInput: true},
	}
	dir := t.TempDir()
	write(t, dir, "in")
	for _, test := range []struct{ job, records, want string }{
		{"lines", "", ""},
		{"lines", "lines", ""},
		{"lines", "jsonl", ""},
		{"lines", "csv", "records: lines would tear apart records of the kind csv: it reads lines, jsonl; without records, each line is one"},
		{"lines", "fixed:2", "records: lines would tear apart records of the kind fixed: it reads lines, jsonl; without records, each line is one"},
		{"rows", "", "records: rows reads csv; without --records, each line is a record: use --records csv"},
		{"rows", "lines", "records: rows would tear apart records of the kind lines: it reads csv; without records, each line is one"},
		{"rows", "csv", ""},
		{"any", "csv", ""},
	} {
		req := &api.JobRequest{Program: api.Program{Builtin: test.job}, Inputs: []string{dir + "/in"}, Records: test.records}
		_, err := plan.Plan(t.Context(), req, opt)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("Plan() of %s with records %q: %v, want %q", test.job, test.records, err, test.want)
		}
	}
}

// Each error of settings is told once: the job itself, which would repeat them, gets those alone that its description allows.
func TestPlanSettings(t *testing.T) {
	opt := options()
	opt.Builtins = []plan.Builtin{{
		Name:  "strict",
		Check: func(set map[string]string) []string { return slices.Sorted(maps.Keys(set)) },
		Plan:  func(map[string]string) (stage.Program, error) { return nil, errors.New("x is bad\ny too") },
	}}
	for _, test := range []struct {
		set  map[string]string
		want []string
	}{
		{map[string]string{"n": ""}, []string{"n"}},
		{nil, []string{"x is bad", "y too"}},
	} {
		_, err := plan.Plan(t.Context(), &api.JobRequest{Program: api.Program{Builtin: "strict"}, Set: test.set}, opt)
		list, _ := errors.AsType[plan.Errors](err)
		var got []string
		for _, e := range list {
			got = append(got, e.Message)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("Plan() with settings %v: %q, want %q", test.set, got, test.want)
		}
	}
}
