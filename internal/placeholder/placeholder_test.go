package placeholder

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestSources is the table of placeholders and sources: the argument of each row as a task of each column gets it.
func TestSources(t *testing.T) {
	sources := []struct {
		name string
		o    Options
		v    Values
	}{
		{"file", Options{Mode: Braces}, Values{Items: []string{"/d.x/a b.tar.gz"}, Number: 7, Slot: 2}},
		{"line", Options{Mode: Braces, Columns: []string{""}}, Values{Items: []string{"in/x.txt"}, Number: 7, Slot: 2}},
		{"row", Options{Mode: Braces, Columns: []string{"id", "the path"}}, Values{Items: []string{"s1", "p/q.fq"}, Number: 7, Slot: 2}},
		{"batch", Options{Mode: Braces, Columns: []string{"id", ""}}, Values{Items: []string{"s1", "p/q.fq", "s2", "r.fq"}, Number: 7, Slot: 2}},
	}
	for _, test := range []struct {
		arg  string
		want [4]string
	}{
		{"{}", [4]string{"/d.x/a b.tar.gz", "in/x.txt", "s1|p/q.fq", "s1|p/q.fq|s2|r.fq"}},
		{"<{}>", [4]string{"</d.x/a b.tar.gz>", "<in/x.txt>", "<s1 p/q.fq>", "<s1 p/q.fq s2 r.fq>"}},
		{"{.}", [4]string{"/d.x/a b.tar", "in/x", "s1|p/q", "s1|p/q|s2|r"}},
		{"{/}", [4]string{"a b.tar.gz", "x.txt", "s1|q.fq", "s1|q.fq|s2|r.fq"}},
		{"{//}", [4]string{"/d.x", "in", ".|p", ".|p|.|."}},
		{"{/.}", [4]string{"a b.tar", "x", "s1|q", "s1|q|s2|r"}},
		{"{#}-{%}", [4]string{"7-2", "7-2", "7-2", "7-2"}},
		{"{1}", [4]string{"{1}", "in/x.txt", "s1", "s1|s2"}},
		{"{2/.}.x", [4]string{"{2/.}.x", "{2/.}.x!", "q.x", "q r.x"}},
		{"{id}", [4]string{"{id}!", "{id}!", "s1", "s1|s2"}},
		{"{the path//}", [4]string{"{the path//}", "{the path//}", "p", "{the path//}"}},
		{"{nope}", [4]string{"{nope}!", "{nope}!", "{nope}!", "{nope}!"}},
		{"a{3}", [4]string{"a{3}", "a{3}!", "a{3}!", "a{3}!"}},
		{"{{}} {{1}} {{nope}} {{#}}", [4]string{"{} {1} {nope} {#}", "{} {1} {nope} {#}", "{} {1} {nope} {#}", "{} {1} {nope} {#}"}},
		{"{{range .}}{{.Name}}{{end}}{{}}", [4]string{"{{range .}}{{.Name}}{{end}}{{}}", "{{range .}}{{.Name}}{{end}}{{}}", "{{range .}}{{.Name}}{{end}}{{}}", "{{range .}}{{.Name}}{{end}}{{}}"}},
		{"${1} ${id} ${#} $1", [4]string{"${1} ${id} ${#} $1", "${1} ${id} ${#} $1", "${1} ${id} ${#} $1", "${1} ${id} ${#} $1"}},
		{`{"a": {"b": 1}} {x,y} {1..3} { }`, [4]string{`{"a": {"b": 1}} {x,y} {1..3} { }`, `{"a": {"b": 1}} {x,y} {1..3} { }`, `{"a": {"b": 1}} {x,y} {1..3} { }`, `{"a": {"b": 1}} {x,y} {1..3} { }`}},
		{"END{print n} {", [4]string{"END{print n} {", "END{print n} {", "END{print n} {", "END{print n} {"}},
		{"", [4]string{"", "", "", ""}},
	} {
		for i, s := range sources {
			c := Compile([]string{"cmd", test.arg}, s.o)
			got := strings.Join(c.Expand(&s.v, false)[1:], "|")
			if len(c.Unknown) > 0 {
				got += "!"
			}
			if got != test.want[i] {
				t.Errorf("%s of a %s = %q, want %q", test.arg, s.name, got, test.want[i])
			}
		}
	}
}

