package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ours are the variables of this project, and of the containers of the original system.
var ours = regexp.MustCompile(`^(B4_|BRIDGEFOUR_|LEADER_|STANDBY_LEADER_)`)

// literals calls visit with each string of the code that is no test.
func literals(t *testing.T, visit func(text string)) {
	t.Helper()
	const root = "../.."
	for _, dir := range []string{"client", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						visit(text)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestVariablesAreDocumented(t *testing.T) {
	listed := map[string]bool{} // by the first cells of the tables
	for line := range strings.Lines(document(t, "environment.md")) {
		if cell, ok := strings.CutPrefix(line, "| `"); ok {
			cell, _, _ = strings.Cut(cell, " | ")
			for name := range strings.SplitSeq(cell, ", ") {
				if name = strings.Trim(name, "`"); ours.MatchString(name) {
					listed[name] = true
				}
			}
		}
	}
	read := map[string]bool{}
	variable := regexp.MustCompile(`^((?:B4|BRIDGEFOUR)_[A-Z0-9_]+|(?:STANDBY_)?LEADER_(?:[A-Z]+|%d_))(=|$)`)
	literals(t, func(text string) {
		if m := variable.FindStringSubmatch(text); m != nil {
			switch name := strings.ReplaceAll(m[1], "%d", "*"); {
			case name == "STANDBY_LEADER_*_":
				read[name+"ID"], read[name+"HOST"], read[name+"PORT"] = true, true, true
			case strings.HasSuffix(name, "_"):
				read[name+"*"] = true
			default:
				read[name] = true
			}
		}
	})
	for _, name := range slices.Sorted(maps.Keys(read)) {
		if !listed[name] {
			t.Errorf("docs/environment.md lacks %s", name)
		}
	}
	everyCommand(func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { read[envName(f.Name)] = true })
	})
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if !read[name] {
			t.Errorf("docs/environment.md has %s, which nothing reads or sets", name)
		}
	}
}

// everyCommand calls visit with each command that help shows.
func everyCommand(visit func(*cobra.Command)) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		c.InheritedFlags() // adds those to its own
		visit(c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).root())
}

func TestExitCodesAreDocumented(t *testing.T) {
	var defined, listed []string
	file, err := parser.ParseFile(token.NewFileSet(), "cli.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "exit") {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok {
				defined = append(defined, lit.Value)
			}
		}
		return true
	})
	_, codes, _ := strings.Cut(document(t, "environment.md"), "## Exit codes")
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(codes, -1) {
		listed = append(listed, m[1])
	}
	if len(defined) < 8 || !slices.Equal(defined, listed) {
		t.Errorf("docs/environment.md has the exit codes %v, and cli.go %v", listed, defined)
	}
}

func TestCommandsAreDescribed(t *testing.T) {
	everyCommand(func(c *cobra.Command) {
		if c.Short == "" || c.Long == "" && c.Example == "" {
			t.Errorf("%q has no Short, or neither Long nor Example", c.CommandPath())
		}
	})
}
