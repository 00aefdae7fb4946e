package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/bridgefour/bridgefour"

// allowed is what each package may import of ours. Those that wire things together are in wiring.
var allowed = map[string][]string{
	"":                        {"internal/bytesize", "internal/hooks", "internal/keytable", "internal/pages", "internal/record", "internal/stage"},
	"internal/bytesize":       {},
	"internal/hooks":          {},
	"api":                     {},
	"internal/keytable":       {"internal/pages"},
	"internal/pages":          {},
	"internal/heap":           {},
	"jobs":                    {"", "internal/keytable", "internal/pages", "internal/stage"},
	"engine":                  {"", "internal/cli"},
	"examples/exampletest":    {},
	"examples/words":          {"", "engine"},
	"examples/dna":            {"", "engine"},
	"examples/revenue":        {"", "engine"},
	"bridgefourtest":          {"", "internal/hooks", "internal/record", "internal/shuffle", "internal/stage"},
	"client":                  {"api", "internal/transport"},
	"internal/transport":      {},
	"internal/state":          {},
	"internal/datadir":        {},
	"internal/replica":        {"internal/replica/core", "internal/datadir"},
	"internal/replica/core":   {},
	"internal/wire":           {},
	"internal/discover":       {"internal/transport"},
	"internal/suggest":        {},
	"internal/metrics":        {},
	"internal/peer":           {"internal/replica", "internal/wire", "internal/peer/peerpb", "internal/transport"},
	"internal/peer/peerpb":    {},
	"internal/blob":           {"internal/datadir"},
	"internal/sched":          {"internal/state"},
	"internal/format":         {},
	"internal/record":         {},
	"internal/shuffle":        {"internal/pages"},
	"internal/stage":          {},
	"internal/placeholder":    {},
	"internal/partname":       {"internal/state", "internal/layout", "internal/placeholder"},
	"internal/plan":           {"api", "internal/stage", "internal/state", "internal/blob", "internal/commit", "internal/partname", "internal/suggest", "internal/layout", "internal/bytesize", "internal/format", "internal/record", "internal/placeholder"},
	"internal/commit":         {"api", "internal/blob", "internal/layout"},
	"internal/keeper":         {},
	"internal/program":        {"", "internal/hooks", "internal/stage", "internal/wire", "internal/keeper", "internal/placeholder", "internal/suggest"},
	"internal/runner":         {"", "internal/heap", "internal/hooks", "internal/keeper", "internal/program", "internal/wire", "internal/blob", "internal/layout", "internal/format", "internal/record", "internal/placeholder", "internal/shuffle", "internal/stage"},
	"internal/leader":         {"internal/state", "internal/sched", "internal/wire"},
	"internal/view":           {"api", "internal/state", "internal/leader", "internal/blob", "internal/layout", "internal/partname", "internal/placeholder"},
	"internal/node":           {"api", "internal/partname", "internal/state", "internal/leader", "internal/view", "internal/replica", "internal/peer", "internal/datadir", "internal/discover", "internal/access", "internal/wire", "internal/plan", "internal/layout", "internal/blob", "internal/transport", "internal/metrics"},
	"internal/worker":         {"", "api", "internal/access", "internal/metrics", "internal/wire", "internal/keeper", "internal/runner", "internal/blob", "internal/commit", "internal/datadir", "internal/worker/core", "internal/worker/tasklog", "internal/layout", "internal/transport"},
	"internal/worker/core":    {"internal/wire", "internal/transport"},
	"internal/worker/tasklog": {"internal/datadir"},
	"internal/access":         {"api", "internal/datadir", "internal/state", "internal/transport", "internal/wire"},
	"internal/httpapi":        {"api", "internal/access", "internal/transport"},
	"internal/compat":         {"api", "internal/transport"},
	"internal/blob/blobtest":  {"internal/blob"},
	"internal/wire/wiretest":  {"internal/wire"},
	"internal/layout":         {},
	"internal/transcript":     {},
	"internal/arch":           {},
	"internal/e2e":            {},
	"internal/deploy":         {},
	"cmd/bridgefour":          {"internal/cli"},
	"bench/count":             {},
	"bench/genrows":           {},
	"bench/gentext":           {},
	"bench/wordcount":         {},
	"scripts/gotest":          {},
	"scripts/manpages":        {"internal/cli"},

	"internal/httpapi/httpapitest":   {"api", "internal/access"},
	"internal/httpapi/leadertest":    {"api", "internal/access", "internal/httpapi"},
	"internal/transport/outsidetest": {},
}

// wiring may import anything.
var wiring = []string{"internal/cli", "internal/server", "internal/sim", "bench"}

// pure packages are step functions: what happens and the time go in, what is to be done comes out. They have no clock, no
// goroutine, no channel, no randomness of their own, and do no I/O, so that the simulator can play them and replay a failure.
var pure = []string{"internal/state", "internal/sched", "internal/leader", "internal/worker/core", "internal/replica/core"}

