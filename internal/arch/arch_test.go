package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bridgefour/bridgefour"

// allowed is what each package may import of ours, beside itself. Packages that are not listed may import anything: they
// wire things together.
var allowed = map[string][]string{
	"":                        {},
	"api":                     {},
	"jobs":                    {""},
	"client":                  {"api"},
	"internal/state":          {},
	"internal/replica":        {},
	"internal/wire":           {},
	"internal/discover":       {},
	"internal/suggest":        {},
	"internal/peer":           {"internal/replica", "internal/peer/peerpb"},
	"internal/peer/peerpb":    {},
	"internal/blob":           {},
	"internal/sched":          {"internal/state"},
	"internal/plan":           {"api", "internal/state", "internal/blob", "internal/suggest"},
	"internal/commit":         {"api", "internal/blob"},
	"internal/runner":         {"", "jobs", "internal/wire", "internal/blob"},
	"internal/leader":         {"internal/state", "internal/sched", "internal/wire"},
	"internal/view":           {"api", "internal/state", "internal/leader", "internal/blob", "internal/commit"},
	"internal/node":           {"api", "internal/state", "internal/leader", "internal/view", "internal/replica", "internal/wire", "internal/plan"},
	"internal/worker":         {"", "api", "internal/wire", "internal/runner", "internal/blob", "internal/commit", "internal/worker/core", "internal/worker/tasklog"},
	"internal/worker/core":    {"internal/wire"},
	"internal/worker/tasklog": {},
	"internal/access":         {"api"},
	"internal/httpapi":        {"api", "internal/access"},
	"internal/blob/blobtest":  {"internal/blob"},
}

// pure packages know neither time nor the world.
var pure = []string{"internal/state", "internal/sched", "internal/worker/core"}

// seeded packages are pure, and draw random numbers from a generator whose seed they are given.
var seeded = []string{"internal/worker/core"}

var impure = []string{"os", "net", "context", "log/slog", "math/rand/v2", "math/rand", "sync", "io/fs"}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImportsKeepToTheLayers(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range list(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		seen[name] = true
		may, limited := allowed[name]
		for _, imp := range p.Imports {
			of, ours := strings.CutPrefix(imp, module)
			of = strings.TrimPrefix(of, "/")
			if ours && limited && !slices.Contains(may, of) {
				t.Errorf("%s imports %s; it may import %q", name, of, may)
			}
			random := imp == "math/rand/v2" && slices.Contains(seeded, name)
			if slices.Contains(pure, name) && slices.Contains(impure, imp) && !random {
				t.Errorf("%s imports %s; it is pure", name, imp)
			}
			if name == "" && !ours && strings.Contains(strings.Split(imp, "/")[0], ".") {
				t.Errorf("the SDK imports %s; it uses the standard library alone", imp)
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("the table has %q, which is not there any more", name)
		}
	}
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"/...").Output()
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