func TestOnly(t *testing.T) {
	v := Values{Items: []string{"a", "b"}, Number: 1, Slot: 1}
	for _, test := range []struct {
		o    Options
		argv []string
		app  bool
		want []string
	}{
		{Options{}, []string{"x{}y", "{.}{{}}", "{}"}, false, []string{"xa by", "{.}{a b}", "a", "b"}},
		{Options{}, []string{"x"}, true, []string{"x", "a", "b"}},
		{Options{Only: "%"}, []string{"{}", "%", "1%%"}, false, []string{"{}", "a", "b", "1a ba b"}},
		{Options{Mode: Off, Columns: []string{"x"}}, []string{"{}", "{x}"}, true, []string{"{}", "{x}", "a", "b"}},
	} {
		if got := Compile(test.argv, test.o).Expand(&v, test.app); !slices.Equal(got, test.want) {
			t.Errorf("%v: Expand(%q) = %q, want %q", test.o, test.argv, got, test.want)
		}
	}
}

func TestPlain(t *testing.T) {
	for arg, want := range map[string]bool{
		"": true, "x": true, "{}": true, "a{}b{}": true, "{nope}": true, "{a b}": true, "$x": true,
		"{.}": false, "{{}}": false, "{#}": false, "{{x}}": false, "{{a b}}": true, "{{.}} {{x y}}": true,
	} {
		argv := []string{"cmd", arg}
		if got := Compile(argv, Options{Mode: Braces}).Plain(argv); got != want {
			t.Errorf("Compile(%q).Plain() = %v, want %v", arg, got, want)
		}
	}
}

func TestUses(t *testing.T) {
	for _, test := range []struct {
		arg             string
		any, item, path bool
	}{
		{"x", false, false, false},
		{"{#}", true, false, false},
		{"{/}", true, true, false},
		{"-{}", true, true, true},
	} {
		c := Compile([]string{"cmd", test.arg}, Options{Mode: Braces})
		if got, want := fmt.Sprint(c.Any(), c.UsesItem(), c.TakesPath()), fmt.Sprint(test.any, test.item, test.path); got != want {
			t.Errorf("%s: any, item, path = %s, want %s", test.arg, got, want)
		}
	}
}

// TestShell runs command lines with values that a shell would take apart.
func TestShell(t *testing.T) {
	values := []string{"a b", "it's", `"$HOME" \ ;|&<>()*?[]{}~#!`, "tab\tline\nend\n", "\xff\x01", "", "-n", "ünï"}
	for _, value := range values {
		for _, test := range []struct {
			line     string
			appended bool
		}{{"printf '<%s>' {} | cat", false}, {"printf '<%s>' x{1}y | cat", false}, {"printf '<%s>'", true}} {
			c := Compile([]string{"sh", "-c", test.line}, Options{Mode: Braces, Columns: []string{""}, Shell: true})
			argv := c.Expand(&Values{Items: []string{value}}, test.appended)
			out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).Output()
			want := "<" + value + ">"
			if strings.Contains(test.line, "x{") {
				want = "<x" + value + "y>"
			}
			if err != nil || string(out) != want {
				t.Errorf("%q printed %q, %v, want %q", argv, out, err, want)
			}
		}
	}
}

func TestInQuotes(t *testing.T) {
	for line, want := range map[string]bool{
		"grep x {} | sort": false, `grep "x" {}`: false, `echo "$(cat {})"`: false, `echo "{}"`: true, "echo 'x {}'": true, `awk '{print}' {}`: false,
		`echo "unfinished {}`: false, "echo x{}y": false,
	} {
		if got := Compile([]string{"sh", "-c", line}, Options{Mode: Braces, Columns: []string{""}, Shell: true}).InQuotes(); got != want {
			t.Errorf("InQuotes(%s) = %v, want %v", line, got, want)
		}
	}
}

func TestVariables(t *testing.T) {
	for line, want := range map[string][]string{
		`echo $FOO "${BAR:-x}" $1 $? '$NO' $FOO`:                     {"FOO", "BAR"},
		`x=1; for f in *; do echo $x $f; done; read l; echo $l $OUT`: {"OUT"},
		`echo $(`: nil,
	} {
		if got := Variables(line); !slices.Equal(got, want) {
			t.Errorf("Variables(%s) = %q, want %q", line, got, want)
		}
	}
}

func TestShellCode(t *testing.T) {
	for _, test := range []struct {
		argv string
		want int
	}{{"sh -c x", 2}, {"/bin/bash -euc x", 2}, {"env A=1 sh -e -c x y", 5}, {"sh x -c", -1}, {"bash --norc -c x", 3}, {"grep -c sh", -1}} {
		if got := ShellCode(strings.Fields(test.argv)); got != test.want {
			t.Errorf("ShellCode(%s) = %d, want %d", test.argv, got, test.want)
		}
	}
}