// impure is what pure packages may not import.
var impure = []string{"context", "crypto/rand", "io/fs", "log", "log/slog", "math/rand", "net", "net/http", "os", "os/exec", "runtime", "sync", "syscall", "google.golang.org/grpc"}

// usable is all that pure packages may use of packages that they may not use as a whole.
var usable = map[string][]string{
	"math/rand/v2": {"New", "NewPCG", "PCG", "Rand"}, // generators that are given their seed
	"time": {
		"Time", "Duration", "Month", "Weekday", "Unix", "UnixMilli", "UnixMicro", "Date", "UTC",
		"Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour", "RFC3339", "RFC3339Nano",
	},
}

// foreignDeps is what some packages may import beside the standard library and ours.
var foreignDeps = map[string][]string{
	"":               {},
	"internal/state": {"google.golang.org/protobuf/encoding/protowire"},
	"internal/sched": {},
}

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func TestImportsKeepToTheLayers(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range list(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		seen[name] = true
		may, limited := allowed[name]
		if !limited && !slices.Contains(wiring, name) {
			t.Errorf("the table lacks %q", name)
		}
		for _, imp := range p.Imports {
			of, ours := strings.CutPrefix(imp, module)
			of = strings.TrimPrefix(of, "/")
			if ours && limited && !slices.Contains(may, of) {
				t.Errorf("%s imports %s; it may import %q", name, of, may)
			}
			foreign := !ours && strings.Contains(strings.Split(imp, "/")[0], ".")
			if deps, limited := foreignDeps[name]; foreign && limited && !slices.Contains(deps, imp) {
				t.Errorf("%s imports %s; of dependencies it may import %q", name, imp, deps)
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("the table has %q, which is not there any more", name)
		}
	}
}

// TestSDKIsLight: what users' tests import builds without the engine.
func TestSDKIsLight(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module, module+"/bridgefourtest").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for _, heavy := range []string{"google.golang.org/", "net/http", "go.etcd.io/", module + "/internal/wire"} {
			if strings.HasPrefix(dep, heavy) {
				t.Errorf("the SDK depends on %s", dep)
			}
		}
	}
}

func TestPurePackages(t *testing.T) {
	seen := 0
	for _, p := range list(t) {
		if !slices.Contains(pure, strings.TrimPrefix(p.ImportPath, module+"/")) {
			continue
		}
		seen++
		for _, file := range p.GoFiles {
			path := filepath.Join(p.Dir, file)
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, broken := range impurities(t, path, src) {
				t.Error(broken)
			}
		}
	}
	if seen != len(pure) {
		t.Errorf("%d of the pure packages %q exist", seen, pure)
	}
}

// impurities returns what a file of a pure package may not contain, with its position.
func impurities(t *testing.T, path string, src []byte) (found []string) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	report := func(n ast.Node, what string) {
		found = append(found, fmt.Sprintf("%s: %s in a pure package", fset.Position(n.Pos()), what))
	}
	limited := map[string]string{} // the name of an import in the file -> its path
	for _, imp := range f.Imports {
		of, _ := strconv.Unquote(imp.Path.Value)
		if slices.Contains(impure, of) {
			report(imp, "import of "+of)
		}
		if _, ok := usable[of]; ok {
			name := strings.TrimSuffix(of, "/v2")
			name = name[strings.LastIndexByte(name, '/')+1:]
			if imp.Name != nil {
				name = imp.Name.Name
			}
			limited[name] = of
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			report(n, "go statement")
		case *ast.ChanType:
			report(n, "channel")
		case *ast.SelectStmt:
			report(n, "select statement")
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			if of := limited[x.Name]; of != "" && !slices.Contains(usable[of], n.Sel.Name) {
				report(n, of+"."+n.Sel.Name)
			}
		}
		return true
	})
	return found
}

func TestImpuritiesAreFound(t *testing.T) {
	src := `package p
import (
	"math/rand/v2"
	"os"
	clock "time"
)
func f(a chan int, d clock.Duration) {
	go f(nil, 0)
	select {}
	clock.Sleep(d)
	_ = clock.Now().Add(rand.N(d))
	_ = rand.New(rand.NewPCG(1, 2))
	os.Exit(1)
}`
	var got []string
	for _, s := range impurities(t, "p.go", []byte(src)) {
		got = append(got, strings.TrimSuffix(s[strings.LastIndex(s, ": ")+2:], " in a pure package"))
	}
	want := []string{"import of os", "channel", "go statement", "select statement", "time.Sleep", "time.Now", "math/rand/v2.N"}
	if !slices.Equal(got, want) {
		t.Errorf("impurities() = %q, want %q", got, want)
	}
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,GoFiles,Imports", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}
